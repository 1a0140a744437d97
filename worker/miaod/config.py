"""Every hyperparameter of a training, one field each with its reason; the presets made of them.

`python -m worker.miaod.config` writes `server/services/training_presets.json`, by which the server
checks a request without loading torch. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRESETS_FILE = Path(__file__).parents[2] / "server" / "services" / "training_presets.json"


def _setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    bounds = {"minimum": minimum, "maximum": maximum, "choices": choices}
    given = {name: value for name, value in bounds.items() if value is not None}
    return dataclasses.field(default=default, metadata={"description": description, **given})


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides what a training computes, apart from its data and its seed.

    The defaults are those of the preset `default`. Values outside the bounds raise `ValueError`.
    """

    # The network.
    detector: str = _setting(
        "retinanet",
        "retinanet, or ssd300, the paper's second one: start from the preset paper-voc-ssd, since "
        "its data and schedule are others too. Settings of pyramid, heads, anchors and focal loss "
        "are retinanet's alone.",
        choices=("retinanet", "ssd300"),
    )
    backbone: str = _setting(
        "resnet50",
        "Feature extractor; ssd300's is vgg16, and no other's. efficientnet_lite0 carries its "
        "ImageNet weights in a package; the others read torchvision's from the weights folder.",
        choices=("efficientnet_lite0", "resnet18", "resnet50", "vgg16"),
    )
    width_divisor: int = _setting(
        1,
        "ssd300 only: divides the channels of every layer, for trials. The ImageNet weights fit "
        "the full width alone.",
        minimum=1,
        maximum=32,
    )
    pretrained: bool = _setting(
        True,
        "Start the backbone from ImageNet weights; without them thousands of images are too few.",
    )
    warm_start: bool = _setting(
        False,
        "Start the whole network from the project's newest model instead, where there is one; "
        "classes added since start fresh. The paper trains anew in each cycle.",
    )
    frozen_stages: int = _setting(
        2,
        "Leading backbone stages that never train, the stem being the first. Early filters are "
        "general, and their backward pass is the dearest.",
        minimum=0,
        maximum=8,
    )
    fpn_channels: int = _setting(256, "Channels of every pyramid level.", minimum=4, maximum=1024)
    num_levels: int = _setting(
        5, "Pyramid levels, from stride 8 on; 5 ends at stride 128.", minimum=3, maximum=6
    )
    head_channels: int = _setting(256, "Channels inside the four towers.", minimum=4, maximum=1024)
    head_depth: int = _setting(
        4, "3x3 convolutions of each tower before its output convolution.", minimum=0, maximum=8
    )
    octave_scale: float = _setting(
        4.0,
        "Smallest anchor side over its level's stride; the largest anchor must not be smaller than "
        "the largest objects of the resized image, or their class is lost.",
        minimum=0.5,
        maximum=64,
    )
    scales_per_octave: int = _setting(
        3, "Anchor sizes per level, evenly spread over one octave.", minimum=1, maximum=8
    )
    aspect_ratios: tuple[float, ...] = _setting(
        (0.5, 1.0, 2.0), "Height over width of the anchors.", minimum=0.05, maximum=20
    )
    group_norm: bool = _setting(
        False,
        "Group normalisation after the convolutions of pyramid and towers. The reference has none; "
        "but a backbone without a last ReLU gives levels of very different size, and without it "
        "the coarse levels, so the largest objects, are learned last.",
    )
    # The data.
    image_long_side: int = _setting(
        1000, "Images are resized to fit; pixels of the longer side.", minimum=32, maximum=4096
    )
    image_short_side: int = _setting(
        600, "Images are resized to fit; pixels of the shorter side.", minimum=32, maximum=4096
    )
    keep_ratio: bool = _setting(
        True,
        "Keep an image's proportions in resizing; otherwise it is stretched to the whole frame, as "
        "ssd300 wants it.",
    )
    min_image_side: int = _setting(
        0,
        "Images with a shorter side are left out of training (the reference drops those below 32).",
        minimum=0,
        maximum=4096,
    )
    box_corners: str = _setting(
        "exact",
        "How boxes are read: exact, or as the reference's loader gives them, which cuts corners to "
        "whole pixels and takes 1 off all four numbers of an XML file. voc: that file was a VOC "
        "one, with pixels counted from 1 and the last one inside; coco: one made of COCO's boxes.",
        choices=("exact", "voc", "coco"),
    )
    flip_probability: float = _setting(
        0.5, "Probability of a left-right flip in training.", minimum=0, maximum=1
    )
    vertical_flip_probability: float = _setting(
        0.0,
        "Probability of an upside-down flip; for pictures without an up, as from a microscope.",
        minimum=0,
        maximum=1,
    )
    scale_min: float = _setting(
        1.0, "Smallest random zoom in training; 1 turns it off.", minimum=0.1, maximum=1
    )
    scale_max: float = _setting(
        1.0,
        "Largest random zoom in training; a picture that outgrows its frame is cropped at random.",
        minimum=1,
        maximum=10,
    )
    color_jitter: float = _setting(
        0.0,
        "Strength of random brightness, contrast and saturation in training; 0.2 means factors "
        "0.8 to 1.2.",
        minimum=0,
        maximum=0.9,
    )
    photometric_distortion: bool = _setting(
        False,
        "Random brightness, contrast, saturation, hue and order of the colors in training, as "
        "strong as SSD's.",
    )
    expand_max: float = _setting(
        1.0,
        "In half of the cases the image is laid, before resizing, at random on a grey canvas of up "
        "to this many times its sides, so that its objects are small; 1 turns it off. SSD has 4.",
        minimum=1,
        maximum=10,
    )
    iou_crop: bool = _setting(
        False,
        "Train, before resizing, on a random part of the image that overlaps all its boxes by a "
        "random minimum, so that its objects are large; SSD's way. Boxes whose middle is cut off "
        "are dropped.",
    )
    batch_size: int = _setting(8, "Labeled images per step.", minimum=1, maximum=1024)
    unlabeled_subset: bool = _setting(
        False,
        "Of the pool only as many images as are labeled, drawn once per training, take part in "
        "minimise and maximise, as in the reference; otherwise the whole pool does, in turns.",
    )
    unlabeled_batch_size: int = _setting(
        8, "Unlabeled images per step of the minimise and maximise stages.", minimum=1, maximum=1024
    )
    scoring_batch_size: int = _setting(
        16,
        "Images per forward pass in scoring and prediction; only images of one padded size share a "
        "pass, so that the result does not depend on it.",
        minimum=1,
        maximum=4096,
    )
    cache_megabytes: int = _setting(
        0,
        "Memory for decoded, resized images, which spares decoding them at each step: so much for "
        "the labeled and so much for the unlabeled ones. Of use without loader processes.",
        minimum=0,
        maximum=1_000_000,
    )
    frozen_cache_megabytes: int = _setting(
        0,
        "Memory for what the frozen stages of the backbone make of a picture, which then need not "
        "run again. Of use on a CPU, where many stages are frozen and flips are the only "
        "augmentation.",
        minimum=0,
        maximum=1_000_000,
    )
    num_loader_workers: int = _setting(
        4, "Processes that decode and resize; 0 does it between the steps.", minimum=0, maximum=128
    )
    # The losses.
    method: str = _setting(
        "mi-aod",
        "mi-aod, or plain: the same detector without adversary and image-level loss, trained on "
        "as many labeled batches. The control that tells what MI-AOD's training buys.",
        choices=("mi-aod", "plain"),
    )
    lambda_discrepancy: float = _setting(
        0.25,
        "Weight of the discrepancy terms; the paper found 0.2 to 2 alike, for its sum of them.",
        minimum=0,
        maximum=100,
    )
    average_discrepancy: bool = _setting(
        True,
        "Average the discrepancy over images and levels and sum it over classes, so that its "
        "weight means the same whatever the batch; the reference sums and averages the other way "
        "round. For its batch of 2 and 20 classes a weight of 0.25 here is its 0.5.",
    )
    mil_attention: str = _setting(
        "reference",
        "How anchors are weighed in the image-level loss: as the reference code does (nearly flat) "
        "or by the paper's formula.",
        choices=("reference", "paper"),
    )
    mil_background: str = _setting(
        "one_class",
        "Whether the image-level tower may say that an anchor shows no class at all: with one "
        "class it must, or its softmax is constant and teaches nothing, as in the reference "
        "(never); with several (always) an image without objects can be said to show none.",
        choices=("never", "one_class", "always"),
    )
    pseudo_label_threshold: float = _setting(
        0.5,
        "A class whose best score in an unlabeled image reaches this counts as present there.",
        minimum=0,
        maximum=1,
    )
    pseudo_label_gate: str = _setting(
        "image",
        "An unlabeled image without any pseudo class has no image-level loss: each for itself "
        "(image), or one such image takes it from its whole batch, as in the reference (batch).",
        choices=("image", "batch"),
    )
    skip_empty_images: bool = _setting(
        True,
        "No image-level loss for labeled images without boxes: its scores sum to one, so that the "
        "reference's demand of all zeros cannot be met.",
    )
    mask_padding: bool = _setting(
        True, "Leave anchors in the padding out of the image-level and discrepancy terms."
    )
    keep_zero_terms: bool = _setting(
        False,
        "Compute terms of weight zero, so that their parameters get zero gradients rather than "
        "none: weight decay and momentum then act on them, as in the reference.",
    )
    require_positive_iou: bool = _setting(
        True,
        "A box makes its best anchor positive only if they overlap at all; otherwise a degenerate "
        "box makes every anchor positive, as in the reference.",
    )
    background_as_class: bool = _setting(
        False,
        "ssd300 only: the image-level loss, the pseudo labels, the discrepancy and the uncertainty "
        "count background as one more class, absent from labeled images and found in unlabeled "
        "ones, as in the reference. Hardly any unlabeled image is then without a pseudo label.",
    )
    sigmoid_scores: bool = _setting(
        False,
        "ssd300 only: uncertainty, attention and pseudo labels read sigmoids of the logits, as in "
        "the reference; the classifiers are trained as a softmax, which says nothing about those.",
    )
    focal_alpha: float = _setting(
        0.25, "Weight of objects against background in the focal loss.", minimum=0, maximum=1
    )
    focal_gamma: float = _setting(
        2.0, "How much the focal loss neglects what is easy.", minimum=0, maximum=10
    )
    # The schedule.
    rounds: int = _setting(
        2,
        "How often minimise, maximise, label follow the first label stage.",
        minimum=0,
        maximum=20,
    )
    label_epochs: float = _setting(3.0, "Epochs of each label stage.", minimum=0, maximum=10000)
    label_min_steps: int = _setting(
        300,
        "A label stage has at least this many steps: with few images, epochs are too short to "
        "learn anything.",
        minimum=1,
        maximum=1_000_000,
    )
    label_max_steps: int = _setting(
        1_000_000, "A label stage has at most this many steps.", minimum=1, maximum=1_000_000
    )
    adversarial_epochs: float = _setting(
        1.0, "Epochs of each minimise and each maximise stage.", minimum=0, maximum=10000
    )
    adversarial_min_steps: int = _setting(
        100,
        "A minimise or maximise stage has at least this many steps.",
        minimum=1,
        maximum=1_000_000,
    )
    adversarial_max_steps: int = _setting(
        1_000_000,
        "A minimise or maximise stage has at most this many steps.",
        minimum=1,
        maximum=1_000_000,
    )
    repeats: int = _setting(
        2, "How often an epoch shows each labeled image.", minimum=1, maximum=1000
    )
    optimizer: str = _setting(
        "sgd", "sgd (with momentum) or adamw, which needs fewer steps.", choices=("sgd", "adamw")
    )
    learning_rate: float = _setting(5e-3, "Highest learning rate.", minimum=1e-8, maximum=10)
    backbone_lr_factor: float = _setting(
        1.0,
        "The backbone's learning rate over the rest's; below 1 it forgets less of ImageNet.",
        minimum=0,
        maximum=1,
    )
    momentum: float = _setting(0.9, "Momentum of sgd.", minimum=0, maximum=1)
    weight_decay: float = _setting(
        1e-4, "Weight decay; the reference's code has 5e-4, its paper 1e-4.", minimum=0, maximum=1
    )
    decay_biases: bool = _setting(
        True, "Decay biases and normalisation factors too, as the reference does."
    )
    joint_update: bool = _setting(
        True,
        "In minimise and maximise, one update for the labeled and the unlabeled batch together, "
        "which is the paper's objective. Otherwise one after the other, as in the reference's "
        "code; adamw gives both the same length of step, and a weak unlabeled gradient undoes what "
        "the labeled one taught.",
    )
    fresh_optimizer: bool = _setting(
        False,
        "Forget momentum at every stage border, as the reference does; short stages need theirs.",
    )
    clip_norm: float = _setting(
        10.0,
        "Largest norm of the gradient, 0 for no clipping; few images make wild steps.",
        minimum=0,
        maximum=1e6,
    )
    lr_schedule: str = _setting(
        "step",
        "step: constant, lowered tenfold near the end of the last label stage; cosine: falls over "
        "the whole training.",
        choices=("step", "cosine"),
    )
    lr_drop_fraction: float = _setting(
        1 / 3,
        "Share of the last label stage that `step` trains at the lowered rate.",
        minimum=0,
        maximum=1,
    )
    warmup_steps: int = _setting(
        500, "Steps over which the learning rate rises; 0 for none.", minimum=0, maximum=100_000
    )
    warmup_factor: float = _setting(
        1e-3, "Learning rate of the first step over the highest.", minimum=0, maximum=1
    )
    warmup_each_stage: bool = _setting(
        False, "Warm up again at every stage, as the reference does where it warms up at all."
    )
    ema_decay: float = _setting(
        0.0,
        "Decay of the moving average of the weights that becomes the model; 0 takes the last "
        "weights. Steadies short schedules.",
        minimum=0,
        maximum=0.9999,
    )
    amp: bool = _setting(
        True,
        "Convolutions in bfloat16 where the GPU has it; losses stay in float32.",
    )
    num_threads: int = _setting(
        4,
        "Threads of the CPU's arithmetic. Part of the configuration because the bits of a result "
        "depend on it.",
        minimum=1,
        maximum=1024,
    )
    # Scoring and detection.
    scoring_k: int = _setting(
        10_000,
        "Anchors whose discrepancy is averaged to the image's uncertainty; more than there are "
        "means all. Only very small values hurt.",
        minimum=1,
        maximum=10_000_000,
    )
    average_classifiers: bool = _setting(
        False,
        "Detect by the mean of both classifiers' logits; the reference asks the first one alone.",
    )
    score_threshold: float = _setting(
        0.05, "Detections below this score are dropped.", minimum=0, maximum=1
    )
    nms_iou: float = _setting(
        0.5, "Overlap beyond which the weaker of two detections goes.", minimum=0, maximum=1
    )
    nms_candidates: int = _setting(
        1000, "Best anchors of each level that become candidates.", minimum=1, maximum=1_000_000
    )
    detections_per_image: int = _setting(
        100, "Detections kept per image.", minimum=1, maximum=10_000
    )
    # What stays afterwards.
    keep_models: str = _setting(
        "best",
        "Whose weights stay on disk: best keeps the latest, best and pinned models, all keeps all.",
        choices=("best", "all"),
    )

    def __post_init__(self) -> None:
        """Hold every value to its type and bounds."""
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        for low, high in (
            ("label_min_steps", "label_max_steps"),
            ("adversarial_min_steps", "adversarial_max_steps"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)} exceeds {high} {getattr(self, high)}")
        for name, allowed in DETECTOR_NEEDS[self.detector].items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: detector {self.detector} takes "
                    f"{' or '.join(map(repr, allowed))}"
                )
        if self.width_divisor > 1 and self.pretrained:
            raise ValueError(
                f"width_divisor is {self.width_divisor} and pretrained is true: the ImageNet "
                "weights fit the full width only"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, in values that JSON has."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


DETECTOR_NEEDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "retinanet": {
        "backbone": ("efficientnet_lite0", "resnet18", "resnet50"),
        "width_divisor": (1,),
    },
    # Its anchors and the sizes of its maps are made for this one frame.
    "ssd300": {
        "backbone": ("vgg16",),
        "image_long_side": (300,),
        "image_short_side": (300,),
        "keep_ratio": (False,),
    },
}
"""The values to which a detector holds some of the fields."""


