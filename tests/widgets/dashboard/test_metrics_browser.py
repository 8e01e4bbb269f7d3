"""The charts of an objective in a real browser: their numbers are the events', and they move with the others."""

import math
import re
from dataclasses import replace
from statistics import fmean

import pytest
from playwright.sync_api import expect

from tests.browser.shown_runs import GREEN, ROWS_OF_COLOR, exam_run, preference_run, run_of, told_run, view_of
from tests.browser.widget_page import open_widget, table_of_curves, traits_of
from tests.widgets.dashboard.test_charts_browser import AXIS_ROWS
from tunebook.events import EvalEvent, Notice, StepEvent
from tunebook_widgets.dashboard.live import LiveView

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

VERMILION = [213, 94, 0]  # --tunebook-held of the light theme
PLUM = [156, 79, 140]  # --tunebook-rejected of the light theme
DARK = "document.body.setAttribute('data-jp-theme-light', 'false'); document.body.style.background = '#111'"


@pytest.fixture(scope="module")
def told():
    return preference_run()


def short(value: float) -> str:
    """As the page writes a number."""
    size = abs(value)
    return f"{value:.4f}" if size < 0.1 else f"{value:.3f}" if size < 10 else f"{value:.1f}"


def test_the_chart_of_the_score_a_run_goes_by_marks_the_best_and_no_other_does(chromium):
    legends = []
    for metric in ("exact_match", None):
        run = told_run(exam_run())
        run.started = replace(run.started, config={"metric_for_best_model": metric})
        page = open_widget(chromium, view_of(run))
        legends.append([one.inner_text().split() for one in page.locator(".tunebook-group .tunebook-legend").all()])
        page.context.close()
    assert legends == [[["exam", "best"], ["exam"]], [["exam"], ["exam"]]]


def test_an_exam_has_a_chart_for_each_metric_with_its_points_and_its_values_in_words(chromium, screenshots):
    run = told_run(exam_run())
    page = open_widget(chromium, view_of(run))
    captions = [unit.inner_text() for unit in page.locator(".tunebook-group .tunebook-unit").all()]
    heading = page.locator(".tunebook-group").inner_text()
    points = [rows_of_points(canvas) for canvas in page.locator(".tunebook-group canvas").all()]
    page.locator(".tunebook-plots").focus()
    page.keyboard.press("End")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text("Step 8")
    rows = [row.split("\n") for row in page.locator(".tunebook-tooltip div").all_inner_texts()]
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text("Step 7")
    between = page.locator(".tunebook-tooltip").inner_text()
    page.screenshot(path=screenshots / "page-exam.png", full_page=True)
    page.evaluate(DARK)
    page.set_viewport_size({"width": 700, "height": 900})
    page.screenshot(path=screenshots / "page-exam-dark-700.png", full_page=True)
    _, cells = table_of_curves(page)
    page.context.close()
    assert captions == ["exam 0.800", "exam 40.0"]
    assert heading.startswith("The exam, beside the loss")
    assert all(points)
    assert ["exam/exact_match", "0.800"] in rows
    assert ["exam/perplexity", "40.0"] in rows
    assert "exam/" not in between
    assert cells[-2:] == ["0.800", "40.0"]


def rows_of_points(canvas):
    """The rows of a chart that hold the colour of what was held out."""
    return canvas.evaluate(ROWS_OF_COLOR, [VERMILION, 60, 400])


