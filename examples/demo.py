"""`make demo`: the whole active-learning loop, run by an ordinary user of the SDK.

A pool of pictures goes up; an initial selection and several trained cycles follow. Between them a
simulated annotator claims the queries and answers them from the truth, as a person would by
looking. Leaves in ./demo/ `results.json`, `learning-curve.png` and the server's `data/`, unless
`--url` names a server that is already up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from miaod_client import Client, Cycle, ImageFile, MiaodError, UploadedFile
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from examples.local_service import LocalService, free_port
from examples.voc_folder import VocFolder
from worker.scenes import write_voc

console = Console()
OUT = Path("demo")
MARKER = OUT / ".miaod-demo"


@dataclass(frozen=True)
class Plan:
    """How large the experiment is."""

    trained_cycles: int
    budget: int
    seed: int
    training: dict[str, Any]


@dataclass(frozen=True)
class CycleResult:
    """A row of results.json; `map50` is None for the initial selection, which trains nothing."""

    cycle: int
    labeled_images: int
    boxes: int
    map50: float | None
    seconds: float


DRAWN_POOL = 300
DRAWN_VALIDATION = 80
DRAWN_SIZE = (256, 192)
# The drawn pictures are small and their schedule short, so that the demo takes minutes; a folder of
# photographs keeps the preset as it is.
DRAWN_PLAN = Plan(
    trained_cycles=3,
    budget=30,
    seed=0,
    training={
        "preset": "cpu",
        "image_long_side": 256,
        "label_min_steps": 45,
        "adversarial_min_steps": 10,
    },
)
FOLDER_PLAN = Plan(trained_cycles=4, budget=30, seed=0, training={"preset": "cpu"})


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _parse_arguments()
    # `kill` ends it as Ctrl-C does, so that server and worker are always stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        started = time.monotonic()
        # Looked at before the results of an earlier demo go.
        given = None if options.dataset is None else _given_dataset(options.dataset)
        _clear_output()
        dataset, plan = _dataset_and_plan(options, given)
        with _service(options.url) as client:
            results = run_experiment(client, dataset, plan)
        _report(results, started, own_server=options.url is None)
    except (MiaodError, RuntimeError, ValueError) as error:
        console.print(f"[red]The demo failed:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        return 130
    return 0


def run_experiment(client: Client, dataset: VocFolder, plan: Plan) -> list[CycleResult]:
    """Upload, then query, label and train in turn; one result per cycle, the initial one first."""
    project = client.projects.create(
        name=f"demo {dataset.root.resolve().name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        classes=dataset.class_names(),
        instructions="Box every object, those cut off by the border as well.",
    )
    pool = _upload(client, project.id, dataset.image_paths("trainval"), split="pool")
    for image in _upload(client, project.id, dataset.image_paths("test"), split="val"):
        assert image.id is not None
        client.annotations.put(
            image.id, boxes=dataset.boxes(image.name), version=0, source="import"
        )
    console.print(f"Uploaded {len(pool)} pool images; the validation images are labeled.")

    results: list[CycleResult] = []
    for number in range(plan.trained_cycles + 1):
        started = time.monotonic()
        cycle = client.cycles.create(
            project=project.id, budget=plan.budget, seed=plan.seed, training=plan.training
        )
        cycle = _wait_with_progress(client, cycle)
        results.append(_result_of(cycle, time.monotonic() - started))
        if number < plan.trained_cycles:
            _answer_queries(client, project.id, dataset)
    return results


def _upload(
    client: Client, project: str, paths: list[Path], *, split: Literal["pool", "val"]
) -> list[UploadedFile]:
    with _progress_bar() as progress:
        task = progress.add_task(f"Uploading {len(paths)} {split} images", total=len(paths))
        report = client.images.upload(
            project=project,
            paths=[ImageFile(path=path, name=path.name) for path in paths],
            split=split,
            on_progress=lambda done: progress.update(task, completed=done.files_done),
        )
    for refused in report.rejected:
        console.print(f"[yellow]{refused.name} was refused:[/yellow] {refused.reason}")
    return report.created


def _wait_with_progress(client: Client, cycle: Cycle) -> Cycle:
    with _progress_bar() as progress:
        title = f"Cycle {cycle.number} ({cycle.kind})"
        task = progress.add_task(title, total=1.0)

        def show(now: Cycle) -> None:
            detail = f"{title}: {now.message or now.stage or now.state}"
            progress.update(task, completed=now.progress, description=detail)

        return client.cycles.wait(cycle.id, poll_seconds=1.0, on_progress=show)


def _answer_queries(client: Client, project: str, dataset: VocFolder) -> None:
    """Label every open query as a perfect annotator would, a claim of ten at a time."""
    while True:
        with client.queries.claim(project=project, limit=10, author="simulated annotator") as claim:
            if not claim.items:
                return
            for query in claim.items:
                claim.annotate(query, boxes=dataset.boxes(query.image.name))


def _result_of(cycle: Cycle, seconds: float) -> CycleResult:
    snapshot = cycle.snapshot
    return CycleResult(
        cycle=cycle.number,
        labeled_images=snapshot.labeled_images or 0 if snapshot else 0,
        boxes=snapshot.boxes or 0 if snapshot else 0,
        map50=cycle.metrics.map50 if cycle.metrics else None,
        seconds=round(seconds, 1),
    )


def _report(results: list[CycleResult], started: float, *, own_server: bool) -> None:
    (OUT / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")
    _draw_learning_curve(results, OUT / "learning-curve.png")
    table = Table(title="What each cycle trained on, and how good it became")
    for column in ("cycle", "labeled images", "boxes", "mAP@0.5", "seconds"):
        table.add_column(column, justify="right")
    for row in results:
        map50 = "-" if row.map50 is None else f"{row.map50:.3f}"
        table.add_row(
            str(row.cycle), str(row.labeled_images), str(row.boxes), map50, f"{row.seconds:.0f}"
        )
    console.print(table)
    minutes = (time.monotonic() - started) / 60
    console.print(
        f"Done in {minutes:.1f} minutes. In {OUT}/: results.json, learning-curve.png", end=""
    )
    if own_server:
        console.print(", data/ (look at it with: MIAOD_DATA_DIR=demo/data make run)")
    else:
        console.print()


def _draw_learning_curve(results: list[CycleResult], path: Path) -> None:
    # Imported here: it takes seconds, and nothing else needs it.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = [(row.labeled_images, row.map50) for row in results if row.map50 is not None]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set(xlabel="labeled images", ylabel="mAP@0.5", title="Learning curve", ylim=(0, 1))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _progress_bar() -> Progress:
    # The text comes last and gives way, so that a long one cannot push the figures off the line.
    one_line = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=one_line),
        console=console,
        expand=True,
    )


# Setting up ---------------------------------------------------------------------------------------


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--dataset", type=Path, help="folder in VOC layout; default: drawn scenes")
    parser.add_argument("--url", help="a server that is already up, with a worker of its own")
    parser.add_argument("--cycles", type=int, help="trained cycles")
    parser.add_argument("--budget", type=int, help="images to label per cycle")
    parser.add_argument("--seed", type=int, help="of every random choice")
    return parser.parse_args()


def _clear_output() -> None:
    """Replace ./demo/, but only one that an earlier demo left: anything else may be dear."""
    if OUT.exists() and not MARKER.exists() and any(OUT.iterdir()):
        raise ValueError(
            f"the folder {OUT.resolve()} was not made by the demo: move it away, then try again"
        )
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    MARKER.touch()


def _given_dataset(root: Path) -> VocFolder:
    """The user's folder, read once from end to end, so that it fails now and not in an hour."""
    if OUT.resolve() in (root.resolve(), *root.resolve().parents):
        raise ValueError(f"{root} lies in {OUT}/, which the demo replaces: move it elsewhere")
    dataset = VocFolder(root)
    dataset.class_names()
    return dataset


