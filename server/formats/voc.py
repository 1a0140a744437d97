"""PASCAL VOC annotations: one XML file per image.

VOC counts pixels from 1 and its corners are inclusive: the pixel columns `xmin` to `xmax` belong to
the box. In our continuous coordinates that is x1 = xmin - 1, x2 = xmax (corners `voc`). Tools that
write 0-based exclusive corners need `zero-based`, which takes all four as they stand.

What we write and read again is the same float (see `exact`).
"""

from __future__ import annotations

import io
from decimal import Decimal, DecimalException
from typing import Literal
from xml.etree import ElementTree

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree

from server.formats.boxes import LabeledBox, LabeledImage, LabelsRefused
from server.formats.exact import EXACT, decimal_of, text_of

Corners = Literal["voc", "zero-based"]

# An annotation of 10,000 boxes has 3 MB and 120,000 elements.
MAX_XML_BYTES = 16 * 1024 * 1024
MAX_ELEMENTS = 200_000
MAX_DEPTH = 20
# Of a class or file name; and as much of a wrong text is said as anybody would read.
_MAX_TEXT = 500
_SAID_CHARACTERS = 60
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_annotation(xml: bytes, corners: Corners = "voc") -> LabeledImage:
    """What an annotation file says; its `name` is the text of `<filename>`, perhaps empty.

    Raises:
        LabelsRefused: no XML, not a VOC annotation, or an object without class or corners.
    """
    if len(xml) > MAX_XML_BYTES:
        raise LabelsRefused(
            f"the XML has {len(xml)} bytes; an annotation has at most {MAX_XML_BYTES}"
        )
    try:
        root = _parsed(xml)
    except LabelsRefused:
        raise
    except ElementTree.ParseError as error:
        raise LabelsRefused(f"the XML is broken ({error}); write it anew") from None
    except DefusedXmlException:
        raise LabelsRefused(
            "the XML has a document type or declares entities, which are not read; remove them"
        ) from None
    except (ValueError, LookupError) as error:  # an encoding that does not exist, or does not fit
        raise LabelsRefused(f"the XML cannot be decoded ({error}); write it as UTF-8") from None
    if root.tag != "annotation":
        tag = root.tag[:_SAID_CHARACTERS]
        raise LabelsRefused(f"the XML's root is <{tag}>; a VOC annotation has <annotation>")
    name = (root.findtext("filename") or "").strip()
    if len(name) > _MAX_TEXT:
        raise LabelsRefused(
            f"the <filename> has {len(name)} characters, at most {_MAX_TEXT} may be"
        )
    boxes = tuple(
        _read_object(element, number, corners)
        for number, element in enumerate(root.iterfind("object"), start=1)
    )
    return LabeledImage(name, _read_size(root, "width"), _read_size(root, "height"), boxes)


def write_annotation(labels: LabeledImage, corners: Corners = "voc") -> bytes:
    """The annotation file of an image, UTF-8; `read_annotation` gives back equal boxes."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", labels.name)
    size = ElementTree.SubElement(root, "size")
    _add(size, "width", str(labels.width or 0))
    _add(size, "height", str(labels.height or 0))
    _add(size, "depth", "3")
    _add(root, "segmented", "0")
    offsets = _offsets(corners)
    for box in labels.boxes:
        element = ElementTree.SubElement(root, "object")
        _add(element, "name", box.class_name)
        _add(element, "pose", "Unspecified")
        _add(element, "truncated", "0")
        _add(element, "difficult", str(int(box.difficult)))
        bounds = ElementTree.SubElement(element, "bndbox")
        for tag, value in zip(_CORNERS, (box.x1, box.y1, box.x2, box.y2), strict=True):
            _add(bounds, tag, text_of(EXACT.add(decimal_of(value), offsets[tag])))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8")) + b"\n"


def _parsed(xml: bytes) -> ElementTree.Element:
    """The tree, as long as it stays small: sixteen megabytes of <a/> would be a gigabyte of it."""
    depth = num_elements = 0
    root: ElementTree.Element | None = None
    events = SafeElementTree.iterparse(io.BytesIO(xml), ("start", "end"), forbid_dtd=True)
    for event, element in events:
        if event == "end":
            depth -= 1
            continue
        if root is None:
            root = element
        depth += 1
        num_elements += 1
        if depth > MAX_DEPTH or num_elements > MAX_ELEMENTS:
            raise LabelsRefused(
                f"the XML has more than {MAX_ELEMENTS} elements, or is nested deeper than "
                f"{MAX_DEPTH}; an annotation is not"
            )
    assert root is not None  # an empty document is broken
    return root


def _read_object(element: ElementTree.Element, number: int, corners: Corners) -> LabeledBox:
    class_name = (element.findtext("name") or "").strip()
    if len(class_name) > _MAX_TEXT:
        raise LabelsRefused(
            f"object {number} has a class of {len(class_name)} characters; {_MAX_TEXT} is the most"
        )
    if not class_name:
        raise LabelsRefused(f"object {number} has no class: <name>car</name> is missing")
    bounds = element.find("bndbox")
    if bounds is None:
        raise LabelsRefused(f"object {number} ({class_name}) has no <bndbox>")
    values = []
    for tag in _CORNERS:
        text = (bounds.findtext(tag) or "").strip()
        try:
            values.append(float(EXACT.subtract(Decimal(text), _offsets(corners)[tag])))
        except (DecimalException, ValueError, OverflowError):
            raise LabelsRefused(
                f"object {number} ({class_name}) has <{tag}>{text[:_SAID_CHARACTERS]}</{tag}>; "
                "a number is due"
            ) from None
    difficult = (element.findtext("difficult") or "").strip().lower() in ("1", "true")
    x1, y1, x2, y2 = values
    return LabeledBox(class_name, x1, y1, x2, y2, difficult)


def _read_size(root: ElementTree.Element, tag: str) -> int | None:
    """A side of the picture as declared; tools that do not know it write 0 or nothing."""
    text = (root.findtext(f"size/{tag}") or "").strip()
    if not text:
        return None
    try:
        value = float(text)
        return int(value) if value > 0 else None
    except (ValueError, OverflowError):
        raise LabelsRefused(
            f"the declared {tag} is {text[:_SAID_CHARACTERS]!r}; a number of pixels is due"
        ) from None


def _offsets(corners: Corners) -> dict[str, Decimal]:
    """What to add to our corners to get VOC's."""
    first = Decimal(1 if corners == "voc" else 0)
    return {"xmin": first, "ymin": first, "xmax": Decimal(0), "ymax": Decimal(0)}


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
