"""The checks against the reference's figures notice the mistakes that they are there for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from tests.worker.miaod import test_golden, trajectory
from tests.worker.miaod.reference_weights import our_weights
from tests.worker.miaod.trajectory import Figures
from worker.miaod import engine, losses

OWN_FIGURES = Path(__file__).parents[2] / "golden"
STEM = OWN_FIGURES / "trajectory_c3"


def largest_deviation(weights_after: dict[str, dict[str, Tensor]], phase: str) -> float:
    theirs = our_weights(trajectory.read_part(STEM, f"weights_after_{phase}"))
    ours = weights_after[phase]
    return max(float((ours[name] - value).abs().max()) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("changes", "at_least"),
    [
        ({}, 0.0),
        # How far the reference's weights are from each mistake's is known: a tenth of it must show.
        ({"weight_decay": 1e-4}, 1e-5),
        ({"momentum": 0.0}, 1e-5),
        ({"fresh_optimizer": False}, 6e-4),
        ({"keep_zero_terms": False}, 1e-4),
        ({"joint_update": True}, 1e-4),
        ({"frozen_stages": 0}, 8e-4),
        ({"lambda_discrepancy": 0.6}, 1e-5),
        ({"average_discrepancy": True}, 1e-5),
        ({"mil_attention": "paper"}, 1e-5),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, dict) else "",
)
def test_the_trajectory_shows_a_setting_that_is_not_the_references(
    changes: dict[str, Any], at_least: float
) -> None:
    ours = trajectory.run(trajectory.read_inputs(STEM), **changes)
    phase = ours.steps[-1].phase
    deviation = largest_deviation(ours.weights_after, phase)
    if changes:
        assert deviation > at_least > test_golden.WEIGHT_TOLERANCE
    else:
        assert deviation <= test_golden.WEIGHT_TOLERANCE


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        # The paper's own text: maximising moves the other towers, minimising leaves the boxes.
        ("max", ("f1", "f2", "mil", "box")),
        ("min", ("backbone", "pyramid", "mil")),
        ("min", ("backbone", "pyramid", "f1", "f2", "mil", "box")),
    ],
)
def test_the_trajectory_shows_a_stage_that_trains_other_parts(
    kind: losses.StageKind, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.TRAINED, kind, parts)
    ours = trajectory.run(trajectory.read_inputs(STEM))
    phase = next(step.phase for step in ours.steps if trajectory.kind_of(step.phase) == kind)
    assert largest_deviation(ours.weights_after, phase) > 1e-4


def test_the_order_of_minimising_and_maximising_shows() -> None:
    """D1: the paper maximises first, its code minimises first."""
    given = trajectory.read_inputs(STEM)
    places = [
        place
        for kind in ("label", "max", "min")
        for place, phase in enumerate(given.phases)
        if trajectory.kind_of(phase) == kind and phase != given.phases[-1]
    ]
    places += [place for place, phase in enumerate(given.phases) if phase == given.phases[-1]]
    swapped = trajectory.Inputs(
        given.stem,
        given.weights,
        given.batches,
        tuple(given.phases[place] for place in places),
        tuple(given.batch_names[place] for place in places),
        given.learning_rate,
    )
    assert largest_deviation(trajectory.run(swapped).weights_after, given.phases[-1]) > 1e-4


def copy_of_the_trajectory(folder: Path) -> Path:
    for path in OWN_FIGURES.glob(f"{STEM.name}*"):
        shutil.copy(path, folder / path.name)
    return folder / STEM.name


def change(path: Path, key: str, by: Callable[[Any], Any]) -> None:
    with np.load(path) as archive:
        figures = {name: archive[name] for name in archive.files}
    figures[key] = by(figures[key])
    np.savez(path, **figures)


@pytest.mark.parametrize(
    ("part", "key", "by"),
    [
        ("", "step_total", lambda values: values * 1.00002),
        ("", "lvl:l_det_cls", lambda values: values * 1.00002),
        ("", "changed", lambda values: ~values),
        ("", "grad_norm", lambda values: values * 1.00002),
        ("", "uncertainty_U_final_k50", lambda values: values * 1.00002),
        ("_batches", "weight_decay", lambda _: np.float32(1e-4)),
        ("_weights_after_min_1", "neck.fpn_convs.4.conv.bias", lambda values: values + 1e-5),
        ("_forward_init", "c_l0", lambda values: values * 1.00002),
        ("_forward_init", "y_head_cls_l4", lambda values: values * 1.00002),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_figure_that_is_a_little_off_is_noticed(
    part: str,
    key: str,
    by: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = trajectory.trajectory_of(STEM)
    monkeypatch.setattr(trajectory, "trajectory_of", lambda _: ours)
    path = copy_of_the_trajectory(tmp_path).with_name(f"{STEM.name}{part}.npz")
    test_golden.check_trajectory(path)
    change(path, key, by)
    with pytest.raises(AssertionError):
        test_golden.check_trajectory(path)


def test_a_part_of_a_trajectory_that_nobody_knows_is_skipped_by_name(tmp_path: Path) -> None:
    stem = copy_of_the_trajectory(tmp_path)
    unknown = stem.with_name(f"{stem.name}_heat_maps.npz")
    np.savez(unknown, nothing=np.zeros(1))
    with pytest.raises(pytest.skip.Exception, match=r"trajectory_c3_heat_maps\.npz: no test"):
        test_golden.check_trajectory(unknown)


def test_a_trajectory_without_its_batches_is_no_success(tmp_path: Path) -> None:
    alone = tmp_path / "trajectory_c9_log.json"
    alone.write_text("[]")
    with pytest.raises(AssertionError, match=r"trajectory_c9_log\.json needs the file"):
        test_golden.check_trajectory(alone)


class TorchvisionFeatures(nn.Module):
    """C2..C5 and P3..P7 by torchvision's own ResNet-50 and pyramid, narrowed to 4 and 8 channels.

    Only the halvings of C5 are spelt out: the reference has no ReLU there, torchvision does.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50(weights=None, width_per_group=64)
        resnet.inplanes = 4
        resnet.conv1 = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)
        resnet.bn1 = nn.BatchNorm2d(4)
        block = type(resnet.layer1[0])
        for number, depth in enumerate((3, 4, 6, 3), start=1):
            stride = 1 if number == 1 else 2
            layer = resnet._make_layer(block, 4 * 2 ** (number - 1), depth, stride=stride)
            setattr(resnet, f"layer{number}", layer)
        del resnet.fc
        self.backbone = resnet
        self.fpn = FeaturePyramidNetwork([32, 64, 128], 8)
        self.halvings = nn.ModuleList(
            nn.Conv2d(inputs, 8, 3, stride=2, padding=1) for inputs in (128, 8)
        )
        for name, value in self.state_dict().items():
            if value.ndim == 4:
                nn.init.kaiming_normal_(value, generator=generator)
            elif value.is_floating_point():
                # Factors and variances about 1, all else about 0.
                about = 1.0 if name.endswith(("running_var", "weight")) else 0.0
                value.copy_(about + 0.6 * (torch.rand(value.shape, generator=generator) - 0.5))

    @torch.no_grad()
    def figures(self, images_BCHW: Tensor) -> dict[str, Any]:
        """What a golden file of this kind holds, in the reference's names."""
        self.eval()
        r = self.backbone
        x = r.maxpool(r.relu(r.bn1(r.conv1(images_BCHW))))
        features = []
        for layer in (r.layer1, r.layer2, r.layer3, r.layer4):
            x = layer(x)
            features.append(x)
        names = ("3", "4", "5")
        merged = self.fpn(dict(zip(names, features[1:], strict=True)))
        p6 = self.halvings[0](features[-1])
        pyramid = [*(merged[name] for name in names), p6, self.halvings[1](p6)]
        found = {"img": images_BCHW}
        found |= {f"c_l{level}": value for level, value in enumerate(features)}
        found |= {f"p_l{level}": value for level, value in enumerate(pyramid)}
        for name, value in self.state_dict().items():
            found[f"w:{name.replace('halvings.0', 'fpn.p6').replace('halvings.1', 'fpn.p7')}"] = (
                value
            )
        return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def deep_figures() -> Figures:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn((1, 3, 64, 96), generator=generator)
    with torch.no_grad():
        return TorchvisionFeatures(generator).figures(images)


