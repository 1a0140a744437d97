"""`miaod workers` and `miaod health`."""

import typer

from miaod_client._cli.output import cell, print_json, print_list, stdout
from miaod_client._cli.session import (
    ExitCode,
    JsonOption,
    LimitOption,
    client_of,
    make_group,
)

workers_app = make_group("The processes that run cycles.")


@workers_app.command("list")
def list_workers(ctx: typer.Context, limit: LimitOption = 0, as_json: JsonOption = False) -> None:
    """List the workers that ever reported."""
    with client_of(ctx) as client:
        print_list(
            client.workers.list(),
            {
                "ID": lambda worker: worker.id,
                "NAME": lambda worker: worker.name,
                "DEVICE": lambda worker: worker.device,
                "VERSION": lambda worker: worker.version,
                "LIVE": lambda worker: worker.live,
                "LAST SEEN": lambda worker: f"{worker.seconds_since_seen:.0f} s ago",
                "CYCLE": lambda worker: worker.cycle,
            },
            as_json=as_json,
            limit=limit,
            empty="no worker has ever reported: `python -m worker` starts one",
        )


def health(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Say whether the server can do its work; exit code 1 if not."""
    with client_of(ctx) as client:
        live = client.health.live()
        readiness = client.health.ready()
    if as_json:
        print_json({"version": live.version, **readiness.model_dump(mode="json")})
    else:
        console = stdout()
        console.print(cell(f"server {live.version}: {'ready' if readiness.ready else 'NOT READY'}"))
        for name, check in readiness.checks.items():
            console.print(cell(f"{'ok ' if check.ok else 'BAD'} {name}: {check.detail}"))
    if not readiness.ready:
        raise typer.Exit(ExitCode.REFUSED)
