"""The Annotate page, in a real browser against a real server and a real worker's selection."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from server.store.models import Json
from tests.app.annotating import (
    HEIGHT,
    WIDTH,
    Annotator,
    copy_project,
    labeled,
    lapse_claims,
    make_project,
    predict,
)
from tests.app.browsing import TABLET, Watch, axe_violations
from tests.app.conftest import OpenContext, Service

OFFLINE = r"net::ERR_(FAILED|INTERNET_DISCONNECTED)"
CONFLICT = r"status of 409"

DETECTIONS: list[Json] = [
    {"class_id": 0, "score": 0.9, "x1": 20.0, "y1": 30.0, "x2": 120.0, "y2": 90.0},
    {"class_id": 2, "score": 0.6, "x1": 150.0, "y1": 40.0, "x2": 220.0, "y2": 110.0},
    {"class_id": 1, "score": 0.2, "x1": 200.0, "y1": 150.0, "x2": 260.0, "y2": 210.0},
]


@pytest.fixture(scope="module")
def untouched(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project of four selected images that no test works on."""
    return make_project(service, tmp_path_factory.mktemp("pictures"), name="untouched")


@pytest.fixture
def project(service: Service, untouched: str, request: pytest.FixtureRequest) -> str:
    return copy_project(service, untouched, request.node.name)


@pytest.fixture
def ada(page: Page, project: str) -> Annotator:
    annotator = Annotator(page, project)
    annotator.open()
    return annotator


def test_ten_images_are_labeled_by_keyboard_alone(
    page: Page, service: Service, tmp_path: Path
) -> None:
    project = make_project(service, tmp_path, name="by keyboard", images=11, budget=10)
    ada = Annotator(page, project)
    ada.open()
    order = []
    for number in range(10):
        ada.see()
        order.append(ada.image)
        if number == 9:
            ada.press("x")
            break
        # Crosshair aside, a box, its class, its place and size.
        ada.press("ArrowLeft", "n", "2", "ArrowRight", "ArrowDown", "Shift+ArrowRight")
        ada.press(*["Shift+ArrowDown"] * number)
        ada.press("Space")
        expect(page.locator(".image-name")).not_to_have_text(order[-1])
    expect(page.get_by_role("heading", level=1)).to_have_text("All done")
    ada.wait_saved()
    stored = labeled(service, project)
    assert sorted(stored) == sorted(order)
    side = HEIGHT / 8
    for number, name in enumerate(order[:9]):
        (box,) = stored[name].boxes or []
        assert box.class_name == "washer"
        assert box.x1 == pytest.approx(WIDTH / 2 - 1 - side / 2 + 1)
        assert box.y1 == pytest.approx(HEIGHT / 2 - side / 2 + 1)
        assert box.x2 - box.x1 == pytest.approx(side + 1)
        assert box.y2 - box.y1 == pytest.approx(side + number)
        assert (stored[name].author, stored[name].source) == ("ada", "human")
    assert stored[order[9]].boxes == []


def test_the_mouse_draws_moves_and_resizes_and_boxes_stay_inside(
    ada: Annotator, service: Service
) -> None:
    name = ada.image
    ada.drag((250, 180), (WIDTH + 60, HEIGHT + 40))
    ada.drag((20, 20), (60, 50))
    ada.drag((40, 35), (-50, 45))
    ada.drag((40, 60), (44, 70))
    expect(ada.boxes).to_have_count(2)
    ada.press("d", "Space")
    ada.wait_saved()
    first, second = labeled(service, ada.project)[name].boxes or []
    near = pytest.approx
    assert [first.x1, first.y1, first.x2, first.y2] == [
        near(250, abs=1),
        near(180, abs=1),
        320,
        240,
    ]
    corners = [second.x1, second.y1, second.x2, second.y2]
    assert corners == [0, near(30, abs=1), near(44, abs=2), near(70, abs=2)]
    assert (first.difficult, second.difficult) == (False, True)


