"""The numbers of the page are those of the events: each is computed here once more, from what a trainer told."""

import math
import re
from statistics import fmean, median

import pytest
from playwright.sync_api import expect

from tests.browser.rehearsal import Rehearsal
from tests.browser.shown_runs import asked_of, run_of, view_of
from tests.browser.widget_page import open_widget, table_of_curves
from tests.widgets.dashboard.told_runs import cells_of, rehearsed_run
from tunebook.events import EvalEvent, RunEnded, StepEvent
from tunebook_widgets.dashboard.freeze import frozen_table

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

STEPS = 60


@pytest.fixture(scope="module")
def told():
    """(the run as the page knows it, its steps, its scores, its end)"""
    trainer = Rehearsal(steps=STEPS, seconds=0.001, eval_steps=20)
    run = rehearsed_run(trainer)
    kinds = (StepEvent, EvalEvent, RunEnded)
    steps, evals, [end] = ([event for event in trainer.events if isinstance(event, kind)] for kind in kinds)
    return run, steps, evals, end


def test_the_numbers_of_the_page_are_those_of_the_events(chromium, told):
    run, steps, evals, end = told
    page = open_widget(chromium, view_of(run))
    tiles = {tile.locator("dt").inner_text(): tile for tile in page.locator(".tunebook-numbers > div").all()}
    shown = {name: [line.inner_text() for line in tile.locator("dd").all()] for name, tile in tiles.items()}
    last, before = steps[-1], steps[-2]
    best = min(evals, key=lambda event: event.loss)
    smooth = fmean(event.loss for event in steps[-math.ceil(STEPS / 20) :])
    every = last.tokens_sec * (last.total_tokens - before.total_tokens) / (last.num_tokens - before.num_tokens)
    _, cells = table_of_curves(page)
    page.context.close()
    assert shown["Loss"] == [f"{last.loss:.3f}", f"smooth {smooth:.3f}"]
    assert shown["Best held-out"] == [f"{best.loss:.3f}", f"at step {best.step}"]
    assert float(shown["Gradient norm"][0]) == pytest.approx(last.grad_norm, abs=1e-3)
    assert float(shown["Learning rate"][0].replace("−", "-")) == pytest.approx(last.lr, rel=5e-3)
    assert shown["Trained tokens/s"] == [f"{last.tokens_sec:,.0f}", f"of {every:,.0f} in all"]
    assert shown["Peak memory"] == [f"{last.peak_gb:.2f}", "of 4.00 GB"]
    assert shown["Elapsed"] == [f"0:{int(end.elapsed):02d}", f"{STEPS} / {STEPS}"]
    assert cells[:3] == [str(STEPS), f"{last.loss:.3f}", f"{smooth:.3f}"]
    assert cells[5:] == [f"{last.tokens_sec:,.0f}", f"{every:,.0f}", f"{last.peak_gb:.2f}"]


def test_the_numbers_that_stay_in_the_notebook_are_those_of_the_events(told):
    run, steps, evals, _ = told
    table = cells_of(frozen_table(run)["text/html"])
    rates = [event.tokens_sec for event in steps]
    assert table["Loss"] == f"{steps[0].loss:.3f} → {steps[-1].loss:.3f}"
    assert table["Held-out loss"].startswith(f"{evals[0].loss:.3f} → {evals[-1].loss:.3f}, best ")
    assert table["Tokens"] == f"{steps[-1].num_tokens:,} trained, {median(rates):,.0f} per second"
    # The rehearsal pads every trained token to two and a half.
    assert table["With padding"] == f"{steps[-1].total_tokens:,} tokens in all, {2.5 * median(rates):,.0f} per second"


def test_every_button_of_a_run_is_reached_and_pressed_by_the_keyboard_alone(chromium, screenshots):
    page = open_widget(chromium, view_of(run_of([2.0, 1.0], total=9, output_dir="runs")), width=900)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        if name in reached:
            break
        reached.append(name)
    page.screenshot(path=screenshots / "page-focus.png")
    for wanted in ("Pause", "Evaluate", "Sample", "Save", "Learning rate", "Discard", "Stop", "The curves as a table"):
        assert wanted in reached
    assert any(re.match("Charts. Arrow keys", name) for name in reached)
    page.locator(".tunebook-stop").focus()
    page.keyboard.press("Space")
    assert asked_of(page) == [{"command": "stop"}]
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    page.context.close()
