"""Keyset pages: a page starts after the last row of the one before, so rows that come and go
meanwhile shift nothing, and page one thousand costs what page one costs.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select
from sqlalchemy.orm import Session

from server.errors import Unprocessable

Item = TypeVar("Item")
Mapped = TypeVar("Mapped")

_MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page a client asks for."""

    limit: int = 100
    cursor: str | None = None
    count: bool = False


@dataclass(frozen=True, slots=True)
class PageOf(Generic[Item]):
    """One page; `total` only where it was asked for."""

    items: list[Item]
    next_cursor: str | None = None
    total: int | None = None

    def map(self, convert: Callable[[Item], Mapped]) -> PageOf[Mapped]:
        """The same page with every item converted."""
        return PageOf([convert(item) for item in self.items], self.next_cursor, self.total)


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column of an order. The columns of an order together must be unique and never NULL."""

    column: ColumnElement[Any]
    type: type[str] | type[int] | type[float]
    descending: bool = False


def paginate(
    session: Session,
    statement: Select[*tuple[Any, ...]],
    keys: Sequence[SortKey],
    request: PageRequest,
    *,
    order_name: str,
) -> PageOf[Any]:
    """Run a statement for one page.

    Args:
        session: where to run it.
        statement: what to list, without order and limit.
        keys: the order.
        request: limit, cursor, and whether to count.
        order_name: names this list and order, so that a cursor of another one is recognised.

    Returns:
        Rows of the statement's own columns (a bare value where there is only one).

    Raises:
        Unprocessable: the cursor is not one of this list.
    """
    total = None
    if request.count:
        total = session.scalar(select(func.count()).select_from(statement.subquery()))
    page = statement.add_columns(*(key.column for key in keys)).order_by(
        *(key.column.desc() if key.descending else key.column.asc() for key in keys)
    )
    if request.cursor is not None:
        page = page.where(_after(keys, _decode(request.cursor, keys, order_name)))
    rows = session.execute(page.limit(request.limit + 1)).all()
    more, rows = len(rows) > request.limit, rows[: request.limit]
    items = [row[0] if len(row) == len(keys) + 1 else row[: -len(keys)] for row in rows]
    cursor = _encode(rows[-1][-len(keys) :], order_name) if more else None
    return PageOf(items, cursor, total)


def _after(keys: Sequence[SortKey], values: Sequence[Any]) -> ColumnElement[bool]:
    """Rows that come after `values`: the first key is beyond, or it is equal and the rest is."""
    condition: ColumnElement[bool] = false()
    for key, value in reversed(list(zip(keys, values, strict=True))):
        beyond = key.column < value if key.descending else key.column > value
        condition = or_(beyond, and_(key.column == value, condition))
    return condition


def _encode(values: Sequence[Any], order_name: str) -> str:
    text = json.dumps([order_name, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, keys: Sequence[SortKey], order_name: str) -> list[Any]:
    # A cursor comes from outside: only values that the columns can be compared with may pass.
    wrong = Unprocessable(
        "the cursor is not one of this list: give `next_cursor` of the page before, "
        "with the same filters and order",
        code="bad_cursor",
    )
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise wrong from None
    if not isinstance(found, list) or len(found) != len(keys) + 1 or found[0] != order_name:
        raise wrong
    for key, value in zip(keys, found[1:], strict=True):
        if type(value) is not key.type:
            raise wrong
        if isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise wrong
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong
        if isinstance(value, str) and (len(value) > 200 or not value.isprintable()):
            raise wrong
    return found[1:]