def in_the_references_names(figures: Figures) -> Figures:
    """The same with the pyramid's weights as the reference calls them."""
    renamed = {}
    for name, value in figures.items():
        for theirs, its in (
            ("fpn.inner_blocks.0.0", "neck.lateral_convs.0.conv"),
            ("fpn.inner_blocks.1.0", "neck.lateral_convs.1.conv"),
            ("fpn.inner_blocks.2.0", "neck.lateral_convs.2.conv"),
            ("fpn.layer_blocks.0.0", "neck.fpn_convs.0.conv"),
            ("fpn.layer_blocks.1.0", "neck.fpn_convs.1.conv"),
            ("fpn.layer_blocks.2.0", "neck.fpn_convs.2.conv"),
            ("fpn.p6", "neck.fpn_convs.3.conv"),
            ("fpn.p7", "neck.fpn_convs.4.conv"),
        ):
            name = name.replace(theirs, its)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("rename", [dict, in_the_references_names])
def test_a_deep_backbone_and_its_pyramid_are_torchvisions(
    rename: Callable[[Figures], Figures], deep_figures: Figures
) -> None:
    figures = rename(deep_figures)
    test_golden.check_backbone_fpn(figures)


@pytest.mark.parametrize(
    "weight",
    [
        "w:backbone.conv1.weight",
        "w:backbone.layer1.0.downsample.1.running_var",
        "w:backbone.layer4.2.conv3.weight",
        "w:fpn.inner_blocks.1.0.weight",
        "w:fpn.p7.weight",
    ],
)
def test_a_weight_that_is_a_little_off_is_noticed(weight: str, deep_figures: Figures) -> None:
    wrong = deep_figures[weight] * np.float32(1.01)
    with pytest.raises(AssertionError):
        test_golden.check_backbone_fpn({**deep_figures, weight: wrong})


def test_figures_that_lack_a_weight_are_no_success(deep_figures: Figures) -> None:
    lacking = {n: v for n, v in deep_figures.items() if n != "w:fpn.p7.bias"}
    with pytest.raises(AssertionError, match="no figures for"):
        test_golden.check_backbone_fpn(lacking)
