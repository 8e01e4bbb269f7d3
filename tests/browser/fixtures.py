"""The browser, the JupyterLab server and the folder for screenshots that browser tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.lab import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, Lab, chromium_path, running_lab

expect.set_options(timeout=20_000)  # for what a test puts no time on: other work shares the cores


@pytest.fixture(scope="module")  # Playwright keeps an event loop running, beside which asyncio.run cannot be called
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip(f"none of {', '.join(CHROMIUM_NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab") / "home") as lab:
        yield lab


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: TUNEBOOK_SCREENSHOTS if that is set, else a temporary folder."""
    given = os.environ.get("TUNEBOOK_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
