"""The dashboard in a real browser: first its page alone, then in JupyterLab with a kernel behind it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import rehearsal
from tests.browser.lab import LabNotebook
from tests.browser.widget_page import open_widget, traits_of
from tunebook.events import EndReason, EvalEvent, Notice, RunEnded, RunStarted, SampleEvent, StepEvent
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.progress import Progress

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

LIVE = ".tunebook-dashboard"
SETUP = "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\ntrainer = Rehearsal({})"
AWAITED = "Dashboard(trainer).show()\nresult = await trainer.train_async()"
SYNCHRONOUS = "Dashboard(trainer).show()\nresult = trainer.train()"

# Rows of a canvas, from the top and in device pixels, with a pixel close to `color` in the columns `left` to `right`.
ROWS_OF_COLOR = """(canvas, [color, left, right]) => {
    const pen = canvas.getContext("2d");
    const {data} = pen.getImageData(left, 0, right - left, canvas.height);
    const close = (i) => color.every((value, k) => Math.abs(data[i + k] - value) < 40) && data[i + 3] > 60;
    const rows = new Set();
    for (let i = 0; i < data.length; i += 4) if (close(i)) rows.add(Math.floor(i / 4 / (right - left)));
    return [...rows].sort((a, b) => a - b);
}"""
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
BLUE, GREEN = [0, 114, 178], [0, 128, 93]  # --tunebook-loss and --tunebook-grad of the light theme
PLOT = 48, 984 - 42 - 16  # first and last column of a plot in a page 1000 pixels wide: margins, padding and border off


# ---- the page alone


def test_a_spike_of_one_step_in_twenty_thousand_is_drawn_to_its_full_height(chromium):
    page = open_widget(chromium, _view(_flat_run(steps=20_000, spike_at=7_013)))
    rows = page.locator("canvas").first.evaluate(ROWS_OF_COLOR, [BLUE, *PLOT])
    page.context.close()
    assert rows[-1] - rows[0] > 150  # the flat curve at the bottom of a plot 198 pixels high, the spike at its top


def test_a_log_scale_gives_every_decade_the_same_height_and_leaves_out_zero(chromium):
    losses = [1.0] * 10 + [10.0] * 10 + [100.0] * 10 + [0.0] * 10
    page = open_widget(chromium, _view(_run(losses)))
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


def test_markup_in_a_notice_or_a_model_name_stays_text(chromium):
    run = _run([1.0, 2.0], model="<img src=x onerror=window.hit=1>")
    run.add(Notice(step=2, text="<script>window.hit=1</script><b>bold</b>"))
    for step, text in [(0, "<u>base</u>"), (2, "<iframe srcdoc='<script>top.hit=1</script>'>")]:
        run.add(SampleEvent(step=step, prompt="<i>Why?</i>", text=text, seconds=1.0))
    run.add(_ended(2))
    page = open_widget(chromium, _view(run))
    page.get_by_role("button", name="Compare base and tuned blind").click()
    shown = page.locator(LIVE).inner_text()
    elements = page.locator(
        f"{LIVE} img, {LIVE} script, {LIVE} iframe, .tunebook-samples :is(i, u), .tunebook-notices b"
    ).count()
    hit = page.evaluate("window.hit")
    page.context.close()
    assert "<script>window.hit=1</script><b>bold</b>" in shown
    assert "<img src=x onerror=window.hit=1>" in shown
    assert "<i>Why?</i>" in shown
    assert shown.count("<iframe srcdoc='<script>top.hit=1</script>'>") == 2  # with its changes, and to be chosen
    assert shown.count("<u>base</u>") == 2
    assert (elements, hit) == (0, None)


def test_the_buttons_send_their_commands_once_and_wait_for_the_run(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0], total=9)))
    buttons = page.locator(".tunebook-actions button")
    assert buttons.all_inner_texts() == ["Pause", "Evaluate", "Sample", "Learning rate"]
    buttons.nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # already asked
    buttons.nth(0).click()
    waiting = buttons.nth(1).get_attribute("aria-disabled")
    spoken = page.locator(".tunebook-spoken").text_content()
    assert _asked(page) == [{"command": "evaluate"}, {"command": "pause"}]
    assert waiting == "true"
    assert spoken == "Pause: asked for, done after the step in progress."
    page.context.close()


def test_a_new_learning_rate_is_sent_as_a_number_and_nonsense_is_answered_in_the_page(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0], total=9)))
    page.get_by_role("button", name="Learning rate", exact=True).click()
    field = page.get_by_role("textbox", name="New learning rate")
    expect(field).to_be_focused()
    expect(field).to_have_value("0.0002")
    field.fill("fast")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("“fast” is no learning rate; write a number above 0, such as 1e-4.")
    field.fill("5e-5")
    page.keyboard.press("Enter")
    expect(field).to_be_hidden()
    assert _asked(page) == [{"command": "learning_rate", "value": 5e-5}]
    page.context.close()


def test_a_run_is_discarded_only_by_a_second_press(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0], total=9)))
    page.get_by_role("button", name="Discard").click()
    assert _asked(page) == []
    page.get_by_role("button", name="Really discard?").click()
    assert _asked(page) == [{"command": "discard"}]
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    page.context.close()


def test_where_the_kernel_cannot_hear_every_button_says_so_and_sends_nothing(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0], total=9, awaited=False)))
    for button in page.locator(".tunebook-header button").all():
        expect(button).to_be_disabled()
        assert "interrupt button ■" in (button.get_attribute("title") or "")
        button.dispatch_event("click")
    assert _asked(page) == []
    page.context.close()


def test_without_notices_or_samples_there_is_no_empty_box(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0])))
    expect(page.locator(".tunebook-notices")).to_be_hidden()
    expect(page.locator(".tunebook-samples")).to_be_hidden()
    page.context.close()


def test_samples_can_be_scrubbed_from_base_to_final_with_the_words_that_changed_marked(chromium):
    run = _run([1.0, 2.0])
    for step, words in [(0, "so so long"), (1, "so long"), (2, "so very long")]:
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"{prompt} {words}", seconds=1.0))
    page = open_widget(chromium, _view(run))
    text, slider = page.locator(".tunebook-sample").first, page.get_by_label("Step of the sample")
    expect(text.locator("del")).to_have_text(["so"])
    expect(text.locator("ins")).to_have_text(["very"])
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "base model")
    expect(text).to_have_text("Why? so so long")
    expect(text.locator("ins, del")).to_have_count(0)
    slider.press("ArrowRight")
    page.get_by_label("Changes marked against").select_option("against the one before")
    expect(text.locator("del")).to_have_text(["so "])
    page.get_by_label("Prompt").select_option("Who?")
    expect(text).to_have_text("Who? so so long")  # the struck word is still there to read
    page.context.close()


def test_a_blind_choice_is_counted_for_whom_it_was_and_told_to_the_kernel(chromium):
    run = _run([1.0, 2.0])
    for prompt in ("Why?", "Who?"):
        for step, words in [(0, "base words"), (2, "tuned words")]:
            run.add(SampleEvent(step=step, prompt=prompt, text=words, seconds=1.0))
    run.add(_ended(2))
    page = open_widget(chromium, _view(run))
    page.get_by_role("button", name="Compare base and tuned blind").click()
    answers = page.locator(".tunebook-answer .tunebook-sample")
    for choose in ("tuned", "base"):
        first = answers.first.text_content() == f"{choose} words"
        expect(page.locator(".tunebook-verdict")).to_have_text("")  # not said before the choice
        page.get_by_role("button", name="A is better" if first else "B is better").click()
        expect(page.locator(".tunebook-verdict")).to_contain_text("is the tuned model (step 2)")
        if choose == "tuned":
            page.get_by_role("button", name="Next").click()
    expect(page.locator(".tunebook-verdict")).to_contain_text("tuned 1, base 1, no difference 0")
    assert page.evaluate("model.get('picks')") == [
        {"prompt": "Why?", "pick": "tuned"},
        {"prompt": "Who?", "pick": "base"},
    ]
    page.context.close()


def test_the_arrow_keys_move_a_crosshair_that_all_charts_share(chromium):
    page = open_widget(chromium, _view(_run([3.0, 2.5, 2.25, 2.0])))
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
    assert spoken == "Step 2: loss 2.500, smoothed 2.722, gradient norm 0.500"  # (0.8 * 3 + 2.5) / 1.8


def test_a_press_of_stop_is_sent_once_and_answered_by_the_page_itself(chromium):
    page = open_widget(chromium, _view(_run([3.0, 2.5], total=9, output_dir="runs")))
    page.get_by_role("button", name="Stop and save").click()
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    expect(page.get_by_role("button", name="Stopping…")).to_be_disabled()
    assert _asked(page) == [{"command": "stop"}]
    page.context.close()


def test_elapsed_and_left_go_on_while_the_kernel_is_silent(chromium):
    page = open_widget(chromium, _view(_run([3.0, 2.5, 2.0], total=100)))  # 4 s a step: 12 s gone, 388 s left
    elapsed = page.locator("dt", has_text="Elapsed").locator("xpath=..").locator(".tunebook-value")
    left = page.locator("dt", has_text="Left").locator("xpath=..").locator(".tunebook-value")
    expect(elapsed).to_have_text("0:14", timeout=4000)
    expect(left).to_have_text("6:25", timeout=1000)
    page.context.close()


@pytest.mark.parametrize("width", [480, 1200])
def test_nothing_is_wider_than_the_page(chromium, screenshots, width):
    run = _run(
        [3.0, 2.5, 2.0, 1.9], total=100_000, model="an-organisation-with-a-long-name/a-model-with-a-longer-name-7B"
    )
    run.add(Notice(step=3, text="/a/path/without/a/single/space/" + 20 * "that-goes-on-and-on/"))
    for step in (0, 3):
        run.add(SampleEvent(step=step, prompt="A question " * 20, text="words " * step, seconds=1.0))
    page = open_widget(chromium, _view(run), width=width)
    widest = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=screenshots / f"page-{width}.png", full_page=True)
    page.context.close()
    assert widest <= width


def test_a_later_state_reaches_an_open_page(chromium):
    run = _run([3.0, 2.5], total=1000)
    view = _view(run)
    page = open_widget(chromium, view)
    for step in range(3, 700):  # past the point where rows move from one trait to the other
        run.add(_step(step, 1000, 1.5))
    view.publish(run)
    page.evaluate("(traits) => window.publish(traits)", traits_of(view))
    expect(page.locator(".tunebook-headline")).to_contain_text("Step 699 of 1,000")
    expect(page.locator("canvas").first).to_have_attribute(
        "aria-label", "Loss over 699 steps: first 3.000, now 1.500, lowest 1.500, highest 3.000."
    )
    page.context.close()


def test_what_is_dragged_over_fills_every_chart_and_a_double_click_gives_the_whole_back(chromium):
    page = open_widget(chromium, _view(_run([1.0] * 100 + [9.0] + [1.0] * 899)))
    canvas = page.locator("canvas").first
    spike = lambda: len(canvas.evaluate(ROWS_OF_COLOR, [BLUE, *PLOT])) > 100  # noqa: E731
    box = canvas.bounding_box()
    assert box is not None
    assert spike()
    _drag(page, box, 0.6, 0.8)
    expect(page.get_by_role("button", name="Show the whole run")).to_be_visible()
    assert not spike()  # the scale is that of the steps in sight
    page.keyboard.down("Shift")
    for _ in range(5):
        _drag(page, box, 0.1, 0.9)  # along, by most of what is shown, and no further than the first step
    page.keyboard.up("Shift")
    assert spike()
    canvas.dblclick()
    expect(page.get_by_role("button", name="Show the whole run")).to_be_hidden()
    page.context.close()


def test_a_clipped_scale_leaves_outliers_out_and_says_how_many(chromium):
    losses = [2.0 + 0.1 * (step % 7) for step in range(1000)]
    losses[300], losses[700] = 500.0, 900.0
    page = open_widget(chromium, _view(_run(losses)))
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
    run = _run([3.0 - step / 100 for step in range(200)])
    for step in (0, 200):
        run.add(EvalEvent(step=step, loss=3.0 - step / 100, rows=1, tokens=1, seconds=1.0))
        run.add(SampleEvent(step=step, prompt="Why?", text=f"written after {step}", seconds=1.0))
    run.add(Notice(step=150, text="A late notice."))
    run.add(_ended(200))
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
    expect(page.locator(".tunebook-sample").first).to_have_text("written after 0")
    page.get_by_label("Place in the run").fill("200")
    expect(page.locator(".tunebook-headline")).to_contain_text("Finished all 200 steps")
    expect(page.locator(".tunebook-sample").first.locator("ins")).to_have_text("200")
    page.context.close()


def test_ten_thousand_steps_are_moved_and_zoomed_at_more_than_thirty_frames_a_second(chromium):
    view = LiveView(mode="replay")
    run = _run([2.0 + (step * 7919 % 100) / 100 for step in range(10_000)])
    run.add(_ended(10_000))
    view.publish(run)
    page = open_widget(chromium, view, device_scale_factor=2)
    page.get_by_label("Place in the run").fill("10000")
    assert any(1 / page.evaluate(MOVE_AND_ZOOM, 60) > 30 for _ in range(3))  # other processes share the cores
    page.context.close()


def test_someone_who_wants_no_motion_gets_none(chromium):
    run = _run([2.0, 1.0])
    run.add(_ended(2))
    view = LiveView(mode="replay")
    view.publish(run)
    page = open_widget(chromium, view, reduced_motion="reduce")
    expect(page.locator(".tunebook-headline")).to_contain_text("Finished all 2 steps")  # at its end, and not playing
    still = page.locator(".tunebook-progress-fill").evaluate("(e) => getComputedStyle(e).transitionProperty")
    page.context.close()
    assert still == "none"


# ---- in JupyterLab


def test_stop_ends_an_awaited_run_and_freezes_the_dashboard(chromium, lab, screenshots):
    timed = f"{AWAITED}\nprint('ended at', trainer.ended_at)"
    with _notebook(chromium, lab, "stop.ipynb", "steps=400, seconds=0.2, broken=(4, 5)", timed) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(r"Step 1\d of 400"), timeout=20_000)
        page.screenshot(path=screenshots / "lab-running.png")
        pressed, said = page.evaluate(
            """() => {
                document.querySelector(".tunebook-stop").click();
                return [Date.now() / 1000, document.querySelector(".tunebook-headline").textContent];
            }"""
        )
        notebook.wait_until_done(seconds=10)
        ended = float(notebook.outputs(1).last.inner_text().removeprefix("ended at "))
        assert said.startswith("Stopping after step 1")
        assert ended - pressed < 0.2 + 1  # one step and a second
        expect(page.locator(LIVE)).to_have_count(0)
        expect(notebook.outputs(1).locator("img")).to_be_visible()
        expect(notebook.outputs(1).locator("table").first).to_contain_text("of 400 in")
        expect(notebook.outputs(1)).to_contain_text(["", "Stopped after step 1", "ended at"])
        page.screenshot(path=screenshots / "lab-stopped.png")


def test_a_saved_run_shows_its_picture_and_table_with_no_kernel_and_no_trust(chromium, lab, screenshots):
    with _notebook(chromium, lab, "saved.ipynb", "steps=6, seconds=0.05, eval_steps=3", AWAITED) as notebook:
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
    with _notebook(chromium, lab, "sync.ipynb", "steps=20, seconds=0.2", SYNCHRONOUS) as notebook:
        notebook.run_all()
        page = notebook.page
        stop = page.get_by_role("button", name="Stop and save")
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile("Step [5-9] of 20"), timeout=20_000)
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
    with _notebook(chromium, lab, "reload.ipynb", "steps=300, seconds=0.1", AWAITED) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(r"Step 1\d of 300"), timeout=20_000)
        notebook.save()
        page.reload(wait_until="domcontentloaded")
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(r"Step \d+ of 300"), timeout=15_000)
        expect(page.locator("canvas").first).to_have_attribute("aria-label", re.compile("first 2.565"))
        page.screenshot(path=screenshots / "lab-reloaded.png")
        page.locator(".tunebook-stop").click()
        expect(page.locator(".tunebook-headline")).to_contain_text("Stopped after step", timeout=5000)


def test_a_run_is_paused_sampled_slowed_and_resumed_from_the_page(chromium, lab, screenshots):
    with _notebook(chromium, lab, "controls.ipynb", "steps=400, seconds=0.1", AWAITED) as notebook:
        notebook.run_all()
        page = notebook.page
        button = lambda name: page.locator(f'.tunebook-actions [data-command="{name}"]')  # noqa: E731
        headline = page.locator(".tunebook-headline")
        expect(headline).to_contain_text(re.compile(r"Step \d+ of 400"), timeout=20_000)
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
        expect(headline).to_contain_text(re.compile(r"Step \d+ of 400"), timeout=20_000)
        page.locator(".tunebook-discard").click()
        page.locator(".tunebook-discard").click()
        notebook.wait_until_done(seconds=10)
        expect(notebook.outputs(1).locator("table").first).to_contain_text("1.00e-05 after step")
        expect(notebook.outputs(1)).to_contain_text(["", "Discarded after step"])


def test_the_dark_theme_is_followed(chromium, lab, screenshots):
    lab.use_theme("JupyterLab Dark")
    try:
        with _notebook(chromium, lab, "dark.ipynb", "steps=40, seconds=0.1, broken=(14, 15)", AWAITED) as notebook:
            notebook.run_all()
            page = notebook.page
            expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(r"Step 2\d of 40"), timeout=20_000)
            paper, ink = page.locator(LIVE).evaluate(
                "(e) => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
            )
            curve = page.locator("canvas").first.evaluate(ROWS_OF_COLOR, [[92, 184, 238], 100, 1500])
            page.screenshot(path=screenshots / "lab-dark.png")
    finally:
        lab.use_theme("JupyterLab Light")
    assert _brightness(paper) < 60 < 180 < _brightness(ink)
    assert len(curve) > 50  # rows of pixels in the dark theme's blue


def _notebook(chromium, lab, name: str, arguments: str, cell: str) -> LabNotebook:
    shutil.copy(Path(rehearsal.__file__), lab.folder)
    return LabNotebook(chromium, lab, lab.write_notebook(name, [SETUP.format(arguments), cell]))


def _brightness(color: str) -> float:
    """The mean of the three channels of 'rgb(34, 34, 34)' or 'rgba(255, 255, 255, 0.87)'."""
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


def _view(run: Progress) -> LiveView:
    view = LiveView(on_request=lambda request: None)
    view.publish(run)
    return view


def _asked(page) -> list[dict]:
    """What the page has sent, beside that it is there."""
    return [message for message in page.evaluate("window.sent") if message != {"ready": True}]


def _drag(page, box, start: float, end: float) -> None:
    """Drag over a canvas from one share of its width to another."""
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _ended(step: int) -> RunEnded:
    return RunEnded(step=step, total_steps=step, reason=EndReason.FINISHED, message="", elapsed=4.0 * step)


def _run(
    losses: list[float],
    *,
    total: int | None = None,
    model: str = "example/model",
    awaited: bool = True,
    output_dir: str | None = None,
) -> Progress:
    run = Progress()
    total = total or len(losses)
    run.add(
        RunStarted(
            total_steps=total,
            model=model,
            trainable_parameters=10,
            total_parameters=100,
            train_rows=8,
            eval_rows=2,
            awaited=awaited,
            config={"learning_rate": 2e-4, "output_dir": output_dir},
        )
    )
    for step, loss in enumerate(losses, start=1):
        run.add(_step(step, total, loss))
    return run


def _flat_run(*, steps: int, spike_at: int) -> Progress:
    return _run([9.0 if step == spike_at else 1.0 for step in range(1, steps + 1)])


def _step(step: int, total: int, loss: float) -> StepEvent:
    return StepEvent(
        step=step,
        total_steps=total,
        loss=loss,
        lr=1e-4,
        tokens_sec=1000.0,
        peak_gb=1.5,
        elapsed=4.0 * step,
        num_tokens=500 * step,
        grad_norm=0.5,
    )
