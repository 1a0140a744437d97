"""Keys: who may use the service, in which role, for which projects."""

from collections.abc import Sequence
from datetime import datetime

from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import parse
from miaod_client._types import Key, NewKey, Role


class Keys(Resource):
    """Keys, for administrators: `client.keys`."""

    def create(
        self,
        *,
        name: str,
        role: Role,
        projects: Sequence[str] | None = None,
        all_projects: bool = False,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make a key. Only this answer has it, as `key`: give it to its owner.

        Args:
            name: of the person or program that gets it; the author of what they do.
            role: `viewer`, `annotator`, `engineer` or `admin`.
            projects: ids of those that exist for it, or
            all_projects: all of them; an admin key is always for all.
            expires_at: when it ends by itself, an aware time; never unless given.

        Raises:
            ConflictError: a live key has the name.
            PermissionDeniedError: your own key is no admin's.
        """
        body = without_none(
            name=name,
            role=role,
            projects=None if projects is None else list(projects),
            all_projects=all_projects or None,
            expires_at=None if expires_at is None else expires_at.isoformat(),
        )
        # Without an Idempotency-Key: nobody should keep this answer.
        return self._transport.post(NewKey, "/keys", json=body)

    def list(self, *, limit: int | None = None, page_size: int = DEFAULT_PAGE_SIZE) -> Pager[Key]:
        """All keys, revoked ones as well, newest first."""
        return Pager(self._transport, Key, "/keys", params={}, limit=limit, page_size=page_size)

    def get(self, key_id: str) -> Key:
        """What is known of a key, which is not the key."""
        return self._transport.get(Key, path_to("keys", key_id))

    def update(
        self,
        key_id: str,
        *,
        name: str | None = None,
        projects: Sequence[str] | None = None,
        all_projects: bool = False,
    ) -> Key:
        """Rename a key, or give it these projects instead of those it has."""
        body = without_none(
            name=name,
            projects=None if projects is None else list(projects),
            all_projects=all_projects or None,
        )
        return parse(Key, self._transport.request("PATCH", path_to("keys", key_id), json=body))

    def revoke(self, key_id: str) -> None:
        """End a key at once.

        Raises:
            ConflictError: it is the last admin key.
        """
        self._transport.request("DELETE", path_to("keys", key_id))
