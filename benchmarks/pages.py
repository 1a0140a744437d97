"""The pages on a pool of 100,000 images, in a real browser: until they can be used, while their
gallery scrolls, and from one annotated image to the next.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

from benchmarks.large_project import fill
from benchmarks.rows import Row
from examples.local_service import LocalService, free_port
from server.store.database import make_engine, session_factory, upgrade
from tests.app.conftest import find_chromium

IMAGES = 100_000
LOADS = 5
SAVES = 30
# A second and a half of a wheel that never rests, again and again.
SCROLL_FRAMES = 600
PIXELS_A_FRAME = 240
SCREEN_FRAME = 1 / 60

# What is there when a page can be used: its data are shown and its buttons answer.
READY = {
    "projects": ("/app/", ".project-card progress"),
    "overview": ("/app/projects/{project}#overview", ".dashboard .histogram"),
    "selection": ("/app/projects/{project}#selection", ".gallery .tile"),
    "images": ("/app/projects/{project}#images", ".gallery .tile"),
    "cycles": ("/app/projects/{project}#cycles", ".compare .histogram"),
    "settings": ("/app/projects/{project}#settings", "#workers-title ~ * table"),
    "annotate": ("/app/projects/{project}/annotate", ".picture.ready"),
}

# Notes when the wanted element is on the screen, and the longest task of the page's thread.
WATCH = """(wanted) => {
    window.longestTask = 0;
    new PerformanceObserver((list) => {
        for (const task of list.getEntries()) {
            window.longestTask = Math.max(window.longestTask, task.duration);
        }
    }).observe({type: "longtask", buffered: true});
    window.ready = new Promise((resolve) => {
        const look = () => {
            if (document.querySelector(wanted)) {
                requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
            } else requestAnimationFrame(look);
        };
        look();
    });
}"""

# Scrolls as fast as a hand on a free-running wheel; gives milliseconds between frames.
SCROLL = """([frames, pixels]) => new Promise((resolve) => {
    const times = [];
    window.longestTask = 0;
    let before = performance.now();
    const step = (now) => {
        times.push(now - before);
        before = now;
        scrollBy(0, pixels);
        if (times.length < frames) requestAnimationFrame(step);
        else resolve(times.slice(2));
    };
    requestAnimationFrame(step);
})"""


def run() -> Iterator[Row]:
    """The figures; none where there is no Chromium."""
    path = find_chromium()
    if path is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        engine = make_engine(f"sqlite:///{data_dir / 'miaod.db'}")
        upgrade(engine)
        project = fill(session_factory(engine), data_dir, IMAGES)
        engine.dispose()
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        service = LocalService(data_dir=data_dir, port=free_port(), log_dir=Path(folder))
        with service, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=flags)
            context = browser.new_context(
                base_url=service.url, viewport={"width": 1280, "height": 720}
            )
            # The Annotate page asks for a name otherwise.
            context.add_init_script("localStorage.setItem('miaod-author', 'bench')")
            yield from _loads(context, project)
            yield from _scroll(context, project)
            yield from _saves(context, project)
            browser.close()


def _loads(context: BrowserContext, project: str) -> Iterator[Row]:
    for name, (address, wanted) in READY.items():
        times = []
        for _ in range(LOADS + 1):
            page = _open(context, address.format(project=project), wanted)
            times.append(page.evaluate("window.ready") / 1000)
            page.close()
        # The first load fills the caches of browser and server.
        yield Row(f"page {name}, until it can be used", statistics.median(times[1:]), "1 s", 1.0)
        yield Row(f"page {name}, the slowest of {LOADS + 1} loads", max(times), "1 s", 1.0)


def _open(context: BrowserContext, address: str, wanted: str) -> Page:
    page = context.new_page()
    page.add_init_script(f"({WATCH})({wanted!r})")
    page.goto(address, wait_until="commit")
    return page


def _scroll(context: BrowserContext, project: str) -> Iterator[Row]:
    page = _open(context, f"/app/projects/{project}#images", ".gallery .tile")
    page.evaluate("window.ready")
    times = [each / 1000 for each in page.evaluate(SCROLL, [SCROLL_FRAMES, PIXELS_A_FRAME])]
    page.wait_for_timeout(500)
    longest = page.evaluate("window.longestTask") / 1000
    rows = page.evaluate("scrollY")
    what = f"scrolling {rows:,.0f} px of the gallery"
    times.sort()
    yield Row(f"{what}, median frame", statistics.median(times), "60 Hz", SCREEN_FRAME)
    yield Row(f"{what}, 99th percentile", times[int(len(times) * 0.99)], "60 Hz", SCREEN_FRAME)
    yield Row(f"{what}, longest frame", times[-1], "60 Hz", SCREEN_FRAME)
    yield Row(f"{what}, longest task", longest, "60 Hz", SCREEN_FRAME)
    page.close()


def _saves(context: BrowserContext, project: str) -> Iterator[Row]:
    """Save and next by the keyboard; the page itself notes the time to the next picture."""
    page = _open(context, f"/app/projects/{project}/annotate", ".picture.ready")
    page.evaluate("window.ready")
    shown = page.locator(".image-name")
    for _ in range(SAVES):
        before = shown.inner_text()
        page.keyboard.press("n")  # a box at the crosshair
        page.keyboard.press("Space")
        page.wait_for_function(
            """(before) => document.querySelector(".picture.ready")
                && document.querySelector(".image-name").textContent !== before""",
            arg=before,
        )
    times: list[float] = page.evaluate(
        "performance.getEntriesByName('save-and-next').map((each) => each.duration / 1000)"
    )
    yield Row(f"save and next, median of {len(times)}", statistics.median(times), "150 ms", 0.15)
    yield Row("save and next, slowest", max(times), "150 ms", 0.15)
    page.close()
