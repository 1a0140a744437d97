"""The parts of the algorithm against figures that the reference code computed.

The figures lie in the folder that MIAOD_GOLDEN_DIR names (default: tests/golden). Every file found
there is a test; what a file holds follows from the beginning of its name, classes, sizes and widths
from its content. A trajectory has several files: its name, and what is in the file. The figures of
SSD, `ssd_*`, are those of test_golden_ssd.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.worker.miaod import trajectory
from tests.worker.miaod.reference_weights import (
    backbone_for,
    network_for,
    our_name,
    our_weights,
    pyramid_for,
)
from tests.worker.miaod.trajectory import Figures, Step
from worker.miaod import anchors, detections, losses, scoring, selection, targets
from worker.miaod.backbones import Backbone
from worker.miaod.config import PRESETS
from worker.miaod.head_outputs import HeadOutputs, flatten_map
from worker.miaod.model import FeaturePyramid, Tower

FOLDER = Path(os.environ.get("MIAOD_GOLDEN_DIR") or Path(__file__).parents[3] / "tests" / "golden")
STRIDES = (8, 16, 32, 64, 128)
OCTAVE_SCALE, SCALES_PER_OCTAVE, RATIOS = 4, 3, (0.5, 1.0, 2.0)
NUM_BASE = SCALES_PER_OCTAVE * len(RATIOS)
LOSS_TOLERANCE = 5e-6
GRADIENT_TOLERANCE = 5e-6
UNCERTAINTY_TOLERANCE = 5e-6
BOX_TOLERANCE = 1e-4
MAP_TOLERANCE = 5e-6
WEIGHT_TOLERANCE = 5e-6
# Fifty layers one after the other: float32 is up to 2e-6 off float64 by then.
DEEP_MAP_TOLERANCE = 1e-5
STAGES: tuple[losses.StageKind, ...] = ("label", "min", "max")


def scalar(figures: Figures, name: str) -> int:
    return int(figures[name])


def pair(values: NDArray[Any]) -> tuple[int, int]:
    first, second = (int(value) for value in values.tolist()[:2])
    return first, second


def levels(figures: Figures, name: str) -> list[Tensor]:
    found = [key for key in figures if re.fullmatch(rf"{re.escape(name)}_l\d+", key)]
    return [torch.from_numpy(figures[f"{name}_l{level}"].copy()) for level in range(len(found))]


def anchors_of(figures: Figures) -> list[Tensor]:
    sizes = anchors.feature_sizes(pair(figures["image_hw"]), STRIDES)
    return anchors.level_anchors(sizes, STRIDES, OCTAVE_SCALE, SCALES_PER_OCTAVE, RATIOS)


def targets_of(figures: Figures, image: int) -> targets.Targets:
    sizes = anchors.feature_sizes(pair(figures["image_hw"]), STRIDES)
    valid = anchors.valid_flags(sizes, STRIDES, pair(figures["pad_shapes"][image]), NUM_BASE)
    return targets.assign(
        torch.cat(anchors_of(figures)),
        torch.cat(valid),
        torch.from_numpy(figures[f"gt_boxes_{image}"]),
        torch.from_numpy(figures[f"gt_labels_{image}"]),
        scalar(figures, "C"),
        require_positive_iou=losses.PARITY.require_positive_iou,
    )


def assert_close_to_maximum(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Differences are measured by the largest value of the whole map; zeros are exact."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())


def check_anchors(figures: Figures) -> None:
    strides = figures["strides"].tolist()
    sizes = anchors.feature_sizes(pair(figures["image_hw"]), strides)
    assert sizes == [pair(size) for size in figures["featmap_sizes"]]
    valid = anchors.valid_flags(sizes, strides, pair(figures["valid_pad_shape"]), NUM_BASE)
    boxes = anchors.level_anchors(sizes, strides, OCTAVE_SCALE, SCALES_PER_OCTAVE, RATIOS)
    assert [len(level) for level in boxes] == figures["num_level_anchors"].tolist()
    for level, stride in enumerate(strides):
        base = anchors.base_anchors(stride, OCTAVE_SCALE, SCALES_PER_OCTAVE, RATIOS)
        np.testing.assert_array_equal(base.numpy(), figures["base_anchors"][level])
        np.testing.assert_array_equal(boxes[level].numpy(), figures[f"anchors_l{level}"])
        np.testing.assert_array_equal(valid[level].numpy(), figures[f"valid_l{level}"])


def check_targets(figures: Figures) -> None:
    all_targets = [targets_of(figures, image) for image in range(scalar(figures, "num_imgs"))]
    for image, ours in enumerate(all_targets):
        assigned = ours.assigned_A.numpy()
        np.testing.assert_array_equal(assigned, figures["assigned_gt_inds"][image])
        np.testing.assert_array_equal(ours.labels_A.numpy(), figures["labels"][image])
        np.testing.assert_array_equal(ours.label_weights_A.numpy(), figures["label_weights"][image])
        np.testing.assert_array_equal(ours.overlaps_A.numpy(), figures["max_overlaps"][image])
        np.testing.assert_array_equal(
            np.repeat(assigned[:, None] > 0, 4, axis=1), figures["bbox_weights"][image]
        )
        np.testing.assert_allclose(
            ours.deltas_A4.numpy(), figures["bbox_targets"][image], rtol=1e-6, atol=1e-6
        )
        assert int(ours.num_pos) == figures["num_pos_per_img"][image]
    assert sum(max(1, int(ours.num_pos)) for ours in all_targets) == figures["num_total_pos"]
    negatives = sum(max(1, int((ours.assigned_A == 0).sum())) for ours in all_targets)
    assert negatives == figures["num_total_neg"]


def check_loss(figures: Figures) -> None:
    num_classes = scalar(figures, "C")
    columns = {"f1": num_classes, "f2": num_classes, "fmil": num_classes, "fr": 4}
    maps = {name: [level.requires_grad_() for level in levels(figures, name)] for name in columns}
    flat = {
        name: tuple(flatten_map(level, columns[name]) for level in maps[name]) for name in columns
    }
    outputs = HeadOutputs(f1=flat["f1"], f2=flat["f2"], mil=flat["fmil"], deltas=flat["fr"])
    stage = STAGES[scalar(figures, "losstype")]
    config = losses.PARITY
    assert config.lambda_discrepancy == figures["param_lambda"]
    weights = losses.instance_weights(outputs, config)
    per_level: dict[str, Tensor] = {}
    if scalar(figures, "unlabeled"):
        ours = losses.unlabeled_losses(outputs, stage, config)
        name = "l_wave_dis_minus" if stage == "max" else "l_wave_dis"
        per_level[name] = losses.discrepancy_losses(
            outputs, weights, config, complement=stage == "max"
        )
        image_labels = losses.pseudo_labels(outputs, config)
    else:
        images = range(scalar(figures, "num_imgs"))
        all_targets = [targets_of(figures, image) for image in images]
        assert sum(max(1, int(t.num_pos)) for t in all_targets) == figures["num_total_pos"]
        image_labels = targets.present_classes(
            [torch.from_numpy(figures[f"gt_labels_{image}"]) for image in images], num_classes
        )
        ours = losses.labeled_losses(outputs, all_targets, image_labels, stage, config)
        per_level["l_det_cls"] = losses.classification_losses(outputs, all_targets, config)
        per_level["l_det_loc"] = losses.box_losses(outputs, all_targets)

    for name, values in per_level.items():
        np.testing.assert_allclose(
            values.detach().numpy(), figures[f"loss:{name}"], rtol=LOSS_TOLERANCE
        )
    terms = {key.removeprefix("sum:") for key in figures if key.startswith("sum:l_")}
    assert set(ours) == terms | {"total"}
    for name in terms:
        np.testing.assert_allclose(
            ours[name].numpy(), figures[f"sum:{name}"], rtol=LOSS_TOLERANCE, err_msg=name
        )
    np.testing.assert_allclose(
        ours["total"].detach().numpy(), figures["total"], rtol=LOSS_TOLERANCE
    )
    for mine, theirs in zip(weights, levels(figures, "ycls"), strict=True):
        assert_close_to_maximum(mine.detach(), theirs, LOSS_TOLERANCE)
    if "img_score" in figures:
        np.testing.assert_array_equal(image_labels.numpy(), figures["img_label"])
        np.testing.assert_allclose(
            losses.image_scores(weights).detach().numpy(),
            figures["img_score"],
            rtol=LOSS_TOLERANCE,
        )

    ours["total"].backward()  # type: ignore[no-untyped-call]
    without = {name for name in columns if maps[name][0].grad is None}
    assert without == set(figures["grad_none"].tolist()) - {"", "ycls"}
    for name in set(columns) - without:
        for mine, theirs in zip(maps[name], levels(figures, f"g_{name}"), strict=True):
            assert mine.grad is not None
            assert_close_to_maximum(mine.grad, theirs, GRADIENT_TOLERANCE)


def check_uncertainty(figures: Figures) -> None:
    num_classes = scalar(figures, "C")
    f1, f2 = (
        torch.cat([flatten_map(level, num_classes) for level in levels(figures, name)], dim=1)
        for name in ("f1", "f2")
    )
    discrepancy = scoring.anchor_discrepancy(f1, f2)
    ks = [int(key.removeprefix("uncertainty_k")) for key in figures if key.startswith("uncert")]
    assert ks
    for k in ks:
        np.testing.assert_allclose(
            scoring.image_uncertainty(discrepancy, k).numpy(),
            figures[f"uncertainty_k{k}"],
            rtol=UNCERTAINTY_TOLERANCE,
        )


def check_selection(figures: Figures) -> None:
    if "uncertainty" not in figures:
        everything, labeled, unlabeled = selection.initial_sets(
            len(figures["X_all"]), len(figures["X_L"]), scalar(figures, "seed")
        )
        np.testing.assert_array_equal(everything, figures["X_all"])
        np.testing.assert_array_equal(labeled, figures["X_L"])
        np.testing.assert_array_equal(unlabeled, figures["X_U"])
        return
    labeled, unlabeled = selection.update_sets(
        figures["uncertainty"],
        figures["X_all"],
        figures["X_L"],
        scalar(figures, "X_S_size"),
        scalar(figures, "seed"),
    )
    if not figures["ties"]:
        np.testing.assert_array_equal(labeled, figures["X_L_next"])
        np.testing.assert_array_equal(unlabeled, figures["X_U_next"])
        return
    # Among equal scores the reference's sort picks whichever comes out; ours goes by ordinal. The
    # scores are the same, and so are the sizes.
    np.testing.assert_array_equal(
        np.sort(figures["uncertainty"][labeled]),
        np.sort(figures["uncertainty"][figures["X_L_next"].astype(np.int64)]),
    )
    assert len(unlabeled) == len(figures["X_U_next"])


def check_detections(figures: Figures) -> None:
    f1 = tuple(flatten_map(level, scalar(figures, "C")) for level in levels(figures, "f1"))
    deltas = tuple(flatten_map(level, 4) for level in levels(figures, "fr"))
    config = detections.DetectionConfig(
        score_threshold=float(figures["score_thr"]),
        nms_iou=float(figures["nms_iou"]),
        candidates_per_level=scalar(figures, "nms_pre"),
        max_per_image=scalar(figures, "max_per_img"),
    )
    x, y = (float(value) for value in figures["scale_factor"].tolist()[:2])
    rescales = [key[-1] for key in figures if key.startswith("det_boxes_rescale")]
    assert rescales
    for rescale in rescales:
        (found,) = detections.detect(
            HeadOutputs(f1=f1, f2=f1, deltas=deltas),
            anchors_of(figures),
            [pair(figures["img_shape"])],
            config,
            scale_factors=[(x, y)] if rescale == "1" else None,
        )
        np.testing.assert_array_equal(
            found["labels"].numpy(), figures[f"det_labels_rescale{rescale}"]
        )
        np.testing.assert_allclose(
            found["boxes"].numpy(),
            figures[f"det_boxes_rescale{rescale}"],
            rtol=0,
            atol=BOX_TOLERANCE,
        )
        np.testing.assert_allclose(
            found["scores"].numpy(), figures[f"det_scores_rescale{rescale}"], rtol=1e-6
        )


@torch.no_grad()
def check_head_forward(figures: Figures) -> None:
    num_classes = scalar(figures, "C")
    features = levels(figures, "feat")
    weights = our_weights(weights_in(figures))
    rows = {}
    for name, per_anchor in columns_of(num_classes).items():
        tower = Tower(
            scalar(figures, "in_channels"),
            scalar(figures, "feat_channels"),
            scalar(figures, "stacked_convs"),
            NUM_BASE * per_anchor,
        )
        prefix = f"towers.{name}."
        tower.load_state_dict(
            {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
        )
        rows[name] = tuple(flatten_map(tower(level), per_anchor) for level in features)
    check_heads(
        HeadOutputs(f1=rows["f1"], f2=rows["f2"], mil=rows["mil"], deltas=rows["box"]), figures
    )


def columns_of(num_classes: int) -> dict[str, int]:
    """Columns per anchor of each tower."""
    return {"f1": num_classes, "f2": num_classes, "mil": num_classes, "box": 4}


def weights_in(figures: Figures) -> Figures:
    """The weights that a file of inputs and outputs brings."""
    return {key.removeprefix("w:"): v for key, v in figures.items() if key.startswith("w:")}


def check_heads(outputs: HeadOutputs, figures: Figures) -> None:
    assert outputs.deltas is not None
    ours = {"f_1": outputs.f1, "f_2": outputs.f2, "f_r": outputs.deltas}
    for name, rows in ours.items():
        for mine, theirs in zip(rows, levels(figures, f"y_head_{name}"), strict=True):
            assert_close_to_maximum(mine, flatten_map(theirs, mine.shape[-1]), MAP_TOLERANCE)
    weights = losses.instance_weights(outputs, losses.PARITY)
    for mine, theirs in zip(weights, levels(figures, "y_head_cls"), strict=True):
        assert_close_to_maximum(mine, theirs.reshape(mine.shape), MAP_TOLERANCE)


def check_features(
    backbone: Backbone,
    pyramid: FeaturePyramid,
    images_BCHW: Tensor,
    figures: Figures,
    tolerance: float,
) -> None:
    """Outputs of the backbone's last stages, as many as the figures have, and of the pyramid."""
    theirs = levels(figures, "c")
    assert theirs
    x, ours = images_BCHW, []
    for stage in backbone.stages:
        x = stage(x)
        ours.append(x)
    for mine, expected in zip(ours[-len(theirs) :], theirs, strict=True):
        assert_close_to_maximum(mine, expected, tolerance)
    merged = pyramid(backbone(images_BCHW))
    for mine, expected in zip(merged, levels(figures, "p"), strict=True):
        assert_close_to_maximum(mine, expected, tolerance)