def _check(setting: dataclasses.Field[Any], value: Any) -> None:
    expected = _json_type(setting)
    items = value if expected == "list[float]" else (value,)
    if expected == "list[float]" and (not isinstance(value, tuple) or not value):
        raise ValueError(f"{setting.name} is {value!r}: it must be a list of numbers, not empty")
    scalar = {"bool": bool, "int": int, "str": str}.get(expected, float)
    for item in items:
        if type(item) is not scalar:
            raise ValueError(f"{setting.name} is {item!r}: it must be of type {expected}")
        if "choices" in setting.metadata and item not in setting.metadata["choices"]:
            choices = ", ".join(setting.metadata["choices"])
            raise ValueError(f"{setting.name} is {item!r}: it must be one of {choices}")
        if "minimum" in setting.metadata and not (
            setting.metadata["minimum"] <= item <= setting.metadata["maximum"]
        ):
            raise ValueError(
                f"{setting.name} is {item!r}: it must lie between {setting.metadata['minimum']} "
                f"and {setting.metadata['maximum']}"
            )


def _json_type(setting: dataclasses.Field[Any]) -> str:
    # Annotations are strings here, see the __future__ import.
    annotation = str(setting.type)
    return "list[float]" if annotation == "tuple[float, ...]" else annotation


def from_dict(values: Mapping[str, Any]) -> TrainingConfig:
    """A configuration from JSON values.

    Args:
        values: fields by name; `preset`, if there, names the preset that gives the missing ones
            (otherwise the field defaults do).

    Raises:
        ValueError: an unknown preset or field, or a value of the wrong type or out of bounds.
    """
    given = dict(values)
    preset = given.pop("preset", "default")
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is not known: it must be one of {', '.join(PRESETS)}")
    types = {setting.name: _json_type(setting) for setting in dataclasses.fields(TrainingConfig)}
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a training setting: see the fields of the presets")
    for name, value in given.items():
        if types[name] == "float" and type(value) is int:
            given[name] = float(value)
        elif types[name] == "list[float]" and isinstance(value, list | tuple):
            given[name] = tuple(float(v) if type(v) is int else v for v in value)
    return dataclasses.replace(PRESETS[preset], **given)