def test_undo_and_redo_go_all_the_way(ada: Annotator) -> None:
    for number in range(30):
        ada.drag((10 + number * 8, 10), (16 + number * 8, 40))
        ada.press("Escape")
    ada.press("Tab", "3", "Delete")
    expect(ada.boxes).to_have_count(29)
    for _ in range(32):
        ada.press("Control+z")
    expect(ada.boxes).to_have_count(0)
    ada.press("Control+z")
    for _ in range(30):
        ada.press("Control+y")
    expect(ada.boxes).to_have_count(30)
    ada.press("Control+z", "Control+Shift+z")
    expect(ada.boxes).to_have_count(30)


def test_two_annotators_side_by_side_never_see_the_same_image(
    open_context: OpenContext, service: Service, tmp_path: Path
) -> None:
    project = make_project(service, tmp_path, name="side by side", images=12)
    seen: dict[str, list[str]] = {"ada": [], "bob": []}
    annotators = {name: Annotator(open_context().new_page(), project) for name in seen}
    for name, annotator in annotators.items():
        annotator.open(name)
    working = dict(annotators)
    while working:
        for name, annotator in list(working.items()):
            annotator.see()
            image = annotator.image
            seen[name].append(image)
            annotator.press("n", "Space")
            done = annotator.page.get_by_role("heading", name="All done").or_(
                annotator.page.get_by_role("heading", name="The last images are with others")
            )
            other = annotator.page.locator(".image-name").filter(has_not_text=image)
            expect(done.or_(other)).to_be_visible()
            if done.is_visible():
                del working[name]
    for annotator in annotators.values():
        annotator.wait_saved()
    assert sorted(seen["ada"] + seen["bob"]) == sorted(labeled(service, project))
    assert len(seen["ada"] + seen["bob"]) == 12
    assert min(len(seen["ada"]), len(seen["bob"])) >= 4
    authors = {name: annotation.author for name, annotation in labeled(service, project).items()}
    assert all(authors[image] == who for who, images in seen.items() for image in images)


def test_a_network_that_is_cut_in_the_middle_of_a_save_loses_nothing(
    ada: Annotator, service: Service, watch: Watch
) -> None:
    watch.allow(OFFLINE)
    page = ada.page
    arrived: list[int] = []

    def cut(route: Route) -> None:
        # The server gets and stores it; its answer never comes back.
        arrived.append(route.fetch().status)
        page.context.set_offline(True)
        route.abort()

    page.route("**/annotations", cut)
    first = ada.image
    second = ada.go_on("n", "Space")
    expect(ada.status).to_contain_text("kept here")
    assert arrived == [200]
    page.unroute("**/annotations")
    # The next ones are on the desk already: the work goes on.
    third = ada.go_on("n", "n", "Space")
    ada.press("n", "n", "n")
    page.context.set_offline(False)
    page.reload()
    ada.see(third)
    expect(ada.boxes).to_have_count(3)
    ada.press("Space")
    ada.wait_saved()
    stored = labeled(service, ada.project)
    assert {name: len(each.boxes or []) for name, each in stored.items()} == {
        first: 1,
        second: 2,
        third: 3,
    }
    assert {each.version for each in stored.values()} == {1}


def test_what_is_not_saved_survives_a_reload_with_its_history_and_a_closed_tab(
    ada: Annotator, service: Service
) -> None:
    name = ada.image
    ada.drag((20, 20), (60, 50))
    ada.drag((120, 20), (160, 50))
    ada.page.reload()
    ada.see(name)
    expect(ada.boxes).to_have_count(2)
    ada.press("Control+z")
    expect(ada.boxes).to_have_count(1)
    ada.press("Control+y")
    context = ada.page.context
    ada.page.close()
    again = Annotator(context.new_page(), ada.project)
    again.open()
    assert again.image == name
    expect(again.boxes).to_have_count(2)
    again.press("Space")
    again.wait_saved()
    assert len(labeled(service, ada.project)[name].boxes or []) == 2


