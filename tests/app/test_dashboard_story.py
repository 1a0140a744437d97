"""From an empty server to the second batch of queries, in the pages; labels come by keyboard."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.app.annotating import Annotator, labeled
from tests.app.browsing import axe_violations
from tests.app.conftest import Service
from tests.app.dashboarding import TINY, write_pictures

CLASSES = "screw, washer, nut\ncoin\nkey"
# A training on a loaded machine.
LONG = 180_000


def test_a_new_user_is_led_from_an_empty_server_to_the_second_selection(
    page: Page, service: Service, tmp_path: Path
) -> None:
    page.goto("/app/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Create your first project")

    # The form says what is missing, at the field.
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_role("alert")).to_have_text("Give the project a name.")
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("workbench")
    page.get_by_label("Classes").fill("screw, screw")
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_role("alert")).to_have_text("The class “screw” stands twice in the list.")
    page.get_by_label("Classes").fill(CLASSES)
    page.get_by_label("Images to measure on").fill("3")
    page.get_by_role("button", name="Create project").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("workbench")
    step = page.locator(".guide [aria-current=step]")
    expect(step).to_contain_text("Add images")
    page.get_by_role("button", name="Add images").click()

    paths = write_pictures(tmp_path / "pictures", 18)
    notes = tmp_path / "pictures" / "notes.txt"
    notes.write_text("no picture")
    page.get_by_label("Files to add").set_input_files([*paths, notes])
    report = page.get_by_role("region", name="Upload")
    expect(report.get_by_role("status")).to_have_text("18 added1 refused")
    expect(report).to_contain_text("notes.txt")
    expect(report).to_contain_text("no picture that can be read")
    expect(page.get_by_role("list", name="Images").get_by_role("listitem")).to_have_count(18)

    page.get_by_role("link", name="Overview").last.click()
    expect(step).to_contain_text("Start the first cycle")
    page.get_by_role("button", name="Start the first cycle").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("draws images at random")
    expect(dialog).to_contain_text("3 images to measure on")
    dialog.get_by_label("Budget").fill("0")
    dialog.get_by_role("button", name="Start first cycle").click()
    expect(dialog.get_by_role("alert")).to_contain_text("whole number of at least 1")
    dialog.get_by_label("Budget").fill("7")
    dialog.get_by_role("button", name="Start first cycle").click()
    expect(step).to_contain_text("Annotate what it drew", timeout=LONG)
    expect(step.get_by_role("link", name="Annotate 10 images")).to_be_visible()

    # Ten pictures without the mouse: a box at the crosshair of each, of every class in turn.
    overview = page.url
    project = overview.rpartition("/")[2].partition("#")[0]
    ada = Annotator(page, project)
    ada.open()
    for number in range(10):
        ada.see()
        before = ada.image
        ada.press("n", str(number % 5 + 1), "ArrowLeft", "Shift+ArrowDown", "Space")
        if number < 9:
            expect(page.locator(".image-name")).not_to_have_text(before)
    expect(page.get_by_role("heading", level=1)).to_have_text("All done")
    ada.wait_saved()
    assert len(labeled(service, project)) == 10

    service.client.projects.update(project, cycle_defaults={"training": TINY})
    page.goto(overview)
    expect(step).to_contain_text("Start the next cycle")
    expect(page.get_by_role("row", name="ada")).to_be_visible()
    page.get_by_role("button", name="Start a cycle").click()
    dialog.get_by_label("Budget").fill("4")
    expect(dialog.get_by_label("MI-AOD")).to_be_checked()
    dialog.get_by_label("Diversity").first.check()
    dialog.get_by_text("Settings and seed").click()
    dialog.get_by_label("rounds").fill("one")
    dialog.get_by_role("button", name="Start cycle").click()
    expect(dialog.get_by_role("alert")).to_contain_text("rounds must be a number from 0 to 20")
    dialog.get_by_label("rounds").fill("1")
    dialog.get_by_label("Another setting").select_option("label_max_steps")
    dialog.get_by_label("label_max_steps").fill("80")
    dialog.get_by_label("Another setting").select_option("label_min_steps")
    dialog.get_by_label("label_min_steps").fill("80")
    dialog.get_by_label("Seed").fill("3")
    assert axe_violations(page) == []
    dialog.get_by_role("button", name="Start cycle").click()

    # It is watched as it happens: stages as a line, losses, then what it found.
    live = page.locator(".live")
    expect(live.get_by_role("list", name="Stages", exact=True)).to_contain_text("Score the pool")
    expect(live.locator(".stages [aria-current=step]").first).to_contain_text("Train", timeout=LONG)
    expect(live.get_by_role("img", name="Losses over")).to_be_visible(timeout=LONG)
    assert axe_violations(page) == []
    expect(live).to_have_count(0, timeout=LONG)
    expect(page.locator(".guide")).to_have_count(0)
    expect(page.get_by_role("img", name="Learning curve")).to_be_visible()
    expect(page.get_by_text("mAP@0.5 of cycle 2 · 7 labeled · MI-AOD, diversity 4")).to_be_visible()
    expect(page.get_by_role("img", name="Distribution of 8 uncertainties")).to_be_visible()
    expect(page.get_by_role("link", name="Annotate 4 images")).to_be_visible()

    page.get_by_role("link", name="Selection").click()
    tiles = page.get_by_role("list", name="Selected images, best first").get_by_role("listitem")
    expect(tiles).to_have_count(4)
    tiles.first.get_by_role("button").click()
    expect(dialog).to_contain_text("Why this one")
    expect(dialog).to_contain_text("shows something else than those ranked above it")
    expect(dialog.locator(".heat-map[data-ready=true]")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".facts")).to_contain_text("2 of 4")
    assert axe_violations(page) == []
    cycle = next(iter(service.client.cycles.list(project=project)))
    assert cycle.seed == 3
    assert cycle.training["label_max_steps"] == 80
    assert cycle.strategy == {"name": "mi-aod", "diversity": 4}