@torch.no_grad()
def check_backbone_fpn(figures: Figures) -> None:
    weights = our_weights(weights_in(figures))
    backbone = backbone_for(weights).eval()
    pyramid = pyramid_for(weights, backbone).eval()
    images = torch.from_numpy(figures["img"].copy())
    check_features(backbone, pyramid, images, figures, DEEP_MAP_TOLERANCE)


def check_trajectory(path: Path) -> None:
    stem = stem_of(path)
    part = path.stem.removeprefix(stem.name).removeprefix("_")
    if part.startswith("weights_after_"):
        check_weights_after(stem, part.removeprefix("weights_after_"))
    elif part in TRAJECTORY_PARTS:
        TRAJECTORY_PARTS[part](stem)
    else:
        skip_unknown(path)


def stem_of(path: Path) -> Path:
    """What the names of all files of a trajectory begin with."""
    stem = path.with_suffix("")
    while not stem.with_name(f"{stem.name}_batches.npz").is_file():
        shorter, underscore, _ = stem.name.rpartition("_")
        assert underscore, (
            f"{path.name} needs the file with the batches of its trajectory beside it"
        )
        stem = stem.with_name(shorter)
    return stem


def check_trajectory_batches(stem: Path) -> None:
    """Optimiser and order of batches are the preset's (4.7); the rest of the file is input."""
    given = trajectory.read_inputs(stem)
    preset = PRESETS["paper-voc"]
    # The text of a float32 is the decimal number that the reference was given.
    assert float(str(given.batches["momentum"])) == preset.momentum
    assert float(str(given.batches["weight_decay"])) == preset.weight_decay
    for stage in given.stages():
        labeled = given.batches_of(stage.name, unlabeled=False)
        unlabeled = given.batches_of(stage.name, unlabeled=True)
        assert len(unlabeled) == (0 if stage.kind == "label" else len(labeled))
        turns = [
            name
            for name, phase in zip(given.batch_names, given.phases, strict=True)
            if phase == stage.name
        ]
        pairs = [labeled, unlabeled] if unlabeled else [labeled]
        assert turns == [name for turn in zip(*pairs, strict=True) for name in turn]
        assert {f"{name}_img" for name in turns} <= set(given.batches)