def test_a_box_is_kept_though_the_page_goes_before_the_browser_has_written_it(
    ada: Annotator, service: Service
) -> None:
    name = ada.image
    ada.press("n")
    # A disk that takes its time.
    ada.page.evaluate("IDBObjectStore.prototype.put = () => ({})")
    ada.press("n", "n")
    expect(ada.boxes).to_have_count(3)
    ada.page.reload()
    ada.see(name)
    expect(ada.boxes).to_have_count(3)
    ada.go_on("Space")
    ada.wait_saved()
    assert len(labeled(service, ada.project)[name].boxes or []) == 3
    ada.page.reload()
    ada.see()
    assert ada.image != name


def save_elsewhere(service: Service, ada: Annotator) -> str:
    """Somebody else saves the image on ada's desk, her claim having lapsed."""
    lapse_claims(service, ada.project)
    image = next(
        each for each in service.client.images.list(project=ada.project) if each.name == ada.image
    )
    other = {"class": "coin", "x1": 200, "y1": 100, "x2": 260, "y2": 160}
    service.client.annotations.put(image.id, version=0, boxes=[other], author="bob")
    return image.id


@pytest.mark.parametrize(
    ("choice", "classes", "version"),
    [
        ("Keep theirs", ["coin"], 1),
        ("Save mine as the next version", ["screw"], 2),
        ("Edit, starting from both", ["coin", "screw"], 2),
    ],
)
def test_a_conflict_is_shown_and_settled_by_a_person(
    ada: Annotator,
    service: Service,
    watch: Watch,
    choice: str,
    classes: list[str],
    version: int,
) -> None:
    watch.allow(CONFLICT)
    name = ada.image
    ada.drag((20, 20), (60, 50))
    image = save_elsewhere(service, ada)
    ada.press("Space")
    expect(ada.status).to_have_text("1 save to look at")
    # Nothing was overwritten, and nothing was forgotten.
    assert [box.class_name for box in service.client.annotations.get(image).boxes or []] == ["coin"]
    ada.page.reload()
    expect(ada.status).to_have_text("1 save to look at")
    ada.status.click()
    ada.page.get_by_role("button", name="Compare").click()
    dialog = ada.page.get_by_role("dialog", name=f"Two versions of {name}")
    expect(dialog.get_by_role("img", name="screw")).to_be_visible()
    expect(dialog.get_by_role("img", name="coin")).to_be_visible()
    assert axe_violations(ada.page) == []
    dialog.get_by_role("button", name=choice).click()
    if "Edit" in choice:
        ada.see(name)
        expect(ada.boxes).to_have_count(2)
        ada.press("Space")
    ada.wait_saved()
    stored = service.client.annotations.get(image)
    assert [box.class_name for box in stored.boxes or []] == classes
    assert stored.version == version


def test_an_image_that_somebody_else_holds_now_is_not_overwritten(
    ada: Annotator, service: Service, watch: Watch
) -> None:
    watch.allow(CONFLICT)
    name = ada.image
    ada.press("n")
    lapse_claims(service, ada.project)
    claim = service.client.queries.claim(project=ada.project, limit=10, author="bob")
    assert name in [query.image.name for query in claim.items]
    ada.press("Space")
    expect(ada.status).to_have_text("1 save to look at")
    ada.status.click()
    expect(ada.page.get_by_role("dialog").get_by_text("is claimed by bob")).to_be_visible()
    ada.page.get_by_role("button", name="Discard").click()
    ada.wait_saved()
    assert labeled(service, ada.project) == {}


def test_a_claim_that_lapsed_is_told_and_the_save_still_counts(
    ada: Annotator, service: Service, watch: Watch
) -> None:
    watch.allow(CONFLICT)
    name = ada.image
    ada.press("n")
    lapse_claims(service, ada.project)
    # Waking up: the page asks at once.
    ada.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(ada.page.get_by_text("claim lapsed")).to_be_visible()
    ada.go_on("Space")
    ada.wait_saved()
    assert list(labeled(service, ada.project)) == [name]