# What the reference's code does for VOC: its every quirk that changes a number is on. Where a field
# is left at its default, the default is the reference's; docs/parity.md goes through all of them.
_PAPER_VOC = TrainingConfig(
    min_image_side=32,
    box_corners="voc",
    batch_size=2,
    unlabeled_batch_size=2,
    unlabeled_subset=True,
    scoring_batch_size=1,
    num_loader_workers=2,
    lambda_discrepancy=0.5,
    average_discrepancy=False,
    mil_background="never",
    pseudo_label_gate="batch",
    skip_empty_images=False,
    mask_padding=False,
    keep_zero_terms=True,
    require_positive_iou=False,
    label_min_steps=1,
    adversarial_min_steps=1,
    learning_rate=1e-3,
    weight_decay=5e-4,
    joint_update=False,
    fresh_optimizer=True,
    clip_norm=0.0,
    warmup_steps=0,
    amp=False,
)

PRESETS: dict[str, TrainingConfig] = {
    "paper-voc": _PAPER_VOC,
    # The same for COCO: larger images, its boxes by way of XML files, a warm-up in every stage.
    "paper-coco": dataclasses.replace(
        _PAPER_VOC,
        image_long_side=1333,
        image_short_side=800,
        box_corners="coco",
        warmup_steps=500,
        warmup_each_stage=True,
    ),
    # What the reference's code does for VOC with SSD, its every quirk that changes a number on.
    # Where ours differs: the caffe weights of VGG16 cannot be had, and the published port that
    # stands in for them (torchvision's IMAGENET1K_FEATURES) lacks conv6 and conv7, which are drawn;
    # the crop of an unlabeled image heeds no boxes, as nobody knows them; distorted colors are cut
    # off at 0 and 255.
    "paper-voc-ssd": TrainingConfig(
        detector="ssd300",
        backbone="vgg16",
        frozen_stages=0,
        image_long_side=300,
        image_short_side=300,
        keep_ratio=False,
        min_image_side=32,
        box_corners="voc",
        photometric_distortion=True,
        expand_max=4.0,
        iou_crop=True,
        unlabeled_subset=True,
        scoring_batch_size=1,
        lambda_discrepancy=0.5,
        average_discrepancy=False,
        # SSD's image-level tower has the column by its nature.
        mil_background="always",
        pseudo_label_gate="batch",
        skip_empty_images=False,
        mask_padding=False,
        keep_zero_terms=True,
        require_positive_iou=False,
        background_as_class=True,
        sigmoid_scores=True,
        label_epochs=5.0,
        label_min_steps=1,
        adversarial_min_steps=1,
        repeats=16,
        learning_rate=1e-3,
        weight_decay=5e-4,
        joint_update=False,
        fresh_optimizer=True,
        clip_norm=0.0,
        # From the second of the last stage's five epochs on.
        lr_drop_fraction=0.8,
        warmup_each_stage=True,
        amp=False,
        score_threshold=0.02,
        nms_iou=0.45,
        # All 8732.
        nms_candidates=1_000_000,
        detections_per_image=200,
    ),
    # A practical recipe for one GPU: bigger batches, warm-up, clipping, half precision.
    "default": TrainingConfig(scale_min=0.8, scale_max=1.25, color_jitter=0.2),
    # Minutes on two cores: a light backbone whose early half is frozen, narrow heads, small images,
    # and a schedule counted in steps, since passes over a handful of images teach nothing.
    "cpu": TrainingConfig(
        backbone="efficientnet_lite0",
        frozen_stages=3,
        fpn_channels=64,
        head_channels=64,
        head_depth=1,
        # From 20 pixels on stride 8: things are small at this image size.
        octave_scale=2.5,
        group_norm=True,
        image_long_side=320,
        image_short_side=320,
        num_loader_workers=0,
        cache_megabytes=512,
        label_epochs=6.0,
        label_min_steps=60,
        label_max_steps=400,
        adversarial_epochs=1.5,
        adversarial_min_steps=15,
        adversarial_max_steps=100,
        repeats=1,
        optimizer="adamw",
        learning_rate=2e-3,
        # At the heads' pace the backbone forgets, and with C5 the largest objects are lost.
        backbone_lr_factor=0.1,
        weight_decay=1e-2,
        decay_biases=False,
        lr_schedule="cosine",
        warmup_steps=20,
        amp=False,
        num_threads=2,
        # The same share of the anchors as 10,000 is of the reference's 110,000.
        scoring_k=1000,
    ),
}


def describe() -> dict[str, Any]:
    """The presets and what may be changed in them, as the server's JSON file has it."""
    fields = {
        setting.name: {
            "type": _json_type(setting),
            **{k: list(v) if k == "choices" else v for k, v in setting.metadata.items()},
        }
        for setting in dataclasses.fields(TrainingConfig)
    }
    return {
        "presets": {name: p.to_dict() for name, p in PRESETS.items()},
        "fields": fields,
        "detector_needs": {
            detector: {name: list(allowed) for name, allowed in needs.items()}
            for detector, needs in DETECTOR_NEEDS.items()
        },
    }


def presets_text() -> str:
    """The content of `PRESETS_FILE`."""
    return json.dumps(describe(), indent=1) + "\n"


if __name__ == "__main__":
    PRESETS_FILE.write_text(presets_text(), encoding="utf-8")
