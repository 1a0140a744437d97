"""The demo on folders of other people: what it reads, and what it says before anything is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import demo
from examples.voc_folder import VocFolder

BOX = """<object><name>car</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def write_folder(root: Path, *objects: str) -> VocFolder:
    """A folder with one picture in each list, both labeled alike."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for stem, image_set in (("one", "trainval"), ("two", "test")):
        (root / "JPEGImages" / f"{stem}.jpg").touch()
        (root / "ImageSets" / "Main" / f"{image_set}.txt").write_text(f"{stem}\n")
        (root / "Annotations" / f"{stem}.xml").write_text(
            "<annotation><size><width>100</width><height>50</height></size>"
            + "".join(objects)
            + "</annotation>"
        )
    return VocFolder(root)


@pytest.fixture
def earlier_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`results.json` of an earlier demo, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    demo.OUT.mkdir()
    demo.MARKER.touch()
    results = demo.OUT / "results.json"
    results.write_text("[]")
    handler = signal.getsignal(signal.SIGTERM)
    yield results.resolve()
    signal.signal(signal.SIGTERM, handler)


def test_boxes_are_cut_at_the_border_and_those_without_area_left_out(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path, BOX.format(0, 1, 101, 50), BOX.format(11, 11, 20, 20), BOX.format(30, 9, 30, 8)
    )
    corners = [(box["x1"], box["y1"], box["x2"], box["y2"]) for box in folder.boxes("one.jpg")]
    assert corners == [(0, 0, 100, 50), (10, 10, 20, 20)]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: (root / "ImageSets/Main/test.txt").unlink(), "test.txt is missing"),
        (lambda root: (root / "JPEGImages/two.jpg").unlink(), "no picture named two"),
        (lambda root: (root / "Annotations/two.xml").unlink(), "two.xml is missing"),
        (lambda root: (root / "Annotations/two.xml").write_text("<a"), "two.xml cannot be read"),
        (
            lambda root: (root / "Annotations/two.xml").write_text(
                f"<annotation>{BOX.format('', 1, 2, 3)}</annotation>"
            ),
            "two.xml cannot be read",
        ),
    ],
    ids=["no test list", "no picture", "no label file", "broken XML", "empty corner"],
)
def test_a_folder_that_cannot_be_read_is_refused_and_earlier_results_stay(
    earlier_results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: object,
    sentence: str,
) -> None:
    write_folder(Path("mine"), BOX.format(1, 1, 20, 20))
    assert callable(spoil)
    spoil(Path("mine"))
    monkeypatch.setattr("sys.argv", ["demo", "--dataset", "mine"])
    assert demo.main() == 1
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert earlier_results.is_file()


def test_a_folder_without_any_box_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        write_folder(tmp_path / "mine").class_names()


@pytest.mark.usefixtures("earlier_results")
def test_a_folder_inside_the_demos_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(demo.OUT / "scenes", BOX.format(1, 1, 20, 20))
    monkeypatch.setattr("sys.argv", ["demo", "--dataset", "demo/scenes"])
    assert demo.main() == 1
    assert "which the demo replaces" in " ".join(capsys.readouterr().out.split())
    assert (demo.OUT / "scenes").is_dir()
