"""Draws docs/report.png, the picture in the README, from a finished run of the shipped grid.

robustsweep run digits && python docs/draw_report.py outputs/digits
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import robustsweep
from tests.support.browser import CHROMIUM

WIDTH, HEIGHT = 1080, 1560


def main() -> None:
    picture = Path(__file__).with_name("report.png")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = Path(folder) / "report.html"
        robustsweep.open(sys.argv[1]).report(page)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        window.goto(page.as_uri())
        window.evaluate("window.report.drawAll()")
        window.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
