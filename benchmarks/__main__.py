"""`make bench`: speed and memory of what users wait for, as ratios taken in one run.

`python -m benchmarks pages` runs one of them.

Absolute times depend on the machine and on what else it does; each figure therefore stands beside
one of the same run that it can be compared with. Nothing here is asserted anywhere.
"""

from __future__ import annotations

import os
import platform
import sys

from rich.console import Console
from rich.table import Table

from benchmarks import cycle, pages, store, training
from benchmarks.rows import Row


def main() -> int:
    """Run every benchmark and print one table."""
    console = Console(width=110)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    table = Table("what", "median", "compared with", "ratio")
    wanted = sys.argv[1:]
    for benchmark in (training.run, store.run, cycle.run, pages.run):
        if wanted and benchmark.__module__.rpartition(".")[2] not in wanted:
            continue
        with console.status(f"{benchmark.__module__} …"):
            for row in benchmark():
                add(table, row)
    console.print(table)
    return 0


def add(table: Table, row: Row) -> None:
    """Put a row into the table."""
    ratio = "" if row.reference_seconds is None else f"{row.seconds / row.reference_seconds:.3g}"
    table.add_row(row.what, f"{row.seconds * 1000:.1f} ms", row.reference, ratio)


if __name__ == "__main__":
    sys.exit(main())
