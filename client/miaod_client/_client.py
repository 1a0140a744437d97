"""The client: one server, one key, the resources as attributes."""

from types import TracebackType
from typing import Self

import httpx2

from miaod_client._config import resolve_api_key, resolve_url
from miaod_client._resources.annotations import Annotations
from miaod_client._resources.audit import Audit, Sessions
from miaod_client._resources.cycles import Cycles
from miaod_client._resources.exports import Exports
from miaod_client._resources.images import Images
from miaod_client._resources.imports import Imports
from miaod_client._resources.keys import Keys
from miaod_client._resources.models import Models
from miaod_client._resources.operations import HealthChecks, Workers
from miaod_client._resources.projects import Projects
from miaod_client._resources.queries import Queries
from miaod_client._retries import RetryPolicy
from miaod_client._transport import Transport

# Reading waits for the server to decode a batch of pictures or to begin an export.
DEFAULT_TIMEOUT_SECONDS = 120.0
CONNECT_SECONDS = 10.0


class Client:
    """The service as Python objects. Safe to use from several threads.

        with Client() as client:
            project = client.projects.create(name="street", classes=["car", "person"])
            client.images.upload(project=project.id, paths="photos/")
            cycle = client.cycles.create(project=project.id, budget=200)
            client.cycles.wait(cycle.id)
            for query in client.queries.list(project=project.id):
                ...

    Args:
        url: root of the server; default `MIAOD_URL`, else `http://127.0.0.1:8000`.
        api_key: default `MIAOD_API_KEY`; a server without keys needs none.
        timeout: seconds without any byte from the server before a request is given up.
        retry: how often a request is sent again.
        http_client: used instead of one of our own, for proxies, certificates and tests; its
            `base_url` counts where `url` is not given, its timeout counts, and it stays open.

    Raises:
        ValueError: the URL or the key is malformed.

    Attributes:
        url: root of the server, as resolved.
        projects, images, imports, annotations, cycles, queries, models, exports, keys, audit,
            session, workers, health: the resources.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        http_client: httpx2.Client | None = None,
    ) -> None:
        if url is None and http_client is not None:
            url = str(http_client.base_url) or None
        self.url = resolve_url(url)
        self._owned: httpx2.Client | None = None
        if http_client is None:
            http_client = self._owned = httpx2.Client(
                timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
            )
        transport = Transport(
            http=http_client,
            base_url=self.url,
            api_key=resolve_api_key(api_key),
            retry=retry or RetryPolicy(),
        )
        self.projects = Projects(transport)
        self.images = Images(transport)
        self.imports = Imports(transport)
        self.annotations = Annotations(transport)
        self.cycles = Cycles(transport)
        self.queries = Queries(transport, self.annotations)
        self.models = Models(transport)
        self.exports = Exports(transport)
        self.keys = Keys(transport)
        self.audit = Audit(transport)
        self.session = Sessions(transport)
        self.workers = Workers(transport)
        self.health = HealthChecks(transport)

    def close(self) -> None:
        """Close the connections, unless the HTTP client was injected."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        """Use the client during a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()
