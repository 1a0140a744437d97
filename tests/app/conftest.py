"""A real server and worker, a real Chromium, and pages that are watched while they run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from miaod_client import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from examples.local_service import LocalService, free_port
from tests.app.browsing import DESKTOP, Watch

# A loaded machine may take its time; a test that passes never waits for so long.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium. Per module: while Playwright runs, no other test could start an event loop."""
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium here: install Debian's package `chromium`")
    # Chromium's own sandbox does not start for root.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else _FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Service:
    """A running server and its worker, with a client to prepare what a test needs."""

    url: str
    data_dir: Path
    client: Client


@contextmanager
def run_service(folder: Path, template: Path, *, admin_key: str | None = None) -> Iterator[Service]:
    """A server and a worker for the time of the block; closed to strangers if there is a key."""
    data_dir = folder / "data"
    data_dir.mkdir()
    shutil.copyfile(template, data_dir / "miaod.db")
    with pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith("MIAOD_"):
                environment.delenv(name)
        environment.setenv("MIAOD_POLL_SECONDS", "0.1")
        if admin_key is not None:
            environment.setenv("MIAOD_ADMIN_KEY", admin_key)
        running = LocalService(data_dir=data_dir, port=free_port(), log_dir=folder)
        with running, Client(url=running.url, api_key=admin_key) as client:
            yield Service(running.url, data_dir, client)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """A server and a worker of their own for the tests of a module."""
    with run_service(tmp_path_factory.mktemp("service"), sqlite_template) as service:
        yield service


@pytest.fixture
def watch(service: Service) -> Iterator[Watch]:
    """Watches every page of the test; fails it at its end for what a page must not do."""
    watch = Watch(service.url)
    yield watch
    watch.verify()


OpenContext = Callable[..., BrowserContext]


@pytest.fixture
def open_context(browser: Browser, service: Service, watch: Watch) -> Iterator[OpenContext]:
    """Opens browser profiles of their own (cookies, storage); all their pages are watched."""
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        context = browser.new_context(base_url=service.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", watch.attach)
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def page(open_context: OpenContext) -> Page:
    """A page of 1280 x 720 in a fresh profile."""
    return open_context().new_page()
