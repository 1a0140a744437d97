"""Long lists, read page by page while they are walked through."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from pydantic import BaseModel

from miaod_client._transport import Params, Transport

ItemT = TypeVar("ItemT", bound=BaseModel)

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 200


class Page(BaseModel, Generic[ItemT]):
    """One page of a list.

    Attributes:
        items: the things themselves, in the list's order.
        next_cursor: where the next page begins; `None` on the last.
        total: how many the whole list has; only where it was asked for.
    """

    items: list[ItemT]
    next_cursor: str | None = None
    total: int | None = None


class Pager(Generic[ItemT]):
    """A list on the server. Iterating asks for page after page, and starts afresh each time.

    Pages are found by key, so that rows added or removed meanwhile neither repeat nor hide others.

    Args:
        transport: sends the requests.
        model: type of an item.
        path: address of the list.
        params: filters and order.
        limit: yield at most this many items; `None` means all.
        page_size: items per request, 1 to 1000.

    Raises:
        ValueError: `limit` is below 0 or `page_size` outside its range.
    """

    def __init__(
        self,
        transport: Transport,
        model: type[ItemT],
        path: str,
        *,
        params: Params,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}: give 0 or more, or None for all")
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"page_size is {page_size}: give 1 to {MAX_PAGE_SIZE}")
        self._transport = transport
        self._page_model = Page[model]  # type: ignore[valid-type]
        self._path = path
        self._params = dict(params)
        self._limit = limit
        self._page_size = page_size

    def __iter__(self) -> Iterator[ItemT]:
        """Walk through the items."""
        for page in self.pages():
            yield from page.items

    def pages(self) -> Iterator[Page[ItemT]]:
        """Walk through the pages; the last may be cut to `limit`."""
        left = self._limit
        cursor: str | None = None
        while left is None or left > 0:
            size = self._page_size if left is None else min(self._page_size, left)
            page = self._fetch({"limit": size, "cursor": cursor})
            if left is not None:
                # A server that gives more than asked for must not break the promise of `limit`.
                page = page.model_copy(update={"items": page.items[:left]})
                left -= len(page.items)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def first(self) -> ItemT | None:
        """The first item, or `None` of an empty list."""
        if self._limit == 0:
            return None
        items = self._fetch({"limit": 1}).items
        return items[0] if items else None

    def total(self) -> int:
        """How many items the server has under these filters, whatever `limit` says."""
        page = self._fetch({"limit": 1, "count": True})
        return len(page.items) if page.total is None else page.total

    def _fetch(self, extra: Params) -> Page[ItemT]:
        return self._transport.get(self._page_model, self._path, params={**self._params, **extra})
