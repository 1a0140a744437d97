"""Every state of the dashboard: held against axe, and kept as a picture if asked for."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from server.store.models import Json
from tests.app.browsing import LOOKS, Watch, axe_violations, take_screenshot
from tests.app.conftest import OpenContext, Service
from tests.app.dashboarding import TINY, answer_queries, run_cycle, write_pictures
from worker.scenes import CLASS_NAMES

LONG = 180_000
# Its project is trained once for all tests; for pictures of the page that takes minutes.
# Slow: they need a trained project, and what matters most of them is in the story as well.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("dashboard")]


TABLET_TOO = pytest.param("tablet", marks=pytest.mark.slow)
# What takes long is seen in the dark and on a tablet by `make test-all` only.
LONG_IN_LIGHT = pytest.mark.parametrize(
    "look", ["light", pytest.param("dark", marks=pytest.mark.slow), TABLET_TOO], indirect=True
)


@pytest.fixture(params=["light", "dark", TABLET_TOO])
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(open_context: OpenContext, look: str) -> Page:
    return open_context(**LOOKS[look]).new_page()


@dataclass(frozen=True)
class Scale:
    """How large the project is."""

    images: int
    validation: int
    budget: int
    cycles: int
    training: Json


TESTED = Scale(images=60, validation=8, budget=12, cycles=3, training=TINY)
# Pictures of the page deserve a detector that has learned something: minutes.
SHOWN = Scale(
    images=200,
    validation=24,
    budget=24,
    cycles=4,
    training={
        "preset": "cpu",
        "image_long_side": 160,
        "image_short_side": 160,
        "batch_size": 4,
        "unlabeled_batch_size": 4,
        "label_min_steps": 50,
        "label_max_steps": 50,
        "adversarial_min_steps": 5,
        "adversarial_max_steps": 5,
        "rounds": 1,
        "warm_start": True,
        "num_threads": 1,
    },
)


@pytest.fixture(scope="module")
def project(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project with an initial cycle and trained ones, whose last selection waits."""
    scale = SHOWN if os.environ.get("SCREENSHOTS") == "1" else TESTED
    client = service.client
    made = client.projects.create(
        name="workbench",
        classes=list(CLASS_NAMES),
        validation_images=scale.validation,
        cycle_defaults={"training": scale.training},
        instructions="Box every piece of hardware of which you see more than a third.",
    )
    paths = write_pictures(tmp_path_factory.mktemp("pictures"), scale.images)
    client.images.upload(project=made.id, paths=paths)
    for number in range(scale.cycles):
        strategy = "random" if number == 1 else {"name": "mi-aod", "class_balance": 1.0}
        asked = {"budget": scale.budget, "seed": 1, "strategy": strategy}
        run_cycle(client, made.id, **asked)
        if number + 1 < scale.cycles:
            answer_queries(client, made.id, ("ada", "ben", "cleo")[: 3 - number % 3])
    return made.id


def keep(page: Page, look: str, state: str) -> None:
    """This state of the page, in this look, is accessible; here is its picture."""
    assert axe_violations(page) == []
    take_screenshot(page, f"dashboard-{state}-{look}")


def wait_for_pictures(page: Page) -> None:
    """Until every picture that is in sight is there."""
    page.wait_for_function(
        """() => [...document.images].every(
            (image) => image.complete || image.getBoundingClientRect().top > innerHeight
        )"""
    )


def show(page: Page, project: str, section: str) -> None:
    page.goto(f"/app/projects/{project}#{section}")
    expect(page.get_by_role("heading", level=1)).to_have_text("workbench")


def test_the_projects_and_an_empty_server(
    page: Page, project: str, look: str, watch: Watch, service: Service
) -> None:
    counts = service.client.projects.get(project).counts
    assert counts is not None
    page.goto("/app/")
    expect(page.locator(".project-card")).to_contain_text(
        [f"{counts.labeled} of {counts.labeled + counts.unlabeled}"]
    )
    keep(page, look, "projects")
    page.get_by_role("button", name="New project").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("workbench")
    dialog.get_by_label("Classes").fill("car")
    watch.allow("status of 409")
    dialog.get_by_role("button", name="Create project").click()
    expect(dialog.get_by_role("alert")).to_have_text("there is already a project named 'workbench'")
    keep(page, look, "name-taken")
    # What a server without a project answers.
    nothing: Json = {"items": [], "next_cursor": None}
    page.route("**/projects?*", lambda route: route.fulfill(json=nothing))
    page.goto("/app/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Create your first project")
    keep(page, look, "empty-server")


def test_the_overview_of_a_project(page: Page, project: str, look: str) -> None:
    show(page, project, "overview")
    expect(page.get_by_role("img", name="Learning curve")).to_be_visible()
    expect(page.get_by_role("img", name="Distribution of")).to_be_visible()
    page.get_by_text("Per class", exact=True).click()
    for name in CLASS_NAMES[:3]:
        page.locator(".checks").get_by_label(name).check()
    keep(page, look, "overview")
    page.get_by_text("As a table").first.click()
    expect(page.get_by_role("region", name="The learning curve")).to_contain_text("Random")
    page.mouse.wheel(0, 2000)
    keep(page, look, "overview-below")


def test_the_selection_and_one_picture_of_it(
    page: Page, project: str, look: str, service: Service
) -> None:
    show(page, project, "selection")
    tiles = page.get_by_role("list", name="Selected images, best first").get_by_role("listitem")
    waiting = service.client.queries.list(project=project).total()
    expect(tiles).to_have_count(waiting or 0)
    expect(tiles.first).to_be_visible()
    wait_for_pictures(page)
    keep(page, look, "selection")
    tiles.first.get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".heat-map[data-ready=true]")).to_be_visible()
    wait_for_pictures(page)
    keep(page, look, "picture")


