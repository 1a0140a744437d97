from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.formats.boxes import LabeledBox, LabeledImage, LabelsRefused
from server.formats.voc import Corners, read_annotation, write_annotation

corners = st.floats(min_value=0, max_value=1e6, allow_nan=False)
texts = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="\x85\u2028\u2029"),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip() == text)
boxes = st.builds(LabeledBox, texts, corners, corners, corners, corners, st.booleans())


@given(
    texts,
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.lists(boxes, max_size=5),
    st.sampled_from(["voc", "zero-based"]),
)
def test_what_is_written_comes_back_exactly(
    name: str, width: int, height: int, drawn: list[LabeledBox], convention: Corners
) -> None:
    labels = LabeledImage(name, width, height, tuple(drawn))
    assert read_annotation(write_annotation(labels, convention), convention) == labels


def test_corners_are_one_based_and_inclusive_unless_told_otherwise() -> None:
    xml = write_annotation(LabeledImage("a.jpg", 10, 10, (LabeledBox("car", 0, 1, 10, 5.5),)))
    bounds = ElementTree.fromstring(xml).find("object/bndbox")
    assert bounds is not None
    assert [child.text for child in bounds] == ["1", "2", "10", "5.5"]
    assert read_annotation(xml).boxes == (LabeledBox("car", 0, 1, 10, 5.5),)
    assert read_annotation(xml, "zero-based").boxes == (LabeledBox("car", 1, 2, 10, 5.5),)


def test_fractions_are_shifted_without_rounding() -> None:
    xml = write_annotation(LabeledImage("a.jpg", 10, 10, (LabeledBox("car", 0.1, 0.7, 3, 4),)))
    assert b"<xmin>1.1</xmin>" in xml
    assert b"<ymin>1.7</ymin>" in xml


def annotation(objects: str = "", size: str = "<width>20</width><height>10</height>") -> bytes:
    text = f"<annotation><filename>a.jpg</filename><size>{size}</size>{objects}</annotation>"
    return text.encode()


def test_an_annotation_without_objects_is_a_negative() -> None:
    assert read_annotation(annotation()) == LabeledImage("a.jpg", 20, 10, ())


def test_difficult_is_read_and_defaults_to_no() -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    said = "".join(
        f"<object><name>car</name>{difficult}{box}</object>"
        for difficult in ("", "<difficult>0</difficult>", "<difficult>1</difficult>")
    )
    assert [each.difficult for each in read_annotation(annotation(said)).boxes] == [
        False,
        False,
        True,
    ]


def test_parts_of_an_object_are_not_taken_for_it() -> None:
    box = "<bndbox><xmin>{0}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>5</ymax></bndbox>"
    part = f"<part><name>head</name>{box.format(3)}</part>"
    said = f"<object><name>person</name>{part}{box.format(2)}</object>"
    assert read_annotation(annotation(said)).boxes == (LabeledBox("person", 1, 0, 9, 5),)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width/>"])
def test_a_tool_that_does_not_know_the_size_says_nothing(size: str) -> None:
    labels = read_annotation(annotation(size=size))
    assert (labels.width, labels.height) == (None, None)


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (b"", "broken"),
        (b"<annotation><object>", "broken"),
        (b"\xff\xfe\x00", "broken|decoded"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "broken|decoded"),
        (b"<svg/>", "root is <svg>"),
        (
            b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            "entities",
        ),
        (
            b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            "entities",
        ),
        (annotation("<object><bndbox/></object>"), "object 1 has no class"),
        (annotation("<object><name>car</name></object>"), r"object 1 \(car\) has no <bndbox>"),
        (annotation("<object><name>car</name><bndbox/></object>"), "<xmin></xmin>; a number"),
        (annotation(size="<width>wide</width>"), "width is 'wide'"),
    ],
)
def test_a_broken_annotation_is_refused_with_a_sentence(xml: bytes, said: str) -> None:
    with pytest.raises(LabelsRefused, match=said):
        read_annotation(xml)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for xml in (content, annotation(f"<object><name>car</name><bndbox><xmin>{content!r}")):
        with pytest.raises(LabelsRefused):
            read_annotation(xml)


@pytest.mark.parametrize("number", ["1e999999999", "NaN", "-Infinity", "9" * 5000])
def test_numbers_out_of_measure_do_no_harm(number: str) -> None:
    rest = "<ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"
    said = f"<object><name>car</name><bndbox><xmin>{number}</xmin>{rest}</bndbox></object>"
    try:
        (box,) = read_annotation(annotation(said)).boxes
    except LabelsRefused:
        return
    assert not abs(box.x1) < 1e9  # nan or infinite: refused when it meets its picture
