"""SSD against figures that the reference code computed; the companion of test_golden.py.

The files `ssd_*` of the same folder. Figures were measured on one machine; where the reference's
own figures move by more than a few units in the last place with another number of threads, the
tolerance is five times what an independent calculation differed by.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.worker.miaod.test_golden import FOLDER, golden_files, levels, pair, scalar
from tests.worker.miaod.trajectory import Figures
from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.detections import DetectionConfig
from worker.miaod.engine import TRAINED, TrainingState, _Stepper, build_optimizer, loss_config
from worker.miaod.head_outputs import HeadOutputs, flatten_map
from worker.miaod.losses import StageKind, image_scores, num_positives
from worker.miaod.scoring import image_uncertainty
from worker.miaod.ssd import anchors, losses, targets
from worker.miaod.ssd.network import MiaodSsd
from worker.miaod.targets import Targets, present_classes
from worker.miaod.transforms import Batch

CPU = torch.device("cpu")
PRESET = PRESETS["paper-voc-ssd"]
PARITY = loss_config(PRESET)
NARROW = dataclasses.replace(PRESET, width_divisor=32, pretrained=False, num_threads=1)
LOSS_TOLERANCE = 2.5e-5
WEIGHT_TOLERANCE = 1e-4
"""Of the instance weights and the image scores: the reference's own softmax is coarse."""
GRADIENT_TOLERANCE = 4e-5
UNCERTAINTY_TOLERANCE = 1e-6
MAP_TOLERANCE = 1e-5
STEP_TOLERANCE = 2e-5
TRAINED_WEIGHT_TOLERANCE = 5e-6
NUM_LEVELS = len(anchors.LEVELS)
STAGES: tuple[StageKind, ...] = ("label", "min", "max")
KIND_OF_PHASE: dict[str, StageKind] = {"label_set": "label", "min": "min", "max": "max"}
TOWER_NAMES = {"f1": "f_1", "f2": "f_2", "mil": "f_mil", "box": "f_r"}


