"""How an open server is closed. The last thing that happens to this module's server."""

from __future__ import annotations

import re

import pytest
from miaod_client import AuthenticationError
from playwright.sync_api import Page, expect

from tests.app.browsing import axe_violations
from tests.app.conftest import Service


def test_the_first_key_is_an_admins_closes_the_server_and_signs_its_maker_in(
    page: Page, service: Service
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
    dialog.get_by_role("button", name="Make key").click()
    expect(dialog.get_by_label("The key")).to_have_value(re.compile("^miaod_"))
    dialog.get_by_role("button", name="Done").click()
    # Nobody was sent away: the page goes on as the admin.
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(members.get_by_role("row", name="root")).to_be_visible()
    with pytest.raises(AuthenticationError):
        service.client.projects.get(project)
