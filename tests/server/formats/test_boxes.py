from __future__ import annotations

import pytest

from server.formats.boxes import (
    LabeledBox,
    LabeledImage,
    LabelsRefused,
    check_classes,
    fit_to_picture,
)
from server.formats.pictures import Picture

UPRIGHT = Picture(100, 60, "image/jpeg")


def labels(*boxes: LabeledBox, size: tuple[int, int] | None = (100, 60)) -> LabeledImage:
    width, height = size or (None, None)
    return LabeledImage("street/1.jpg", width, height, boxes)


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        # A mark at the top left of the stored 60 x 100 picture, 10 wide and 4 high, turned with it.
        (5, (0, 0, 4, 10)),
        (6, (96, 0, 100, 10)),
        (7, (96, 50, 100, 60)),
        (8, (0, 50, 4, 60)),
    ],
)
def test_boxes_drawn_on_the_picture_as_stored_are_turned_with_it(
    orientation: int, corner: tuple[float, float, float, float]
) -> None:
    picture = Picture(100, 60, "image/jpeg", orientation)
    drawn = labels(LabeledBox("car", 0, 0, 10, 4, difficult=True), size=(60, 100))
    assert fit_to_picture(drawn, picture) == (LabeledBox("car", *corner, difficult=True),)


def test_boxes_drawn_on_the_upright_picture_stay() -> None:
    picture = Picture(100, 60, "image/jpeg", 6)
    box = LabeledBox("car", 0.5, 1, 99.25, 60)
    assert fit_to_picture(labels(box), picture) == (box,)
    assert fit_to_picture(labels(box, size=None), picture) == (box,)


def test_another_declared_size_is_refused() -> None:
    with pytest.raises(LabelsRefused, match="picture of 200 x 120 pixels, this one is 100 x 60"):
        fit_to_picture(labels(size=(200, 120)), UPRIGHT)
    with pytest.raises(LabelsRefused, match="60 x 100"):  # not turned, so this is no excuse
        fit_to_picture(labels(size=(60, 100)), UPRIGHT)


def test_a_pixel_beyond_the_border_is_rounding_and_more_is_an_error() -> None:
    clipped = fit_to_picture(labels(LabeledBox("car", -1, -0.5, 100.75, 61)), UPRIGHT)
    assert clipped == (LabeledBox("car", 0, 0, 100, 60),)
    with pytest.raises(LabelsRefused, match=r"box 2 of street/1.jpg is \[5, 5, 102, 50\].*reaches"):
        fit_to_picture(
            labels(LabeledBox("car", 1, 1, 2, 2), LabeledBox("car", 5, 5, 102, 50)), UPRIGHT
        )


@pytest.mark.parametrize(
    "corners",
    [(10, 10, 10, 20), (10, 30, 20, 20), (100, 0, 101, 5), (float("nan"), 0, 5, 5)],
)
def test_a_box_without_area_in_the_picture_is_refused(
    corners: tuple[float, float, float, float],
) -> None:
    with pytest.raises(LabelsRefused, match="box 1 of"):
        fit_to_picture(labels(LabeledBox("car", *corners)), UPRIGHT)


def test_an_unknown_class_is_named_beside_those_that_would_be_right() -> None:
    drawn = labels(LabeledBox("lorry", 1, 1, 2, 2), LabeledBox("car", 1, 1, 2, 2))
    with pytest.raises(
        LabelsRefused, match="unknown class 'lorry'; the project's classes are car, bus"
    ):
        check_classes(drawn, ["car", "bus"])
    check_classes(drawn, ["car", "lorry"])
