"""The parts of the Annotate page that are pure functions, evaluated in the browser."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

from tests.app.browsing import Evaluate, evaluator


@pytest.fixture
def evaluate(page: Page) -> Evaluate:
    return evaluator(page, "annotate")


SIZE = {"width": 100, "height": 60}
numbers = st.floats(-500, 500, allow_nan=False).map(lambda value: round(value, 3))
points = st.fixed_dictionaries({"x": numbers, "y": numbers})


def corners(box: dict[str, float]) -> list[float]:
    return [box[key] for key in ("x1", "y1", "x2", "y2")]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(first=points, second=points, third=points, handle=st.sampled_from(["n", "se", "w", "nw"]))
def test_whatever_is_drawn_moved_and_resized_stays_inside_the_image(
    evaluate: Evaluate, first: Any, second: Any, third: Any, handle: str
) -> None:
    box = evaluate("geometry", "between", first, second, SIZE)
    moved = evaluate("geometry", "moved", box, third["x"], third["y"], SIZE)
    resized = evaluate("geometry", "resized", moved, handle, third, SIZE)
    grown = evaluate("geometry", "grown", resized, third["x"], third["y"], SIZE)
    around = evaluate("geometry", "around", third, abs(first["x"]), abs(first["y"]), SIZE)
    for each in (box, moved, resized, grown, around):
        assert 0 <= each["x1"] < each["x2"] <= SIZE["width"], each
        assert 0 <= each["y1"] < each["y2"] <= SIZE["height"], each
    assert moved["x2"] - moved["x1"] == pytest.approx(box["x2"] - box["x1"], abs=0.02)


def test_a_box_over_the_border_is_cut_and_a_dragged_one_turns_over(evaluate: Evaluate) -> None:
    start, end = {"x": 90, "y": -5}, {"x": 130, "y": 30.4567}
    assert corners(evaluate("geometry", "between", start, end, SIZE)) == [90, 0, 100, 30.46]
    box = {"x1": 10, "y1": 10, "x2": 20, "y2": 20}
    turned = evaluate("geometry", "resized", box, "e", {"x": 4, "y": 99}, SIZE)
    assert corners(turned) == [4, 10, 10, 20]
    assert corners(evaluate("geometry", "moved", box, -50, 3, SIZE)) == [0, 13, 10, 23]


def test_handles_and_the_smallest_box_are_found(evaluate: Evaluate) -> None:
    box = {"x1": 10, "y1": 10, "x2": 50, "y2": 40}
    expected = {(10, 10): "nw", (50, 25): "e", (30, 41): "s", (30, 25): None, (70, 25): None}
    for (x, y), handle in expected.items():
        assert evaluate("geometry", "handleAt", box, {"x": x, "y": y}, 3) == handle
    inner = {"x1": 20, "y1": 20, "x2": 30, "y2": 30}
    assert evaluate("geometry", "smallestAt", [box, inner], {"x": 25, "y": 25}) == inner
    assert evaluate("geometry", "smallestAt", [box, inner], {"x": 45, "y": 15}) == box
    assert evaluate("geometry", "iou", box, box) == 1
    assert evaluate("geometry", "iou", inner, {"x1": 25, "y1": 20, "x2": 35, "y2": 30}) == (
        pytest.approx(1 / 3)
    )


def test_zooming_keeps_a_point_and_the_picture_never_leaves_sight(evaluate: Evaluate) -> None:
    stage = {"width": 500, "height": 400}
    view = evaluate("view", "fitted", SIZE, stage)
    at = {"x": 200, "y": 180}
    before = evaluate("view", "toImage", view, at)
    closer = evaluate("view", "zoomed", view, 2.5, at, SIZE, stage)
    assert closer["scale"] == pytest.approx(view["scale"] * 2.5)
    after = evaluate("view", "toImage", closer, at)
    assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]))
    away = evaluate("view", "panned", view, 99_999, -99_999, SIZE, stage)
    assert away["x"] <= stage["width"] - 60
    assert away["y"] + SIZE["height"] * away["scale"] >= 60


def test_undo_goes_back_through_every_change_and_a_new_one_forgets_the_future(
    evaluate: Evaluate,
) -> None:
    history = evaluate("history", "begun", 0)
    for number in range(1, 200):
        history = evaluate("history", "changed", history, number)
    for _ in range(250):
        history = evaluate("history", "undone", history)
    assert history["present"] == 0
    history = evaluate("history", "redone", evaluate("history", "redone", history))
    assert history["present"] == 2
    held = evaluate("history", "changed", history, 3, True)
    assert (held["past"], held["present"], held["future"]) == ([0, 1], 3, [])


def test_no_key_has_two_meanings(evaluate: Evaluate) -> None:
    keys = evaluate("keys", "classKeys", [f"class {number}" for number in range(40)])
    given = [key for key in keys if key is not None]
    assert given[:9] == list("123456789")
    assert len(given) == len(set(given)) == 28
    plain = {"ctrlKey": False, "metaKey": False, "altKey": False, "shiftKey": False}
    for index, key in enumerate(given):
        found = evaluate("keys", "command", {"key": key, **plain})
        assert found == {"name": "class", "index": index}
    commands = {"n": "new", "x": "nothing", "s": "skip", "0": "zoom-fit", " ": "save"}
    for key, name in commands.items():
        assert evaluate("keys", "command", {"key": key, **plain})["name"] == name
    assert evaluate("keys", "command", {"key": "c", **plain, "ctrlKey": True}) is None
    assert evaluate("keys", "command", {"key": "ArrowLeft", **plain, "altKey": True}) is None


def test_a_suggestion_goes_when_its_thing_is_boxed(evaluate: Evaluate) -> None:
    seen = {"class": "car", "score": 0.8, "x1": 10, "y1": 10, "x2": 30, "y2": 30}
    empty: dict[str, Any] = {"boxes": [], "dismissed": []}
    assert len(evaluate("suggestions", "waiting", [seen], empty, 0.5)) == 1
    assert evaluate("suggestions", "waiting", [seen], empty, 0.9) == []
    dismissed = {"boxes": [], "dismissed": [0]}
    assert evaluate("suggestions", "waiting", [seen], dismissed, 0.5) == []
    close = {**seen, "x1": 12}
    for boxed, left in ((close, 0), ({**close, "class": "bus"}, 1), ({**seen, "x1": 25}, 1)):
        state = {"boxes": [boxed], "dismissed": []}
        assert len(evaluate("suggestions", "waiting", [seen], state, 0.5)) == left
    assert evaluate("suggestions", "merged", [seen], [seen, {**seen, "x1": 25}]) == (
        [seen, {**seen, "x1": 25}]
    )