def test_back_and_forth_between_images(ada: Annotator, service: Service) -> None:
    first = ada.image
    second = ada.go_on("n", "Space")
    assert ada.go_on("n", "n", "Backspace") == first
    expect(ada.boxes).to_have_count(1)
    ada.press("Backspace")
    expect(ada.page.get_by_text("first image of this visit").last).to_be_visible()
    assert ada.go_on("n", "Space") == second
    expect(ada.boxes).to_have_count(2)
    ada.press("Space")
    ada.wait_saved()
    stored = labeled(service, ada.project)
    assert {name: len(each.boxes or []) for name, each in stored.items()} == {first: 2, second: 2}
    assert stored[first].version == 2


def test_empty_images_and_skipped_ones(ada: Annotator, service: Service) -> None:
    first = ada.image
    ada.press("Space")
    expect(ada.page.get_by_text("Press X if there is nothing to box here").last).to_be_visible()
    assert ada.image == first
    ada.press("n", "x")
    expect(ada.page.get_by_text("There is 1 box").last).to_be_visible()
    second = ada.go_on("Delete", "x")
    ada.press("s")
    ada.page.get_by_label("Another reason").fill("wrong street")
    third = ada.go_on("Enter")
    ada.press("s")
    ada.page.get_by_role("button", name="Cannot decide").click()
    expect(ada.page.locator(".image-name")).not_to_have_text(third)
    ada.wait_saved()
    assert labeled(service, ada.project)[first].boxes == []
    reasons = {
        image.name: image.skip_reason
        for image in service.client.images.list(project=ada.project, skipped=True)
    }
    assert reasons == {second: "wrong street", third: "Cannot decide"}


def test_suggestions_are_accepted_dismissed_and_remembered_by_undo(
    page: Page, service: Service, project: str
) -> None:
    predict(service, project, DETECTIONS)
    ada = Annotator(page, project)
    ada.open()
    dashed = page.locator(".shape.suggestion")
    expect(dashed).to_have_count(2)
    expect(page.get_by_role("button", name="Accept 2")).to_be_visible()
    # One by one: Tab selects it, Enter takes it.
    ada.press("Tab", "Enter")
    expect(ada.boxes).to_have_count(1)
    expect(dashed).to_have_count(1)
    ada.press("Tab", "Delete")
    expect(dashed).to_have_count(0)
    ada.press("Control+z", "Control+z")
    expect(dashed).to_have_count(2)
    expect(ada.boxes).to_have_count(0)
    page.get_by_label("Confidence from").fill("10")
    expect(dashed).to_have_count(3)
    ada.press("h")
    expect(dashed).to_have_count(0)
    ada.press("h")
    page.get_by_label("Confidence from").fill("70")
    page.get_by_label("Confidence from").press("Enter")
    expect(ada.boxes).to_have_count(1)
    # What is boxed by hand already is no suggestion any more.
    page.get_by_label("Confidence from").fill("50")
    ada.press("3")
    ada.stage.focus()
    ada.press("Escape")
    first = ada.image
    ada.drag((150, 40), (221, 111))
    expect(dashed).to_have_count(0)
    ada.go_on("Space")
    ada.go_on("Enter", "Space")
    ada.wait_saved()
    stored = labeled(service, project)
    assert {each.source for name, each in stored.items() if name != first} == {"suggestion"}
    assert stored[first].source == "human"
    assert len(stored) == 2


