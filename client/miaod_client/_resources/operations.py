"""What operators look at: workers and health."""

from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource
from miaod_client._transport import parse
from miaod_client._types import Health, Readiness, Worker


class Workers(Resource):
    """The processes that run cycles: `client.workers`."""

    def list(
        self, *, limit: int | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Pager[Worker]:
        """The workers that ever reported, in the order in which they first did."""
        return Pager(
            self._transport, Worker, "/workers", params={}, limit=limit, page_size=page_size
        )


class HealthChecks(Resource):
    """Whether the server lives and can work: `client.health`."""

    def live(self) -> Health:
        """The process answers; says its version."""
        return self._transport.get(Health, "/healthz")

    def ready(self) -> Readiness:
        """Whether database, schema, storage and free space are as they must be.

        A server that is not ready is an answer here and raises nothing.
        """
        # 503 is how it says "not ready", with the same body.
        response = self._transport.request("GET", "/readyz", expected=frozenset({503}))
        return parse(Readiness, response)

    def metrics(self) -> str:
        """The figures that Prometheus reads, in its text format."""
        return self._transport.request("GET", "/metrics").text
