from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from server.main import STATIC, create_app
from server.settings import Settings

PROJECT = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"
PAGES = [
    "/app/",
    "/app/sign-in",
    f"/app/projects/{PROJECT}",
    "/app/no/such/page",
]


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Pages tell nothing of the database, and need none."""
    return Settings(data_dir=data_dir, database_url=None, admin_key=None)


@pytest.fixture
def keyed(settings: Settings) -> Iterator[TestClient]:
    with_key = settings.model_copy(update={"admin_key": SecretStr("s3cret")})
    with TestClient(create_app(with_key)) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_a_shell_that_anybody_may_load(keyed: TestClient, path: str) -> None:
    page = keyed.get(path)
    assert page.status_code == (404 if "no/such" in path else 200)
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(links) >= 5
    for link in links:
        assert keyed.get(link).status_code == 200, link


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_its_own_files_only_and_has_nothing_inline(
    client: TestClient, path: str
) -> None:
    page = client.get(path)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page.text)


def test_the_root_leads_to_the_pages(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/app/"
    assert client.get("/app").url.path == "/app/"


def test_an_address_cannot_put_anything_into_its_page(client: TestClient) -> None:
    page = client.get('/app/projects/"><b>x')
    assert page.status_code == 200
    assert "<b>" not in page.text


def test_our_files_are_asked_for_anew_and_vendored_ones_are_not(client: TestClient) -> None:
    assert client.get("/static/app/api.js").headers["cache-control"] == "no-cache"
    vendored = client.get("/static/vendor/htm-preact-standalone-3.1.1.js")
    assert "immutable" in vendored.headers["cache-control"]


def test_vendored_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((STATIC / "vendored.json").read_text())
    listed: dict[str, str] = {}
    for library in manifest["libraries"]:
        assert library["version"]
        assert any("LICENSE" in name for name in library["files"]), library["name"]
        listed |= library["files"]
    for name, sha256 in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256, name
    there = {
        str(path.relative_to(STATIC))
        for path in [*STATIC.glob("vendor/*"), *STATIC.glob("swagger-ui*")]
    }
    assert there == set(listed)