def check_trajectory_start(stem: Path) -> None:
    """Every tensor of theirs has its place in our network, and ours has no other."""
    given = trajectory.read_inputs(stem)
    model = network_for(given.weights, given.num_classes, given.config())
    state = model.state_dict()
    for name, theirs in given.weights.items():
        assert torch.equal(state[name], theirs), name


@torch.no_grad()
def check_trajectory_forward(stem: Path) -> None:
    given = trajectory.read_inputs(stem)
    figures = trajectory.read_part(stem, "forward_init")
    model = network_for(given.weights, given.num_classes, given.config()).eval()
    images = given.batch("L0").images_BCHW
    assert isinstance(model.pyramid, FeaturePyramid)
    check_features(model.backbone, model.pyramid, images, figures, MAP_TOLERANCE)
    check_heads(model(images), figures)


def check_trajectory_steps(stem: Path) -> None:
    figures = trajectory.read(stem.with_suffix(".npz"))
    ours = trajectory.trajectory_of(stem)
    names = [our_name(name) for name in figures["param_names"].tolist()]
    assert [step.batch for step in ours.steps] == figures["step_batch"].tolist()
    assert [step.phase for step in ours.steps] == figures["step_phase"].tolist()
    terms = [key.removeprefix("sum:") for key in figures if key.startswith("sum:")]
    assert terms
    for index, step in enumerate(ours.steps):
        assert step.lr == pytest.approx(float(figures["step_lr"][index]), rel=1e-7)
        assert_close(step.terms["total"], figures["step_total"][index])
        present = {term for term in terms if not np.isnan(figures[f"sum:{term}"][index])}
        assert set(step.terms) == present | {"total"}
        for term in present:
            assert_close(step.terms[term], figures[f"sum:{term}"][index])
            theirs = figures[f"lvl:{term}"][index]
            assert_close(our_levels(step, term, len(theirs)), theirs)
        changed = {name for name, did in zip(names, figures["changed"][index], strict=True) if did}
        assert step.changed == changed
        # The reference's optimiser also holds stem and layer1 (quirk 9), but they have no gradient.
        moved = figures["in_optimizer"][index] & figures["requires_grad_in_step"][index]
        assert set(step.gradient_norms) == {n for n, did in zip(names, moved, strict=True) if did}
        for name, norm in zip(names, figures["grad_norm"][index].tolist(), strict=True):
            assert np.isnan(norm) == (name not in step.gradient_norms), name
            if not np.isnan(norm):
                np.testing.assert_allclose(
                    step.gradient_norms[name], norm, rtol=GRADIENT_TOLERANCE, err_msg=name
                )
    for phase in figures["phase_names"].tolist():
        for name, norm in zip(names, figures[f"weight_l2:{phase}"].tolist(), strict=True):
            found = float(ours.weights_after[phase][name].norm())
            assert found == pytest.approx(norm, rel=WEIGHT_TOLERANCE), name
    for when, discrepancy in (("init", ours.uncertainty_init), ("final", ours.uncertainty_final)):
        prefix = f"uncertainty_U_{when}_k"
        keys = [key for key in figures if key.startswith(prefix)]
        assert keys
        for key in keys:
            np.testing.assert_allclose(
                scoring.image_uncertainty(discrepancy, int(key.removeprefix(prefix))).numpy(),
                figures[key],
                rtol=UNCERTAINTY_TOLERANCE,
            )


