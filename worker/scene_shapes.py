"""The things on a drawn workbench: their outlines, how they are cut out, how their metal shines.

Outlines are polygons in a unit frame: `u` runs along the thing, `v` across, and the farthest point
is about 1 from the middle. `cut_out` turns, slants and scales them into a mask; `shade` gives each
pixel of the mask its brightness from the same unit coordinates, so that highlights turn with the
light and not with the thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.float32]
# Polygons in unit coordinates (N, 2), each filled or cut out, in the order they are drawn.
Outline = list[tuple[npt.NDArray[np.float64], bool]]

SUPERSAMPLING = 3
_SHAFT = 0.2  # half width of a screw's shaft, of its head, of its length
_HEAD = 0.44
_HEAD_END = -0.66


@dataclass(frozen=True)
class Shape:
    """A kind of thing.

    Attributes:
        outline: draws its polygons, filled (True) or cut out (False), with some variation.
        radius: the smallest and largest half extent, pixels at the reference width.
        finish: how it shines; a key of `_FINISHES`.
        dark: rubber or plastic rather than metal.
    """

    outline: Callable[[np.random.Generator], Outline]
    radius: tuple[float, float]
    finish: str
    dark: bool = False


@dataclass(frozen=True)
class Cutout:
    """A thing's mask in pixels, ready to be laid on a picture.

    Attributes:
        alpha: (h, w) coverage of each pixel, 0..1.
        u, v: (h, w) unit coordinates of each pixel.
        angle: how far the thing is turned, radians.
        middle: x, y of its middle within the mask.
        box: left, top, right, bottom of the pixels at least half covered.
    """

    alpha: Floats
    u: Floats
    v: Floats
    angle: float
    middle: tuple[float, float]
    box: tuple[int, int, int, int]


def cut_out(
    shape: Shape, radius: float, angle: float, squash: float, rng: np.random.Generator
) -> Cutout:
    """Draw a thing's mask: `radius` in pixels, turned by `angle`, height times `squash`."""
    cos, sin = np.cos(angle), np.sin(angle)
    to_pixels = radius * np.array([[cos, -sin], [squash * sin, squash * cos]])
    polygons = [(points @ to_pixels.T, filled) for points, filled in shape.outline(rng)]
    corners = np.concatenate([points for points, _ in polygons])
    low = np.floor(corners.min(axis=0)) - 1
    width, height = (np.ceil(corners.max(axis=0)) + 1 - low).astype(int)
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for points, filled in polygons:
        draw.polygon(((points - low) * SUPERSAMPLING).ravel().tolist(), fill=255 if filled else 0)
    alpha = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) * np.float32(1 / 255)
    xs = np.arange(width, dtype=np.float32) + np.float32(0.5 + low[0])
    ys = np.arange(height, dtype=np.float32) + np.float32(0.5 + low[1])
    back = np.linalg.inv(to_pixels).astype(np.float32)
    u: Floats = back[0, 0] * xs[None, :] + back[0, 1] * ys[:, None]
    v: Floats = back[1, 0] * xs[None, :] + back[1, 1] * ys[:, None]
    solid = alpha >= 0.5
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Cutout(alpha, u, v, angle, (float(-low[0]), float(-low[1])), box)


def shade(
    shape: Shape, cutout: Cutout, material: Floats, light: float, rng: np.random.Generator
) -> Floats:
    """Colours (h, w, 3) of a thing's pixels, about 0..1.

    Args:
        material: base colour (3,).
        light: direction the light comes from, radians in the picture.
    """
    brightness = _FINISHES[shape.finish](cutout.u, cutout.v, light - cutout.angle, rng)
    grain = rng.standard_normal(brightness.shape, dtype=np.float32) * np.float32(0.035)
    colour = material * np.float32(0.28) if shape.dark else material
    highlight = np.maximum(brightness - 1, 0)[..., None]
    shaded = (brightness + grain)[..., None] * colour + highlight * np.float32(0.35)
    return np.asarray(shaded, dtype=np.float32)


