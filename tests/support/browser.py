"""Headless Chromium, as people have it: what a page logs, asks for and shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed")


@dataclass
class Watched:
    """A page, what it logged and raised, and every address that it asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def elsewhere(self, own: str) -> list[str]:
        """Addresses that are neither this one, or below it, nor inside the page."""
        return [url for url in self.asked if not url.startswith((own, "data:"))]

    def texts(self, selector: str) -> list[str]:
        """Of all that is visible."""
        found: list[str] = self.page.locator(selector).filter(visible=True).all_inner_texts()
        return found


@contextmanager
def running() -> Iterator[Any]:
    """A browser for all tests of a process."""
    from playwright.sync_api import sync_playwright

    # As root, which CI is, Chromium has no sandbox.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, address: str, *, width: int = 1280, **context: Any) -> Iterator[Watched]:
    """A page in a window of its own; `context`: as of Playwright's `new_context`."""
    window = browser.new_context(viewport={"width": width, "height": 900}, **context)
    watched = Watched(window.new_page())
    watched.page.on("console", lambda message: watched.said.append(f"{message.type}: {message.text}"))
    watched.page.on("pageerror", lambda error: watched.said.append(f"error: {error}"))
    watched.page.on("request", lambda request: watched.asked.append(request.url))
    watched.page.goto(address)
    try:
        yield watched
    finally:
        window.close()
