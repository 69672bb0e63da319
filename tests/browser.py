"""Chromium without a window, for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER: Final = shutil.which("chromedriver")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # there is none for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT: Final = 30.0  # seconds for a script of the page to finish

needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium with its driver is not installed")


class Browser:
    """Chromium, with the few operations that the tests need."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(DRIVER))

    def show(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], object]) -> Any:
        return WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05).until(lambda _: condition())

    def click(self, selector: str) -> None:
        """Finds and clicks the first match in one script: a live page may replace its elements at any time."""
        self.run(f"document.querySelector('{selector}').click()")

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector('{selector}').innerText"))

    def messages(self, *levels: str) -> list[str]:
        """What the console shows, of some levels or all: errors of scripts, what a policy forbids, missing files."""
        return [line["message"] for line in self.driver.get_log("browser") if not levels or line["level"] in levels]