def read(name: str) -> Figures:
    with np.load(FOLDER / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def network(num_classes: int, *, narrow: bool = True) -> MiaodSsd:
    config = dataclasses.replace(NARROW, width_divisor=32 if narrow else 1)
    return MiaodSsd.build(config, num_classes, None, torch.Generator().manual_seed(0))


def reference_names(model: MiaodSsd) -> dict[str, str]:
    """The reference's name of each of our parameters, by ours."""
    convs = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
    theirs = {
        "backbone": [f"backbone.features.{index}" for index in convs],
        "pyramid": [f"backbone.extra.{index}" for index in range(8)],
    }
    for ours, their in TOWER_NAMES.items():
        theirs[f"towers.{ours}"] = [f"bbox_head.{their}_convs.{level}" for level in range(6)]
    names = {"pyramid.norm.weight": "backbone.l2_norm.weight"}
    parameters = [name for name, _ in model.named_parameters() if name not in names]
    for part, layers in theirs.items():
        ours_of_part = [name for name in parameters if name.startswith(f"{part}.")]
        their_names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        names |= dict(zip(ours_of_part, their_names, strict=True))
    assert names.keys() == dict(model.named_parameters()).keys()
    return names


def load(model: MiaodSsd, weights: Figures) -> None:
    names = reference_names(model)
    assert sorted(weights) == sorted(names.values())
    model.load_state_dict({ours: torch.from_numpy(weights[name]) for ours, name in names.items()})


def classes_of(f1_l0: NDArray[Any]) -> int:
    """From a map of the first classifier."""
    return int(f1_l0.shape[1]) // anchors.LEVELS[0].num_base_anchors - 1


def boxes_of(figures: Figures, prefix: str = "") -> tuple[list[Tensor], list[Tensor]]:
    count = sum(bool(re.fullmatch(rf"{prefix}gt_boxes_\d+", key)) for key in figures)
    return (
        [torch.from_numpy(figures[f"{prefix}gt_boxes_{i}"]).reshape(-1, 4) for i in range(count)],
        [torch.from_numpy(figures[f"{prefix}gt_labels_{i}"]) for i in range(count)],
    )


def targets_of(boxes: list[Tensor], labels: list[Tensor], num_classes: int) -> list[Targets]:
    all_anchors = torch.cat(anchors.level_anchors())
    return [
        targets.assign(
            all_anchors,
            torch.ones(len(all_anchors), dtype=torch.bool),
            boxes_N4,
            labels_N,
            num_classes,
            require_positive_iou=PARITY.require_positive_iou,
        )
        for boxes_N4, labels_N in zip(boxes, labels, strict=True)
    ]


def outputs_of(maps: dict[str, list[Tensor]], num_classes: int) -> HeadOutputs:
    def flat(name: str, columns: int) -> tuple[Tensor, ...]:
        return tuple(flatten_map(level, columns) for level in maps[name])

    every = num_classes + 1
    return HeadOutputs(
        f1=flat("f1", every), f2=flat("f2", every), mil=flat("fmil", every), deltas=flat("fr", 4)
    )


def check_anchors(figures: Figures) -> None:
    ours = anchors.level_anchors()
    assert [len(level) for level in ours] == figures["num_level_anchors"].tolist()
    for index, level in enumerate(anchors.LEVELS):
        assert level.stride == figures["strides"][index]
        assert level.side == figures["min_sizes"][index]
        assert (level.num_cells, level.num_cells) == pair(figures["featmap_sizes"][index])
        base = anchors.base_anchors(level)
        np.testing.assert_array_equal(base.numpy(), figures[f"base_anchors_l{index}"])
        np.testing.assert_array_equal(ours[index].numpy(), figures[f"anchors_l{index}"])


def check_targets(figures: Figures) -> None:
    # Background is there in every file.
    num_classes = int(figures["labels"].max())
    all_targets = targets_of(*boxes_of(figures), num_classes)
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
    assert num_positives(all_targets) == figures["num_total_pos"]
    negatives = sum(max(1, int((ours.assigned_A == 0).sum())) for ours in all_targets)
    assert negatives == figures["num_total_neg"]


def check_inputs(figures: Figures) -> None:
    """Each has an image where some class's best mean score is exactly the threshold."""
    num_classes = classes_of(figures["f1_l0"])
    maps = {name: levels(figures, name) for name in ("f1", "f2", "fmil", "fr")}
    outputs = outputs_of(maps, num_classes)
    assert outputs.anchors_per_level == tuple(map(len, anchors.level_anchors()))
    highest = (torch.cat(outputs.f1, dim=1) + torch.cat(outputs.f2, dim=1)).amax(dim=1)
    exact = highest == 0
    assert exact[0].any()
    assert bool((losses.pseudo_labels(outputs, PARITY)[exact] == 1).all())


def check_sample(
    figures: Figures, name: str, ours: Tensor, tolerance: float, scale: float | None = None
) -> None:
    """Some values of a flattened tensor, their differences measured by its largest value."""
    values = ours.detach().flatten()[torch.from_numpy(figures[f"{name}_idx"]).long()]
    if scale is None:
        scale = float(ours.detach().abs().max())
    theirs = torch.from_numpy(figures[f"{name}_val"])
    assert values.shape == theirs.shape
    if len(theirs):
        assert float((values - theirs).abs().max()) <= tolerance * scale, name


def check_gradients(figures: Figures, maps: dict[str, list[Tensor]], num_classes: int) -> None:
    without = {name for name in maps if all(level.grad is None for level in maps[name])}
    assert without == set(figures["grad_none"].tolist()) - {""}
    for name in set(maps) - without:
        columns = 4 if name == "fr" else num_classes + 1
        rows = []
        for index, level in enumerate(maps[name]):
            assert level.grad is not None
            gradient = flatten_map(level.grad, columns)
            largest = float(figures[f"gmax_{name}"][index])
            assert float(gradient.abs().max()) == pytest.approx(
                largest, rel=GRADIENT_TOLERANCE, abs=0
            )
            # A sum of thousands of rounded values, of which some are half of the largest.
            total = float(figures[f"gabs_{name}"][index])
            double = gradient.double()
            assert float(double.abs().sum()) == pytest.approx(total, rel=GRADIENT_TOLERANCE)
            assert float(double.sum()) == pytest.approx(
                float(figures[f"gsum_{name}"][index]), rel=0, abs=GRADIENT_TOLERANCE * total
            )
            rows.append(gradient / largest if largest else gradient)
        relative = torch.cat(rows, dim=1)
        # Which level a position lies on, to measure it by that level's maximum.
        scales = torch.cat(
            [
                torch.full_like(row, float(figures[f"gmax_{name}"][index]) or 1.0)
                for index, row in enumerate(rows)
            ],
            dim=1,
        ).flatten()
        places = torch.from_numpy(figures[f"g_{name}_idx"]).long()
        theirs = torch.from_numpy(figures[f"g_{name}_val"]) / scales[places]
        ours = relative.flatten()
        if len(places):
            assert float((ours[places] - theirs).abs().max()) <= GRADIENT_TOLERANCE
        if figures[f"g_{name}_full"]:
            elsewhere = torch.ones_like(ours, dtype=torch.bool)
            elsewhere[places] = False
            assert not ours[elsewhere].any(), f"a gradient of {name} where the reference has none"


def check_loss(figures: Figures) -> None:
    inputs = read(str(figures["inputs"]))
    num_classes = classes_of(inputs["f1_l0"])
    maps = {name: levels(inputs, name) for name in ("f1", "f2", "fmil", "fr")}
    shift = torch.from_numpy(figures["logit_shift"])[:, None, None, None]
    for name in ("f1", "f2"):
        maps[name] = [level + shift for level in maps[name]]
    maps = {name: [level.requires_grad_() for level in found] for name, found in maps.items()}
    outputs = outputs_of(maps, num_classes)
    stage = STAGES[scalar(figures, "losstype")]
    assert PARITY.lambda_discrepancy == figures["param_lambda"]
    weights = losses.instance_weights(outputs, PARITY)
    per_image: dict[str, Tensor] = {}
    if scalar(figures, "unlabeled"):
        ours = losses.unlabeled_losses(outputs, stage, PARITY)
        image_labels = losses.pseudo_labels(outputs, PARITY)
        name = "l_wave_dis_minus" if stage == "max" else "l_wave_dis"
        per_image[name] = losses.discrepancy_losses(
            outputs, weights, PARITY, complement=stage == "max"
        )
    else:
        boxes, labels = boxes_of(inputs)
        all_targets = targets_of(boxes, labels, num_classes)
        assert num_positives(all_targets) == figures["num_total_pos"]
        present = present_classes(labels, num_classes)
        image_labels = torch.nn.functional.pad(present, (0, 1))
        ours = losses.labeled_losses(outputs, all_targets, present, stage, PARITY)
        per_image["l_det_cls"] = losses.classification_losses(outputs, all_targets)
        per_image["l_det_loc"] = losses.box_losses(outputs, all_targets)
        check_hard_negatives(figures, outputs, all_targets)

    for name, values in per_image.items():
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
    if stage != "max":
        # Nothing names the picture there.
        np.testing.assert_array_equal(image_labels.numpy(), figures["img_label"])
        np.testing.assert_allclose(
            image_scores(weights).detach().numpy(), figures["img_score"], rtol=WEIGHT_TOLERANCE
        )
    level_sums = torch.stack([level.detach().sum(dim=1) for level in weights], dim=1)
    np.testing.assert_allclose(level_sums.numpy(), figures["ycls_level_sum"], rtol=WEIGHT_TOLERANCE)
    check_sample(figures, "ycls", torch.cat(weights, dim=1), WEIGHT_TOLERANCE)

    ours["total"].backward()  # type: ignore[no-untyped-call]
    check_gradients(figures, maps, num_classes)


def check_hard_negatives(
    figures: Figures, outputs: HeadOutputs, all_targets: Sequence[Targets]
) -> None:
    labels_BA = torch.stack([target.labels_A for target in all_targets])
    positive_BA = torch.stack([target.assigned_A > 0 for target in all_targets])
    for classifier, found in (("f1", outputs.f1), ("f2", outputs.f2)):
        logits_BAD = torch.cat(found, dim=1).detach()
        entropy_BA = -logits_BAD.log_softmax(2).gather(2, labels_BA[..., None])[..., 0]
        mined_BA = losses.hard_negatives(entropy_BA, ~positive_BA, positive_BA)
        for image, mined_A in enumerate(mined_BA):
            np.testing.assert_array_equal(
                mined_A.nonzero()[:, 0].numpy(), figures[f"hardneg_{classifier}_{image}"]
            )


def check_uncertainty(figures: Figures) -> None:
    inputs = read(str(figures["inputs"]))
    num_classes = classes_of(inputs["f1_l0"])
    maps = {name: levels(inputs, name) for name in ("f1", "f2", "fmil", "fr")}
    outputs = outputs_of(maps, num_classes)
    discrepancy = network(num_classes).anchor_discrepancy(
        torch.cat(outputs.f1, dim=1), torch.cat(outputs.f2, dim=1)
    )
    ks = [int(key.removeprefix("uncertainty_k")) for key in figures if key.startswith("uncert")]
    assert PRESET.scoring_k in ks
    for k in ks:
        np.testing.assert_allclose(
            image_uncertainty(discrepancy, k).numpy(),
            figures[f"uncertainty_k{k}"],
            rtol=UNCERTAINTY_TOLERANCE,
        )


def check_detections(figures: Figures) -> None:
    inputs = read(str(figures["inputs"]))
    num_classes = classes_of(inputs["f1_l0"])
    image = scalar(figures, "image")
    maps = {
        name: [level[image : image + 1] for level in levels(inputs, name)]
        for name in ("f1", "f2", "fmil", "fr")
    }
    shift = torch.from_numpy(figures["class_shift"])
    outputs = outputs_of(maps, num_classes)
    outputs = dataclasses.replace(outputs, f1=tuple(level + shift for level in outputs.f1))
    config = DetectionConfig(
        score_threshold=float(figures["score_thr"]),
        nms_iou=float(figures["nms_iou"]),
        candidates_per_level=PRESET.nms_candidates,
        max_per_image=scalar(figures, "max_per_img"),
    )
    assert (PRESET.score_threshold, PRESET.nms_iou, PRESET.detections_per_image) == (
        config.score_threshold,
        config.nms_iou,
        config.max_per_image,
    )
    model = network(num_classes)
    candidates = sum(
        int((model.probabilities(level) > config.score_threshold).sum()) for level in outputs.f1
    )
    assert abs(candidates - scalar(figures, "num_candidates")) <= 1
    x, y = (float(value) for value in figures["scale_factor"].tolist()[:2])
    rescales = [key[-1] for key in figures if key.startswith("det_boxes_rescale")]
    assert rescales
    for rescale in rescales:
        (found,) = model.detect(
            outputs,
            (300, 300),
            [pair(figures["img_shape"])],
            config,
            scale_factors=[(x, y)] if rescale == "1" else None,
        )
        np.testing.assert_array_equal(
            found["labels"].numpy(), figures[f"det_labels_rescale{rescale}"]
        )
        np.testing.assert_allclose(
            found["boxes"].numpy(), figures[f"det_boxes_rescale{rescale}"], rtol=0, atol=1e-4
        )
        np.testing.assert_allclose(
            found["scores"].numpy(), figures[f"det_scores_rescale{rescale}"], rtol=1e-6
        )


def weights_by_formula(figures: Figures) -> Figures:
    """The full network's weights, too many to store: a function of their place."""
    weights = {}
    for number, (name, text) in enumerate(
        zip(figures["param_names"].tolist(), figures["param_shapes"].tolist(), strict=True), start=1
    ):
        shape = tuple(int(size) for size in re.findall(r"\d+", text))
        index = np.arange(int(np.prod(shape)), dtype=np.uint64)
        with np.errstate(over="ignore"):
            mixed = (
                index * index * np.uint64(2654435761)
                + index * np.uint64(40503)
                + np.uint64(number * 97531 * 65537)
            )
        u = (mixed % np.uint64(2**32)).astype(np.float64) / 2**32 - 0.5
        if name.endswith("l2_norm.weight"):
            values = 20 + 8 * u
        elif name.endswith("bias"):
            values = 0.2 * u
        else:
            gain = 24 if name.startswith("backbone") else 12
            values = np.sqrt(gain / np.prod(shape[1:])) * u
        weights[name] = values.astype(np.float32).reshape(shape)
        mean = figures["param_abs_mean"][number - 1]
        assert np.abs(weights[name].astype(np.float64)).mean() == pytest.approx(mean, rel=1e-6)
    return weights


def enlarged(figures: Figures, name: str, repeat: int) -> Tensor:
    image = torch.from_numpy(figures[name])
    return image.repeat_interleave(repeat, dim=2).repeat_interleave(repeat, dim=3)


@torch.no_grad()
def check_network(figures: Figures, weights: Figures, *, narrow: bool) -> None:
    head = weights["bbox_head.f_1_convs.0.weight"]
    num_classes = len(head) // anchors.LEVELS[0].num_base_anchors - 1
    model = network(num_classes, narrow=narrow).eval()
    load(model, weights)
    images = enlarged(figures, "img_small", scalar(figures, "repeat"))
    features = model.pyramid(model.backbone(images))
    outputs = model(images)
    maps = {f"y_head_{their}": model.towers[ours](features) for ours, their in TOWER_NAMES.items()}
    del maps["y_head_f_mil"]
    maps |= {"feat": features, "y_head_cls": list(losses.instance_weights(outputs, PARITY))}
    for name, found in maps.items():
        assert len(found) == NUM_LEVELS
        for index, level in enumerate(found):
            assert list(level.shape) == figures[f"{name}_l{index}_shape"].tolist()
            largest = float(figures[f"{name}_l{index}_stat"][2])
            check_sample(figures, f"{name}_l{index}", level, MAP_TOLERANCE, largest)
            stat = (level.double().mean(), level.double().std(), level.abs().max())
            np.testing.assert_allclose(
                [float(value) for value in stat],
                figures[f"{name}_l{index}_stat"],
                rtol=0,
                # Whoever measured the spread may have divided by the count or by one less.
                atol=largest * (MAP_TOLERANCE + 0.6 / level.numel()),
            )
    # What the model says as a whole is what its parts say.
    assert torch.equal(outputs.f1[0], flatten_map(maps["y_head_f_1"][0], num_classes + 1))


def check_full_network(figures: Figures) -> None:
    check_network(figures, weights_by_formula(figures), narrow=False)


def check_narrow_network(figures: Figures) -> None:
    weights = {key[2:]: values for key, values in figures.items() if key.startswith("w:")}
    check_network(figures, weights, narrow=True)


class GivenPixels(_Stepper):
    """Steps on batches that are normalised already; notes what the figures are about."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__(state, NARROW, CPU, frozen=None)
        self.pseudo: list[Tensor] = []

    def _images(self, batch: Batch) -> Tensor:
        return batch.images_BCHW

    def _unlabeled_terms(self, kind: StageKind, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            outputs = self._model(batch.images_BCHW)
        self.pseudo.append(losses.pseudo_labels(outputs, self._losses))
        return super()._unlabeled_terms(kind, batch)


@dataclasses.dataclass
class Trajectory:
    """What our training made of the reference's four batches, in the reference's names and order.

    Per step: `terms`, and per parameter `requires_grad`, `grad_norm` and `changed`. `weights` by
    phase, `pseudo` by phase and batch.
    """

    terms: list[dict[str, float]] = dataclasses.field(default_factory=list)
    requires_grad: list[list[bool]] = dataclasses.field(default_factory=list)
    grad_norm: list[list[float]] = dataclasses.field(default_factory=list)
    changed: list[list[bool]] = dataclasses.field(default_factory=list)
    weights: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
    pseudo: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@cache
def trajectory(name: str) -> Trajectory:
    """The same for every file about it."""
    return trained_along(name)


def trained_along(name: str) -> Trajectory:
    """Train as the reference did, through the engine's own steps."""
    figures, start = read(name), read(f"{name}_weights_init")
    head = start["bbox_head.f_1_convs.0.weight"]
    model = network(len(head) // anchors.LEVELS[0].num_base_anchors - 1)
    load(model, start)
    model.train()
    names = reference_names(model)
    parameters = {names[ours]: parameter for ours, parameter in model.named_parameters()}
    ordered = [parameters[their] for their in figures["param_names"].tolist()]
    result = Trajectory()
    state = TrainingState(model, NARROW)
    stepper = GivenPixels(state)
    before: list[Tensor] = []

    def note_gradients(*_: Any) -> None:
        before[:] = [p.detach().clone() for p in ordered]
        result.requires_grad.append([p.requires_grad for p in ordered])
        result.grad_norm.append(
            [torch.nan if p.grad is None else float(p.grad.norm()) for p in ordered]
        )

    def note_changes(*_: Any) -> None:
        result.changed.append(
            [not torch.equal(old, p.detach()) for old, p in zip(before, ordered, strict=True)]
        )

    repeat, lr = scalar(figures, "batch:repeat"), float(figures["step_lr"])
    assert lr == NARROW.learning_rate
    for phase, batch_names in phases(figures):
        kind = KIND_OF_PHASE[phase.rpartition("_")[0]]
        state.optimizer = build_optimizer(model, NARROW)
        state.optimizer.register_step_pre_hook(note_gradients)
        state.optimizer.register_step_post_hook(note_changes)
        model.train_only(TRAINED[kind])
        for labeled, unlabeled in batch_names:
            stepper.pseudo.clear()
            terms = stepper.step(
                kind,
                lr,
                batch_of(figures, labeled, repeat),
                None if unlabeled is None else batch_of(figures, unlabeled, repeat),
            )
            mine = {n: v for n, v in terms.items() if not n.startswith("unlabeled_")}
            result.terms.append(mine)
            if unlabeled is not None:
                result.terms.append(
                    {
                        n.removeprefix("unlabeled_"): v
                        for n, v in terms.items()
                        if n.startswith("unlabeled_")
                    }
                )
                result.pseudo[f"{phase}_{unlabeled}"] = stepper.pseudo[0]
        result.weights[phase] = {n: p.detach().clone() for n, p in parameters.items()}
    return result


def phases(figures: Figures) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Each phase with its steps: a labeled batch, and the unlabeled one after it or None."""
    steps: dict[str, list[tuple[str, str | None]]] = {}
    for phase, batch in zip(
        figures["step_phase"].tolist(), figures["step_batch"].tolist(), strict=True
    ):
        found = steps.setdefault(phase, [])
        if batch.startswith("U"):
            found[-1] = (found[-1][0], batch)
        else:
            found.append((batch, None))
    yield from steps.items()


def batch_of(figures: Figures, name: str, repeat: int) -> Batch:
    images = enlarged(figures, f"batch:{name}_img_small", repeat)
    boxes, labels = boxes_of(figures, f"batch:{name}_")
    count = len(images)
    if name.startswith("U"):
        # Nobody has labels of an unlabeled batch.
        boxes = [torch.zeros((0, 4))] * count
        labels = [torch.zeros(0, dtype=torch.int64)] * count
    return Batch(
        images_BCHW=images,
        boxes=tuple(boxes),
        labels=tuple(labels),
        sizes_hw=((300, 300),) * count,
        original_sizes_hw=((300, 300),) * count,
        ordinals=tuple(range(count)),
        num_known_classes=(1_000,) * count,
    )


def check_trajectory(figures: Figures, name: str) -> None:
    ours = trajectory(name)
    assert len(ours.terms) == len(figures["step_total"])
    for step, terms in enumerate(ours.terms):
        assert terms["total"] == pytest.approx(figures["step_total"][step], rel=STEP_TOLERANCE)
        theirs = {
            key.removeprefix("sum:"): float(figures[key][step])
            for key in figures
            if key.startswith("sum:l_") and not np.isnan(figures[key][step])
        }
        assert {n: v for n, v in terms.items() if n != "total"} == pytest.approx(
            theirs, rel=STEP_TOLERANCE
        )
    np.testing.assert_array_equal(np.array(ours.requires_grad), figures["in_optimizer"])
    np.testing.assert_array_equal(np.array(ours.changed), figures["changed"])
    norms = np.nan_to_num(np.array(ours.grad_norm))
    trained = figures["in_optimizer"]
    assert not norms[trained & figures["not_in_graph"]].any()
    theirs_norms = np.nan_to_num(figures["grad_norm"])
    np.testing.assert_allclose(
        norms[trained], theirs_norms[trained], rtol=1e-3, atol=1e-5 * theirs_norms[trained].max()
    )
    for key in figures:
        if key.startswith("pseudo_label_"):
            place = key.removeprefix("pseudo_label_")
            np.testing.assert_array_equal(ours.pseudo[place].numpy(), figures[key])


def check_weights_at_start(figures: Figures, name: str) -> None:
    """The network takes them, all of them, and they are those that the trajectory is about."""
    main = read(name)
    load(network(len(figures["bbox_head.f_1_convs.0.bias"]) // 4 - 1), figures)
    norms = [float(np.linalg.norm(figures[key].astype(np.float64).ravel())) for key in figures]
    by_name = dict(zip(figures, norms, strict=True))
    np.testing.assert_allclose(
        [by_name[key] for key in main["param_names"].tolist()], main["weight_l2:init"], rtol=1e-6
    )


def check_weights_after(figures: Figures, name: str, phase: str) -> None:
    ours = trajectory(name).weights[phase]
    assert sorted(ours) == sorted(figures)
    for key, weight in ours.items():
        np.testing.assert_allclose(
            weight.numpy(), figures[key], rtol=0, atol=TRAINED_WEIGHT_TOLERANCE, err_msg=key
        )


CHECKS: dict[str, Callable[[Figures], None]] = {
    "anchors": check_anchors,
    "targets": check_targets,
    "inputs": check_inputs,
    "loss": check_loss,
    "uncertainty": check_uncertainty,
    "detections": check_detections,
    "net_full": check_full_network,
    "net_narrow": check_narrow_network,
}


def check(path: Path) -> None:
    figures = read(path.stem)
    if part := re.fullmatch(r"(ssd_trajectory_.+?)(?:_weights_(init|after_(.+)))?", path.stem):
        name, weights, phase = part.groups()
        if weights is None:
            check_trajectory(figures, name)
        elif phase is None:
            check_weights_at_start(figures, name)
        else:
            check_weights_after(figures, name, phase)
        return
    kind = next((kind for kind in CHECKS if re.match(rf"ssd_{kind}(_|$)", path.stem)), None)
    if kind is None:
        pytest.skip(f"{path.name}: no test knows this kind of file")
    CHECKS[kind](figures)


@pytest.mark.parametrize("path", golden_files(ssd=True), ids=lambda path: f"golden-{path.stem}")
def test_agrees_with_the_reference(path: Path) -> None:
    if path.suffix != ".npz":
        pytest.skip(f"{path.name}: no test knows this kind of file")
    check(path)


# What the figures would not forgive ---------------------------------------------------------------

Mistake = Callable[[pytest.MonkeyPatch], None]


def mined_over_the_batch(patch: pytest.MonkeyPatch) -> None:
    right = losses.hard_negatives

    def wrong(loss_BA: Tensor, negative_BA: Tensor, positive_BA: Tensor) -> Tensor:
        mined = right(loss_BA.view(1, -1), negative_BA.view(1, -1), positive_BA.view(1, -1))
        return mined.view_as(loss_BA)

    patch.setattr(losses, "hard_negatives", wrong)


def all_negatives_learned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(losses, "NEGATIVES_PER_POSITIVE", 10_000)


def divided_by_each_image_s_positives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        losses,
        "num_positives",
        lambda found: torch.stack([target.num_pos for target in found]).clamp(min=1),
    )


def background_left_out(patch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(PARITY, background_as_class=False)
    patch.setattr(sys.modules[__name__], "PARITY", wrong)


def attention_on_softmax(patch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(PARITY, sigmoid_scores=False)
    patch.setattr(sys.modules[__name__], "PARITY", wrong)


def uncertainty_on_softmax(patch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(NARROW, sigmoid_scores=False)
    patch.setattr(sys.modules[__name__], "NARROW", wrong)


def uncertainty_without_background(patch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(NARROW, background_as_class=False)
    patch.setattr(sys.modules[__name__], "NARROW", wrong)


def the_last_of_equal_anchors(patch: pytest.MonkeyPatch) -> None:
    def last(hits: Tensor, dim: int) -> Tensor:
        places = torch.arange(hits.shape[dim]).view([-1, 1] if dim == 0 else [1, -1])
        return torch.where(hits, places, -1).amax(dim=dim)

    patch.setattr(targets, "_first", last)


def offsets_not_scaled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(targets, "DELTA_SCALES", (1.0, 1.0, 1.0, 1.0))


def trained_with(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    here = sys.modules[__name__]
    patch.setattr(here, "trajectory", trained_along)
    patch.setattr(here, "NARROW", dataclasses.replace(NARROW, **changes))


def the_paper_s_weight_decay(patch: pytest.MonkeyPatch) -> None:
    trained_with(patch, weight_decay=1e-4)


def no_gradient_instead_of_zeros(patch: pytest.MonkeyPatch) -> None:
    trained_with(patch, keep_zero_terms=False)


def classifiers_not_frozen(patch: pytest.MonkeyPatch) -> None:
    trained_with(patch)
    patch.setitem(TRAINED, "min", TRAINED["label"])


def momentum_kept_over_stages(patch: pytest.MonkeyPatch) -> None:
    trained_with(patch)
    right = build_optimizer
    optimizers: list[torch.optim.Optimizer] = []

    def kept(model: MiaodSsd, config: TrainingConfig) -> torch.optim.Optimizer:
        if not optimizers:
            optimizers.append(right(model, config))
        return optimizers[0]

    patch.setattr(sys.modules[__name__], "build_optimizer", kept)


MISTAKES: list[tuple[str, Mistake]] = [
    ("ssd_loss_label_set_", mined_over_the_batch),
    ("ssd_loss_label_set_", all_negatives_learned),
    ("ssd_loss_label_set_", divided_by_each_image_s_positives),
    ("ssd_loss_max_labeled_", offsets_not_scaled),
    ("ssd_loss_min_labeled_", background_left_out),
    ("ssd_loss_min_unlabeled_all_", background_left_out),
    ("ssd_loss_min_unlabeled_all_", attention_on_softmax),
    ("ssd_loss_max_unlabeled_", background_left_out),
    ("ssd_uncertainty_", uncertainty_on_softmax),
    ("ssd_uncertainty_", uncertainty_without_background),
    ("ssd_targets_", the_last_of_equal_anchors),
    ("ssd_targets_", offsets_not_scaled),
    ("ssd_detections_", offsets_not_scaled),
    (r"ssd_trajectory_[^_]+_weights_after_label_set_0", the_paper_s_weight_decay),
    (r"ssd_trajectory_[^_]+_weights_after_min_1", no_gradient_instead_of_zeros),
    (r"ssd_trajectory_[^_]+_weights_after_min_1", classifiers_not_frozen),
    (r"ssd_trajectory_[^_]+_weights_after_min_1", momentum_kept_over_stages),
]


@pytest.mark.parametrize(
    ("pattern", "mistake"),
    MISTAKES,
    ids=[f"{m.__name__}-{p.removeprefix('ssd_').strip('_')}" for p, m in MISTAKES],
)
def test_the_figures_catch(pattern: str, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [path for path in golden_files(ssd=True) if re.match(pattern, path.stem)]
    if not paths:
        pytest.skip(f"no figures {pattern}* in {FOLDER}")
    mistake(monkeypatch)
    caught = 0
    for path in paths:
        try:
            check(path)
        except AssertionError:
            caught += 1
    assert caught, f"{mistake.__name__} agrees with the reference"
