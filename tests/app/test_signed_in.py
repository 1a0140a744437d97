"""The pages of a server with keys: real sessions, and what each role is offered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from miaod_client import NewKey
from playwright.sync_api import Page, expect

from tests.app.annotating import Annotator, labeled, make_project
from tests.app.browsing import LOOKS, Watch, axe_violations, take_screenshot
from tests.app.conftest import OpenContext, Service, run_service
from tests.app.dashboarding import write_pictures

ADMIN_KEY = "the-key-of-the-settings-0123456789abcdef"
# A browser notes every refusal on its console.
STRANGER = r"status of 401"
LATE = r"status of 403"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with run_service(folder, sqlite_template, admin_key=ADMIN_KEY) as service:
        yield service


@pytest.fixture(scope="module")
def project(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With a selection that is large enough for all tests."""
    folder = tmp_path_factory.mktemp("pictures")
    return make_project(service, folder, name="workbench", images=40)


def make_key(
    service: Service,
    name: str,
    role: Literal["viewer", "annotator", "engineer"],
    project: str | None = None,
) -> NewKey:
    """A key for one project, or for all."""
    if project is None:
        return service.client.keys.create(name=name, role=role, all_projects=True)
    return service.client.keys.create(name=name, role=role, projects=[project])


def sign_in(page: Page, key: str) -> None:
    """On the page that asks for a key."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)


def open_as(page: Page, key: str, path: str) -> None:
    """Open a page as somebody who is not signed in yet."""
    page.goto(path)
    sign_in(page, key)


def test_a_stranger_signs_in_lands_on_the_wanted_page_and_signs_out(
    page: Page, service: Service, project: str, watch: Watch
) -> None:
    watch.allow(STRANGER)
    key = make_key(service, "vera", "viewer", project)
    page.goto(f"/app/projects/{project}?from=mail#images")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    field = page.get_by_label("Key")
    expect(field).to_be_focused()
    field.fill("miaod_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(
        "This is not a key of this server. Check it for a typing error."
    )
    assert axe_violations(page) == []
    sign_in(page, key.key)
    expect(page.get_by_role("heading", level=1)).to_have_text("workbench")
    expect(page.get_by_role("list", name="Images").get_by_role("listitem").first).to_be_visible()
    assert page.url.endswith(f"/app/projects/{project}?from=mail#images")
    expect(page.locator("#header-user")).to_contain_text("vera")
    # No script can read what signs one in.
    assert "miaod_session" not in page.evaluate("document.cookie")

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto("/app/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_the_sign_in_page_leads_to_pages_of_this_server_only(
    page: Page, service: Service, project: str
) -> None:
    key = make_key(service, "wanda", "viewer", project)
    for number, wanted in enumerate(("https://example.org/app/", "//example.org", "/app//x", "/")):
        page.goto(f"/app/sign-in?next={wanted}")
        sign_in(page, key.key)
        expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
        assert page.url == f"{service.url}/app/", number


def test_an_engineer_creates_uploads_starts_and_annotates_with_the_cookie(
    page: Page, service: Service, tmp_path: Path, watch: Watch
) -> None:
    watch.allow(STRANGER)
    key = make_key(service, "eve", "engineer")
    open_as(page, key.key, "/app/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    new = page.get_by_role("button", name="New project")
    form = page.get_by_role("button", name="Create project")
    expect(new.or_(form).first).to_be_visible()
    if new.is_visible():
        new.click()
    page.get_by_label("Name").fill("eve's")
    page.get_by_label("Classes").fill("screw, nut")
    page.get_by_label("Images to measure on").fill("0")
    form.click()
    page.get_by_role("button", name="Add images").click()
    page.get_by_label("Files to add").set_input_files(write_pictures(tmp_path / "pictures", 6))
    report = page.get_by_role("region", name="Upload")
    expect(report.get_by_role("status")).to_have_text("6 added")
    page.get_by_role("button", name="Start the first cycle").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Budget").fill("6")
    dialog.get_by_role("button", name="Start first cycle").click()
    page.get_by_role("link", name="Annotate 6 images").click(timeout=120_000)

    project = page.url.split("/")[-2]
    eve = Annotator(page, project)
    eve.see()
    first = eve.image
    eve.go_on("n", "Space")
    eve.wait_saved()
    stored = labeled(service, project)
    assert [(name, each.author) for name, each in stored.items()] == [(first, "eve")]
    held = service.client.queries.list(project=project, state="claimed")
    assert len(list(held)) > 0
    # Sent while the page is being left, with the token all the same.
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("eve's")
    expect(page.get_by_role("link", name="Annotate 5 images")).to_be_visible()
    assert list(held) == []


def test_an_annotator_sees_their_project_and_no_engineers_buttons(
    page: Page, service: Service, project: str, watch: Watch
) -> None:
    watch.allow(STRANGER)
    other = service.client.projects.create(name="not for ana", classes=["car"])
    key = make_key(service, "ana", "annotator", project)
    open_as(page, key.key, "/app/")
    cards = page.locator(".project-card")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("workbench")
    expect(page.get_by_role("button", name="New project")).to_have_count(0)
    cards.get_by_role("link").click()

    expect(page.get_by_role("link", name="Annotate", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Review", exact=True)).to_be_visible()
    main = page.locator("main")
    expect(main.get_by_role("link", name="Annotate")).to_be_visible()
    expect(main.get_by_role("button", name="Start")).to_have_count(0)
    expect(main.get_by_role("link", name="Settings")).to_have_count(0)
    main.get_by_role("link", name="Images", exact=True).click()
    expect(main.get_by_role("list", name="Images")).to_be_visible()
    expect(main.get_by_role("button", name="Choose files")).to_have_count(0)
    main.get_by_role("link", name="Cycles", exact=True).click()
    main.get_by_role("button", name="Details of cycle 1").click()
    files = main.get_by_role("list", name="Files of the cycle")
    expect(files).to_contain_text("config.json")
    expect(files.get_by_role("link")).to_have_count(0)
    page.goto(f"/app/projects/{project}#settings")
    expect(main).to_contain_text("for engineers and admins")
    assert axe_violations(page) == []

    watch.allow(r"status of 404")
    page.goto(f"/app/projects/{other.id}")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such project")


def test_a_key_that_is_revoked_over_the_work_costs_no_box(
    page: Page, service: Service, project: str, watch: Watch
) -> None:
    watch.allow(STRANGER)
    key = make_key(service, "bob", "annotator", project)
    bob = Annotator(page, project)
    open_as(page, key.key, f"/app/projects/{project}/annotate")
    bob.see()
    first = bob.image
    bob.press("n")
    service.client.keys.revoke(key.id)
    bob.press("Space")
    # A new key for the same person.
    key = make_key(service, "bob", "annotator", project)
    leave_signed_out(page)
    sign_in(page, key.key)
    bob.see()
    bob.wait_saved()
    (box,) = labeled(service, project)[first].boxes or []
    assert box.class_name == "screw"
    assert labeled(service, project)[first].author == "bob"

    second = bob.image
    assert second != first
    bob.drag((20, 20), (60, 50))
    bob.drag((120, 20), (160, 50))
    expect(bob.boxes).to_have_count(2)
    service.client.keys.revoke(key.id)
    page.reload()
    sign_in(page, make_key(service, "bob", "annotator", project).key)
    bob.see(second)
    expect(bob.boxes).to_have_count(2)


def leave_signed_out(page: Page) -> None:
    """Whether the page says first that one is signed out, or leaves at once."""
    asked = page.get_by_role("dialog").get_by_role("button", name="Sign in")
    there = page.get_by_role("heading", level=1, name="Sign in")
    expect(asked.or_(there).first).to_be_visible()
    if asked.is_visible():
        asked.click()


def test_who_signs_in_anew_in_another_tab_goes_on_in_the_first(
    page: Page, service: Service, project: str, watch: Watch
) -> None:
    watch.allow(STRANGER)
    watch.allow(LATE)
    cleo = make_key(service, "cleo", "annotator", project)
    dora = make_key(service, "dora", "annotator", project)
    annotator = Annotator(page, project)
    open_as(page, cleo.key, f"/app/projects/{project}/annotate")
    annotator.see()
    first = annotator.image
    other = page.context.new_page()
    other.goto("/app/sign-in")
    sign_in(other, cleo.key)
    # The first tab's token is of a session that has ended.
    annotator.go_on("n", "Space")
    annotator.wait_saved()
    assert labeled(service, project)[first].author == "cleo"

    second = annotator.image
    annotator.press("n")
    other.goto("/app/sign-in")
    sign_in(other, dora.key)
    annotator.press("Space")
    # Nothing of cleo's is saved as dora's: the page begins anew, as dora's.
    expect(page.locator("#header-user")).to_contain_text("dora")
    annotator.see()
    assert annotator.image != second
    assert second not in labeled(service, project)
    other.goto("/app/sign-in")
    sign_in(other, cleo.key)
    page.reload()
    annotator.see()
    annotator.wait_saved()
    assert labeled(service, project)[second].author == "cleo"


@pytest.fixture(
    params=["light", *(pytest.param(look, marks=pytest.mark.slow) for look in ("dark", "tablet"))]
)
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_keys_are_made_shown_once_and_revoked(
    open_context: OpenContext, service: Service, project: str, look: str, watch: Watch
) -> None:
    def keep(state: str) -> None:
        assert axe_violations(page) == []
        take_screenshot(page, f"dashboard-{state}-{look}")

    watch.allow(STRANGER)
    page = open_context(**LOOKS[look]).new_page()
    name = f"ana {look}"
    page.goto(f"/app/projects/{project}#settings")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    keep("sign-in")
    sign_in(page, ADMIN_KEY)
    members = page.get_by_role("region", name="Members and keys", exact=True)
    members.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Make key").click()
    expect(dialog.get_by_role("alert")).to_have_text("Say for whom or what the key is.")
    dialog.get_by_label("For", exact=True).fill(name)
    keep("new-key")
    dialog.get_by_role("button", name="Make key").click()
    secret = dialog.get_by_label("The key").input_value()
    keep("key-once")
    dialog.get_by_role("button", name="Done").click()
    row = members.get_by_role("row", name=name)
    expect(row).to_contain_text("annotator")
    expect(row).to_contain_text("never")
    expect(page.locator("body")).not_to_contain_text(secret)
    (made,) = [key for key in service.client.keys.list() if key.name == name]
    assert made.projects == [project]
    assert secret.startswith(made.prefix)

    watch.allow("status of 409")
    members.get_by_role("button", name="New key").click()
    dialog.get_by_label("For", exact=True).fill(name)
    dialog.get_by_role("button", name="Make key").click()
    expect(dialog.get_by_role("alert")).to_contain_text(name)
    dialog.get_by_role("button", name="Cancel").click()
    members.scroll_into_view_if_needed()
    keep("keys")

    visitor = open_context().new_page()
    open_as(visitor, secret, f"/app/projects/{project}")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("workbench")
    members.get_by_role("button", name=f"Revoke {name}").click()
    expect(row).to_have_count(0)
    visitor.reload()
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in")
