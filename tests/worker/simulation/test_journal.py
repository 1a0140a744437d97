from __future__ import annotations

from pathlib import Path

import pytest

from worker.simulation.journal import Journal, JournalRefused

EXPERIMENT = {"data": {"pool": 10}, "protocol": {"budget": 3}}


def test_lines_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cycles.jsonl"
    journal = Journal(path, EXPERIMENT)
    journal.add({"arm": "random", "cycle": 1})
    journal.add({"arm": "random", "cycle": 2})
    assert Journal(path, EXPERIMENT).lines == journal.lines
    assert len(journal.lines) == 2


def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "cycles.jsonl"
    journal = Journal(path, EXPERIMENT)
    journal.add({"cycle": 1})
    whole = path.read_bytes()
    for cut in (b'{"cyc', b'{"cycle": 2}'):
        path.write_bytes(whole + cut)
        again = Journal(path, EXPERIMENT)
        assert again.lines == [{"cycle": 1}]
        again.add({"cycle": 2})
        assert Journal(path, EXPERIMENT).lines == [{"cycle": 1}, {"cycle": 2}]


def test_a_file_whose_first_line_was_cut_off_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "cycles.jsonl"
    path.write_text('{"format": 1, "exp')
    assert Journal(path, EXPERIMENT).lines == []
    assert Journal(path, EXPERIMENT).lines == []


def test_another_experiment_s_file_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "cycles.jsonl"
    Journal(path, EXPERIMENT)
    other = {**EXPERIMENT, "protocol": {"budget": 4}}
    with pytest.raises(JournalRefused, match="another protocol"):
        Journal(path, other)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cycles.jsonl"
    path.write_text('["something else"]\n')
    with pytest.raises(JournalRefused, match="no journal"):
        Journal(path, EXPERIMENT)
