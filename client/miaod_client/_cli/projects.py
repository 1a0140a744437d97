"""`miaod projects`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from miaod_client._cli.output import (
    note,
    print_json,
    print_list,
    print_record,
    print_table,
)
from miaod_client._cli.session import (
    JsonOption,
    LimitOption,
    client_of,
    make_group,
    project_id,
)

app = make_group("Pools of images with their classes.")

ProjectArgument = Annotated[str, typer.Argument(help="The project: its id or its name.")]
ClassOption = Annotated[
    list[str] | None, typer.Option("--class", "-c", help="A class; repeat in the order of ids.")
]
InstructionsOption = Annotated[
    str | None,
    typer.Option(help="What annotators should know; `@file` reads it from a file."),
]
ValidationOption = Annotated[
    int | None,
    typer.Option(min=0, help="Pool images that the first cycle draws as validation set."),
]
DefaultsOption = Annotated[
    str | None,
    typer.Option(help="""Defaults of its cycles as JSON, such as '{"budget": 50}'."""),
]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name; unique.")],
    classes: ClassOption = None,
    instructions: InstructionsOption = None,
    validation_images: ValidationOption = None,
    cycle_defaults: DefaultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project."""
    if not classes:
        raise typer.BadParameter("give at least one --class")
    with client_of(ctx) as client:
        project = client.projects.create(
            name=name,
            classes=classes,
            instructions=text_or_file(instructions),
            validation_images=validation_images,
            cycle_defaults=json_object(cycle_defaults, "--cycle-defaults"),
        )
    print_record(project, as_json=as_json, hidden=["counts"])


@app.command("list")
def list_(ctx: typer.Context, limit: LimitOption = 100, as_json: JsonOption = False) -> None:
    """List the projects, oldest first."""
    with client_of(ctx) as client:
        print_list(
            client.projects.list(),
            {
                "ID": lambda project: project.id,
                "NAME": lambda project: project.name,
                "CLASSES": lambda project: project.classes,
                "CREATED": lambda project: project.created_at,
            },
            as_json=as_json,
            limit=limit,
            empty="there are no projects yet: `miaod projects create NAME --class CLASS` makes one",
        )


@app.command()
def show(ctx: typer.Context, project: ProjectArgument, as_json: JsonOption = False) -> None:
    """Show a project and count its images."""
    with client_of(ctx) as client:
        print_record(client.projects.get(project_id(client, project)), as_json=as_json)


@app.command()
def statistics(ctx: typer.Context, project: ProjectArgument, as_json: JsonOption = False) -> None:
    """Count its labels: boxes per class, and who annotated how much and how fast."""
    with client_of(ctx) as client:
        found = client.projects.statistics(project_id(client, project))
    if as_json:
        print_json(found)
        return
    print_table(
        found.classes,
        {
            "CLASS": lambda row: row.class_name,
            "BOXES": lambda row: row.boxes,
            "IMAGES": lambda row: row.images,
        },
    )
    print_table(
        found.authors,
        {
            "AUTHOR": lambda row: row.author,
            "ANNOTATIONS": lambda row: row.annotations,
            "IMAGES": lambda row: row.images,
            "BOXES": lambda row: row.boxes,
            "MEDIAN SECONDS": lambda row: row.seconds_median,
            "LAST": lambda row: row.last_at,
        },
    )
    if found.imported:
        note(f"{found.imported} images have their labels from an import")


@app.command()
def update(
    ctx: typer.Context,
    project: ProjectArgument,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    add_class: Annotated[
        list[str] | None, typer.Option(help="A further class; repeat for several.")
    ] = None,
    instructions: InstructionsOption = None,
    validation_images: ValidationOption = None,
    cycle_defaults: DefaultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a project; what is not given stays."""
    with client_of(ctx) as client:
        found = client.projects.get(project_id(client, project))
        changed = client.projects.update(
            found.id,
            name=name,
            classes=[*found.classes, *add_class] if add_class else None,
            instructions=text_or_file(instructions),
            validation_images=validation_images,
            cycle_defaults=json_object(cycle_defaults, "--cycle-defaults"),
        )
    print_record(changed, as_json=as_json, hidden=["counts"])


@app.command()
def delete(
    ctx: typer.Context,
    project: ProjectArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a project with its images, labels, cycles and models."""
    with client_of(ctx) as client:
        found = client.projects.get(project_id(client, project))
        if not yes:
            images = found.counts.images if found.counts else 0
            typer.confirm(
                f"Delete {found.name!r} with {images} images and all labels?", abort=True, err=True
            )
        client.projects.delete(found.id)
    note(f"deleted {found.name!r}")


def text_or_file(given: str | None) -> str | None:
    """The text itself, or the content of the file that `@` names."""
    if given is not None and given.startswith("@"):
        return Path(given[1:]).read_text(encoding="utf-8")
    return given


def json_object(given: str | None, option: str) -> dict[str, Any] | None:
    """A JSON object given as an option.

    Raises:
        ValueError: it is none.
    """
    if given is None:
        return None
    try:
        value = json.loads(given)
    except ValueError as error:
        raise ValueError(f"{option} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{option} must be a JSON object, such as {{}}")
    return value
