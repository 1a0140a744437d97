"""`miaod imports`."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from miaod_client._cli.output import note, print_json, print_list, print_record
from miaod_client._cli.progress import bytes_bar, job_bar
from miaod_client._cli.session import (
    ExitCode,
    JsonOption,
    LimitOption,
    ProjectOption,
    TimeoutOption,
    client_of,
    make_group,
    project_id,
)
from miaod_client._client import Client
from miaod_client._types import Import, Split

app = make_group("Data sets read in one go, with or without labels.")

ImportArgument = Annotated[str, typer.Argument(metavar="IMPORT", help="The import's id.")]


@app.command()
def create(
    ctx: typer.Context,
    project: ProjectOption,
    path: Annotated[
        str | None, typer.Option(help="A folder that the server can read, below an import root.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="A ZIP or TAR file here, which is uploaded.")
    ] = None,
    layout: Annotated[
        Literal["auto", "images", "voc", "coco"],
        typer.Option("--format", help="What is in it; `auto` looks."),
    ] = "auto",
    split: Annotated[
        Literal["pool", "val", "test", "auto"],
        typer.Option(help="Where the pictures belong; `auto` lets the data set's lists decide."),
    ] = "pool",
    splits: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST=SPLIT", help="What a list means, such as trainval=pool; repeatable."
        ),
    ] = None,
    corners: Annotated[
        Literal["voc", "zero-based"], typer.Option(help="How VOC corners count.")
    ] = "voc",
    empty: Annotated[
        Literal["unlabeled", "negative"],
        typer.Option(help="What a COCO picture without annotations is."),
    ] = "unlabeled",
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Take the labels, or the pictures only.")
    ] = True,
    add_classes: Annotated[
        bool, typer.Option("--add-classes", help="Append classes that the project lacks.")
    ] = False,
    author: Annotated[str | None, typer.Option(help="Who labeled them.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has ended.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start an import.

    With --wait it ends with exit code 5 when some items were refused; the rest is kept.
    """
    with client_of(ctx) as client:
        target = project_id(client, project)
        with bytes_bar(archive.name if archive else "import") as progress:
            started = client.imports.create(
                project=target,
                path=path,
                archive=archive,
                format=layout,
                split=split,
                splits=parse_splits(splits) if splits else None,
                corners=corners,
                empty=empty,
                labels=labels,
                add_classes=add_classes,
                author=author,
                on_progress=progress,
            )
        if wait:
            wait_for(client, started.id, timeout, as_json)
        else:
            print_record(started, as_json=as_json, hidden=["refused", "next_cursor"])


@app.command()
def show(ctx: typer.Context, import_id: ImportArgument, as_json: JsonOption = False) -> None:
    """Show how far an import is."""
    with client_of(ctx) as client:
        found = client.imports.get(import_id)
    print_record(found, as_json=as_json, hidden=["refused", "next_cursor"])


@app.command()
def wait(
    ctx: typer.Context,
    import_id: ImportArgument,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until an import has ended."""
    with client_of(ctx) as client:
        wait_for(client, import_id, timeout, as_json)


@app.command()
def refused(
    ctx: typer.Context,
    import_id: ImportArgument,
    limit: LimitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """List the items that an import refused, by name."""
    with client_of(ctx) as client:
        print_list(
            client.imports.refused(import_id),
            {"NAME": lambda item: item.name, "REASON": lambda item: item.reason},
            as_json=as_json,
            limit=limit,
            empty="nothing was refused",
        )


def wait_for(client: Client, import_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait with a bar, print the outcome; exit code 5 if items were refused."""
    with job_bar("import") as progress:
        ended: Import = client.imports.wait(import_id, timeout=timeout, on_progress=progress)
    if as_json:
        print_json(ended)
    else:
        counts = ended.counts
        typer.echo(
            f"{counts.created} created, {counts.duplicate} there already, "
            f"{ended.num_refused} refused; {counts.labeled} labeled with {counts.boxes} boxes"
        )
    if ended.num_refused:
        note(f"`miaod imports refused {ended.id}` names what was refused", style="red")
        raise typer.Exit(ExitCode.PARTLY_REFUSED)


def parse_splits(given: list[str]) -> dict[str, Split]:
    """`LIST=SPLIT` pairs.

    Raises:
        ValueError: a pair is none, or names no split.
    """
    splits: dict[str, Split] = {}
    for pair in given:
        name, _, split = pair.partition("=")
        if not name or split not in ("pool", "val", "test"):
            raise ValueError(f"--splits {pair}: give LIST=SPLIT with pool, val or test")
        splits[name] = cast("Split", split)
    return splits
