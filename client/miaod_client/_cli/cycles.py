"""`miaod cycles`."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from miaod_client._cli.output import (
    note,
    percent,
    print_fields,
    print_json,
    print_list,
    print_record,
    print_table,
    to_json,
)
from miaod_client._cli.progress import bytes_bar, job_bar, watch_bar
from miaod_client._cli.session import (
    JsonOption,
    LimitOption,
    ProjectOption,
    TimeoutOption,
    client_of,
    make_group,
    project_id,
)
from miaod_client._client import Client
from miaod_client._types import Cycle, Metrics

app = make_group("Rounds of train, evaluate, score, select.")

CycleArgument = Annotated[str, typer.Argument(metavar="CYCLE", help="The cycle's id.")]


def strategy_of(name: str | None, **options: float | None) -> dict[str, Any] | str | None:
    """The strategy for the request; an option without a name is one of mi-aod."""
    given = {option: value for option, value in options.items() if value is not None}
    return {"name": name or "mi-aod", **given} if given else name


@app.command()
def create(
    ctx: typer.Context,
    project: ProjectOption,
    budget: Annotated[
        int | None, typer.Option("--budget", "-b", min=1, help="Images to select.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How to select: mi-aod, entropy, core-set or random.")
    ] = None,
    class_balance: Annotated[
        float | None,
        typer.Option(help="Weight of rare classes, an option of mi-aod and entropy; try 1."),
    ] = None,
    diversity: Annotated[
        float | None,
        typer.Option(help="Candidates per image to spread out over, an option as well; try 4."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Training preset, such as cpu.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a training field; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every random choice.")] = None,
    min_labeled: Annotated[
        int | None, typer.Option(min=1, help="Train only with so many images that have a box.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has ended.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a cycle; what is not given comes from the project's defaults.

    With --wait: exit code 3 when it fails or is cancelled, 4 when the --timeout is over.
    """
    with client_of(ctx) as client:
        cycle = client.cycles.create(
            project=project_id(client, project),
            budget=budget,
            strategy=strategy_of(strategy, class_balance=class_balance, diversity=diversity),
            preset=preset,
            training=parse_overrides(overrides) if overrides else None,
            seed=seed,
            min_labeled=min_labeled,
        )
        if wait:
            cycle = wait_for(client, cycle, timeout)
        print_cycle(cycle, as_json)


@app.command("list")
def list_(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project's: id or name.")
    ] = None,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only those in this state."),
    ] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List cycles, newest first."""
    with client_of(ctx) as client:
        print_list(
            client.cycles.list(
                project=project_id(client, project) if project else None, state=state
            ),
            {
                "ID": lambda cycle: cycle.id,
                "NO": lambda cycle: cycle.number,
                "KIND": lambda cycle: cycle.kind,
                "STATE": lambda cycle: cycle.state,
                "DONE": lambda cycle: percent(cycle.progress),
                "STRATEGY": lambda cycle: cycle.strategy.get("name"),
                "LABELED": lambda cycle: cycle.snapshot and cycle.snapshot.labeled_images,
                "SELECTED": lambda cycle: cycle.num_selected,
                "MAP50": lambda cycle: cycle.metrics and cycle.metrics.map50,
                "MESSAGE": lambda cycle: cycle.error or cycle.message,
            },
            as_json=as_json,
            limit=limit,
            empty="no cycles yet: `miaod cycles create --project NAME --budget N` starts one",
        )


@app.command()
def show(ctx: typer.Context, cycle_id: CycleArgument, as_json: JsonOption = False) -> None:
    """Show a cycle with its whole configuration."""
    with client_of(ctx) as client:
        print_record(client.cycles.get(cycle_id), as_json=as_json)


@app.command()
def wait(
    ctx: typer.Context,
    cycle_id: CycleArgument,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a cycle has ended, with its progress.

    Exit code 3 when it fails or is cancelled, 4 when the --timeout is over.
    """
    with client_of(ctx) as client:
        print_cycle(wait_for(client, client.cycles.get(cycle_id), timeout), as_json)


@app.command()
def watch(
    ctx: typer.Context,
    cycle_id: CycleArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON, for programs.")
    ] = False,
) -> None:
    """Watch a cycle until it has ended: its stage, steps, losses, and the time left.

    Ctrl-C leaves the cycle running. Exit code 3 when it fails or is cancelled.
    """
    with client_of(ctx) as client:
        cycle = client.cycles.get(cycle_id)
        try:
            if as_json:
                for event in client.cycles.events(cycle_id):
                    typer.echo(json.dumps(to_json(event), ensure_ascii=False))
            else:
                with watch_bar(f"cycle {cycle.number}") as show:
                    for event in client.cycles.events(cycle_id):
                        show(event)
            cycle = client.cycles.wait(cycle_id)
        except KeyboardInterrupt:
            say_that_it_goes_on(cycle)
            raise
        if not as_json:
            print_cycle(cycle, as_json)


