"""Every state of the Annotate page: held against axe, and kept as a picture if asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app.annotating import (
    Annotator,
    detections_of,
    labeled,
    lapse_claims,
    make_project,
    predict,
)
from tests.app.browsing import LOOKS, Watch, axe_violations, take_screenshot
from tests.app.conftest import OpenContext, Service

SIZE = (640, 480)
NUM_IMAGES = 8


@pytest.fixture(params=["light", "dark", pytest.param("tablet", marks=pytest.mark.slow)])
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(open_context: OpenContext, look: str) -> Page:
    return open_context(**LOOKS[look]).new_page()


def keep(page: Page, look: str, state: str) -> None:
    """This state of the page, in this look, is accessible; here is its picture."""
    assert axe_violations(page) == []
    take_screenshot(page, f"annotate-{state}-{look}")


def begin(page: Page, project: str) -> None:
    page.goto(f"/app/projects/{project}/annotate")
    page.get_by_label("Your name").fill("ada")
    page.keyboard.press("Enter")


def test_the_desk_and_what_opens_over_it(
    page: Page, service: Service, tmp_path: Path, look: str, watch: Watch
) -> None:
    watch.allow("net::ERR_INTERNET_DISCONNECTED")
    watch.allow("status of 409")
    name = f"workbench {look}"
    project = make_project(service, tmp_path, name=name, images=NUM_IMAGES, size=SIZE)
    numbers = range(NUM_IMAGES)
    predict(service, project, {f"scene-{n:02}.jpg": detections_of(n, SIZE) for n in numbers})
    page.goto(f"/app/projects/{project}/annotate")
    expect(page.get_by_label("Your name")).to_be_focused()
    keep(page, look, "name")
    page.get_by_label("Your name").fill("ada")
    page.keyboard.press("Enter")
    ada = Annotator(page, project)
    ada.see()
    fullest = max(numbers, key=lambda number: len(detections_of(number, SIZE)))
    while ada.image != f"scene-{fullest:02}.jpg":
        ada.go_on("n", "Space")
    keep(page, look, "suggestions")
    page.get_by_label("Confidence from").fill("75")
    ada.stage.focus()
    ada.press("Enter", "Tab", "Tab", "d")
    ada.press("Control+z", "Control+y")
    keep(page, look, "boxes")
    for key, title in (("?", "Keys"), ("i", "Instructions"), ("s", "Skip this image")):
        ada.press(key)
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
        keep(page, look, title.split()[0].lower())
        ada.press("Escape")
        expect(ada.stage).to_be_focused()
    page.context.set_offline(True)
    ada.press("Space")
    expect(ada.status).to_have_text("Offline: 1 kept here")
    ada.status.click()
    keep(page, look, "offline")
    ada.press("Escape")
    page.context.set_offline(False)
    ada.wait_saved()


def test_a_conflict(page: Page, service: Service, tmp_path: Path, look: str, watch: Watch) -> None:
    watch.allow("status of 409")
    project = make_project(service, tmp_path, name=f"conflict {look}", images=1, size=SIZE)
    begin(page, project)
    ada = Annotator(page, project)
    ada.see()
    ada.press("n")
    lapse_claims(service, project)
    (image,) = service.client.images.list(project=project)
    boxes = [
        {"class": "coin", "x1": 200, "y1": 100, "x2": 260, "y2": 160},
        {"class": "key", "x1": 380, "y1": 200, "x2": 460, "y2": 330},
    ]
    service.client.annotations.put(image.id, version=0, boxes=boxes, author="bob")
    ada.press("Space")
    expect(ada.status).to_have_text("1 save to look at")
    ada.status.click()
    keep(page, look, "to-look-at")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("dialog", name="Two versions of")).to_be_visible()
    keep(page, look, "conflict")


def test_when_there_is_nothing_to_label(
    page: Page, service: Service, tmp_path: Path, look: str
) -> None:
    project = make_project(service, tmp_path, name=f"empty {look}", images=2, budget=0)
    begin(page, project)
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("Nothing has been selected yet")
    keep(page, look, "nothing-selected")
    cycle = service.client.cycles.create(project=project, budget=2)
    service.client.cycles.wait(cycle.id, timeout=120)
    ada = Annotator(page, project)
    ada.see()
    ada.go_on("x")
    ada.press("n", "Space")
    expect(title).to_have_text("All done")
    keep(page, look, "all-done")
    assert len(labeled(service, project)) == 2
