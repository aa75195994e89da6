"""A real Chromium in; pages, what they complain of and whom they call, out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WAIT_MILLISECONDS = 30_000
SCREENSHOTS = Path(__file__).parent.parent.parent / "var" / "screenshots"


def missing() -> str | None:
    """Return why no browser can be started here; None when one can."""
    return None if shutil.which(CHROMIUM) else "chromium is not installed; run scripts/setup-services.sh browser"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*ARGUMENTS])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page of a browser, and what went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Lines of the console that are errors or warnings, errors of scripts, and failed requests."""
    hosts: set[str] = field(default_factory=set)
    """Whom the page asked for anything."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MILLISECONDS)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._note_request)

    def judge(self) -> list[str]:
        """Return what axe-core has against the page, at levels A and AA of WCAG 2.2."""
        found = Axe().run(
            self.page, options={"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
        )
        return [
            f"{violation['id']}: {node['html'][:200]} {node['any'][:1]}"
            for violation in found.response["violations"]
            for node in violation["nodes"]
        ]

    def photograph(self, name: str, **options: Any) -> Path:
        """Keep a picture of the page for whoever looks at a run of the tests."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, **options)
        return path

    def _note_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"blob", "data"}:
            self.hosts.add(parts.netloc)


@contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[Visit]:
    """Open an empty page with cookies of its own."""
    context = browser.new_context(**options)
    yield Visit(context.new_page())
    context.close()
