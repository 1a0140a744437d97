"""The lines between a training process and its supervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from worker.progress import ProgressLines, ProgressPipe


@pytest.fixture
def ends() -> Iterator[tuple[ProgressPipe, int]]:
    read_fd, write_fd = os.pipe()
    yield ProgressPipe(write_fd), read_fd
    os.close(read_fd)
    os.close(write_fd)


def test_what_is_written_is_read_again(ends: tuple[ProgressPipe, int]) -> None:
    pipe, read_fd = ends
    pipe.device("cpu")
    pipe.report(1 / 3, "train", "label 1/3\nstep ½", {"step": 5, "seconds_left": 7.5})
    pipe.failed("no")
    pipe.crashed("why")
    assert ProgressLines().feed(os.read(read_fd, 10_000)) == [
        {"device": "cpu"},
        {
            "progress": 0.3333,
            "stage": "train",
            "message": "label 1/3\nstep ½",
            "detail": {"step": 5, "seconds_left": 7.5},
        },
        {"failed": "no"},
        {"crashed": "why"},
    ]


def test_reports_in_quick_succession_are_thinned_out_but_each_stage_is_named(
    ends: tuple[ProgressPipe, int],
) -> None:
    pipe, read_fd = ends
    for number in range(1000):
        pipe.report(number / 2000, "train", "")
    pipe.report(0.5, "score", "")
    lines = ProgressLines().feed(os.read(read_fd, 1_000_000))
    assert len(lines) < 100
    assert lines[0] == {"progress": 0.0, "stage": "train", "message": "", "detail": {}}
    assert lines[-1] == {"progress": 0.5, "stage": "score", "message": "", "detail": {}}


def test_lines_come_together_from_pieces_and_rubbish_is_passed_over() -> None:
    lines = ProgressLines()
    assert lines.feed(b'{"progress": 0.') == []
    assert lines.feed(b'5}\nnonsense\n[1]\n\n{"stage": "score"}\n{') == [
        {"progress": 0.5},
        {"stage": "score"},
    ]
