"""The dashboard in a real browser: first its page alone, then in JupyterLab with a kernel behind it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import rehearsal
from tests.browser.lab import LabNotebook
from tests.browser.rehearsal import Rehearsal
from tests.browser.widget_page import open_widget, traits_of
from tunebook.events import Notice, RunStarted, SampleEvent, StepEvent
from tunebook_widgets.live import LiveView
from tunebook_widgets.progress import Progress

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
    run.add(SampleEvent(step=2, prompt="<i>Why?</i>", text="<iframe srcdoc='<script>top.hit=1</script>'>", seconds=1.0))
    page = open_widget(chromium, _view(run))
    shown = page.locator(LIVE).inner_text()
    elements = page.locator(
        f"{LIVE} img, {LIVE} script, {LIVE} iframe, .tunebook-samples i, .tunebook-notices b"
    ).count()
    hit = page.evaluate("window.hit")
    page.context.close()
    assert "<script>window.hit=1</script><b>bold</b>" in shown
    assert "<img src=x onerror=window.hit=1>" in shown
    assert "<i>Why?</i>" in shown
    assert "<iframe srcdoc='<script>top.hit=1</script>'>" in shown
    assert (elements, hit) == (0, None)


def test_the_buttons_send_their_commands_once_and_wait_for_the_run(chromium):
    run, sent = _run([1.0, 2.0], total=9), []
    view = LiveView(on_command=sent.append)
    view.publish(run)
    page = open_widget(chromium, view)
    messages = "window.sent"
    buttons = page.locator(".tunebook-actions button")
    assert buttons.all_inner_texts() == ["Pause", "Evaluate", "Sample"]
    buttons.nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # already asked
    buttons.nth(0).click()
    asked = page.evaluate(messages)
    waiting = buttons.nth(1).get_attribute("aria-disabled")
    page.context.close()
    assert asked == [{"command": "evaluate"}, {"command": "pause"}]
    assert waiting == "true"


def test_without_notices_or_samples_there_is_no_empty_box(chromium):
    page = open_widget(chromium, _view(_run([1.0, 2.0])))
    expect(page.locator(".tunebook-notices")).to_be_hidden()
    expect(page.locator(".tunebook-samples")).to_be_hidden()
    page.context.close()


def test_the_latest_answer_to_every_prompt_is_shown(chromium):
    run = _run([1.0, 2.0])
    for step in (0, 2):
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"after {step}", seconds=1.0))
    page = open_widget(chromium, _view(run))
    shown = page.locator(".tunebook-samples li").all_inner_texts()
    page.context.close()
    assert ["".join(text.split()) for text in shown] == ["step2Why?after2", "step2Who?after2"]


def test_the_arrow_keys_move_a_crosshair_that_both_charts_share(chromium):
    page = open_widget(chromium, _view(_run([3.0, 2.5, 2.25, 2.0])))
    page.locator(".tunebook-plots").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tunebook-tooltip strong")).to_have_text("Step 2")
    tooltip = page.locator(".tunebook-tooltip").inner_text()
    spoken = page.locator("[aria-live]").text_content()
    page.keyboard.press("Escape")
    expect(page.locator(".tunebook-tooltip")).to_be_hidden()
    page.context.close()
    assert "2.500" in tooltip
    assert spoken == "Step 2: loss 2.500, smoothed 2.722, gradient norm 0.500"  # (0.8 * 3 + 2.5) / 1.8


def test_a_press_of_stop_is_sent_once_and_answered_by_the_page_itself(chromium):
    page = open_widget(chromium, _view(_run([3.0, 2.5], total=9)))
    stop = page.get_by_role("button", name="Stop")
    stop.click()
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    expect(stop).to_be_disabled()
    assert page.evaluate("window.sent") == [{"command": "stop"}]
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
    page = open_widget(chromium, _view(run), width=width)
    widest = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=screenshots / f"page-{width}.png")
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
        expect(notebook.outputs(1).locator("table")).to_contain_text("of 400 in")
        expect(notebook.outputs(1)).to_contain_text(["", "Stopped after step 1", "ended at"])
        page.screenshot(path=screenshots / "lab-stopped.png")


def test_a_saved_run_shows_its_picture_and_table_with_no_kernel_and_no_trust(chromium, lab, screenshots):
    with _notebook(chromium, lab, "saved.ipynb", "steps=6, seconds=0.05, eval_steps=3", AWAITED) as notebook:
        notebook.run_all()
        notebook.wait_until_done(seconds=20)
        expect(notebook.outputs(1).locator("table")).to_be_visible()
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
        expect(notebook.outputs(1).locator("table")).to_contain_text("6 of 6 in")
        size = picture.evaluate("(image) => [image.naturalWidth, image.width]")
        notebook.page.screenshot(path=screenshots / "lab-reopened.png")
    assert size == [1520, 760]


def test_in_a_synchronous_cell_the_button_is_disabled_and_says_why(chromium, lab, screenshots):
    with _notebook(chromium, lab, "sync.ipynb", "steps=20, seconds=0.2", SYNCHRONOUS) as notebook:
        notebook.run_all()
        page = notebook.page
        stop = page.get_by_role("button", name="Stop", exact=True)
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile("Step [5-9] of 20"), timeout=20_000)
        expect(stop).to_be_disabled()
        expect(stop).to_have_attribute("title", rehearsal_reason := page.locator(".tunebook-reason").inner_text())
        page.screenshot(path=screenshots / "lab-synchronous.png")
        page.locator('[data-command="notebook:interrupt-kernel"], [title^="Interrupt the kernel"]').first.click()
        notebook.wait_until_done(seconds=3)
        expect(notebook.outputs(1)).to_contain_text(["", "Interrupted after step"])
    assert "■" in rehearsal_reason
    assert "await trainer.train_async()" in rehearsal_reason


def test_a_page_loaded_again_during_a_run_shows_all_its_steps_once_the_cell_has_ended(chromium, lab):
    with _notebook(chromium, lab, "reload.ipynb", "steps=30, seconds=0.2", AWAITED) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile("Step [5-9] of 30"), timeout=20_000)
        notebook.save()
        page.reload(wait_until="domcontentloaded")  # a kernel answers a new page only when the cell has ended
        expect(page.locator(".tunebook-headline")).to_contain_text("Finished all 30 steps", timeout=20_000)
        expect(page.locator("canvas").first).to_have_attribute(
            "aria-label", re.compile("Loss over 30 steps: first 2.4")
        )


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
    view = LiveView(on_command=Rehearsal().send)
    view.publish(run)
    return view


def _run(losses: list[float], *, total: int | None = None, model: str = "example/model") -> Progress:
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
            awaited=True,
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
