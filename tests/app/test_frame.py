"""What all pages have in common, in a real browser."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.app.browsing import Watch, axe_violations
from tests.app.conftest import Service


@pytest.fixture
def project(service: Service) -> str:
    taken = [project.id for project in service.client.projects.list()]
    if taken:
        return taken[0]
    return service.client.projects.create(name="street", classes=["car", "person"]).id


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/app/", "Projects"),
        ("/app/sign-in", "Sign in"),
        ("/app/projects/{project}", "street"),
        ("/app/projects/no-project", "There is no such project"),
        ("/app/nowhere", "There is no such page"),
    ],
)
def test_a_page_says_what_it_is_and_is_accessible(
    page: Page,
    watch: Watch,
    project: str,
    path: str,
    heading: str,
    scheme: Literal["light", "dark"],
) -> None:
    watch.allow("console: Failed to load resource: .* status of (404|422)")
    page.emulate_media(color_scheme=scheme)
    page.goto(path.format(project=project))
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    assert axe_violations(page) == []


def test_colours_follow_the_system_until_they_are_chosen(page: Page, project: str) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    page.emulate_media(color_scheme="light")
    page.goto("/app/")
    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert dark != light
    switch = page.get_by_role("button", name="Colours")
    switch.click()
    expect(switch).to_have_accessible_name("Colours: light")
    assert background() == light
    page.reload()
    assert background() == light
    switch.click()
    switch.click()
    expect(switch).to_have_accessible_name("Colours: as the system")
    assert background() == dark


def test_a_page_without_an_answer_says_so_and_offers_another_try(
    page: Page, watch: Watch, project: str
) -> None:
    watch.allow("console: Failed to load resource: net::ERR_FAILED")
    page.route("**/projects?*", lambda route: route.abort())
    page.goto("/app/")
    expect(page.get_by_role("heading", level=1)).to_have_text("This page could not be loaded")
    page.unroute("**/projects?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Projects")


def test_the_first_tab_stop_leads_to_the_content(page: Page, project: str) -> None:
    page.goto("/app/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
