"""One cycle, from the order to its result: `python -m worker.cycle`, started by the supervisor.

    snapshot | train, evaluate, score, select | write back

The bars are the borders of transactions: nothing is locked and no session is open while the model
trains. A cycle with too few labels is `initial` and has nothing to train: it ranks the pool at
random, and never loads torch.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from server import logs
from server.store.blobs import BlobStore
from server.store.database import make_engine
from server.store.models import Cycle, Json
from server.store.outage import Patience, StillAway
from server.store.queue import Lease, LeaseLost
from server.store.writeback import ModelRecord
from worker.artifacts import add_description, add_scores
from worker.child_process import tie_to_parent
from worker.failures import CycleFailed, CycleStopped, out_of_memory
from worker.miaod.selection import rank_at_random
from worker.pace import Pace
from worker.progress import ProgressPipe
from worker.records import CycleRecords, Job
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.learning import Seen

log = structlog.get_logger("worker.cycle")


def run(
    lease: Lease, settings: WorkerSettings, pipe: ProgressPipe, stop: threading.Event | None = None
) -> None:
    """Run the cycle that the lease is for, or what an earlier attempt has left of it.

    Where the database or the storage is away it waits and says so: at the very place if it was
    writing, else (an image could not be read) by going back to its last checkpoint.

    Args:
        lease: of the cycle.
        settings: the worker's.
        pipe: to the supervisor.
        stop: set when the cycle is to stop as soon as its state is saved.

    Raises:
        CycleFailed: trying again would end the same way, or what was away did not come back.
        CycleStopped: it was told to.
        LeaseLost: the cycle is somebody else's by now; nobody will see anything of ours.
    """
    stop = stop or threading.Event()

    def stop_if_asked() -> None:
        if stop.is_set():
            raise CycleStopped

    patiently = Patience(settings.data_dir, check=stop_if_asked, say=pipe.waiting)
    try:
        patiently(lambda: attempt(lease, settings, pipe, stop, patiently))
    except StillAway as error:
        raise CycleFailed(f"{error}: mend that, then resume the cycle") from error


def attempt(
    lease: Lease,
    settings: WorkerSettings,
    pipe: ProgressPipe,
    stop: threading.Event,
    patiently: Patience,
) -> None:
    """Run the cycle from its last checkpoint on."""
    blobs = BlobStore(settings.data_dir)
    engine = make_engine(
        settings.resolved_database_url, idle_transaction_seconds=settings.lease_seconds
    )
    records = CycleRecords(engine, blobs, lease, patiently)
    pace = Pace(pipe)
    try:
        pace.say("start", "reading what is labeled")
        job = records.take_job()
        log.info("cycle started", action="cycle_started", kind=job.kind, number=job.number)
        if job.kind == "initial":
            run_initial(job, records, pipe)
        else:
            run_trained(job, records, blobs, settings, pace, stop)
    finally:
        engine.dispose()


def run_initial(job: Job, records: CycleRecords, pipe: ProgressPipe) -> None:
    """Select at random: there are no labels yet that a model could learn from."""
    pipe.report(0.5, "select", "ranking the pool at random")
    pool = job.snapshot.unlabeled
    records.write_ranking(pool, rank_at_random([image.ordinal for image in pool], job.seed))
    add_description(records, job, device=None)
    parts = ["selected at random, as too few images are labeled to train on"]
    records.publish(message="; ".join(parts + about_the_pool(job)) if pool else EMPTY_POOL)


def run_trained(
    job: Job,
    records: CycleRecords,
    blobs: BlobStore,
    settings: WorkerSettings,
    pace: Pace,
    stop: threading.Event,
) -> None:
    """Train on what is labeled, score what is not, and select by the cycle's strategy."""
    pace.say("start", "making the network ready")
    # Here and not above: torch takes seconds to load, and an initial cycle need not wait for it.
    from worker.checkpoints import Checkpoints
    from worker.learning import Learner

    checkpoints = Checkpoints(
        records, job.checkpoint, every_seconds=settings.checkpoint_seconds, stop=stop
    )
    seconds: dict[str, float] = {}
    pool = job.snapshot.unlabeled
    # In memory, where every checkpoint holds it anyway: a step must not depend on the disk.
    step_log = io.BytesIO()
    with timed(seconds, "start", records):
        learner = Learner(job, blobs, settings, pace, checkpoints)
    with timed(seconds, "train", records):
        learner.train(step_log)
    with timed(seconds, "evaluate", records):
        metrics = learner.evaluate()
    with timed(seconds, "score", records):
        uncertainty = learner.score()
    records.count_scored(learner.num_scored)
    with timed(seconds, "rank", records):
        order = learner.rank()
    pace.say("select", "storing the ranking")
    records.write_ranking(pool, order, uncertainty)

    heatmaps: dict[str, str] = {}
    with timed(seconds, "predict", records):
        records.write_predictions((seen.image_id, seen.boxes) for seen in learner.look_at_labeled())
        found = learner.look_at(records.candidates(job.budget))
        records.write_predictions(keeping_heat_maps(found, records, heatmaps))

    pace.say("store", "storing the model and what else the cycle leaves behind")
    seconds["checkpoints"] = checkpoints.seconds_spent
    metrics["seconds"] = {stage: round(spent, 3) for stage, spent in seconds.items()}
    add_description(records, job, device=learner.device_name)
    add_scores(records, [image.ordinal for image in pool], uncertainty)
    records.add_artifact("log.jsonl", step_log.getvalue(), "application/x-ndjson")
    records.add_json("metrics.json", metrics)
    weights = records.add_artifact("model.safetensors", learner.weights())
    records.publish(
        message=summary(job, metrics, checkpoints.remark),
        metrics=metrics,
        model=ModelRecord(weights.sha256, weights.num_bytes, metrics),
        heatmaps=heatmaps,
    )