def check_trajectory_log(stem: Path) -> None:
    ours, log = trajectory.trajectory_of(stem), trajectory.read_log(stem)
    for step, entry in zip(ours.steps, log, strict=True):
        assert step.phase == entry["phase"]
        assert step.lr == pytest.approx(entry["lr"], rel=1e-7)
        (total,) = (value for name, value in entry["log_vars"].items() if name.startswith("L_"))
        assert_close(step.terms["total"], total)
        assert set(entry["raw"]) == set(step.terms) - {"total"}
        for term, theirs in entry["raw"].items():
            assert_close(step.terms[term], entry["log_vars"][term])
            assert_close(our_levels(step, term, len(theirs)), theirs)


def our_levels(step: Step, term: str, count: int) -> list[float]:
    """A term level by level; one without levels has one figure, one that took no part zeros."""
    if term in step.per_level:
        return step.per_level[term]
    if count == 1:
        return [step.terms[term]]
    assert step.terms[term] == 0
    return [0.0] * count


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=LOSS_TOLERANCE)


def check_weights_after(stem: Path, phase: str) -> None:
    ours = trajectory.trajectory_of(stem).weights_after[phase]
    theirs = our_weights(trajectory.read_part(stem, f"weights_after_{phase}"))
    assert {name for name in ours if not name.endswith("num_batches_tracked")} == set(theirs)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        assert float((ours[name] - expected).abs().max()) <= WEIGHT_TOLERANCE, name


