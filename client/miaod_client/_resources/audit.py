"""Who one is for the server, and who did what."""

from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource
from miaod_client._types import AuditEntry, SessionInfo


class Audit(Resource):
    """The audit log, for administrators: `client.audit`."""

    def list(
        self,
        *,
        project: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[AuditEntry]:
        """Who did what, newest first; only in a project, by one actor, or of one kind."""
        return Pager(
            self._transport,
            AuditEntry,
            "/audit",
            params={"project": project, "actor": actor, "action": action},
            limit=limit,
            page_size=page_size,
        )


class Sessions(Resource):
    """Who your key is for the server: `client.session`."""

    def get(self) -> SessionInfo:
        """Name, role and projects of your key.

        Raises:
            AuthenticationError: the server has keys, and yours is none.
        """
        return self._transport.get(SessionInfo, "/session")