def test_zoom_keeps_what_is_under_the_pointer_and_the_picture_can_be_dragged(
    ada: Annotator,
) -> None:
    page = ada.page
    before = ada.at(80, 60)
    page.mouse.move(*before)
    page.mouse.wheel(0, -600)
    after = ada.at(80, 60)
    assert after == pytest.approx(before, abs=1)
    ada.drag((80, 60), (100, 70), button="middle")
    moved = ada.at(80, 60)
    assert moved[0] - after[0] == pytest.approx(ada.at(100, 60)[0] - moved[0], rel=0.05)
    expect(ada.boxes).to_have_count(0)
    name = ada.image
    page.keyboard.down("Space")
    ada.drag((80, 60), (70, 60))
    page.keyboard.up("Space")
    assert ada.at(80, 60)[0] < moved[0] - 5
    assert ada.image == name
    ada.press("0")
    assert ada.at(80, 60) == pytest.approx(before, abs=1)
    ada.press("+", "-")
    assert ada.at(80, 60) == pytest.approx(before, abs=1)


def test_escape_leaves_the_picture_and_keys_do_not_reach_into_fields(ada: Annotator) -> None:
    page = ada.page
    ada.press("n", "Escape", "Escape")
    expect(ada.stage).not_to_be_focused()
    ada.stage.focus()
    ada.press("Tab")
    expect(page.locator(".boxes li.selected")).to_have_count(1)
    ada.press("s")
    page.get_by_label("Another reason").press_sequentially("n n 2")
    ada.press("Escape")
    expect(ada.boxes).to_have_count(1)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_fingers_draw_and_pinch_on_a_tablet(
    open_context: OpenContext, service: Service, project: str
) -> None:
    context = open_context(viewport=TABLET, has_touch=True)
    ada = Annotator(context.new_page(), project)
    ada.open()
    name = ada.image
    devtools = context.new_cdp_session(ada.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        devtools.send(
            "Input.dispatchTouchEvent",
            {
                "type": kind,
                "touchPoints": [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)],
            },
        )

    touch("touchStart", ada.at(60, 60))
    touch("touchMove", ada.at(100, 90))
    touch("touchMove", ada.at(160, 140))
    touch("touchEnd")
    expect(ada.boxes).to_have_count(1)
    wide = ada.at(WIDTH, 0)[0] - ada.at(0, 0)[0]
    touch("touchStart", ada.at(140, 120))
    touch("touchStart", ada.at(140, 120), ada.at(180, 120))
    touch("touchMove", ada.at(120, 120), ada.at(200, 120))
    touch("touchEnd")
    assert ada.at(WIDTH, 0)[0] - ada.at(0, 0)[0] > wide * 1.5
    expect(ada.boxes).to_have_count(1)
    for button in ada.page.locator("button:visible").all():
        frame = button.bounding_box()
        assert frame is not None
        assert frame["height"] >= 40, button.inner_text()
    ada.page.get_by_role("button", name="Save and next").tap()
    ada.wait_saved()
    (box,) = labeled(service, project)[name].boxes or []
    assert box.x1 == pytest.approx(60, abs=2)
    assert box.y2 == pytest.approx(140, abs=2)


def test_a_project_without_a_selection_says_what_to_do_and_goes_on_by_itself(
    page: Page, service: Service, tmp_path: Path
) -> None:
    project = make_project(service, tmp_path, name="nothing selected", images=2, budget=0)
    page.goto(f"/app/projects/{project}/annotate")
    page.get_by_label("Your name").fill("ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing has been selected yet")
    assert axe_violations(page) == []
    cycle = service.client.cycles.create(project=project, budget=2)
    service.client.cycles.wait(cycle.id, timeout=120)
    Annotator(page, project).see()


