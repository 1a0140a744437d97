"""`miaod images` and `miaod annotations`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from miaod_client._cli.output import note, print_json, print_list, print_record, print_table
from miaod_client._cli.progress import bytes_bar, upload_bar
from miaod_client._cli.session import (
    ExitCode,
    JsonOption,
    LimitOption,
    ProjectOption,
    client_of,
    make_group,
    project_id,
)

app = make_group("The pictures of a project.")
annotations_app = make_group("The labels of a picture.")

ImageArgument = Annotated[str, typer.Argument(help="The image's id.")]
ImagesArgument = Annotated[list[str], typer.Argument(help="Ids of images.")]
SplitName = Literal["pool", "val", "test"]

BOX_COLUMNS = {
    "CLASS": lambda box: box.class_name,
    "X1": lambda box: box.x1,
    "Y1": lambda box: box.y1,
    "X2": lambda box: box.x2,
    "Y2": lambda box: box.y2,
}


@app.command()
def upload(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders with all below them.")],
    project: ProjectOption,
    split: Annotated[SplitName, typer.Option(help="Where they belong.")] = "pool",
    as_json: JsonOption = False,
) -> None:
    """Upload pictures. Those that are there already are passed over.

    Ends with exit code 5 when some were refused; the rest is kept.
    """
    with client_of(ctx) as client:
        target = project_id(client, project)
        try:
            with upload_bar() as show:
                report = client.images.upload(
                    project=target, paths=paths, split=split, on_progress=show
                )
        except KeyboardInterrupt:
            note("what the server has stays; the same command again sends the rest")
            raise
    if as_json:
        print_json(report)
    else:
        typer.echo(
            f"{len(report.created)} created, {len(report.duplicates)} there already, "
            f"{len(report.rejected)} refused"
        )
        for item in report.rejected:
            note(f"refused {item.name}: {item.reason}", style="red")
    if report.rejected:
        raise typer.Exit(ExitCode.PARTLY_REFUSED)


@app.command("list")
def list_(
    ctx: typer.Context,
    project: ProjectOption,
    split: Annotated[SplitName | None, typer.Option(help="Only this split.")] = None,
    state: Annotated[
        Literal["unlabeled", "labeled"] | None, typer.Option(help="Only those in this state.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", "-c", help="Only those with a box of this class.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only the one of this name.")] = None,
    skipped: Annotated[
        bool | None, typer.Option("--skipped/--not-skipped", help="Only skipped ones, or none.")
    ] = None,
    sort: Annotated[
        Literal["ordinal", "uncertainty"],
        typer.Option(help="As they came, or most uncertain first."),
    ] = "ordinal",
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the pictures of a project."""
    with client_of(ctx) as client:
        print_list(
            client.images.list(
                project=project_id(client, project),
                split=split,
                state=state,
                class_name=class_name,
                name=name,
                skipped=skipped,
                sort=sort,
            ),
            {
                "ID": lambda image: image.id,
                "NAME": lambda image: image.name,
                "SIZE": lambda image: f"{image.width}x{image.height}",
                "SPLIT": lambda image: image.split,
                "STATE": lambda image: "skipped" if image.skipped else image.state,
                "BOXES": lambda image: image.num_boxes if image.state == "labeled" else None,
                "UNCERTAINTY": lambda image: image.uncertainty,
            },
            as_json=as_json,
            limit=limit,
            empty="no images",
        )


@app.command()
def show(ctx: typer.Context, image: ImageArgument, as_json: JsonOption = False) -> None:
    """Show what is known of a picture."""
    with client_of(ctx) as client:
        print_record(client.images.get(image), as_json=as_json)


@app.command()
def move(
    ctx: typer.Context,
    images: ImagesArgument,
    split: Annotated[SplitName, typer.Option(help="Where they belong from now on.")],
) -> None:
    """Move pictures to another split."""
    with client_of(ctx) as client:
        for image in images:
            client.images.update(image, split=split)
    note(f"moved {len(images)} to {split}")


@app.command()
def unskip(ctx: typer.Context, images: ImagesArgument) -> None:
    """Let skipped pictures be selected again."""
    with client_of(ctx) as client:
        for image in images:
            client.images.update(image, skipped=False)
    note(f"un-skipped {len(images)}")


@app.command()
def delete(ctx: typer.Context, images: ImagesArgument) -> None:
    """Delete pictures with their labels."""
    with client_of(ctx) as client:
        for image in images:
            client.images.delete(image)
    note(f"deleted {len(images)}")


@app.command()
def download(
    ctx: typer.Context,
    image: ImageArgument,
    to: Annotated[Path, typer.Option(help="File or folder.")] = Path(),
    rendition: Annotated[
        Literal["original", "display"], typer.Option(help="As uploaded, or as browsers show it.")
    ] = "original",
) -> None:
    """Write a picture into a file; prints its path."""
    with client_of(ctx) as client, bytes_bar(image) as progress:
        path = client.images.download(image, to=to, rendition=rendition, on_progress=progress)
    typer.echo(path)


@app.command()
def predictions(ctx: typer.Context, image: ImageArgument, as_json: JsonOption = False) -> None:
    """Show what the newest model sees on a picture."""
    with client_of(ctx) as client:
        found = client.images.predictions(image)
    if as_json:
        print_json(found)
    elif found.predictions:
        print_table(found.predictions, {**BOX_COLUMNS, "SCORE": lambda box: box.score})
    else:
        note("no predictions are kept for it" if found.predictions is None else "it sees nothing")


@annotations_app.command("show")
def show_annotation(ctx: typer.Context, image: ImageArgument, as_json: JsonOption = False) -> None:
    """Show the boxes of a picture."""
    with client_of(ctx) as client:
        annotation = client.annotations.get(image)
    if as_json:
        print_json(annotation)
        return
    note(f"{annotation.state}, version {annotation.version}, by {annotation.author or 'nobody'}")
    if annotation.boxes:
        print_table(annotation.boxes, {**BOX_COLUMNS, "DIFFICULT": lambda box: box.difficult})


@annotations_app.command("put")
def put_annotation(
    ctx: typer.Context,
    image: ImageArgument,
    boxes: Annotated[
        str,
        typer.Option(
            help='File with a JSON list of {"class", "x1", "y1", "x2", "y2"}; `-` is stdin; '
            "an empty list says that there is nothing to box."
        ),
    ],
    version: Annotated[
        int | None, typer.Option(min=0, help="The version they are based on; default the current.")
    ] = None,
    claim_token: Annotated[str | None, typer.Option(help="That of your claim.")] = None,
    author: Annotated[str | None, typer.Option(help="Who labeled it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the boxes of a picture."""
    try:
        found = json.loads(sys.stdin.read() if boxes == "-" else Path(boxes).read_bytes())
    except ValueError as error:
        raise ValueError(f"{boxes} must hold a JSON list of boxes: {error}") from error
    if not isinstance(found, list):
        raise ValueError(f"{boxes} must hold a JSON list of boxes")
    with client_of(ctx) as client:
        annotation = client.annotations.put(
            image, boxes=found, version=version, claim_token=claim_token, author=author
        )
    if as_json:
        print_json(annotation)
    else:
        note(f"saved as version {annotation.version}")


@annotations_app.command("delete")
def delete_annotation(
    ctx: typer.Context,
    image: ImageArgument,
    author: Annotated[str | None, typer.Option(help="Who does it.")] = None,
) -> None:
    """Make a picture unlabeled again; its earlier versions stay on record."""
    with client_of(ctx) as client:
        annotation = client.annotations.delete(image, author=author)
    note(f"unlabeled as of version {annotation.version}")