TRAJECTORY_PARTS: dict[str, Callable[[Path], None]] = {
    "": check_trajectory_steps,
    "batches": check_trajectory_batches,
    "weights_init": check_trajectory_start,
    "forward_init": check_trajectory_forward,
    "log": check_trajectory_log,
}

CHECKS: dict[str, Callable[[Figures], None]] = {
    "anchors": check_anchors,
    "targets": check_targets,
    "loss": check_loss,
    "uncertainty": check_uncertainty,
    "selection": check_selection,
    "detections": check_detections,
    "head_forward": check_head_forward,
    "backbone_fpn": check_backbone_fpn,
}


def golden_files(*, ssd: bool = False) -> list[Path]:
    if not FOLDER.is_dir():
        return []
    return sorted(
        path
        for path in FOLDER.iterdir()
        if path.suffix in {".npz", ".json"} and path.name.startswith("ssd_") == ssd
    )


def test_the_golden_folder_has_files() -> None:
    assert golden_files(), f"no figures in {FOLDER}: set MIAOD_GOLDEN_DIR to a folder that has some"


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: f"golden-{path.stem}")
def test_agrees_with_the_reference(path: Path) -> None:
    if path.name.startswith("trajectory_"):
        check_trajectory(path)
        return
    kind = next((kind for kind in CHECKS if path.name.startswith(f"{kind}_")), None)
    if kind is None or path.suffix != ".npz":
        skip_unknown(path)
    else:
        CHECKS[kind](trajectory.read(path))


def skip_unknown(path: Path) -> None:
    pytest.skip(f"{path.name}: no test knows this kind of file")
