"""Drawn scenes for the demo and for tests: small hardware on a workbench, seen from above.

A pool to practise active learning on must have what real pools have: classes of very different
frequency, sparse pictures that teach little and crowded ones that teach much, objects that hide
each other, and things that look like the objects but are not (plain discs, pins, rubber rings,
solid hexagons). Backgrounds, light, blur and noise vary, so that no single threshold finds the
objects. Every scene is a pure function of its seed and index: the same pixels in every run.

How a scene comes about: a procedural background; objects and clutter in a random order, each with
a soft shadow (see `scene_shapes`); then light, vignette, blur, sensor noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from server.formats.boxes import LabeledBox, LabeledImage
from server.formats.voc import write_annotation
from worker.scene_shapes import CLUTTER, OBJECTS, Cutout, cut_out, shade

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

# From frequent to rare.
CLASS_NAMES = ("screw", "washer", "nut", "coin", "key")
# Sizes are given for a picture of this width and scale with it.
REFERENCE_WIDTH = 256
# Test scenes have indices of their own, so that a larger pool leaves the test set as it is.
FIRST_TEST_INDEX = 1_000_000
# A thing may be cut off by the border or covered by its neighbours only so far.
MIN_INSIDE = 0.65
MAX_COVERED = 0.35
PLACING_ATTEMPTS = 12


@dataclass(frozen=True)
class SceneKind:
    """How full a scene is, and with what.

    Attributes:
        probability: share of such scenes in a pool.
        num_objects, num_clutter: smallest and largest count.
        class_weights: how likely each class is, in the order of `CLASS_NAMES`.
        spread: standard deviation of a heap, as a share of the picture; 0 scatters all over.
    """

    probability: float
    num_objects: tuple[int, int]
    num_clutter: tuple[int, int]
    class_weights: tuple[float, ...]
    spread: float


# Half of the pool is nearly worthless once screws and washers are known; rare classes sit in the
# full scenes, so that it pays to look for those.
SCENE_KINDS = (
    SceneKind(0.06, (0, 0), (1, 4), (1.0, 0.0, 0.0, 0.0, 0.0), 0.0),
    SceneKind(0.50, (1, 2), (0, 2), (0.60, 0.30, 0.07, 0.02, 0.01), 0.0),
    SceneKind(0.30, (3, 6), (1, 5), (0.40, 0.30, 0.17, 0.09, 0.04), 0.0),
    SceneKind(0.14, (7, 13), (2, 6), (0.26, 0.24, 0.20, 0.17, 0.13), 0.26),
)

# Base colours of metals; colour alone tells no class.
MATERIALS = np.array(
    [
        (0.74, 0.75, 0.77),  # zinc
        (0.56, 0.57, 0.60),  # steel
        (0.76, 0.62, 0.32),  # brass
        (0.68, 0.43, 0.29),  # copper
        (0.31, 0.31, 0.33),  # black oxide
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class Scene:
    """A drawn picture and what is on it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4) float32 absolute pixels xyxy, whole numbers, inside the picture.
        class_names: one of `CLASS_NAMES` per box.
    """

    image: npt.NDArray[np.uint8]
    boxes: Floats
    class_names: tuple[str, ...]


def draw_scene(seed: int, index: int, size: tuple[int, int] = (256, 192)) -> Scene:
    """Draw scene number `index` of the pool `seed`; the same arguments give the same pixels.

    Args:
        seed: names the pool; >= 0.
        index: the scene within the pool; >= 0.
        size: width and height in pixels; objects scale with the width.
    """
    rng = np.random.default_rng([seed, index])
    width, height = size
    scale = width / REFERENCE_WIDTH
    kind = SCENE_KINDS[rng.choice(len(SCENE_KINDS), p=[k.probability for k in SCENE_KINDS])]
    canvas = _background(rng, size)
    light = float(rng.uniform(0, 2 * np.pi))
    squash = float(rng.uniform(0.8, 1.0))  # the camera looks down at a slant
    heap = rng.uniform(0.35, 0.65, 2)

    num_objects = int(rng.integers(kind.num_objects[0], kind.num_objects[1] + 1))
    classes = rng.choice(len(CLASS_NAMES), num_objects, p=kind.class_weights)
    things = [(OBJECTS[CLASS_NAMES[c]], CLASS_NAMES[c]) for c in classes]
    num_clutter = int(rng.integers(kind.num_clutter[0], kind.num_clutter[1] + 1))
    things += [(CLUTTER[c], "") for c in rng.integers(0, len(CLUTTER), num_clutter)]

    taken: list[Box] = []
    labels: list[tuple[Box, str]] = []
    for place in rng.permutation(len(things)):
        shape, class_name = things[place]
        radius = scale * float(np.exp(rng.uniform(*np.log(shape.radius))))
        cutout = cut_out(shape, radius, float(rng.uniform(0, 2 * np.pi)), squash, rng)
        material = (MATERIALS[rng.integers(0, len(MATERIALS))] * rng.uniform(0.85, 1.15)).astype(
            np.float32
        )
        colours = shade(shape, cutout, material, light, rng)
        # A crowd may end up smaller than drawn lots said: what finds no room stays away.
        for _ in range(PLACING_ATTEMPTS):
            where = rng.normal(heap, kind.spread) if kind.spread else rng.uniform(0.03, 0.97, 2)
            x, y = (round(float(v)) for v in where * size - cutout.middle)
            box = _box_inside(cutout, x, y, size, taken)
            if box is not None:
                _lay_down(canvas, cutout, colours, (x, y), light, lift=0.16 * radius)
                taken.append(box)
                if class_name:
                    labels.append((box, class_name))
                break
    boxes = np.array([box for box, _ in labels], dtype=np.float32).reshape(-1, 4)
    return Scene(_photograph(canvas, rng, scale), boxes, tuple(name for _, name in labels))


def write_voc(
    folder: Path, num_trainval: int, num_test: int, seed: int, size: tuple[int, int] = (256, 192)
) -> None:
    """Write a data set in VOC layout: JPEGs, annotations, and the lists `trainval` and `test`.

    Args:
        folder: created if need be; gets `JPEGImages`, `Annotations`, `ImageSets/Main`.
        num_trainval, num_test: how many scenes of each.
        seed, size: as for `draw_scene`.
    """
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    splits = {
        "trainval": range(num_trainval),
        "test": range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + num_test),
    }
    for split, indices in splits.items():
        stems = [f"{split}_{number:05d}" for number in range(len(indices))]
        for stem, index in zip(stems, indices, strict=True):
            _write_scene(folder, stem, draw_scene(seed, index, size))
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")


def _write_scene(folder: Path, stem: str, scene: Scene) -> None:
    height, width = scene.image.shape[:2]
    picture = Image.fromarray(scene.image)
    picture.save(folder / "JPEGImages" / f"{stem}.jpg", quality=92, subsampling=0)
    boxes = tuple(
        LabeledBox(name, x1, y1, x2, y2)
        for name, (x1, y1, x2, y2) in zip(scene.class_names, scene.boxes.tolist(), strict=True)
    )
    xml = write_annotation(LabeledImage(f"{stem}.jpg", width, height, boxes))
    (folder / "Annotations" / f"{stem}.xml").write_bytes(xml)


def _box_inside(
    cutout: Cutout, x: int, y: int, size: tuple[int, int], taken: Sequence[Box]
) -> Box | None:
    """The box of a thing laid at x, y, or None: too far outside, or too much in a heap."""
    left, top, right, bottom = cutout.box
    box = (max(0, x + left), max(0, y + top), min(size[0], x + right), min(size[1], y + bottom))
    area = max(0, box[2] - box[0]) * max(0, box[3] - box[1])
    if area < MIN_INSIDE * (right - left) * (bottom - top):
        return None
    for other in taken:
        wide = min(box[2], other[2]) - max(box[0], other[0])
        high = min(box[3], other[3]) - max(box[1], other[1])
        smaller = min(area, (other[2] - other[0]) * (other[3] - other[1]))
        if wide > 0 and high > 0 and wide * high > MAX_COVERED * smaller:
            return None
    return box


def _lay_down(
    canvas: Floats,
    cutout: Cutout,
    colours: Floats,
    corner: tuple[int, int],
    light: float,
    lift: float,
) -> None:
    """Lay a thing on the canvas, its shadow first, which falls away from the light."""
    lift = max(1.5, lift)
    margin = int(np.ceil(3 * lift))
    padded = np.pad(cutout.alpha, margin)
    solid = Image.fromarray((padded * 255).astype(np.uint8))
    shadow = np.asarray(solid.filter(ImageFilter.GaussianBlur(lift * 0.8)), dtype=np.float32)
    away = (round(-lift * float(np.cos(light))), round(-lift * float(np.sin(light))))
    shadow_corner = (corner[0] - margin + away[0], corner[1] - margin + away[1])
    for mask, (x, y), paint in (
        (shadow * np.float32(0.55 / 255), shadow_corner, None),
        (cutout.alpha, corner, colours),
    ):
        left, top = max(0, -x), max(0, -y)
        region = canvas[max(0, y) : y + mask.shape[0], max(0, x) : x + mask.shape[1]]
        window = np.s_[top : top + region.shape[0], left : left + region.shape[1]]
        cover = mask[window][..., None]
        if paint is None:
            region *= 1 - cover
        else:
            region += (paint[window] - region) * cover


def _noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Smooth noise (H, W) in -1..1, with so many cells across and down."""
    coarse = rng.random((max(2, cells[1]), max(2, cells[0])), dtype=np.float32) * 2 - 1
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """A surface (H, W, 3), about 0..1: wood, sheet metal, cloth, cardboard or concrete."""
    width, height = size
    xs = np.arange(width, dtype=np.float32)[None, :]
    ys = np.arange(height, dtype=np.float32)[:, None]
    kind = int(rng.integers(0, 5))
    slow = _noise(rng, size, (4, 3))
    if kind == 0:
        colour = np.array((0.58, 0.42, 0.27)) * rng.uniform(0.65, 1.25)
        rings = np.sin(ys * rng.uniform(0.15, 0.4) + 5 * slow + 0.02 * xs)
        texture = 0.09 * _noise(rng, size, (6, height // 2)) + 0.07 * rings
    elif kind == 1:
        colour = np.array((0.55, 0.57, 0.60)) * rng.uniform(0.6, 1.25)
        texture = 0.05 * _noise(rng, size, (3, height)) + 0.04 * _noise(rng, size, (8, height // 3))
    elif kind == 2:
        dye = rng.uniform(0.1, 0.75, 3)
        colour = 0.6 * dye + 0.4 * dye.mean()  # cloth that is much used is less bright
        pitch = rng.uniform(1.3, 2.2)
        weave = 0.06 * np.sin(xs * pitch) * np.sin(ys * pitch)
        texture = weave + 0.1 * slow + 0.04 * _noise(rng, size, (width, height))
    elif kind == 3:
        colour = np.array((0.72, 0.60, 0.46)) * rng.uniform(0.8, 1.25)
        ribs = 0.02 * np.sin(xs * rng.uniform(0.5, 0.9))
        texture = ribs + 0.03 * _noise(rng, size, (width // 2, height // 6))
    else:
        colour = rng.uniform(0.35, 0.7) * rng.uniform(0.94, 1.06, 3)
        texture = 0.08 * _noise(rng, size, (width // 2, height // 2)) + 0.05 * slow
        texture = texture + 0.06 * _noise(rng, size, (24, 18))
    texture = texture.astype(np.float32)
    if rng.random() < 0.5:  # turned by a quarter: grain runs either way
        texture = np.asarray(Image.fromarray(np.ascontiguousarray(texture.T)).resize(size))
    stain = np.clip(_noise(rng, size, (5, 4)) - 0.45, 0, 1) * rng.uniform(0, 0.8)
    brightness = (1 + texture - stain).astype(np.float32)
    return np.asarray(brightness[..., None] * colour.astype(np.float32))


def _photograph(canvas: Floats, rng: np.random.Generator, scale: float) -> npt.NDArray[np.uint8]:
    """Light the canvas and take its picture: uneven light, tint, vignette, blur, sensor noise."""
    height, width = canvas.shape[:2]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.32)
    light = 1 + strength * (xs * np.cos(direction) + ys * np.sin(direction))
    spot_x, spot_y = rng.uniform(-0.8, 0.8, 2)
    spot = np.exp(-((xs - spot_x) ** 2 + (ys - spot_y) ** 2) / rng.uniform(0.3, 1.5))
    light = light + rng.uniform(0, 0.3) * spot - rng.uniform(0.02, 0.2) * (xs**2 + ys**2) / 2
    tint = rng.uniform(0.92, 1.08, 3) * rng.uniform(0.72, 1.15)
    lit = canvas * light.astype(np.float32)[..., None] * tint.astype(np.float32)
    exposed = Image.fromarray((lit.clip(0, 1) * 255).astype(np.uint8))
    blur = scale * rng.uniform(0.2, 0.9)
    sharp = np.asarray(exposed.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    grain = rng.standard_normal(sharp.shape, dtype=np.float32) * np.float32(rng.uniform(1.5, 8.0))
    return (sharp + grain).clip(0, 255).astype(np.uint8)