def test_the_numbers_of_an_objective_on_the_page_are_those_of_the_events(chromium, told, screenshots):
    steps = [event for event in told if isinstance(event, StepEvent)]
    scores = {event.step: event.metrics for event in told if isinstance(event, EvalEvent)}
    page = open_widget(chromium, view_of(told_run(told)))
    captions = {
        figure.get_attribute("data-chart"): figure.locator(".tunebook-unit").inner_text()
        for figure in page.locator(".tunebook-group figure").all()
    }
    page.locator(".tunebook-plots").focus()
    page.keyboard.press("End")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text(f"Step {len(steps)}")
    rows = [row.split("\n") for row in page.locator(".tunebook-tooltip div").all_inner_texts()]
    spoken = page.locator(".tunebook-spoken").text_content() or ""
    page.keyboard.press("Home")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text("Step 1")
    upright = [canvas.evaluate(AXIS_ROWS) for canvas in page.locator("canvas").all()]
    page.screenshot(path=screenshots / "page-preferences.png", full_page=True)
    heads, cells = table_of_curves(page)
    page.context.close()

    def smooth(metric: str) -> float:
        return fmean(event.metrics[metric] for event in steps[-math.ceil(len(steps) / 20) :])

    margin, accuracy = "rewards/margins", "rewards/accuracies"
    last = scores[len(steps)]
    assert captions == {
        "metric:rewards": f"margin {short(smooth(margin))}, held-out {short(last[margin])}",
        "metric:accuracy": f"of pairs · now {short(smooth(accuracy))}, held-out {short(last[accuracy])}",
        "metric:logps": "",
    }
    numbers = {name: f"{short(value)}, held-out {short(last[name])}" for name, value in steps[-1].metrics.items()}
    assert {name: value for name, value in rows if "/" in name and "tokens" not in name} == numbers
    assert all(f"{name} {value}" in spoken for name, value in numbers.items())
    assert len(heads) == 8 + 6
    table = dict(zip(heads, cells, strict=True))
    assert {name: table[name] for name in numbers} == {name: short(value) for name, value in steps[-1].metrics.items()}
    assert len(upright) == 8
    assert min(upright) > 70  # each has the crosshair, as high as its plot


def test_both_rewards_are_drawn_the_chosen_above_with_the_margin_between(chromium, told, screenshots):
    page = open_widget(chromium, view_of(told_run(told)))
    canvas = page.locator("[data-chart='metric:rewards'] canvas")
    chosen, rejected = (canvas.evaluate(ROWS_OF_COLOR, [color, 820, 900]) for color in (GREEN, PLUM))
    # Of the shade alone: a column near the end, between both lines.
    between = round((sum(chosen) / len(chosen) + sum(rejected) / len(rejected)) / 2)
    alpha = canvas.evaluate("(canvas, y) => canvas.getContext('2d').getImageData(860, y, 1, 1).data[3]", between)
    page.evaluate(DARK)
    page.wait_for_timeout(100)
    page.screenshot(path=screenshots / "page-preferences-dark.png", full_page=True)
    page.set_viewport_size({"width": 700, "height": 1000})
    page.wait_for_timeout(100)
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=screenshots / "page-preferences-700.png", full_page=True)
    page.context.close()
    assert max(chosen) < min(rejected)  # rows count from the top
    assert alpha == pytest.approx(0.14 * 255, abs=4)
    assert wide <= 700


def test_the_charts_of_an_objective_come_with_its_first_step_and_a_run_without_has_none(chromium, told):
    page = open_widget(chromium, view_of(told_run(told[:1])))
    expect(page.locator(".tunebook-group")).to_be_hidden()
    assert page.locator("canvas").count() == 5
    page.evaluate(PUBLISH, publishable(told_run(told[:3])))
    expect(page.locator(".tunebook-group figure")).to_have_count(3)
    expect(page.locator(".tunebook-group-heading")).to_have_text("DPO, beside its loss")
    page.context.close()


PUBLISH = "(traits) => window.publish(traits)"


def publishable(run):
    return traits_of(view_of(run))


def test_a_replay_shows_of_an_objective_what_was_known_by_then(chromium, told):
    view = LiveView(mode="replay")
    view.publish(told_run(told))
    page = open_widget(chromium, view)
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Place in the run").fill("45")
    score = next(event for event in told if isinstance(event, EvalEvent) and event.step == 40)
    caption = page.locator("[data-chart='metric:rewards'] .tunebook-unit")
    expect(caption).to_have_text(re.compile(f"held-out {re.escape(short(score.metrics['rewards/margins']))}$"))
    page.context.close()


def test_an_alarm_stands_above_the_charts_until_it_is_put_away(chromium):
    run = run_of([1.0, 0.5], total=9)
    run.add(Notice(step=2, text="The chosen answers become less likely.", alarm=True))
    page = open_widget(chromium, view_of(run))
    alarm = page.locator(".tunebook-alarms [role=alert]")
    expect(alarm).to_contain_text("step 2The chosen answers become less likely.")
    alarm.get_by_role("button", name="Hide").click()
    expect(alarm).to_be_hidden()
    page.evaluate(PUBLISH, publishable(run))
    expect(alarm).to_be_hidden()
    page.context.close()
