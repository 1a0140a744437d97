"""Label files that come with an import, each with what must be said about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

_HEAD = "<annotation><filename>good.png</filename>"
_BOX = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object>"
)


def voc(*objects: str, before: str = "") -> str:
    """An annotation file."""
    return f"{before}{_HEAD}{''.join(objects)}</annotation>"


def voc_files() -> Iterator[tuple[str, Callable[[], str | bytes], str]]:
    """What it is, its maker, and the words of the refusal."""
    laughs = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
    yield "no XML", lambda: "hello", "broken"
    yield "cut short", lambda: voc()[:-5], "broken"
    yield "a page", lambda: "<html><body/></html>", "root is <html>"
    yield (
        "billion laughs",
        lambda: voc(_BOX.format("&l9;", 1), before=f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>'),
        "document type",
    )
    yield (
        "a file of the server",
        lambda: voc(
            _BOX.format("&x;", 1), before='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        ),
        "document type",
    )
    yield (
        "an address",
        lambda: voc(before='<!DOCTYPE a SYSTEM "http://169.254.169.254/latest/meta-data/">'),
        "document type",
    )
    yield (
        "long defaults",
        lambda: voc(
            "<a/>" * 10_000,
            before=f'<!DOCTYPE annotation [<!ATTLIST a b CDATA "{"x" * 60_000}">]>',
        ),
        "document type",
    )
    yield "a million elements", lambda: voc("<a/>" * 1_000_000), "200000 elements"
    yield "deep", lambda: voc("<a>" * 100_000 + "</a>" * 100_000), "nested deeper"
    yield "too long", lambda: voc(" " * 17_000_000), "at most 16777216"
    yield "long class", lambda: voc(_BOX.format("c" * 1_000_000, 1)), "characters"
    yield "long tag", lambda: f"<{'t' * 1_000_000}/>", "root is"
    yield "10,001 boxes", lambda: voc(*[_BOX.format("car", 2)] * 10_001), "10001 boxes"
    yield "control characters", lambda: voc(_BOX.format("c\x00r", 1)), "broken"
    yield (
        "unknown encoding",
        lambda: b'<?xml version="1.0" encoding="x-evil"?>' + (voc().encode()),
        "decoded|broken",
    )
    for value in ("NaN", "inf", "1e999", "-1e999999999", "9" * 100_000, "1" * 50 + "e5", "one"):
        yield (
            f"at {value[:12]}",
            lambda value=value: voc(  # type: ignore[misc]
                _BOX.format("car", value)
            ),
            "number|out of the picture|no area",
        )


_IMAGE = '{"id": 1, "file_name": "good.png", "width": 64, "height": 48}'
_CATEGORIES = '[{"id": 1, "name": "car"}]'


def coco(annotations: str = "[]", images: str = f"[{_IMAGE}]", more: str = "") -> str:
    """A label file."""
    return (
        f'{{"images": {images}, "annotations": {annotations}, "categories": {_CATEGORIES}{more}}}'
    )


def annotation(bbox: str = "[1, 1, 5, 5]", **more: object) -> str:
    """An entry of `annotations`; `bbox` as it is to be written."""
    fields = {"id": 1, "image_id": 1, "category_id": 1, **more}
    return f'{json.dumps(fields)[:-1]}, "bbox": {bbox}}}'


def coco_files() -> Iterator[tuple[str, Callable[[], str | bytes], str]]:
    """What it is, its maker, and the words of the refusal."""
    yield "cut short", lambda: coco()[:-5], "broken"
    yield "not UTF-8", lambda: coco().encode() + b"\xff", "UTF-8|broken"
    yield "deep", lambda: coco("[" * 200_000 + "]" * 200_000), "too deep"
    yield "deep and open", lambda: coco("[" + '{"a":' * 100_000), "too deep|broken"
    yield "one large element", lambda: coco(f"[[{'[],' * 5_000_000}0]]"), "an element of more"
    yield "one large text", lambda: coco(more=f', "info": "{"x" * 5_000_000}"'), "an element of"
    yield "many empty entries", lambda: coco(f"[{'{},' * 3_000_000}0]"), "more than 1000 entries"
    yield "many images of nothing", lambda: coco(images=f"[{'{},' * 1_000_000}0]"), "more than 1000"
    long_name = f'{{"id": 2, "file_name": "{"n" * 1_000_000}"}}'
    yield "long names", lambda: coco(images=f"[{', '.join([long_name] * 20)}, {_IMAGE}]"), "500"
    yield (
        "a long number",
        lambda: coco(f"[{annotation('[1, 1, ' + '9' * 5000 + ', 1]')}]"),
        "broken",
    )
    yield "10,001 boxes", lambda: coco(f"[{', '.join([annotation()] * 10_001)}]"), "10001 boxes"
    for bbox in (
        "[1, 1, NaN, 5]",
        "[1, 1, 1e999, 5]",
        "[1, 1, Infinity, 5]",
        "[1, 1, -5, 5]",
        "[1e400, 1, 5, 5]",
        '["1", 1, 5, 5]',
        "[1, 1, 5]",
        "null",
        "{}",
    ):
        yield (
            f"at {bbox}",
            lambda bbox=bbox: coco(  # type: ignore[misc]
                f"[{annotation(bbox)}]"
            ),
            "bbox|numbers|out of the picture|no area",
        )
    yield "an image by a list", lambda: coco(f"[{annotation(image_id=[1])}]"), "none of the listed"
    yield (
        "a NUL in a name",
        lambda: coco(
            images=f'[{_IMAGE}, {{"id": 2, "file_name": "a\\u0000.png"}}]',
            annotations=f"[{annotation(image_id=2)}]",
        ),
        "control character",
    )
    yield (
        "half a character",
        lambda: coco(
            images=f'[{_IMAGE}, {{"id": 2, "file_name": "\\ud800.png"}}]',
            annotations=f"[{annotation(image_id=2)}]",
        ),
        "Unicode",
    )
    yield (
        "a way out",
        lambda: coco(
            images=f'[{_IMAGE}, {{"id": 2, "file_name": "../../etc/passwd"}}]',
            annotations=f"[{annotation(image_id=2)}]",
        ),
        r"leads out|missing here",
    )
