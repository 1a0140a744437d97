"""Queries: the images that a cycle asks to have labeled, and claims on them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel

from miaod_client._errors import ConflictError, MiaodError, NotFoundError
from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.annotations import Annotations, BoxLike
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import Transport
from miaod_client._types import Annotation, AnnotationSource, Query, QueryState

DEFAULT_CLAIM_SECONDS = 600


class _ClaimAnswer(BaseModel):
    claim_token: str
    expires_at: datetime
    items: list[Query]


class _HeartbeatAnswer(BaseModel):
    expires_at: datetime


class Queries(Resource):
    """What is to be labeled next: `client.queries`."""

    def __init__(self, transport: Transport, annotations: Annotations) -> None:
        super().__init__(transport)
        self._annotations = annotations

    def list(
        self,
        *,
        project: str | None = None,
        cycle: str | None = None,
        state: QueryState | Literal["all"] | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[Query]:
        """Queries, best first.

        Args:
            project: the project, whose newest selection is meant, or
            cycle: the cycle whose selection is meant.
            state: default `open`; a claim that lapsed counts as open again.
            limit: at most so many.
            page_size: queries per request.

        Raises:
            ValueError: neither a project nor a cycle is given.
        """
        if project is None and cycle is None:
            raise ValueError("say which queries: give project or cycle")
        params = {"project": project, "cycle": cycle, "state": state}
        return Pager(
            self._transport, Query, "/queries", params=params, limit=limit, page_size=page_size
        )

    def get(self, query_id: str) -> Query:
        """One query as it is now."""
        return self._transport.get(Query, path_to("queries", query_id))

    def claim(
        self,
        *,
        project: str,
        limit: int = 1,
        seconds: int = DEFAULT_CLAIM_SECONDS,
        author: str | None = None,
    ) -> "Claim":
        """Take the next images for yourself; nobody else gets them while the claim holds.

        Args:
            project: the project's id.
            limit: at most so many; a claim without items says that nothing is left.
            seconds: how long the claim holds without a heartbeat.
            author: who takes them, and labels them.
        """
        body = without_none(project=project, limit=limit, seconds=seconds, author=author)
        answer = self._transport.post(_ClaimAnswer, "/queries/claim", json=body, keyed=True)
        return Claim(
            self,
            self._annotations,
            token=answer.claim_token,
            expires_at=answer.expires_at,
            items=answer.items,
            seconds=seconds,
            author=author,
        )

    def heartbeat(
        self, query_id: str, *, claim_token: str, seconds: int = DEFAULT_CLAIM_SECONDS
    ) -> datetime:
        """Prolong a claim: every query still held under the token.

        Returns:
            When it ends now.

        Raises:
            ConflictError: the claim has lapsed, or the query is no longer under it.
        """
        answer = self._transport.post(
            _HeartbeatAnswer,
            path_to("queries", query_id, "heartbeat"),
            json={"claim_token": claim_token, "seconds": seconds},
            repeatable=True,
        )
        return answer.expires_at

    def release(self, query_id: str, *, claim_token: str) -> Query:
        """Give a query back, for somebody else.

        Raises:
            ConflictError: it is no longer under this claim.
        """
        return self._transport.post(
            Query,
            path_to("queries", query_id, "release"),
            json={"claim_token": claim_token},
            keyed=True,
        )

    def skip(
        self, query_id: str, *, reason: str | None = None, claim_token: str | None = None
    ) -> Query:
        """Say that an image cannot be labeled; it is not selected again until un-skipped.

        Raises:
            ConflictError: it is under another claim, or no longer open.
        """
        return self._transport.post(
            Query,
            path_to("queries", query_id, "skip"),
            json=without_none(reason=reason, claim_token=claim_token),
            repeatable=True,
        )

    def heatmap(self, query_id: str) -> bytes:
        """The instance uncertainty over the picture, as PNG.

        Raises:
            NotFoundError: the cycle made none, as an initial one does not.
        """
        return self._transport.request("GET", path_to("queries", query_id, "heatmap")).content


class Claim:
    """Images that are yours to label for a while; made by `client.queries.claim`.

    Iterating yields the queries, best first. As a context manager it gives back at the end what
    was neither annotated nor skipped:

        with client.queries.claim(project=project.id, limit=5, author="ana") as claim:
            for query in claim:
                claim.annotate(query, boxes=draw(query))

    Attributes:
        token: proves the claim to the server.
        expires_at: when it lapses without a heartbeat.
        items: every query that was claimed.
        author: who holds it, `None` if unnamed.
    """

    def __init__(
        self,
        queries: Queries,
        annotations: Annotations,
        *,
        token: str,
        expires_at: datetime,
        items: Iterable[Query],
        seconds: int,
        author: str | None,
    ) -> None:
        self._queries = queries
        self._annotations = annotations
        self._seconds = seconds
        self.token = token
        self.expires_at = expires_at
        self.items = tuple(items)
        self.author = author
        self._pending = {query.id: query for query in self.items}

    @property
    def pending(self) -> tuple[Query, ...]:
        """Those that were not yet annotated, skipped or released."""
        return tuple(self._pending.values())

    def __len__(self) -> int:
        """How many queries were claimed; 0 means that nothing was left to claim."""
        return len(self.items)

    def __iter__(self) -> Iterator[Query]:
        """Walk through the claimed queries, best first."""
        return iter(self.items)

    def heartbeat(self, *, seconds: int | None = None) -> datetime:
        """Hold on to all pending queries for another `seconds`, by default as long as at first.

        Returns:
            When the claim lapses now.

        Raises:
            ConflictError: it has lapsed, or nothing is pending on the server's side.
            ValueError: nothing is pending.
        """
        if not self._pending:
            raise ValueError("nothing of this claim is pending: there is nothing to hold on to")
        self.expires_at = self._queries.heartbeat(
            next(iter(self._pending)), claim_token=self.token, seconds=seconds or self._seconds
        )
        return self.expires_at

    def annotate(
        self,
        query: Query,
        *,
        boxes: Iterable[BoxLike],
        seconds: float | None = None,
        source: AnnotationSource | None = None,
    ) -> Annotation:
        """Save the full set of boxes of a query's image; that makes the query `labeled`.

        Raises:
            ConflictError: somebody saved it meanwhile, or the claim has lapsed.
            UnprocessableError: a box is outside the image or of an unknown class.
        """
        annotation = self._annotations.put(
            query.image.id,
            boxes=boxes,
            version=query.image.annotation_version,
            claim_token=self.token,
            seconds=seconds,
            author=self.author,
            source=source,
        )
        self._pending.pop(query.id, None)
        return annotation

    def skip(self, query: Query, *, reason: str | None = None) -> None:
        """Say that the image cannot be labeled."""
        self._queries.skip(query.id, reason=reason, claim_token=self.token)
        self._pending.pop(query.id, None)

    def release(self, query: Query | None = None) -> None:
        """Give one query back, or all that are pending; those lost already are passed over."""
        for pending in self.pending if query is None else (query,):
            # Lapsed, withdrawn or deleted meanwhile: it is not ours any more, as wished.
            with suppress(ConflictError, NotFoundError):
                self._queries.release(pending.id, claim_token=self.token)
            self._pending.pop(pending.id, None)

    def __enter__(self) -> Self:
        """Hold the claim during a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what is pending; a failing release does not hide the block's own error."""
        try:
            self.release()
        except MiaodError:
            if error is None:
                raise
