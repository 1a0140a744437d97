import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from worker.miaod.anchors import feature_sizes, level_anchors, valid_flags
from worker.miaod.targets import (
    OUTSIDE,
    Targets,
    assign,
    decode,
    encode,
    known_classes,
    present_classes,
)

STRIDES = (8, 16, 32)
IMAGE_HW = (64, 96)
NUM_CLASSES = 3


def all_anchors() -> Tensor:
    return torch.cat(level_anchors(feature_sizes(IMAGE_HW, STRIDES), STRIDES, 4, 3, (0.5, 1, 2)))


def assign_all(boxes: list[list[float]], labels: list[int], *, positive_only: bool) -> Targets:
    anchors = all_anchors()
    return assign(
        anchors,
        torch.ones(len(anchors), dtype=torch.bool),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        NUM_CLASSES,
        require_positive_iou=positive_only,
    )


def assigned_by_going_through_the_boxes(anchors: Tensor, boxes: Tensor) -> list[int]:
    """The four rules one after the other, as the specification words them."""
    iou = box_iou(boxes, anchors)
    result = []
    for anchor in range(len(anchors)):
        best = float(iou[:, anchor].max())
        first_best = int(iou[:, anchor].argmax())
        result.append(0 if best < 0.4 else first_best + 1 if best >= 0.5 else -1)
    for box in range(len(boxes)):
        for anchor in (iou[box] == iou[box].max()).nonzero().flatten().tolist():
            result[anchor] = box + 1
    return result


corner = st.integers(0, 60).map(float)
side = st.integers(1, 50).map(float)
box_lists = st.lists(st.tuples(corner, corner, side, side), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(box_lists)
def test_anchors_go_to_the_boxes_that_the_four_rules_name(
    sizes: list[tuple[float, float, float, float]],
) -> None:
    boxes = [[x, y, x + width, y + height] for x, y, width, height in sizes]
    ours = assign_all(boxes, [0] * len(boxes), positive_only=True)
    expected = assigned_by_going_through_the_boxes(all_anchors(), torch.tensor(boxes))
    assert ours.assigned_A.tolist() == expected
    assert int(ours.num_pos) == sum(number > 0 for number in expected)


def test_every_box_on_the_image_gets_an_anchor_however_small_it_is() -> None:
    ours = assign_all(
        [[17.0, 9.0, 18.5, 10.5], [40.0, 8.0, 80.0, 50.0]], [0, 1], positive_only=True
    )
    assert {1, 2} <= set(ours.assigned_A.tolist())


def test_of_two_equal_boxes_the_later_one_takes_the_tied_anchors() -> None:
    box = [17.0, 9.0, 19.0, 11.0]
    ours = assign_all([box, box], [0, 2], positive_only=True)
    assert set(ours.labels_A[ours.assigned_A > 0].tolist()) == {2}


def test_an_image_without_boxes_is_all_background() -> None:
    ours = assign_all([], [], positive_only=True)
    assert set(ours.assigned_A.tolist()) == {0}
    assert set(ours.labels_A.tolist()) == {NUM_CLASSES}
    assert float(ours.label_weights_A.min()) == 1.0
    assert int(ours.num_pos) == 0


@pytest.mark.parametrize("box", [[30.0, 10.0, 30.0, 50.0], [10.0, 30.0, 50.0, 30.0], [5.0] * 4])
def test_a_box_without_area_gets_no_anchor_and_harms_no_other(box: list[float]) -> None:
    sound = [40.0, 8.0, 80.0, 50.0]
    ours = assign_all([box, sound], [0, 1], positive_only=True)
    alone = assign_all([sound], [1], positive_only=True)
    assert torch.equal(ours.labels_A, alone.labels_A)
    assert torch.equal(ours.deltas_A4, alone.deltas_A4)


def test_in_parity_a_box_without_area_takes_every_anchor_as_in_the_reference() -> None:
    ours = assign_all([[30.0, 10.0, 30.0, 50.0]], [0], positive_only=False)
    assert int(ours.num_pos) == len(all_anchors())
    assert bool(ours.deltas_A4.isinf().any())


def test_anchors_in_the_padding_answer_for_nothing() -> None:
    anchors = all_anchors()
    own_area = valid_flags(feature_sizes(IMAGE_HW, STRIDES), STRIDES, (64, 64), num_base=9)
    valid = torch.cat(own_area)
    ours = assign(
        anchors,
        valid,
        torch.tensor([[60.0, 10.0, 95.0, 45.0]]),
        torch.tensor([1]),
        NUM_CLASSES,
        require_positive_iou=True,
    )
    assert set(ours.assigned_A[~valid].tolist()) == {OUTSIDE}
    assert float(ours.label_weights_A[~valid].sum()) == 0
    # The box lies over the padding too, but its own anchor must be one on the image.
    assert int(ours.num_pos) > 0


def test_decoding_what_was_encoded_gives_the_box() -> None:
    boxes = torch.tensor(
        [[3.0, 4.0, 50.0, 60.0], [0.0, 0.0, 96.0, 64.0], [10.5, 20.25, 30.0, 40.0]]
    )
    anchors = all_anchors()[[5, 400, 900]]
    torch.testing.assert_close(decode(anchors, encode(anchors, boxes), IMAGE_HW), boxes)


def test_a_wild_offset_is_bounded_and_clipped_to_the_image() -> None:
    anchor = torch.tensor([[20.0, 20.0, 40.0, 40.0]])
    box = decode(anchor, torch.tensor([[0.0, 0.0, 1e4, 1e4]]), (10_000, 20_000))
    assert float(box[0, 2] - 30) == pytest.approx(20 * 1000 / 16 / 2)
    assert math.isfinite(float(box.sum()))
    clipped = decode(anchor, torch.tensor([[-9.0, 9.0, 0.0, 0.0]]), IMAGE_HW)
    assert clipped.tolist() == [[0.0, 64.0, 0.0, 64.0]]


def test_present_classes_are_one_however_often_they_occur() -> None:
    labels = [torch.tensor([2, 2, 0]), torch.tensor([], dtype=torch.int64)]
    assert present_classes(labels, 3).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_known_classes_are_the_first_ones() -> None:
    assert known_classes([3, 1], 3).tolist() == [[True] * 3, [True, False, False]]
