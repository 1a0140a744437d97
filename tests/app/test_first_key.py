"""How an open server is closed. The last thing that happens to this module's server."""

from __future__ import annotations

import re

import pytest
from miaod_client import AuthenticationError
from playwright.sync_api import Page, Route, expect

from tests.app.browsing import Watch, axe_violations
from tests.app.conftest import Service


def test_the_first_key_is_an_admins_closes_the_server_and_signs_its_maker_in(
    page: Page, service: Service, watch: Watch
) -> None:
    project = service.client.projects.create(name="street", classes=["car"]).id
    page.goto(f"/app/projects/{project}#settings")
    members = page.get_by_role("region", name="Members and keys", exact=True)
    expect(members).to_contain_text("The first key closes it")
    members.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("admin also manages keys")).to_be_checked()
    expect(dialog.get_by_label("annotator also claims")).to_be_disabled()
    assert axe_violations(page) == []
    dialog.get_by_label("For", exact=True).fill("root")

    held: list[Route] = []
    page.route("**/session", lambda route: held.append(route))
    watch.allow("status of 401")
    with page.expect_request("**/session"):
        dialog.get_by_role("button", name="Make key").click()
    # What the page asks for meanwhile is refused, and must not lead away from the key.
    with page.expect_response("**/workers") as refused:
        page.evaluate("void import('/static/app/api.js').then((api) => api.get('/workers'))")
    assert refused.value.status == 401
    held[0].continue_()
    page.unroute("**/session")
    expect(dialog.get_by_label("The key")).to_have_value(re.compile("^miaod_"))
    dialog.get_by_role("button", name="Done").click()
    # Nobody was sent away: the page goes on as the admin.
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(members.get_by_role("row", name="root")).to_be_visible()
    with pytest.raises(AuthenticationError):
        service.client.projects.get(project)
