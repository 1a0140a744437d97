"""Whole experiments, as small as can be: the command as people type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from worker.scenes import write_voc
from worker.simulate import main

TINY = [
    "num_threads=1",
    "image_long_side=64",
    "image_short_side=64",
    "num_levels=3",
    "fpn_channels=8",
    "head_channels=8",
    "frozen_stages=8",
    "frozen_cache_megabytes=64",
    "label_min_steps=1",
    "label_max_steps=1",
    "adversarial_min_steps=1",
    "adversarial_max_steps=1",
    "batch_size=2",
    "unlabeled_batch_size=2",
    "rounds=1",
]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "voc"
    write_voc(folder, 14, 3, seed=4, size=(128, 96))
    return folder


def command(voc: Path, out: Path, *more: str) -> list[str]:
    size = ["--initial", "3", "--budget", "2", "--cycles", "3"]
    return ["--data", str(voc), "--out", str(out), *size, "--set", *TINY, *more]


def lines(out: Path) -> list[dict[str, Any]]:
    text = (out / "cycles.jsonl").read_text().splitlines()
    return [json.loads(line) for line in text[1:]]


def facts(out: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Every line by arm, seed and cycle, without how long it took."""
    return {
        (line["arm"], line["seed"], line["cycle"]): {
            key: value for key, value in line.items() if key not in ("seconds", "shared_by")
        }
        for line in lines(out)
    }


@pytest.fixture(scope="module")
def finished(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that ran through: three arms, two seeds."""
    out = tmp_path_factory.mktemp("finished")
    assert main(command(voc, out, "--arms", "random", "mi-aod", "plain", "--seeds", "0", "1")) == 0
    return out


def test_every_arm_and_seed_runs_all_cycles(finished: Path) -> None:
    found = facts(finished)
    assert set(found) == {
        (arm, seed, cycle)
        for arm in ("random", "mi-aod", "plain")
        for seed in (0, 1)
        for cycle in (1, 2, 3)
    }
    assert {line["images"] for line in found.values() if line["cycle"] == 3} == {7}
    for (_, _, cycle), line in found.items():
        assert line["images"] == 3 + 2 * (cycle - 1)
        assert len(line["selected"]) == (2 if cycle < 3 else 0)
    for name in ("cycles.csv", "report.md", "curves.png"):
        assert (finished / name).stat().st_size > 0
    assert "| mi-aod | 2 |" in (finished / "report.md").read_text()


def test_arms_that_train_alike_share_the_first_cycle(finished: Path) -> None:
    found = facts(finished)
    one, other, plain = (found[arm, 0, 1] for arm in ("random", "mi-aod", "plain"))
    assert one["map50"] == other["map50"]
    assert one["selected"] != other["selected"]
    assert one["boxes"] == plain["boxes"]
    shared = {(line["arm"], line["cycle"]): line["shared_by"] for line in lines(finished)}
    assert shared["random", 1] == 2
    assert shared["plain", 1] == 1
    assert shared["random", 2] == 1


def test_what_is_selected_is_labeled_from_then_on(finished: Path) -> None:
    for arm in ("random", "mi-aod"):
        found = facts(finished)
        chosen = [*found[arm, 0, 1]["selected"], *found[arm, 0, 2]["selected"]]
        assert len(set(chosen)) == 4


def test_an_experiment_that_was_killed_goes_on_and_ends_the_same(
    voc: Path, finished: Path, tmp_path: Path
) -> None:
    asked = command(voc, tmp_path, "--arms", "random", "mi-aod", "plain", "--seeds", "0", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.simulate", *asked, "--jobs", "2"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    journal = tmp_path / "cycles.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_text().splitlines()) >= 6):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with journal.open("a") as file:
        file.write('{"arm": "ran')
    before = len(facts_of_whole_lines(journal))
    assert 5 <= before < 18
    assert main(asked) == 0
    assert facts(tmp_path) == facts(finished)


def facts_of_whole_lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines()[1:-1]


@pytest.mark.slow
def test_arms_and_seeds_may_join_later(voc: Path, finished: Path, tmp_path: Path) -> None:
    assert main(command(voc, tmp_path, "--arms", "mi-aod", "--seeds", "1")) == 0
    assert main(command(voc, tmp_path, "--arms", "mi-aod", "random", "--seeds", "1")) == 0
    found = facts(tmp_path)
    assert len(found) == 6
    assert all(facts(finished)[key] == line for key, line in found.items())


def test_a_finished_experiment_only_writes_its_report_again(
    voc: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "cycles.jsonl").read_bytes()
    (finished / "report.md").unlink()
    assert main(command(voc, finished, "--arms", "random", "mi-aod", "plain", "--seeds", "0")) == 0
    assert (finished / "cycles.jsonl").read_bytes() == before
    assert (finished / "report.md").exists()
    assert "AUC" in capsys.readouterr().out


def test_other_settings_want_another_folder(
    voc: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = command(voc, finished)
    asked[asked.index("--budget") + 1] = "1"
    assert main(asked) == 2
    assert "another protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arms", "best"], "not known"),
        (["--arms", "mi-aod:method=plain"], "take strategy entropy"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--cycles", "9"], "but the pool has 14"),
        (["--set", "epochz=1"], "not a training setting"),
        (["--hold-out", "14"], "held out"),
        (["--experiment", "voc07+12-retinanet"], "VOC2007 is missing"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main([*command(voc, tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "cycles.jsonl").exists()


def test_scenes_are_drawn_if_asked_for(tmp_path: Path) -> None:
    size = ["--initial", "2", "--budget", "1", "--cycles", "1", "--seeds", "0"]
    asked = ["--scenes", "4", "2", "--out", str(tmp_path), *size, "--arms", "random"]
    assert main([*asked, "--set", *TINY]) == 0
    assert len(facts(tmp_path)) == 1
    assert main([*asked, "--set", *TINY]) == 0