@app.command()
def cancel(ctx: typer.Context, cycle_id: CycleArgument, as_json: JsonOption = False) -> None:
    """Stop a cycle: a waiting one at once, a running one within seconds."""
    with client_of(ctx) as client:
        print_cycle(client.cycles.cancel(cycle_id), as_json)


@app.command()
def resume(
    ctx: typer.Context,
    cycle_id: CycleArgument,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has ended.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take up a failed or cancelled cycle where it was; exit codes as of create."""
    with client_of(ctx) as client:
        cycle = client.cycles.resume(cycle_id)
        if wait:
            cycle = wait_for(client, cycle, timeout)
        print_cycle(cycle, as_json)


@app.command()
def metrics(ctx: typer.Context, cycle_id: CycleArgument, as_json: JsonOption = False) -> None:
    """Show how good the cycle's model is."""
    with client_of(ctx) as client:
        found = client.cycles.metrics(cycle_id)
    if as_json:
        print_json(found)
    elif found.metrics is None:
        note(found.message or f"the cycle is {found.state} and has no metrics")
    else:
        print_metrics(found.metrics)


@app.command()
def scores(
    ctx: typer.Context,
    cycle_id: CycleArgument,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List what the cycle thought of the pool, most informative first."""
    with client_of(ctx) as client:
        print_list(
            client.cycles.scores(cycle_id),
            {
                "RANK": lambda score: score.rank,
                "UNCERTAINTY": lambda score: score.uncertainty,
                "IMAGE": lambda score: score.image.id,
                "NAME": lambda score: score.image.name,
            },
            as_json=as_json,
            limit=limit,
            empty="it scored nothing",
        )


@app.command()
def artifacts(ctx: typer.Context, cycle_id: CycleArgument, as_json: JsonOption = False) -> None:
    """List the files that a cycle left behind."""
    with client_of(ctx) as client:
        print_list(
            client.cycles.artifacts(cycle_id),
            {
                "NAME": lambda artifact: artifact.name,
                "BYTES": lambda artifact: artifact.num_bytes,
                "SHA256": lambda artifact: artifact.sha256,
            },
            as_json=as_json,
            empty="it has left no files yet",
        )


@app.command()
def download(
    ctx: typer.Context,
    cycle_id: CycleArgument,
    names: Annotated[
        list[str] | None, typer.Argument(help="Files, such as metrics.json; none means all.")
    ] = None,
    to: Annotated[Path, typer.Option(help="An existing folder.", file_okay=False, exists=True)] = (
        Path()
    ),
) -> None:
    """Write files of a cycle into a folder; prints their paths."""
    with client_of(ctx) as client:
        for name in names or [artifact.name for artifact in client.cycles.artifacts(cycle_id)]:
            with bytes_bar(name) as progress:
                path = client.cycles.download_artifact(cycle_id, name, to=to, on_progress=progress)
            typer.echo(path)


def wait_for(client: Client, cycle: Cycle, timeout: float | None) -> Cycle:
    """Wait with a bar."""
    try:
        with job_bar(f"cycle {cycle.number}") as progress:
            return client.cycles.wait(cycle.id, timeout=timeout, on_progress=progress)
    except KeyboardInterrupt:
        say_that_it_goes_on(cycle)
        raise


def say_that_it_goes_on(cycle: Cycle) -> None:
    """What an interrupted command leaves behind."""
    note(f"the cycle goes on; `miaod cycles cancel {cycle.id}` stops it")


def print_cycle(cycle: Cycle, as_json: bool) -> None:
    """Print what matters of a cycle; its configuration is for `show`."""
    if as_json:
        print_json(cycle)
        return
    print_fields(
        {
            "id": cycle.id,
            "number": cycle.number,
            "kind": cycle.kind,
            "state": cycle.state,
            "strategy": cycle.strategy.get("name"),
            "budget": cycle.budget,
            "selected": cycle.num_selected,
            "map50": cycle.metrics and cycle.metrics.map50,
            "message": cycle.message,
        }
    )


def print_metrics(metrics: Metrics) -> None:
    """Print the means, then the classes."""
    fields: dict[str, Any] = {name: value for name, value in metrics if name != "per_class"}
    print_fields(fields)
    if metrics.per_class:
        print_table(
            metrics.per_class,
            {
                "CLASS": lambda row: row.class_name,
                "AP50": lambda row: row.ap50,
                "AP50 (VOC07)": lambda row: row.ap50_voc07,
                "AP": lambda row: row.ap,
                "BOXES": lambda row: row.num_boxes,
            },
        )


def parse_overrides(given: list[str]) -> dict[str, Any]:
    """`FIELD=VALUE` pairs; a value is JSON where it can be read so, and text elsewhere.

    Raises:
        ValueError: a pair has no `=`.
    """
    overrides: dict[str, Any] = {}
    for pair in given:
        field, equals, text = pair.partition("=")
        if not equals or not field:
            raise ValueError(f"--set {pair}: give FIELD=VALUE, such as --set batch_size=4")
        try:
            overrides[field] = json.loads(text)
        except ValueError:
            overrides[field] = text
    return overrides
