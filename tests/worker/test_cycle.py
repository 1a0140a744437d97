"""Whole cycles on small drawn pictures, with a real database, real blobs and the real algorithm."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image as Picture
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import (
    Cycle,
    Image,
    Json,
    Model,
    Prediction,
    Project,
    Score,
    Worker,
)
from server.store.queue import Lease, LeaseLost
from tests.worker.small_pools import CLASSES, TINY, Pool, draw, wait_for_end, worker
from worker import cycle as cycle_module
from worker.failures import CycleFailed
from worker.miaod import strategies
from worker.miaod.checkpoint import load_model
from worker.miaod.config import PRESETS
from worker.miaod.selection import rank_at_random, rank_by_uncertainty
from worker.progress import ProgressPipe
from worker.settings import WorkerSettings

ARTIFACTS_OF_EVERY_CYCLE = {
    "config.json",
    "environment.json",
    "labeled.txt",
    "unlabeled.txt",
    "X_L.npy",
    "X_U.npy",
}
ARTIFACTS_OF_TRAINING = {"log.jsonl", "scores.npz", "metrics.json", "model.safetensors"}


def test_a_cycle_and_its_warm_successor_run_on_ssd(
    make_pool: Callable[..., Pool], run_here: Callable[[], list[dict[str, Any]]]
) -> None:
    """The other detector through the same service: from the order to queries, and on from there."""
    ssd = {
        **PRESETS["paper-voc-ssd"].to_dict(),
        **{name: value for name, value in TINY.items() if not name.startswith("image_")},
        "preset": "paper-voc-ssd",
        "pretrained": False,
        "width_divisor": 32,
        "num_loader_workers": 0,
    }
    pool = make_pool()
    for training in (ssd, {**ssd, "warm_start": True}):
        cycle_id = pool.order_cycle("trained", **training)
        run_here()
        row = pool.row(cycle_id)
        assert (row.state, row.error) == ("succeeded", None)
        assert "trained on 4 labeled images; mAP@0.5 is" in row.message
        files = pool.artifacts(cycle_id)
        assert set(files) == ARTIFACTS_OF_EVERY_CYCLE | ARTIFACTS_OF_TRAINING
        uncertainty = np.load(io.BytesIO(files["scores.npz"]))["uncertainty"]
        assert uncertainty.shape == (8,)
        assert np.isfinite(uncertainty).all()
        queries = pool.queries(cycle_id)
        assert [query.uncertainty for query in queries] == sorted(uncertainty, reverse=True)[:3]
        assert all(query.heatmap_sha256 is not None for query in queries)
        model = safetensors.torch.load(files["model.safetensors"])
        assert model["towers.f1.convs.5.weight"].shape == (4 * 3, 8, 3, 3)


def test_a_trained_cycle_goes_from_the_order_to_queries_model_and_artifacts(
    make_pool: Callable[..., Pool],
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    blobs: BlobStore,
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    with worker(settings, sessions):
        row = wait_for_end(pool, cycle_id)

    assert (row.state, row.error, row.attempts, row.progress) == ("succeeded", None, 0, 1.0)
    assert row.snapshot == {
        "labeled_images": 4,
        "boxes": 4,
        "pool_images": 8,
        "validation_images": 3,
    }
    assert "trained on 4 labeled images; mAP@0.5 is" in row.message

    files = pool.artifacts(cycle_id)
    assert set(files) == ARTIFACTS_OF_EVERY_CYCLE | ARTIFACTS_OF_TRAINING
    assert np.load(io.BytesIO(files["X_L.npy"])).tolist() == [0, 1, 2, 3]
    assert np.load(io.BytesIO(files["X_U.npy"])).tolist() == list(range(4, 12))
    assert files["labeled.txt"].decode().splitlines()[0] == "street/0000.png"
    assert len(files["unlabeled.txt"].splitlines()) == 8
    config = json.loads(files["config.json"])
    assert config["training"]["fpn_channels"] == 8
    assert config["classes"] == list(CLASSES)
    assert json.loads(files["environment.json"])["device"].startswith("cpu")
    steps = [json.loads(line) for line in files["log.jsonl"].splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 7))
    assert all(np.isfinite(step["total"]) for step in steps)

    # The most uncertain images, in order, each with its uncertainty, predictions and heat map.
    scores = np.load(io.BytesIO(files["scores.npz"]))
    assert scores["ordinal"].tolist() == list(range(4, 12))
    best = np.argsort(-scores["uncertainty"], kind="stable")[:3]
    queries = pool.queries(cycle_id)
    assert [query.uncertainty for query in queries] == scores["uncertainty"][best].tolist()
    with sessions() as session:
        ordinals = [session.get_one(Image, query.image_id).ordinal for query in queries]
        assert ordinals == scores["ordinal"][best].tolist()
        assert row.num_selected == 3
        assert {(query.state, query.reason) for query in queries} == {("open", "uncertainty")}
        assert session.get_one(Project, pool.project_id).scored_cycle_id == cycle_id
        assert session.scalar(select(func.count()).select_from(Score)) == 8
        predictions = {
            prediction.image_id: prediction.boxes
            for prediction in session.scalars(select(Prediction))
        }
        labeled = session.scalars(select(Image.id).where(Image.state == "labeled")).all()
    assert set(predictions) >= {query.image_id for query in queries} | set(labeled)
    for boxes in predictions.values():
        for box in boxes:
            assert set(box) == {"class_id", "score", "x1", "y1", "x2", "y2"}
            assert box["class_id"] in (0, 1)
            assert 0 <= box["x1"] < box["x2"] <= 80
            assert 0 <= box["y1"] < box["y2"] <= 64
    assert any(predictions.values())
    for query in queries:
        assert query.heatmap_sha256 is not None
        with Picture.open(blobs.path(query.heatmap_sha256)) as heat_map:
            assert (heat_map.format, heat_map.mode) == ("PNG", "L")
            assert heat_map.width / heat_map.height == pytest.approx(80 / 64, rel=0.05)
            assert heat_map.getextrema()[1] == 255

    # The model row, its weights and the metrics agree.
    with sessions() as session:
        model = session.scalars(select(Model)).one()
        assert model.sha256 is not None
        assert model.num_bytes == len(files["model.safetensors"])
        device = session.scalars(select(Worker.device)).one()
    assert blobs.read_bytes(model.sha256) == files["model.safetensors"]
    assert load_model(blobs.path(model.sha256)).class_names == CLASSES
    assert device.startswith("cpu (")
    assert model.metrics == row.metrics == json.loads(files["metrics.json"])
    assert row.metrics is not None
    assert {"map50", "map50_voc07", "map", "per_class"} <= set(row.metrics)
    assert [entry["class"] for entry in row.metrics["per_class"]] == list(CLASSES)
    assert row.metrics["validation_images"] == 3
    assert row.metrics["validation_boxes"] == 3
    assert "num_boxes" not in row.metrics
    assert len(row.metrics["validation_sha256"]) == 64
    assert {"train", "evaluate", "score", "predict"} <= set(row.metrics["seconds"])


def test_an_initial_cycle_selects_at_random_by_its_seed_and_never_loads_torch(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    no_torch = "import sys; sys.modules['torch'] = None; from worker.cycle import main; main()"
    selected = []
    with worker(settings, sessions, (sys.executable, "-c", no_torch)):
        for _ in range(2):
            pool = make_pool(labeled=0, validation=0, validation_images=2)
            cycle_id = pool.order_cycle("initial")
            row = wait_for_end(pool, cycle_id)
            assert (row.state, row.error) == ("succeeded", None)
            assert (row.num_selected, row.metrics) == (5, None)
            assert set(pool.artifacts(cycle_id)) == ARTIFACTS_OF_EVERY_CYCLE
            queries = pool.queries(cycle_id)
            assert [q.reason for q in queries] == ["random"] * 3 + ["validation"] * 2
            with sessions() as session:
                images = [session.get_one(Image, query.image_id) for query in queries]
            assert [image.split for image in images] == ["pool"] * 3 + ["val"] * 2
            selected.append([image.ordinal for image in images])
    assert selected[0] == selected[1]


def test_a_diverging_training_fails_its_cycle_and_the_worker_lives_on(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    wild = make_pool(labeled=2, unlabeled=2, validation=0)
    diverging = wild.order_cycle(
        "trained", optimizer="sgd", learning_rate=10.0, clip_norm=0.0, label_max_steps=60,
        label_min_steps=60,
    )  # fmt: skip
    other = make_pool(labeled=0, unlabeled=3, validation=0)
    next_one = other.order_cycle("initial")
    with worker(settings, sessions):
        row = wait_for_end(wild, diverging)
        assert wait_for_end(other, next_one).state == "succeeded"
    assert (row.state, row.attempts) == ("failed", 0)
    assert row.error is not None
    assert "in stage label 1/2, step " in row.error
    assert not wild.queries(diverging)
    assert not wild.artifacts(diverging)


# What a store can hold about the label of an image that is unlabeled, or that no cycle may use.
HIDDEN_LABELS: dict[str, Callable[[int], Json | None]] = {
    "no label file of any kind": lambda _: None,
    "the true labels, deleted": lambda ordinal: draw(ordinal)[1],
    "the labels of other images, deleted": lambda ordinal: draw(ordinal + 1)[1],
    "labels without sense, deleted": lambda _: {
        "class_id": 77, "x1": 9.0, "y1": 9.0, "x2": 9.0, "y2": -3.0, "difficult": False,
    },
}  # fmt: skip
PARITY = (
    "average_discrepancy", "fresh_optimizer", "joint_update", "keep_zero_terms", "mask_padding",
    "pseudo_label_gate", "skip_empty_images", "unlabeled_subset",
)  # fmt: skip


@pytest.mark.parametrize("preset", ["cpu", "paper-voc"])
def test_a_cycle_keeps_every_bit_when_the_pools_hidden_labels_are_swapped(
    preset: str, make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    """Neither training nor scoring nor selection can know what an unlabeled image shows."""
    training = {name: getattr(PRESETS[preset], name) for name in PARITY}
    results = {}
    for what, label_of in HIDDEN_LABELS.items():
        pool = make_pool(labeled=4, unlabeled=6, validation=2)
        outside = [pool.add_image(split=split) for split in ("test", "val")]
        for image_id, ordinal in pool.unlabeled_images():
            if (box := label_of(ordinal)) is not None:
                pool.annotate(image_id, [box, box])
                if image_id not in outside:
                    pool.annotate(image_id, None)
                    pool.leave_counts_behind(image_id, box)
                elif image_id == outside[1]:
                    # Of the validation set only what is labeled counts.
                    pool.annotate(image_id, None)
        cycle_id = pool.order_cycle("trained", **training)
        run_here()
        results[what] = pool.everything_about(cycle_id)
    expected = results.pop("no label file of any kind")
    assert len(expected["queries"]) == 3
    for what, found in results.items():
        assert found == expected, what


def test_the_same_swap_on_labeled_images_changes_the_cycle(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    results = []
    for shift in (0, 1):
        pool = make_pool(labeled=0, unlabeled=8, validation=0)
        for image_id, ordinal in pool.unlabeled_images()[:3]:
            pool.annotate(image_id, [draw(ordinal + shift)[1]])
        cycle_id = pool.order_cycle("trained")
        run_here()
        results.append(pool.everything_about(cycle_id))
    assert results[0]["model.safetensors"] != results[1]["model.safetensors"]
    assert results[0]["scores.npz"] != results[1]["scores.npz"]


def test_an_image_that_is_labeled_while_the_cycle_runs_is_passed_over(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=2, unlabeled=5, validation=0)
    rank = rank_by_uncertainty
    ordinals: list[int] = []

    def label_the_best(numbers: Sequence[int], uncertainty: Sequence[float]) -> Any:
        order = rank(numbers, uncertainty)
        ordinals.extend(numbers[place] for place in order)
        with pool.sessions() as session:
            best = session.scalars(select(Image.id).where(Image.ordinal == ordinals[0])).one()
        pool.annotate(best, [])
        return order

    monkeypatch.setattr(strategies, "rank_by_uncertainty", label_the_best)
    cycle_id = pool.order_cycle("trained")
    run_here()
    queries = pool.queries(cycle_id)
    with pool.sessions() as session:
        selected = [session.get_one(Image, query.image_id).ordinal for query in queries]
    assert selected == ordinals[1:4]
    assert all(query.heatmap_sha256 for query in queries)


def test_images_that_move_up_for_those_drawn_for_validation_have_predictions_as_well(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=60, validation=0, validation_images=50)
    cycle_id = pool.order_cycle("trained")
    run_here()
    selected = [query for query in pool.queries(cycle_id) if query.reason == "uncertainty"]
    assert len(selected) == 3
    assert all(query.heatmap_sha256 for query in selected)
    with pool.sessions() as session:
        predicted = set(session.scalars(select(Prediction.image_id)))
    assert predicted >= {query.image_id for query in selected}


def test_a_worker_that_lost_its_lease_publishes_nothing(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=2, unlabeled=3, validation=0)
    cycle_id = pool.order_cycle("trained")
    summary = cycle_module.summary

    def lose_the_lease(*arguments: Any) -> str:
        with pool.sessions.begin() as session:
            session.execute(update(Cycle).values(fence=Cycle.fence + 1))
        return summary(*arguments)

    monkeypatch.setattr(cycle_module, "summary", lose_the_lease)
    with pytest.raises(LeaseLost):
        run_here()
    assert pool.row(cycle_id).state == "running"
    assert not pool.queries(cycle_id)
    assert not pool.artifacts(cycle_id)
    with pool.sessions() as session:
        assert session.get_one(Project, pool.project_id).scored_cycle_id is None
        assert session.scalars(select(Model)).all() == []


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("entropy", {}, "entropy"),
        ("core-set", {}, "core-set"),
        ("mi-aod", {"class_balance": 1.0}, "class-balance"),
        ("mi-aod", {"class_balance": 1.0, "diversity": 2.0}, "diversity"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(value) or "plain",
)
def test_every_strategy_selects_by_its_own_order(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    strategy: str,
    options: Json,
    reason: str,
) -> None:
    pool = make_pool(labeled=2, unlabeled=6, validation=0)
    cycle_id = pool.order_cycle(
        "trained",
        strategy=strategy,
        options=options,
        # The cache of frozen outputs is for whoever asks for it.
        frozen_cache_megabytes=16,
    )
    said = run_here()
    assert pool.row(cycle_id).error is None
    queries = pool.queries(cycle_id)
    assert [query.reason for query in queries] == [reason] * 3
    scores = np.load(io.BytesIO(pool.artifacts(cycle_id)["scores.npz"]))["uncertainty"]
    assert {query.uncertainty for query in queries} <= set(scores.tolist())
    # Over a large pool these take minutes, which must not pass for a hang.
    looks_again = any("looking at" in line.get("message", "") for line in said)
    assert looks_again == (reason in ("core-set", "diversity"))


def test_a_strategy_that_this_worker_does_not_know_fails_the_cycle_with_its_name(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    pool.order_cycle("trained", strategy="oracle")
    with pytest.raises(CycleFailed, match="'oracle' is not known"):
        run_here()


def test_the_random_strategy_scores_the_pool_and_selects_by_the_seed_all_the_same(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=6, validation=0)
    cycle_id = pool.order_cycle("trained", strategy="random")
    run_here()
    queries = pool.queries(cycle_id)
    assert {query.reason for query in queries} == {"random"}
    scores = np.load(io.BytesIO(pool.artifacts(cycle_id)["scores.npz"]))["uncertainty"]
    assert {query.uncertainty for query in queries} <= set(scores.tolist())
    with pool.sessions() as session:
        selected = [session.get_one(Image, query.image_id).ordinal for query in queries]
    order = rank_at_random(range(2, 8), 11)[:3]
    assert selected == [2 + place for place in order.tolist()]


def test_without_validation_images_the_cycle_runs_and_says_that_it_has_no_metric(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("trained")
    run_here()
    row = pool.row(cycle_id)
    assert "no validation images: no metric" in row.message
    assert row.metrics is not None
    assert "map50" not in row.metrics


def test_with_an_empty_pool_the_cycle_trains_and_selects_nothing(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=3, unlabeled=0, validation=1)
    cycle_id = pool.order_cycle("trained")
    run_here()
    row = pool.row(cycle_id)
    assert (row.state, row.num_selected) == ("succeeded", 0)
    assert "no unlabeled image left: nothing was selected" in row.message
    assert "model.safetensors" in pool.artifacts(cycle_id)


@pytest.mark.parametrize(("labeled", "kind"), [(2, "trained"), (0, "initial")])
def test_a_budget_larger_than_the_pool_selects_all_of_it_and_the_cycle_says_so(
    make_pool: Callable[..., Pool], run_here: Callable[[], object], labeled: int, kind: str
) -> None:
    pool = make_pool(labeled=labeled, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle(kind)
    run_here()
    row = pool.row(cycle_id)
    assert row.num_selected == 2
    assert "the pool had 2 unlabeled images for a budget of 3" in row.message


def test_a_warm_start_trains_on_from_the_newest_model(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=4, unlabeled=2, validation=0)
    weights = []
    # A learning rate of almost nothing leaves the weights as the cycle found them.
    settings: list[dict[str, Any]] = [{}, {"warm_start": True, "learning_rate": 1e-8}]
    for changes in (*settings, {"learning_rate": 1e-8}):
        cycle_id = pool.order_cycle("trained", **changes)
        run_here()
        weights.append(safetensors.torch.load(pool.artifacts(cycle_id)["model.safetensors"]))
    first, warm, anew = (found["towers.f1.output.weight"] for found in weights)
    torch.testing.assert_close(warm, first, rtol=0, atol=1e-6)
    assert float((anew - first).abs().max()) > 1e-4


def test_a_warm_start_without_an_earlier_model_starts_anew(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("trained", warm_start=True)
    run_here()
    assert pool.row(cycle_id).state == "succeeded"


def test_a_warm_start_from_another_network_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    pool.order_cycle("trained")
    run_here()
    pool.order_cycle("trained", warm_start=True, head_channels=16)
    with pytest.raises(CycleFailed, match=r"a warm start needs the same network.*warm_start"):
        run_here()


def test_progress_rises_through_the_stages_and_names_them(
    make_pool: Callable[..., Pool], run_here: Callable[[], list[dict[str, Any]]]
) -> None:
    pool = make_pool(labeled=2, unlabeled=3)
    pool.order_cycle("trained")
    said = run_here()
    assert [line["device"].startswith("cpu") for line in said if "device" in line] == [True]
    reports = [line for line in said if "device" not in line]
    assert list(dict.fromkeys(line["stage"] for line in reports)) == [
        "start",
        "train",
        "evaluate",
        "score",
        "select",
        "store",
    ]
    shares = [line["progress"] for line in reports]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 0.99
    first = next(line for line in reports if line["stage"] == "train")
    assert first["message"].startswith("label 1/2, step 1/2, loss ")
    assert (first["detail"]["step"], first["detail"]["steps"]) == (1, 6)
    assert first["detail"]["losses"]["total"] > 0
    scoring = next(line for line in reports if line["stage"] == "score")
    assert (scoring["detail"]["step"], scoring["detail"]["steps"]) == (1, 3)


def test_a_cycle_whose_labels_were_deleted_after_the_order_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=0, unlabeled=2)
    image_id = pool.add_image()
    _, box = draw(0)
    pool.annotate(image_id, [{**box, "difficult": True}])
    pool.order_cycle("trained")
    with pytest.raises(CycleFailed, match="0 labeled images of the pool have a box to train on"):
        run_here()


def test_a_configuration_of_another_release_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    make_pool(labeled=2, unlabeled=2).order_cycle("trained", flux_capacitor=3)
    with pytest.raises(CycleFailed, match="does not fit this worker: 'flux_capacitor'"):
        run_here()


def test_missing_backbone_weights_fail_the_cycle_before_training(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_way_out(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_way_out)
    make_pool(labeled=2, unlabeled=2).order_cycle("trained", backbone="resnet18", frozen_stages=1)
    with pytest.raises(CycleFailed, match="resnet18-f37072fd.pth"):
        run_here()


def test_a_gpu_that_is_not_there_fails_the_cycle_with_a_sentence(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    settings: WorkerSettings,
) -> None:
    make_pool(labeled=2, unlabeled=2).order_cycle("trained")
    settings.device = "cuda:97"
    with pytest.raises(CycleFailed, match="MIAOD_DEVICE is cuda:97, but torch finds"):
        run_here()


def test_an_image_whose_file_is_gone_fails_the_cycle_and_is_named(
    make_pool: Callable[..., Pool], run_here: Callable[[], object], blobs: BlobStore
) -> None:
    pool = make_pool(labeled=2, unlabeled=0, validation=0)
    with pool.sessions() as session:
        sha256 = session.scalars(select(Image.sha256).where(Image.ordinal == 1)).one()
    blobs.delete(sha256)
    pool.order_cycle("trained")
    with pytest.raises(CycleFailed, match=r"^the file of image street/0001\.png is missing"):
        run_here()


def test_a_disk_that_stays_full_fails_the_cycle_in_the_end_with_a_sentence(
    make_pool: Callable[..., Pool],
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    disk_full = """
import errno, sys
from server.store import outage
from server.store.blobs import BlobStore
from worker.cycle import main
def refuse(*_): raise OSError(errno.ENOSPC, "No space left on device")
outage.LIMIT_SECONDS = 1.0
BlobStore.put_stream = refuse
sys.exit(main())
"""
    with worker(settings, sessions, (sys.executable, "-c", disk_full)):
        row = wait_for_end(pool, cycle_id)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error.startswith(f"the disk is full ({settings.data_dir}: ")
    assert row.error.endswith("mend that, then resume the cycle")
    assert (row.attempts, row.fence) == (0, 1)
    assert not pool.queries(cycle_id)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        # Nobody else uses the GPU, so that the next attempt would meet the same.
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            pytest.raises(CycleFailed, match=r"^the memory of cpu \(.*\) was not enough: lower"),
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"),
            pytest.raises(MemoryError),
        ),
    ],
    ids=["GPU", "machine"],
)
def test_memory_that_is_missing_on_the_gpu_fails_the_cycle_and_on_the_machine_does_not(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: pytest.RaisesExc[Exception],
) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("worker.learning.train", train)
    make_pool(labeled=2, unlabeled=2, validation=0).order_cycle("trained")
    with outcome:
        run_here()


def test_missing_memory_costs_attempts_and_the_third_fails_the_cycle_with_what_to_lower(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    greedy = """
import sys
from worker import cycle
def run_initial(*_): bytearray(1 << 62)
cycle.run_initial = run_initial
sys.exit(cycle.main())
"""
    with worker(settings, sessions, (sys.executable, "-c", greedy)):
        row = wait_for_end(pool, cycle_id)
    assert (row.state, row.attempts) == ("failed", queue.MAX_ATTEMPTS)
    assert "the memory of the machine was not enough: lower image_long_side" in (row.error or "")


def test_an_unforeseen_error_costs_an_attempt_and_the_reason_is_kept(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    broken = """
import sys
from worker import cycle
cycle.run_initial = lambda *_: 1 / 0
sys.exit(cycle.main())
"""
    with worker(settings, sessions, (sys.executable, "-c", broken)):
        row = wait_for_end(pool, cycle_id)
    assert (row.state, row.attempts) == ("failed", queue.MAX_ATTEMPTS)
    assert row.error is not None
    assert "ZeroDivisionError: division by zero" in row.error


def test_a_lease_that_is_not_ours_reads_the_order_and_writes_nothing(
    make_pool: Callable[..., Pool], settings: WorkerSettings
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    read_fd, write_fd = os.pipe()
    with pytest.raises(LeaseLost):
        cycle_module.run(Lease(Cycle, cycle_id, "nobody", 1), settings, ProgressPipe(write_fd))
    os.close(read_fd)
    os.close(write_fd)
    assert pool.row(cycle_id).state == "queued"
    assert pool.row(cycle_id).snapshot is None