def _circle(radius: float, u: float = 0.0, corners: int = 40) -> npt.NDArray[np.float64]:
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([u + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _bar(left: float, right: float, half: float) -> npt.NDArray[np.float64]:
    return np.array([(left, -half), (right, -half), (right, half), (left, half)])


def _washer(rng: np.random.Generator) -> Outline:
    return [(_circle(1), True), (_circle(rng.uniform(0.4, 0.58)), False)]


def _nut(rng: np.random.Generator) -> Outline:
    return [(_circle(1, corners=6), True), (_circle(rng.uniform(0.42, 0.54)), False)]


def _screw(rng: np.random.Generator) -> Outline:
    shaft = _SHAFT
    body = [(_HEAD_END, -shaft), (0.76, -shaft), (1, 0), (0.76, shaft), (_HEAD_END, shaft)]
    if rng.random() < 0.5:  # countersunk
        head = [(-1, -_HEAD), (-0.9, -_HEAD), (_HEAD_END, -shaft), (_HEAD_END, shaft)]
        head += [(-0.9, _HEAD), (-1, _HEAD)]
    else:
        head = [(-0.98, -_HEAD * 0.7), (-0.8, -_HEAD), (_HEAD_END, -_HEAD), (_HEAD_END, _HEAD)]
        head += [(-0.8, _HEAD), (-0.98, _HEAD * 0.7)]
    return [(np.array(body), True), (np.array(head), True)]


def _coin(rng: np.random.Generator) -> Outline:
    return [(_circle(1), True)]


def _key(rng: np.random.Generator) -> Outline:
    blade = [(-0.3, -0.13), (1, -0.13), (1, 0.0)]
    for place in np.linspace(0.92, 0.2, 5):
        depth = rng.uniform(0.06, 0.26)
        blade += [(place, depth), (place - 0.09, depth), (place - 0.11, 0.05)]
    blade += [(0.0, 0.13), (-0.3, 0.13)]
    bow = _circle(0.42, -0.58, corners=8 if rng.random() < 0.5 else 40)
    return [(np.array(blade), True), (bow, True), (_circle(0.15, -0.76), False)]


def _disc(rng: np.random.Generator) -> Outline:
    return [(_circle(1), True)]


def _rubber_ring(rng: np.random.Generator) -> Outline:
    return [(_circle(1), True), (_circle(rng.uniform(0.72, 0.8)), False)]


def _pin(rng: np.random.Generator) -> Outline:
    half = rng.uniform(0.1, 0.2)
    return [(_bar(-1, 1, half), True)]


def _bolt_head(rng: np.random.Generator) -> Outline:
    return [(_circle(1, corners=6), True)]


def _plate(rng: np.random.Generator) -> Outline:
    half = rng.uniform(0.55, 0.7)
    return [(_bar(-0.72, 0.72, half), True), (_circle(0.28, corners=24), False)]


def _crumb(rng: np.random.Generator) -> Outline:
    points = _circle(1, corners=9)
    return [(points * rng.uniform(0.45, 1.0, (9, 1)), True)]


def _turned(u: Floats, v: Floats, light: float, rng: np.random.Generator) -> Floats:
    """Turned on a lathe: two bright fans across the face, a bevel that faces the light."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    fans = 0.2 * np.cos(2 * (angle - light + 0.5))
    bevel = np.where(radius > 0.86, 0.38 * np.cos(angle - light), 0.0)
    return np.asarray(0.9 + fans + bevel, dtype=np.float32)


def _milled(u: Floats, v: Floats, light: float, rng: np.random.Generator) -> Floats:
    """A flat face with a round chamfer, as on nuts."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    slope = 0.16 * (u * np.cos(light) + v * np.sin(light))
    chamfer = np.where(radius > 0.8, 0.3 * np.cos(angle - light) - 0.12, 0.0)
    return np.asarray(0.92 + slope + chamfer, dtype=np.float32)


def _struck(u: Floats, v: Floats, light: float, rng: np.random.Generator) -> Floats:
    """A coin: raised rim, a relief in the middle."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    rim = np.where(np.abs(radius - 0.9) < 0.08, 0.25 * np.cos(angle - light) + 0.12, 0.0)
    phase = rng.uniform(0, 2 * np.pi, 3)
    spokes = int(rng.integers(1, 6))
    relief = np.sin(7 * u + phase[0]) * np.sin(6 * v + phase[1]) + np.sin(spokes * angle + phase[2])
    field = np.where(radius < 0.7, 0.17 * np.sign(relief) * (0.6 + radius), -0.06)
    return np.asarray(0.9 + rim + field, dtype=np.float32)


def _threaded(u: Floats, v: Floats, light: float, rng: np.random.Generator) -> Floats:
    """A screw seen from the side: a round shaft with thread, a round head without."""
    half = np.where(u < _HEAD_END, _HEAD, _SHAFT)
    across = np.clip(v / half, -1, 1)
    shine = 0.5 * np.sin(light)
    roundness = 0.5 + 0.45 * np.sqrt(1 - across**2)
    glint = 0.5 * np.exp(-(((across - shine) / 0.28) ** 2))
    thread = 0.2 * np.sin((u + 0.22 * v) * rng.uniform(32, 42))
    on_thread = (u > _HEAD_END + 0.08) & (u < 0.9)
    return np.asarray(roundness + glint + np.where(on_thread, thread, 0.0), dtype=np.float32)


def _plain_round(u: Floats, v: Floats, light: float, rng: np.random.Generator) -> Floats:
    """A smooth rod or a moulded ring: round, without detail."""
    slope = 0.25 * (u * np.cos(light) + v * np.sin(light))
    return np.asarray(0.85 + slope, dtype=np.float32)


_FINISHES: dict[str, Callable[[Floats, Floats, float, np.random.Generator], Floats]] = {
    "turned": _turned,
    "milled": _milled,
    "struck": _struck,
    "threaded": _threaded,
    "plain": _plain_round,
}

# What the detector is to find …
OBJECTS = {
    "screw": Shape(_screw, (18, 38), "threaded"),
    "washer": Shape(_washer, (11, 22), "turned"),
    "nut": Shape(_nut, (11, 20), "milled"),
    "coin": Shape(_coin, (11, 21), "struck"),
    "key": Shape(_key, (22, 40), "milled"),
}
# … and what only looks like it.
CLUTTER = (
    Shape(_disc, (8, 19), "turned"),
    Shape(_disc, (8, 17), "plain", dark=True),
    Shape(_rubber_ring, (10, 20), "plain", dark=True),
    Shape(_pin, (15, 34), "plain"),
    Shape(_bolt_head, (10, 18), "milled"),
    Shape(_plate, (13, 25), "milled"),
    Shape(_crumb, (2, 6), "plain", dark=True),
)