def keeping_heat_maps(
    found: Iterable[Seen], records: CycleRecords, heatmaps: dict[str, str]
) -> Iterator[tuple[str, list[Json]]]:
    """Store each image's heat map and note its name in `heatmaps`; pass the predictions on."""
    for seen in found:
        heatmaps[seen.image_id] = records.put_blob(seen.heat_map_png)
        yield seen.image_id, seen.boxes


EMPTY_POOL = "the pool has no unlabeled image left: nothing was selected"


def summary(job: Job, metrics: Json, remark: str) -> str:
    """What the cycle did, in a sentence or two."""
    images = job.snapshot.counts()
    parts = [f"trained on {images['labeled_images']} labeled images"]
    if "map50" not in metrics:
        parts.append("no validation images: no metric")
    elif metrics["map50"] is None:
        parts.append("no box on the validation images: no metric")
    else:
        num = images["validation_images"]
        parts.append(f"mAP@0.5 is {metrics['map50']:.3f} on {num} validation images")
    remarks = [text for text in (*job.remarks, remark) if text]
    return "; ".join(parts + about_the_pool(job) + remarks)


def about_the_pool(job: Job) -> list[str]:
    """A sentence if the pool had less than was asked for."""
    num = len(job.snapshot.unlabeled)
    if num == 0:
        return [EMPTY_POOL]
    if num < job.budget:
        return [f"the pool had {num} unlabeled images for a budget of {job.budget}"]
    return []


@contextmanager
def timed(seconds: dict[str, float], stage: str, records: CycleRecords) -> Iterator[None]:
    """Note how long the block takes, for the cycle's reader and for monitoring."""
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
    records.count_stage(stage, seconds[stage])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one cycle and tell the supervisor how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (
        ("--cycle", str),
        ("--worker", str),
        ("--fence", int),
        ("--parent", int),
        ("--progress-fd", int),
    ):
        parser.add_argument(name, type=kind, required=True)
    arguments = parser.parse_args(argv)
    tie_to_parent(arguments.parent)
    logs.configure()
    structlog.contextvars.bind_contextvars(cycle=arguments.cycle, fence=arguments.fence)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pipe = ProgressPipe(arguments.progress_fd)
    settings = WorkerSettings()
    lease = Lease(Cycle, arguments.cycle, arguments.worker, arguments.fence)
    try:
        run(lease, settings, pipe, stop)
    except CycleFailed as error:
        log.warning("cycle failed", action="cycle_failed", reason=str(error), exc_info=True)
        pipe.failed(str(error))
        return 1
    except CycleStopped:
        log.info("cycle stopped, its state is saved", action="cycle_stopped")
        return 1
    except LeaseLost:
        log.warning("lease lost, nothing was written", action="lease_lost")
        return 1
    except MemoryError:
        # Others may have taken it: another attempt may find some, and the third is the last.
        log.exception("memory ran out", action="cycle_out_of_memory")
        pipe.crashed(out_of_memory("the machine"))
        return 1
    except Exception as error:  # the supervisor counts an attempt and tries again
        log.exception("cycle crashed", action="cycle_crashed")
        pipe.crashed(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
