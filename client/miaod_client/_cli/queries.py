"""`miaod queries`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from miaod_client._cli.output import note, print_json, print_list, print_table
from miaod_client._cli.session import (
    JsonOption,
    LimitOption,
    ProjectOption,
    client_of,
    make_group,
    project_id,
)

app = make_group("The pictures that a cycle asks to have labeled.")

QueryArgument = Annotated[str, typer.Argument(metavar="QUERY", help="The query's id.")]
TokenOption = Annotated[str, typer.Option("--claim-token", help="That of your claim.")]
SecondsOption = Annotated[
    int, typer.Option(min=1, max=86_400, help="How long the claim holds without a heartbeat.")
]

COLUMNS = {
    "RANK": lambda query: query.rank,
    "ID": lambda query: query.id,
    "IMAGE": lambda query: query.image.id,
    "NAME": lambda query: query.image.name,
    "UNCERTAINTY": lambda query: query.uncertainty,
    "REASON": lambda query: query.reason,
    "STATE": lambda query: query.state,
    "BY": lambda query: query.claimed_by,
}


@app.command("list")
def list_(
    ctx: typer.Context,
    project: Annotated[
        str | None,
        typer.Option("--project", "-p", help="The project whose newest selection is meant."),
    ] = None,
    cycle: Annotated[
        str | None, typer.Option("--cycle", "-c", help="The cycle whose selection is meant.")
    ] = None,
    state: Annotated[
        Literal["open", "claimed", "labeled", "skipped", "withdrawn", "all"],
        typer.Option(help="Only those in this state."),
    ] = "open",
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List what is to be labeled, most informative first."""
    with client_of(ctx) as client:
        print_list(
            client.queries.list(
                project=project_id(client, project) if project else None, cycle=cycle, state=state
            ),
            COLUMNS,
            as_json=as_json,
            limit=limit,
            empty=f"no {state} queries" if state != "all" else "no queries",
        )


@app.command()
def claim(
    ctx: typer.Context,
    project: ProjectOption,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="At most.")] = 1,
    seconds: SecondsOption = 600,
    author: Annotated[str | None, typer.Option(help="Who will label them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next pictures for yourself; the token proves it."""
    with client_of(ctx) as client:
        taken = client.queries.claim(
            project=project_id(client, project), limit=limit, seconds=seconds, author=author
        )
    if as_json:
        print_json(
            {
                "claim_token": taken.token,
                "expires_at": taken.expires_at.isoformat(),
                "items": [query.model_dump(mode="json") for query in taken],
            }
        )
    elif taken:
        print_table(taken.items, COLUMNS)
        note(f"token {taken.token}, until {taken.expires_at.astimezone():%H:%M:%S}")
    else:
        note("nothing is left to label")


@app.command()
def heartbeat(
    ctx: typer.Context, query: QueryArgument, token: TokenOption, seconds: SecondsOption = 600
) -> None:
    """Prolong a claim, with every query under it."""
    with client_of(ctx) as client:
        until = client.queries.heartbeat(query, claim_token=token, seconds=seconds)
    note(f"claimed until {until.astimezone():%H:%M:%S}")


@app.command()
def release(ctx: typer.Context, query: QueryArgument, token: TokenOption) -> None:
    """Give a query back."""
    with client_of(ctx) as client:
        client.queries.release(query, claim_token=token)
    note("released")


@app.command()
def skip(
    ctx: typer.Context,
    query: QueryArgument,
    reason: Annotated[str | None, typer.Option(help="Why it cannot be labeled.")] = None,
    token: Annotated[str | None, typer.Option("--claim-token", help="That of your claim.")] = None,
) -> None:
    """Say that a picture cannot be labeled."""
    with client_of(ctx) as client:
        client.queries.skip(query, reason=reason, claim_token=token)
    note("skipped")


@app.command()
def heatmap(
    ctx: typer.Context,
    query: QueryArgument,
    to: Annotated[Path, typer.Option(help="The PNG file to write.", dir_okay=False)],
) -> None:
    """Write the instance uncertainty over the picture as PNG; prints its path."""
    with client_of(ctx) as client:
        to.write_bytes(client.queries.heatmap(query))
    typer.echo(to)