def test_the_last_images_may_be_with_others(page: Page, service: Service, project: str) -> None:
    claim = service.client.queries.claim(project=project, limit=10, author="bob")
    page.goto(f"/app/projects/{project}/annotate")
    page.get_by_label("Your name").fill("ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("The last images are with others")
    claim.release(claim.items[0])
    Annotator(page, project).see(claim.items[0].image.name)


def test_a_review_begins_where_label_and_model_disagree_most(
    page: Page, service: Service, project: str
) -> None:
    client = service.client
    agree, differ, *_ = client.images.list(project=project)
    seen = [("screw", DETECTIONS[0]), ("nut", DETECTIONS[1])]
    boxes = [
        {"class": name, **{side: each[side] for side in ("x1", "y1", "x2", "y2")}}
        for name, each in seen
    ]
    client.annotations.put(agree.id, version=0, boxes=boxes, author="bob")
    client.annotations.put(differ.id, version=0, boxes=[], author="bob")
    predict(service, project, DETECTIONS)
    ada = Annotator(page, project)
    ada.open(query="?review=disagreement")
    assert ada.image == differ.name
    expect(page.get_by_text("disagreement 1.5")).to_be_visible()
    assert ada.go_on("Enter", "Space") == agree.name
    expect(ada.boxes).to_have_count(2)
    ada.press("Space")
    expect(page.get_by_role("heading", level=1)).to_have_text("Reviewed")
    ada.wait_saved()
    assert len(client.annotations.get(differ.id).boxes or []) == 2
    # Looked at and left as it was: no new version.
    assert client.annotations.get(agree.id).version == 1
    ada.open(query="?review=uncertainty")


def test_the_next_picture_is_decoded_before_it_is_wanted(ada: Annotator) -> None:
    page = ada.page
    page.wait_for_load_state("networkidle")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    ada.go_on("n", "Space")
    assert page.evaluate("document.querySelector('.picture img').complete")
    shown = page.locator(".picture img").get_attribute("src")
    assert not [url for url in asked if shown and url.endswith(shown)]
    page.wait_for_function("performance.getEntriesByName('save-and-next').length === 1")


def test_there_may_be_more_classes_than_keys(page: Page, service: Service, tmp_path: Path) -> None:
    classes = [f"kind-{number:02}" for number in range(40)]
    project = make_project(service, tmp_path, name="many classes", images=1, classes=classes)
    ada = Annotator(page, project)
    ada.open()
    ada.press("n", "z")
    expect(page.locator(".boxes .class-name")).to_have_text("kind-27")
    page.get_by_role("button", name="kind-39").click()
    expect(page.locator(".boxes .class-name")).to_have_text("kind-39")
    assert axe_violations(page) == []


def test_a_claim_that_lapsed_can_still_be_skipped(
    ada: Annotator, service: Service, watch: Watch
) -> None:
    watch.allow(CONFLICT)
    name = ada.image
    lapse_claims(service, ada.project)
    ada.press("s")
    ada.page.get_by_role("button", name="Cannot decide").click()
    expect(ada.page.locator(".image-name")).not_to_have_text(name)
    ada.wait_saved()
    assert [
        image.name for image in service.client.images.list(project=ada.project, skipped=True)
    ] == [name]


def test_who_leaves_for_another_page_gives_back_what_is_not_begun(
    ada: Annotator, service: Service
) -> None:
    ada.press("n")
    queries = service.client.queries
    assert len(list(queries.list(project=ada.project, state="claimed"))) == 4
    ada.page.get_by_role("link", name="Overview").click()
    expect(ada.page.get_by_role("heading", level=1)).to_be_visible()
    held = list(queries.list(project=ada.project, state="claimed"))
    assert len(held) == 1
    # What was begun is taken up again.
    ada.page.get_by_role("link", name="Annotate").first.click()
    ada.see(held[0].image.name)
    expect(ada.boxes).to_have_count(1)


def test_two_tabs_of_one_annotator_send_a_save_once(
    page: Page, service: Service, tmp_path: Path, watch: Watch
) -> None:
    watch.allow(OFFLINE)
    ada = Annotator(page, make_project(service, tmp_path, name="two tabs", images=12))
    ada.open()
    ada.page.route("**/annotations", lambda route: route.abort())
    name = ada.image
    ada.go_on("n", "Space")
    expect(ada.status).to_contain_text("kept here")
    other = Annotator(ada.page.context.new_page(), ada.project)
    other.open()
    other.wait_saved()
    assert labeled(service, ada.project)[name].version == 1
    ada.page.unroute("**/annotations")
    ada.wait_saved()
    assert labeled(service, ada.project)[name].version == 1
