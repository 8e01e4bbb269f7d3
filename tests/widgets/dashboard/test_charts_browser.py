"""The charts of a run in a real browser, its page alone: what is drawn, dragged over, zoomed and played."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.shown_runs import BLUE, PLOT, ROWS_OF_COLOR, ended_run, flat_run, run_of, view_of
from tests.browser.widget_page import open_widget
from tunebook.events import EvalEvent, Notice, SampleEvent
from tunebook_widgets.dashboard.live import LiveView

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

# The median of so many frames in seconds, the wheel moving the charts along in each and keys zooming in some.
MOVE_AND_ZOOM = """async (frames) => {
    const plots = document.querySelector(".tunebook-plots"), canvas = plots.querySelector("canvas");
    const press = (key) => plots.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    press("+");
    const took = [];
    let last = await new Promise(requestAnimationFrame);
    for (let frame = 0; frame < frames; frame++) {
        canvas.dispatchEvent(new WheelEvent("wheel", {deltaX: frame % 2 ? 40 : -30, bubbles: true, cancelable: true}));
        if (frame % 10 === 0) press(frame % 20 ? "-" : "+");
        const now = await new Promise(requestAnimationFrame);
        took.push(now - last);
        last = now;
    }
    return took.sort((a, b) => a - b)[frames / 2] / 1000;
}"""

# The longest column of pixels that are not empty.
AXIS_ROWS = """(canvas) => {
    const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const inked = (x) => [...Array(height).keys()].filter((y) => data[4 * (y * width + x) + 3] > 30).length;
    return Math.max(...[...Array(width).keys()].slice(60, -20).map(inked));
}"""


def test_a_spike_of_one_step_in_twenty_thousand_is_drawn_to_its_full_height(chromium):
    page = open_widget(chromium, view_of(flat_run(steps=20_000, spike_at=7_013)))
    rows = page.locator("canvas").first.evaluate(ROWS_OF_COLOR, [BLUE, *PLOT])
    page.context.close()
    assert rows[-1] - rows[0] > 150  # the flat curve at the bottom of a plot 198 pixels high, the spike at its top


def test_a_log_scale_gives_every_decade_the_same_height_and_leaves_out_zero(chromium):
    losses = [1.0] * 10 + [10.0] * 10 + [100.0] * 10 + [0.0] * 10
    page = open_widget(chromium, view_of(run_of(losses)))
    page.get_by_role("button", name="Loss on a logarithmic scale").click()
    page.wait_for_timeout(100)
    canvas = page.locator("canvas").first
    left, right = PLOT
    column = lambda step: round(left + (right - left) * step / 40)  # noqa: E731
    plateau = [canvas.evaluate(ROWS_OF_COLOR, [BLUE, column(step), column(step) + 4]) for step in (9, 19, 29)]
    hidden = page.locator(".tunebook-hidden-values").first.text_content()
    page.context.close()
    one, ten, hundred = [rows[len(rows) // 2] for rows in plateau]
    assert one - ten == pytest.approx(ten - hundred, abs=4)
    assert one - ten > 60
    assert hidden == "10 at or below 0 not shown"


def test_the_arrow_keys_move_a_crosshair_that_all_charts_share(chromium):
    page = open_widget(chromium, view_of(run_of([3.0, 2.5, 2.25, 2.0])))
    page.locator(".tunebook-plots").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text("Step 2")
    tooltip = page.locator(".tunebook-tooltip").inner_text()
    spoken = page.locator(".tunebook-spoken").text_content()
    heights = [canvas.evaluate(AXIS_ROWS) for canvas in page.locator("canvas").all()]
    page.keyboard.press("Escape")
    expect(page.locator(".tunebook-tooltip")).to_be_hidden()
    page.context.close()
    assert "2.500" in tooltip
    assert len(heights) == 5
    assert min(heights) > 70  # each has an upright as high as its plot
    assert spoken == "Step 2: loss 2.500, smoothed 2.750, gradient norm 0.500"  # (3 + 2.5) / 2


def test_what_is_dragged_over_fills_every_chart_and_a_double_click_gives_the_whole_back(chromium):
    page = open_widget(chromium, view_of(run_of([1.0] * 100 + [9.0] + [1.0] * 899)))
    canvas = page.locator("canvas").first
    spike = lambda: len(canvas.evaluate(ROWS_OF_COLOR, [BLUE, *PLOT])) > 100  # noqa: E731
    box = canvas.bounding_box()
    assert box is not None
    assert spike()
    drag(page, box, 0.6, 0.8)
    expect(page.get_by_role("button", name="Show the whole run")).to_be_visible()
    assert not spike()  # the scale is that of the steps in sight
    page.keyboard.down("Shift")
    for _ in range(5):
        drag(page, box, 0.1, 0.9)  # along, by most of what is shown, and no further than the first step
    page.keyboard.up("Shift")
    assert spike()
    canvas.dblclick()
    expect(page.get_by_role("button", name="Show the whole run")).to_be_hidden()
    page.context.close()


def test_a_clipped_scale_leaves_outliers_out_and_says_how_many(chromium):
    losses = [2.0 + 0.1 * (step % 7) for step in range(1000)]
    losses[300], losses[700] = 500.0, 900.0
    page = open_widget(chromium, view_of(run_of(losses)))
    canvas = page.locator("canvas").first
    flat = len(canvas.evaluate(ROWS_OF_COLOR, [BLUE, 100, 300]))
    page.get_by_role("button", name="Loss without its outliers").click()
    expect(page.locator(".tunebook-hidden-values").first).to_have_text("2 above")
    clear = len(canvas.evaluate(ROWS_OF_COLOR, [BLUE, 100, 300]))
    marks = canvas.evaluate(ROWS_OF_COLOR, [[179, 38, 30], *PLOT])  # --tunebook-bad
    page.context.close()
    assert flat < 10 < 150 < clear
    assert marks
    assert marks[0] < 10  # triangles at the upper rim


def test_a_recorded_run_plays_by_itself_and_can_be_set_to_any_step(chromium):
    run = run_of([3.0 - step / 100 for step in range(200)])
    for step in (0, 200):
        run.add(EvalEvent(step=step, loss=3.0 - step / 100, rows=1, tokens=1, seconds=1.0))
        run.add(SampleEvent(step=step, prompt="Why?", text=f"written after {step}", seconds=1.0))
    run.add(Notice(step=150, text="A late notice."))
    run.add(ended_run(200))
    view = LiveView(mode="replay")
    view.publish(run)
    page = open_widget(chromium, view)
    expect(page.locator(".tunebook-headline")).to_have_text(
        re.compile(r"Step \d+ of 200 · loss 2.\d+ · best held-out 3.000")
    )
    expect(page.locator(".tunebook-notices")).to_be_hidden()
    expect(page.locator(".tunebook-header button:visible")).to_have_count(0)  # there is nobody to ask
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Place in the run").fill("150")
    expect(page.locator(".tunebook-headline")).to_have_text("Step 150 of 200 · loss 1.510 · best held-out 3.000 at 0")
    expect(page.locator(".tunebook-notices")).to_contain_text("A late notice.")
    expect(page.locator(".tunebook-sample").nth(1)).to_have_text("written after 0")
    page.get_by_label("Place in the run").fill("200")
    expect(page.locator(".tunebook-headline")).to_contain_text("Finished all 200 steps")
    expect(page.locator(".tunebook-sample").nth(1).locator("ins")).to_have_text("200")
    page.context.close()


def test_ten_thousand_steps_are_moved_and_zoomed_at_more_than_thirty_frames_a_second(chromium):
    view = LiveView(mode="replay")
    run = run_of([2.0 + (step * 7919 % 100) / 100 for step in range(10_000)])
    run.add(ended_run(10_000))
    view.publish(run)
    page = open_widget(chromium, view, device_scale_factor=2)
    page.get_by_label("Place in the run").fill("10000")
    assert any(1 / page.evaluate(MOVE_AND_ZOOM, 60) > 30 for _ in range(3))  # other processes share the cores
    page.context.close()


def test_someone_who_wants_no_motion_gets_none(chromium):
    run = run_of([2.0, 1.0])
    run.add(ended_run(2))
    view = LiveView(mode="replay")
    view.publish(run)
    page = open_widget(chromium, view, reduced_motion="reduce")
    expect(page.locator(".tunebook-headline")).to_contain_text("Finished all 2 steps")  # at its end, and not playing
    still = page.locator(".tunebook-progress-fill").evaluate("(e) => getComputedStyle(e).transitionProperty")
    page.context.close()
    assert still == "none"


def drag(page, box, start: float, end: float) -> None:
    """Drag over a canvas from one share of its width to another."""
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
