"""`miaod`: the commands put together."""

from typing import Annotated

import typer

from miaod_client._cli import (
    cycles,
    images,
    imports,
    keys,
    models,
    operations,
    projects,
    queries,
)
from miaod_client._cli.session import SentenceGroup, Session
from miaod_client._config import API_KEY_VARIABLE, DEFAULT_URL, URL_VARIABLE

app = typer.Typer(
    name="miaod",
    cls=SentenceGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done; 1 the server refused or cannot be reached; 2 wrong usage; 3 the cycle "
        "or import failed or was cancelled; 4 waiting timed out; 5 some files were refused; "
        "130 interrupted. Results go to stdout, everything else to stderr."
    ),
)
app.add_typer(projects.app, name="projects")
app.add_typer(images.app, name="images")
app.add_typer(images.annotations_app, name="annotations")
app.add_typer(imports.app, name="imports")
app.add_typer(cycles.app, name="cycles")
app.add_typer(queries.app, name="queries")
app.add_typer(models.app, name="models")
app.add_typer(models.exports_app, name="exports")
app.add_typer(operations.workers_app, name="workers")
app.add_typer(keys.app, name="keys")
app.add_typer(keys.audit_app, name="audit")
app.command()(keys.whoami)
app.command()(operations.health)


@app.callback()
def connect(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar=URL_VARIABLE, help=f"The server; without it {DEFAULT_URL}."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=API_KEY_VARIABLE,
            help="Your key. Better in the environment: others see command lines.",
        ),
    ] = None,
) -> None:
    """Active learning for object detection: images in, the images worth labeling out."""
    if ctx.obj is None:
        ctx.obj = Session(url=url, api_key=api_key)


def main() -> None:
    """Entry point of the `miaod` command."""
    app()
