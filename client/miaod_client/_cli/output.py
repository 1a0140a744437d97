"""Results to stdout, as tables for people or JSON for programs; everything else to stderr."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

ModelT = TypeVar("ModelT", bound=BaseModel)
Columns = Mapping[str, Callable[[Any], object]]

# Not cut to a screen's width when there is no screen: the reader is a file or a program.
UNBOUNDED_WIDTH = 100_000
# Blanks between columns.
GAP = 2
# Columns that may be cut on a screen, to no less than this.
FREE_TEXT = frozenset({"MESSAGE", "NOTE", "REASON"})
FREE_TEXT_WIDTH = 20


def stdout() -> Console:
    """Where results go."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_WIDTH
    return console


def stderr() -> Console:
    """Where progress, notes and errors go."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def note(sentence: str, *, style: str = "") -> None:
    """Tell the person something beside the result."""
    stderr().print(plain(sentence), style=style)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def to_json(value: Any) -> Any:
    """Answers, and lists of them, as JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def print_list(
    items: Iterable[ModelT], columns: Columns, *, as_json: bool, limit: int = 0, empty: str
) -> None:
    """Print many things, one a row; a list that was cut says so.

    Args:
        items: what to print.
        columns: header and content of each column.
        as_json: print a JSON array instead.
        limit: at most so many; 0 means all.
        empty: the sentence that stands for an empty list.
    """
    rows = list(items if limit == 0 else islice(items, limit + 1))
    cut = 0 < limit < len(rows)
    if cut:
        rows.pop()
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, columns)
    else:
        note(empty)
    if cut:
        note(f"only the first {limit} are shown: --limit 0 shows all")


def print_table(rows: Sequence[ModelT], columns: Columns) -> None:
    """Print rows under headers; only free text is ever cut, and only to fit a terminal.

    Wider than the screen is better than ids that cannot be copied.
    """
    console = stdout()
    cells = [[cell(content(row)) for content in columns.values()] for row in rows]
    widths = [
        max(len(header), *(row[index].cell_len for row in cells))
        for index, header in enumerate(columns)
    ]
    rigid = sum(
        width + GAP
        for header, width in zip(columns, widths, strict=True)
        if header not in FREE_TEXT
    )
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for header in columns:
        table.add_column(header, no_wrap=True)
    for row_cells in cells:
        for header, content in zip(columns, row_cells, strict=True):
            if header in FREE_TEXT:
                room = max(console.width - rigid, FREE_TEXT_WIDTH)
                content.truncate(room, overflow="ellipsis")
        table.add_row(*row_cells)
    console.width = UNBOUNDED_WIDTH
    print_trimmed(console, table)


def print_trimmed(console: Console, table: Table) -> None:
    """Print a table without the blanks that pad its lines."""
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def print_record(record: BaseModel, *, as_json: bool, hidden: Iterable[str] = ()) -> None:
    """Print one thing, a field a line."""
    if as_json:
        print_json(record)
        return
    fields = {name: value for name, value in record if name not in set(hidden)}
    print_fields(fields)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line; what holds values of its own is told apart by dots."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flatten(fields):
        table.add_row(Text(plain(name)), cell(value))
    print_trimmed(stdout(), table)


def flatten(fields: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Fields within fields as `outer.inner`."""
    for name, value in fields.items():
        if isinstance(value, BaseModel):
            value = dict(value)
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def cell(value: object) -> Text:
    """A value as a person reads it."""
    return Text(plain(as_words(value)))


def as_words(value: object) -> str:
    """A value in words."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            return ", ".join(as_words(item) for item in value) or "-"
        case BaseModel():
            return ", ".join(f"{name} {as_words(item)}" for name, item in value)
        case _:
            return str(value)


def plain(text: str) -> str:
    """Text without characters that a terminal would obey: names come from many hands."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def percent(progress: float) -> str:
    """A share of 1 as a percentage."""
    return f"{progress:.0%}"
