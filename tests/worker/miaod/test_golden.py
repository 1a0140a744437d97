"""The parts of the algorithm against figures that the reference code computed.

The figures lie in the folder that MIAOD_GOLDEN_DIR names (default: tests/golden). Every file found
there is a test; what a file holds follows from the beginning of its name, classes and sizes from
its content. The figures of SSD, `ssd_*`, are those of test_golden_ssd.py.
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

from worker.miaod import anchors, detections, losses, scoring, selection, targets
from worker.miaod.head_outputs import HeadOutputs, flatten_map
from worker.miaod.model import Tower

Figures = dict[str, NDArray[Any]]

FOLDER = Path(os.environ.get("MIAOD_GOLDEN_DIR") or Path(__file__).parents[3] / "tests" / "golden")
STRIDES = (8, 16, 32, 64, 128)
OCTAVE_SCALE, SCALES_PER_OCTAVE, RATIOS = 4, 3, (0.5, 1.0, 2.0)
NUM_BASE = SCALES_PER_OCTAVE * len(RATIOS)
LOSS_TOLERANCE = 5e-6
GRADIENT_TOLERANCE = 5e-6
UNCERTAINTY_TOLERANCE = 5e-6
BOX_TOLERANCE = 1e-4
MAP_TOLERANCE = 5e-6
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
    columns = {"f_1": num_classes, "f_2": num_classes, "f_mil": num_classes, "f_r": 4}
    rows: dict[str, tuple[Tensor, ...]] = {}
    for name, per_anchor in columns.items():
        tower = Tower(
            scalar(figures, "in_channels"),
            scalar(figures, "feat_channels"),
            scalar(figures, "stacked_convs"),
            NUM_BASE * per_anchor,
        )
        weights = {}
        for key, values in figures.items():
            for prefix, part in ((f"w:{name}_convs.", "convs."), (f"w:{name}_retina.", "output.")):
                if key.startswith(prefix):
                    parameter = key.removeprefix(prefix).replace("conv.", "")
                    weights[part + parameter] = torch.from_numpy(values)
        tower.load_state_dict(weights)
        rows[name] = tuple(flatten_map(tower(level), per_anchor) for level in features)

    for name in ("f_1", "f_2", "f_r"):
        for mine, theirs in zip(rows[name], levels(figures, f"y_head_{name}"), strict=True):
            assert_close_to_maximum(mine, flatten_map(theirs, columns[name]), MAP_TOLERANCE)
    outputs = HeadOutputs(f1=rows["f_1"], f2=rows["f_2"], mil=rows["f_mil"])
    weights_by_level = losses.instance_weights(outputs, losses.PARITY)
    for mine, theirs in zip(weights_by_level, levels(figures, "y_head_cls"), strict=True):
        assert_close_to_maximum(mine, theirs.reshape(mine.shape), MAP_TOLERANCE)


CHECKS: dict[str, Callable[[Figures], None]] = {
    "anchors": check_anchors,
    "targets": check_targets,
    "loss": check_loss,
    "uncertainty": check_uncertainty,
    "selection": check_selection,
    "detections": check_detections,
    "head_forward": check_head_forward,
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
    kind = next((kind for kind in CHECKS if path.name.startswith(f"{kind}_")), None)
    if kind is None or path.suffix != ".npz":
        pytest.skip(f"{path.name}: no test knows this kind of file")
    with np.load(path) as archive:
        CHECKS[kind]({name: archive[name] for name in archive.files})