def test_the_images_the_cycles_and_the_settings(
    page: Page, project: str, look: str, service: Service
) -> None:
    show(page, project, "images")
    expect(page.get_by_role("list", name="Images").get_by_role("listitem").first).to_be_visible()
    wait_for_pictures(page)
    keep(page, look, "images")
    page.get_by_label("Order").select_option("uncertainty")
    expect(page.get_by_role("list", name="Images").locator(".rank").first).to_have_text("Rank 1")
    page.get_by_label("Order").select_option("ordinal")
    page.get_by_label("State").select_option("labeled")
    labeled = service.client.images.list(project=project, state="labeled").total() or 0
    shown = page.get_by_role("list", name="Images").get_by_role("listitem")
    expect(shown.first).to_have_attribute("aria-setsize", str(labeled))
    show(page, project, "cycles")
    page.get_by_role("button", name="Details of cycle 3").click()
    expect(page.get_by_role("list", name="Files of the cycle")).to_contain_text("log.jsonl")
    expect(page.get_by_role("region", name="Two cycles side by side")).to_be_visible()
    expect(page.get_by_role("img", name="Distribution of")).to_have_count(2)
    keep(page, look, "cycles")
    show(page, project, "settings")
    expect(page.get_by_role("region", name="Workers", exact=True)).to_contain_text("Idle")
    expect(page.get_by_role("link", name="Model of cycle 3")).to_be_visible()
    keep(page, look, "settings")


@LONG_IN_LIGHT
def test_the_form_that_starts_a_cycle_and_its_refusals(
    page: Page, project: str, look: str, watch: Watch, service: Service
) -> None:
    show(page, project, "overview")
    page.get_by_role("button", name="Start a cycle").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Diversity").first.check()
    keep(page, look, "start-cycle")
    watch.allow("status of (409|422)")
    dialog.get_by_label("Training preset").select_option("paper-voc-ssd")
    dialog.get_by_text("Settings and seed").click()
    dialog.get_by_label("image_long_side").fill("200")
    dialog.get_by_role("button", name="Start cycle").click()
    expect(dialog.get_by_role("alert")).to_contain_text("detector ssd300 takes 300")
    # Somebody else was faster.
    slow = {
        **TINY,
        "warm_start": False,
        "rounds": 2,
        "label_min_steps": 5000,
        "label_max_steps": 5000,
    }
    cycle = service.client.cycles.create(project=project, budget=5, training=slow)
    dialog.get_by_label("Training preset").select_option("cpu")
    dialog.get_by_label("image_long_side").fill("96")
    dialog.get_by_role("button", name="Start cycle").click()
    expect(dialog.get_by_role("alert")).to_contain_text("wait for it, or cancel it")
    keep(page, look, "start-cycle-refused")
    dialog.get_by_role("button", name="Cancel", exact=True).click()

    # The running one appears, is cancelled, taken up again, and cancelled for good.
    page.reload()
    live = page.locator(".live")
    losses = live.get_by_role("img", name="Losses over")
    expect(losses).to_be_visible(timeout=LONG)
    expect(live).to_contain_text("left")
    keep(page, look, "running")
    live.get_by_role("button", name="Cancel cycle").click()
    expect(live.locator("[data-state=cancelled]")).to_be_visible(timeout=LONG)
    keep(page, look, "cancelled")
    live.get_by_role("button", name="Resume").click()
    expect(live.locator("[data-state=running]")).to_be_visible(timeout=LONG)
    live.get_by_role("button", name="Cancel cycle").click()
    expect(live.locator("[data-state=cancelled]")).to_be_visible(timeout=LONG)
    assert service.client.cycles.get(cycle.id).state == "cancelled"


@LONG_IN_LIGHT
def test_a_dropped_archive_is_imported_and_dropped_files_are_answered_one_by_one(
    page: Page, service: Service, look: str, tmp_path: Path
) -> None:
    if look == "tablet":
        pytest.skip("nothing is dragged onto a tablet")
    made = service.client.projects.create(name=f"drops {look}", classes=["screw"])
    page.goto(f"/app/projects/{made.id}#images")
    expect(page.get_by_role("heading", name="Drop pictures, folders or an archive")).to_be_visible()
    keep(page, look, "drop")
    page.get_by_label("Files to add").set_input_files(zip_of(write_pictures(tmp_path / "a", 3)))
    report = page.get_by_role("region", name="Import")
    expect(report.get_by_role("status")).to_have_text("3 added", timeout=60_000)

    files = write_pictures(tmp_path / "b", 4)
    (tmp_path / "b" / "broken.jpg").write_bytes(files[0].read_bytes()[:900])
    drop(page, [*files, tmp_path / "b" / "broken.jpg"])
    report = page.get_by_role("region", name="Upload")
    expect(report.get_by_role("status")).to_have_text("1 added3 there already1 refused")
    expect(report.get_by_role("row")).to_have_count(1)
    keep(page, look, "upload")


def zip_of(paths: list[Path]) -> Path:
    archive = paths[0].parent.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.name)
    return archive


def drop(page: Page, paths: list[Path]) -> None:
    """Let go of files over the drop zone, as a desktop does."""
    files = [[path.name, list(path.read_bytes())] for path in paths]
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
            }
            return transfer;
        }""",
        files,
    )
    page.dispatch_event(".drop-zone", "drop", {"dataTransfer": transfer})