def _dataset_and_plan(
    options: argparse.Namespace, given: VocFolder | None
) -> tuple[VocFolder, Plan]:
    if given is None:
        dataset, plan = VocFolder(OUT / "scenes"), DRAWN_PLAN
        with console.status("Drawing the scenes …"):
            write_voc(dataset.root, DRAWN_POOL, DRAWN_VALIDATION, seed=0, size=DRAWN_SIZE)
    else:
        dataset, plan = given, FOLDER_PLAN
    chosen = {
        "trained_cycles": options.cycles,
        "budget": options.budget,
        "seed": options.seed,
    }
    overrides = {name: value for name, value in chosen.items() if value is not None}
    return dataset, replace(plan, **overrides)


@contextmanager
def _service(url: str | None) -> Iterator[Client]:
    """A client of the server at `url`, or of a server and a worker started for the demo alone."""
    if url is not None:
        with Client(url=url) as client:
            yield client
        return
    data_dir = OUT / "data"
    console.print(f"Starting a server and a worker; their logs are {OUT}/server.log and worker.log")
    environment = {**os.environ, "MIAOD_DATA_DIR": str(data_dir)}
    # The demo's server is its own: no database or key of the user's environment.
    for name in ("MIAOD_DATABASE_URL", "MIAOD_ADMIN_KEY", "MIAOD_API_KEY"):
        os.environ.pop(name, None)
        environment.pop(name, None)
    subprocess.run([sys.executable, "-m", "server", "migrate"], env=environment, check=True)
    with (
        LocalService(data_dir=data_dir, port=free_port(), log_dir=OUT) as service,
        Client(url=service.url) as client,
    ):
        yield client


if __name__ == "__main__":
    sys.exit(main())
