"""The dashboard in JupyterLab, in a real browser, with a kernel behind it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import rehearsal
from tests.browser.lab import LabNotebook
from tests.browser.shown_runs import LIVE, ROWS_OF_COLOR

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

SETUP = "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\ntrainer = Rehearsal({})"
AWAITED = "Dashboard(trainer).show()\nresult = await trainer.train_async()"
SYNCHRONOUS = "Dashboard(trainer).show()\nresult = trainer.train()"


def test_stop_ends_an_awaited_run_and_freezes_the_dashboard(chromium, lab, screenshots):
    timed = f"{AWAITED}\nprint('ended at', trainer.ended_at)"
    with rehearsing_notebook(chromium, lab, "stop.ipynb", "steps=400, seconds=0.2, broken=(4, 5)", timed) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(r"Step [1-9]\d+ of 400"), timeout=60_000)
        page.screenshot(path=screenshots / "lab-running.png")
        pressed, said = page.evaluate(
            """() => {
                document.querySelector(".tunebook-stop").click();
                return [Date.now() / 1000, document.querySelector(".tunebook-headline").textContent];
            }"""
        )
        notebook.wait_until_done(seconds=10)
        ended = float(notebook.outputs(1).last.inner_text().removeprefix("ended at "))
        assert re.match(r"Stopping after step [1-9]\d", said)
        assert ended - pressed < 0.2 + 1  # one step and a second
        expect(page.locator(LIVE)).to_have_count(0)
        expect(notebook.outputs(1).locator("img")).to_be_visible()
        expect(notebook.outputs(1).locator("table").first).to_contain_text("of 400 in")
        expect(notebook.outputs(1)).to_contain_text(["", re.compile(r"Stopped after step [1-9]\d"), "ended at"])
        page.screenshot(path=screenshots / "lab-stopped.png")


def test_a_saved_run_shows_its_picture_and_table_with_no_kernel_and_no_trust(chromium, lab, screenshots):
    with rehearsing_notebook(chromium, lab, "saved.ipynb", "steps=6, seconds=0.05, eval_steps=3", AWAITED) as notebook:
        notebook.run_all()
        notebook.wait_until_done(seconds=20)
        expect(notebook.outputs(1).locator("table").first).to_be_visible()
        saved = notebook.save()
    assert "widgets" not in saved.metadata
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)

    path = lab.folder / "saved.ipynb"
    saved.metadata["edited"] = "elsewhere"  # the signature no longer fits, so JupyterLab does not trust the outputs
    saved.metadata["kernelspec"] = {"name": "gone", "display_name": "Gone", "language": "none"}
    saved.metadata["language_info"] = {"name": "none"}
    path.write_text(json.dumps(saved))
    lab.shut_kernels_down()
    with LabNotebook(chromium, lab, path) as notebook:
        notebook.page.get_by_role("dialog").get_by_role("button", name="No Kernel").click()
        picture = notebook.outputs(1).locator("img")
        expect(picture).to_be_visible()
        expect(notebook.outputs(1).locator("table").first).to_contain_text("6 of 6 in")
        size = picture.evaluate("(image) => [image.naturalWidth, image.width]")
        notebook.page.screenshot(path=screenshots / "lab-reopened.png")
    assert size == [1520, 760]  # in pixels, at twice the size it is shown at


def test_in_a_synchronous_cell_the_button_is_disabled_and_says_why(chromium, lab, screenshots):
    with rehearsing_notebook(chromium, lab, "sync.ipynb", "steps=200, seconds=0.2", SYNCHRONOUS) as notebook:
        notebook.run_all()
        page = notebook.page
        stop = page.get_by_role("button", name="Stop")
        expect(page.locator(".tunebook-headline")).to_contain_text(
            re.compile(r"Step ([5-9]|\d\d+) of 200"), timeout=60_000
        )
        expect(stop).to_be_disabled()
        expect(stop).to_have_attribute("title", rehearsal_reason := page.locator(".tunebook-reason").inner_text())
        page.screenshot(path=screenshots / "lab-synchronous.png")
        page.locator('[data-command="notebook:interrupt-kernel"], [title^="Interrupt the kernel"]').first.click()
        notebook.wait_until_done(seconds=3)
        expect(notebook.outputs(1)).to_contain_text(["", "Interrupted after step"])
    assert "■" in rehearsal_reason
    assert "await trainer.train_async()" in rehearsal_reason


def test_a_page_loaded_again_during_a_run_finds_it_going_on_with_all_its_steps_and_can_stop_it(
    chromium, lab, screenshots
):
    with rehearsing_notebook(chromium, lab, "reload.ipynb", "steps=2000, seconds=0.1", AWAITED) as notebook:
        notebook.run_all()
        page = notebook.page
        headline, curve = page.locator(".tunebook-headline"), page.locator("canvas").first
        expect(headline).to_contain_text(re.compile(r"Step [1-9]\d+ of 2,000"), timeout=60_000)
        first = re.search(r"first [\d.]+", curve.get_attribute("aria-label") or "")
        assert first is not None
        notebook.save()
        page.reload(wait_until="domcontentloaded")
        expect(headline).to_contain_text(re.compile(r"Step [\d,]+ of 2,000"), timeout=60_000)
        expect(curve).to_have_attribute("aria-label", re.compile(re.escape(first[0])))
        page.screenshot(path=screenshots / "lab-reloaded.png")
        page.locator(".tunebook-stop").click()
        expect(headline).to_contain_text("Stopped after step", timeout=5000)


def test_a_run_is_paused_sampled_slowed_and_resumed_from_the_page(chromium, lab, screenshots):
    with rehearsing_notebook(chromium, lab, "controls.ipynb", "steps=2000, seconds=0.1", AWAITED) as notebook:
        notebook.run_all()
        page = notebook.page
        button = lambda name: page.locator(f'.tunebook-actions [data-command="{name}"]')  # noqa: E731
        headline = page.locator(".tunebook-headline")
        expect(headline).to_contain_text(re.compile(r"Step [\d,]+ of 2,000"), timeout=60_000)
        button("pause").click()
        expect(headline).to_contain_text("Paused after step", timeout=20_000)
        paused = headline.inner_text()
        button("sample").click()
        expect(page.locator(".tunebook-scrub .tunebook-place")).to_have_text(re.compile(r"step \d+"), timeout=20_000)
        button("learning_rate").click()
        page.get_by_label("New learning rate").fill("1e-5")
        page.get_by_label("New learning rate").press("Enter")
        expect(page.locator(".tunebook-numbers")).to_contain_text("changed at", timeout=20_000)
        page.wait_for_timeout(300)
        assert headline.inner_text() == paused
        page.screenshot(path=screenshots / "lab-paused.png")
        button("resume").click()
        expect(headline).to_contain_text(re.compile(r"Step [\d,]+ of 2,000"), timeout=20_000)
        page.locator(".tunebook-discard").click()
        page.locator(".tunebook-discard").click()
        notebook.wait_until_done(seconds=10)
        expect(notebook.outputs(1).locator("table").first).to_contain_text("1.00e-05 after step")
        expect(notebook.outputs(1)).to_contain_text(["", "Discarded after step"])


def test_the_dark_theme_is_followed(chromium, lab, screenshots):
    lab.use_theme("JupyterLab Dark")
    try:
        with rehearsing_notebook(
            chromium, lab, "dark.ipynb", "steps=120, seconds=0.1, broken=(14, 15)", AWAITED
        ) as notebook:
            notebook.run_all()
            page = notebook.page
            expect(page.locator(".tunebook-headline")).to_contain_text(
                re.compile(r"Step ([2-9]\d|1\d\d) of 120"), timeout=60_000
            )
            paper, ink = page.locator(LIVE).evaluate(
                "(e) => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
            )
            curve = page.locator("canvas").first.evaluate(ROWS_OF_COLOR, [[92, 184, 238], 100, 1500])
            page.screenshot(path=screenshots / "lab-dark.png")
    finally:
        lab.use_theme("JupyterLab Light")
    assert brightness(paper) < 60 < 180 < brightness(ink)
    assert len(curve) > 50  # rows of pixels in the dark theme's blue


def rehearsing_notebook(chromium, lab, name: str, arguments: str, cell: str) -> LabNotebook:
    shutil.copy(Path(rehearsal.__file__), lab.folder)
    return LabNotebook(chromium, lab, lab.write_notebook(name, [SETUP.format(arguments), cell]))


def brightness(color: str) -> float:
    """The mean of the three channels of 'rgb(34, 34, 34)' or 'rgba(255, 255, 255, 0.87)'."""
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3
