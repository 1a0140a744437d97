"""`miaod models` and `miaod exports`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from miaod_client._cli.output import note, print_list, print_record
from miaod_client._cli.progress import bytes_bar
from miaod_client._cli.session import (
    JsonOption,
    LimitOption,
    ProjectOption,
    client_of,
    make_group,
    project_id,
)

app = make_group("What the cycles trained.")
exports_app = make_group("The labels out, in other programs' formats.")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")]
TargetOption = Annotated[Path, typer.Option(help="File, or existing folder.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project's: id or name.")
    ] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List models, newest first."""
    with client_of(ctx) as client:
        print_list(
            client.models.list(project=project_id(client, project) if project else None),
            {
                "ID": lambda model: model.id,
                "CYCLE": lambda model: model.cycle_number,
                "MAP50": lambda model: model.metrics.map50,
                "BYTES": lambda model: model.num_bytes if model.sha256 else "swept",
                "PINNED": lambda model: model.pinned,
                "CREATED": lambda model: model.created_at,
                "NOTE": lambda model: model.note,
            },
            as_json=as_json,
            limit=limit,
            empty="no models yet: a cycle that trains leaves one",
        )


@app.command()
def show(ctx: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show a model with its metrics."""
    with client_of(ctx) as client:
        print_record(client.models.get(model), as_json=as_json)


@app.command()
def pin(ctx: typer.Context, model: ModelArgument) -> None:
    """Keep a model's weights for good."""
    with client_of(ctx) as client:
        client.models.update(model, pinned=True)
    note("pinned")


@app.command()
def unpin(ctx: typer.Context, model: ModelArgument) -> None:
    """Let a model's weights be swept when newer and better ones are there."""
    with client_of(ctx) as client:
        client.models.update(model, pinned=False)
    note("unpinned")


@app.command("note")
def note_(
    ctx: typer.Context,
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help="What to remember about it.")],
) -> None:
    """Write a note on a model."""
    with client_of(ctx) as client:
        client.models.update(model, note=text)
    note("noted")


@app.command()
def delete(ctx: typer.Context, model: ModelArgument) -> None:
    """Delete a model with its weights; its cycle stays."""
    with client_of(ctx) as client:
        client.models.delete(model)
    note("deleted")


@app.command()
def download(ctx: typer.Context, model: ModelArgument, to: TargetOption = Path()) -> None:
    """Write a model's weights (safetensors) into a file; prints its path."""
    with client_of(ctx) as client, bytes_bar("model") as progress:
        path = client.models.download(model, to=to, on_progress=progress)
    typer.echo(path)


@exports_app.command("download")
def download_export(
    ctx: typer.Context,
    project: ProjectOption,
    layout: Annotated[
        Literal["coco", "voc"], typer.Option("--format", help="The format of the labels.")
    ] = "coco",
    images: Annotated[bool, typer.Option("--images", help="With the pictures.")] = False,
    to: TargetOption = Path(),
) -> None:
    """Write the labels of a project into a file; prints its path."""
    with client_of(ctx) as client, bytes_bar("export") as progress:
        path = client.exports.download(
            project=project_id(client, project),
            format=layout,
            images=images,
            to=to,
            on_progress=progress,
        )
    typer.echo(path)
