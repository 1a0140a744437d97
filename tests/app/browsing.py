"""What tests of pages share: pages that are watched while they run, axe, pictures of pages."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from playwright.sync_api import Page

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
AXE = Path(__file__).with_name("vendor") / "axe-core-4.14.1.js"

DESKTOP = {"width": 1280, "height": 720}
TABLET = {"width": 820, "height": 1180}
# Options of a browser's profile, for pictures of the pages.
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": DESKTOP},
    "dark": {"color_scheme": "dark", "viewport": DESKTOP},
    "tablet": {"color_scheme": "light", "viewport": TABLET, "has_touch": True, "is_mobile": True},
}


@dataclass
class Watch:
    """What a page must not do: fail, complain on its console, or ask another server."""

    origin: str
    problems: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Expect problems that match: the test provokes them."""
        self.allowed.append(pattern)

    def attach(self, page: Page) -> None:
        """Watch a page from now on."""
        page.on(
            "console",
            lambda m: self._note(m.type == "error", f"console: {m.text} at {m.location['url']}"),
        )
        page.on("pageerror", lambda error: self._note(True, f"page error: {error}"))
        page.on("request", lambda r: self._note(not self._is_ours(r.url), f"request: {r.url}"))

    def verify(self) -> None:
        """Fail with what happened and was not expected."""
        unexpected = [
            problem
            for problem in self.problems
            if not any(re.search(pattern, problem) for pattern in self.allowed)
        ]
        assert not unexpected, unexpected

    def _note(self, bad: bool, what: str) -> None:
        if bad:
            self.problems.append(what)

    def _is_ours(self, url: str) -> bool:
        return url.startswith((self.origin + "/", "data:", f"blob:{self.origin}/"))


def axe_violations(page: Page) -> list[str]:
    """Serious and critical violations that axe finds on a page as it is now."""
    # Evaluated through the debugger: the page's policy forbids foreign scripts, as it should.
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def take_screenshot(page: Page, name: str) -> None:
    """Keep the page's picture in docs/screenshots/, where a run is asked to (SCREENSHOTS=1)."""
    if os.environ.get("SCREENSHOTS") != "1":
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with Pillow.open(io.BytesIO(page.screenshot())) as picture:
        # 256 colours: a quarter of the bytes, and no difference that an eye would find.
        small = picture.convert("RGB").quantize(
            256, method=Pillow.Quantize.MAXCOVERAGE, dither=Pillow.Dither.NONE
        )
    small.save(SCREENSHOTS / f"{name}.png", optimize=True)


Evaluate = Callable[..., Any]


def evaluator(page: Page, folder: str) -> Evaluate:
    """Calls functions of the page's modules below a folder, with JSON values."""
    page.goto("/app/sign-in")

    def call(module: str, function: str, *arguments: Any) -> Any:
        return page.evaluate(
            """async ([path, name, given]) =>
                (await import(`/static/app/${path}.js`))[name](...given)""",
            [f"{folder}/{module}", function, list(arguments)],
        )

    return call
