"""The parts of the dashboard that are pure functions, evaluated in the browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.app.browsing import Evaluate, evaluator


@pytest.fixture
def evaluate(page: Page) -> Evaluate:
    return evaluator(page, "dashboard")


def cycle(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "number": number,
        "kind": "trained",
        "state": "succeeded",
        "stage": None,
        "message": "",
        "training": {"rounds": 1, "method": "mi-aod"},
        "snapshot": {"labeled_images": 10 * number},
        "metrics": {
            "map50": number / 10,
            "per_class": [{"class": "car", "ap50": number / 5}],
            "validation_sha256": "a",
        },
        **more,
    }


def test_the_stages_of_a_cycle_are_done_up_to_the_one_that_runs(evaluate: Evaluate) -> None:
    def states(**more: Any) -> list[str]:
        return [each["state"] for each in evaluate("stages", "stagesOf", cycle(1, **more))]

    assert states(state="queued") == ["todo"] * 6
    assert states(state="running", stage="evaluate") == ["done", "done", "now"] + ["todo"] * 3
    assert states() == ["done"] * 6
    assert states(kind="initial", state="running", stage="select") == ["done", "now"]


def test_the_stages_of_the_training_are_those_of_its_rounds_and_method(evaluate: Evaluate) -> None:
    def line(**more: Any) -> list[tuple[str, str]]:
        running = cycle(1, state="running", stage="train", **more)
        found = evaluate("stages", "trainingStagesOf", running)
        return [(each["name"], each["state"]) for each in found]

    assert line(message="maximise 1/1, step 2/9, loss 0.3") == [
        ("label 1/2", "done"),
        ("minimise 1/1", "done"),
        ("maximise 1/1", "now"),
        ("label 2/2", "todo"),
    ]
    plain = line(training={"rounds": 1, "method": "plain"}, message="label 1/2, step 1/9")
    assert plain == [("label 1/2", "now"), ("plain 1/1", "todo"), ("label 2/2", "todo")]


def test_the_curve_is_broken_where_the_validation_set_changed(evaluate: Evaluate) -> None:
    changed = {"map50": 0.4, "per_class": [], "validation_sha256": "b"}
    cycles = [
        cycle(4, metrics=changed),
        cycle(3, state="failed"),
        cycle(2),
        cycle(1),
        cycle(0, kind="initial", metrics=None),
    ]
    points = evaluate("curve_data", "curvePoints", cycles)
    assert [point["labeled"] for point in points] == [10, 20, 40]
    assert [point["validationChanged"] for point in points] == [False, False, True]


def test_a_break_is_a_row_without_figures_between_its_neighbours(
    evaluate: Evaluate, page: Page
) -> None:
    changed = {"map50": 0.4, "per_class": [], "validation_sha256": "b"}
    cycles = [cycle(1), cycle(2, metrics=changed)]
    data = page.evaluate(
        """async (cycles) => {
            const {curvePoints, curveColumns} =
                await import("/static/app/dashboard/curve_data.js");
            return curveColumns(curvePoints(cycles), ["car"]).data;
        }""",
        cycles,
    )
    assert data == [[10, 15, 20], [0.1, None, 0.4], [0.2, None, None]]


@pytest.mark.parametrize(
    ("images", "labeled", "cycles", "waiting", "step"),
    [
        (0, 0, [], 0, {"key": "images", "done": 1}),
        (9, 0, [], 0, {"key": "first-cycle", "done": 2}),
        (9, 0, [cycle(1, state="queued")], 0, {"key": "watch", "done": 2}),
        (9, 0, [cycle(1, kind="initial")], 4, {"key": "annotate", "done": 3}),
        (9, 2, [cycle(1, kind="initial")], 2, {"key": "annotate", "done": 3}),
        (9, 4, [cycle(1, kind="initial")], 0, {"key": "cycle", "done": 4}),
        (9, 4, [], 0, {"key": "cycle", "done": 4}),
        (9, 4, [cycle(2), cycle(1)], 3, {"key": "annotate", "done": 5}),
        (9, 4, [cycle(3, state="failed"), cycle(2)], 3, {"key": "resume", "done": 5}),
    ],
)
def test_the_next_step_follows_from_what_is_there(
    evaluate: Evaluate,
    images: int,
    labeled: int,
    cycles: list[dict[str, Any]],
    waiting: int,
    step: dict[str, Any],
) -> None:
    project = {"counts": {"images": images, "labeled": labeled}}
    assert evaluate("next_step", "nextStep", project, cycles, waiting) == step


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("int", " 12 ", {"value": 12}),
        ("int", "1.5", {"error": "x must be a whole number from 0 to 20."}),
        ("float", "0.5", {"value": 0.5}),
        ("float", "", {"error": "x must be a number from 0 to 20."}),
        ("float", "21", {"error": "x must lie from 0 to 20."}),
        ("bool", "true", {"value": True}),
        ("str", "adamw", {"value": "adamw"}),
        ("list[float]", "0.5, 1 2", {"value": [0.5, 1, 2]}),
        ("list[float]", "0.5, no", {"error": "x must be a number from 0 to 20."}),
    ],
)
def test_a_setting_is_read_by_its_type_and_range(
    evaluate: Evaluate, kind: str, text: str, found: dict[str, Any]
) -> None:
    field = {"name": "x", "type": kind, "minimum": 0, "maximum": 20}
    assert evaluate("settings_values", "parseSetting", field, text) == found


def test_files_are_sent_in_batches_of_so_many_files_and_bytes(evaluate: Evaluate) -> None:
    files = [{"file": {"size": size}} for size in (5, 5, 90, 5, 5, 5)]
    batches = evaluate("upload_queue", "batchesOf", files, 3, 20)
    assert [[each["file"]["size"] for each in batch] for batch in batches] == [
        [5, 5],
        [90],
        [5, 5, 5],
    ]
    assert evaluate("upload_queue", "batchesOf", []) == []
