"""The page of a run in a real browser, alone: its buttons, its texts, and a state that comes later."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.shown_runs import LIVE, asked_of, ended_run, run_of, step_event, view_of
from tests.browser.widget_page import open_widget, traits_of
from tunebook.events import Notice, SampleEvent, Working

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser


def test_markup_in_a_notice_or_a_model_name_stays_text(chromium):
    run = run_of([1.0, 2.0], model="<img src=x onerror=window.hit=1>")
    run.add(Notice(step=2, text="<script>window.hit=1</script><b>bold</b>"))
    for step, text in [(0, "<u>base</u>"), (2, "<iframe srcdoc='<script>top.hit=1</script>'>")]:
        run.add(SampleEvent(step=step, prompt="<i>Why?</i>", text=text, seconds=1.0))
    run.add(ended_run(2))
    page = open_widget(chromium, view_of(run))
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
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9)))
    buttons = page.locator(".tunebook-actions button")
    assert buttons.all_inner_texts() == ["Pause", "Evaluate", "Sample", "Learning rate"]
    buttons.nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # already asked
    buttons.nth(0).click()
    waiting = buttons.nth(1).get_attribute("aria-disabled")
    spoken = page.locator(".tunebook-spoken").text_content()
    assert asked_of(page) == [{"command": "evaluate"}, {"command": "pause"}]
    assert waiting == "true"
    assert spoken == "Pause: asked for, done after the step in progress."
    page.context.close()


def test_an_exam_can_be_asked_for_by_keyboard_where_there_is_one(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9, exam_rows=40)))
    buttons = page.locator(".tunebook-actions button")
    assert buttons.all_inner_texts() == ["Pause", "Evaluate", "Take exam", "Sample", "Learning rate"]
    buttons.nth(1).focus()
    page.keyboard.press("Tab")
    expect(buttons.nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    assert asked_of(page) == [{"command": "exam"}]
    expect(buttons.nth(2)).to_have_text("Take exam…")
    expect(page.locator(".tunebook-spoken")).to_have_text("Take exam: asked for, done after the step in progress.")
    page.context.close()


def test_a_new_learning_rate_is_sent_as_a_number_and_nonsense_is_answered_in_the_page(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9)))
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
    assert asked_of(page) == [{"command": "learning_rate", "value": 5e-5}]
    page.context.close()


def test_a_learning_rate_far_above_the_one_in_force_is_asked_about_once(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9)))
    page.get_by_role("button", name="Learning rate", exact=True).click()
    field = page.get_by_role("textbox", name="New learning rate")
    field.fill("0.02")
    page.keyboard.press("Enter")
    expect(page.locator(".tunebook-rate [role=alert]")).to_contain_text("0.02 is 100 times the rate in force (0.0002)")
    assert asked_of(page) == []
    page.keyboard.press("Enter")
    assert asked_of(page) == [{"command": "learning_rate", "value": 0.02}]
    page.context.close()


def test_a_loss_that_runs_away_is_told_with_a_button_that_goes_back(chromium, screenshots):
    run = run_of([1.0, 4.0], total=9)
    run.add(Notice(step=2, text="The loss runs away.", go_back_to=1))
    page = open_widget(chromium, view_of(run))
    told = page.locator(".tunebook-runaway")
    expect(told).to_contain_text("The loss runs away.")
    page.screenshot(path=screenshots / "page-runaway.png")
    page.get_by_role("button", name="Go back to step 1").click()
    assert asked_of(page) == [{"command": "go_back"}]
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    expect(told).to_be_hidden()
    page.context.close()


def test_a_run_is_discarded_only_by_a_second_press(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9)))
    page.get_by_role("button", name="Discard").click()
    assert asked_of(page) == []
    page.get_by_role("button", name="Really discard?").click()
    assert asked_of(page) == [{"command": "discard"}]
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    page.context.close()


def test_a_run_that_cannot_be_discarded_says_so_before_it_is_pressed(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9, discards=False)))
    discard = page.get_by_role("button", name="Discard")
    expect(discard).to_be_disabled()
    expect(discard).to_have_attribute("title", re.compile("load the model again"))
    discard.dispatch_event("click")
    assert asked_of(page) == []
    page.context.close()


def test_stop_says_where_the_run_is_kept_and_the_line_that_goes_on(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9, output_dir="runs")))
    means = page.get_by_role("button", name="Stop").get_attribute("title") or ""
    page.context.close()
    assert "kept in runs/run-001" in means
    assert "await trainer.train_async(resume_from_checkpoint=True)" in means


def test_where_the_kernel_cannot_hear_every_button_says_so_and_sends_nothing(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0], total=9, awaited=False)))
    for button in page.locator(".tunebook-header button").all():
        expect(button).to_be_disabled()
        assert "interrupt button ■" in (button.get_attribute("title") or "")
        button.dispatch_event("click")
    assert asked_of(page) == []
    page.context.close()


def test_without_notices_or_samples_there_is_no_empty_box(chromium):
    page = open_widget(chromium, view_of(run_of([1.0, 2.0])))
    expect(page.locator(".tunebook-notices")).to_be_hidden()
    expect(page.locator(".tunebook-samples")).to_be_hidden()
    page.context.close()


def test_samples_can_be_scrubbed_from_base_to_final_with_the_words_that_changed_marked(chromium):
    run = run_of([1.0, 2.0])
    for step, words in [(0, "so so long"), (1, "so long"), (2, "so very long")]:
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"{prompt} {words}", seconds=1.0))
    page = open_widget(chromium, view_of(run))
    before, text = page.locator(".tunebook-sample").nth(0), page.locator(".tunebook-sample").nth(1)
    slider = page.get_by_label("Step of the sample")
    expect(page.locator(".tunebook-written .tunebook-label")).to_have_text(["Before · base model", "After · step 2"])
    expect(before.locator("del")).to_have_text(["so"])
    expect(text.locator("ins")).to_have_text(["very"])
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "base model")
    expect(text).to_have_text("Why? so so long")
    expect(before).to_be_hidden()
    expect(text.locator("ins, del")).to_have_count(0)
    slider.press("ArrowRight")
    page.get_by_label("Changes marked against").select_option("against the one before")
    expect(before.locator("del")).to_have_text(["so "])
    page.get_by_label("Prompt").select_option("Who?")
    expect(before).to_have_text("Who? so so long")
    expect(text).to_have_text("Who? so long")
    page.context.close()


def test_code_between_fences_is_shown_as_code_in_question_and_answer(chromium, screenshots):
    run = run_of([1.0, 2.0])
    asked = "What does this do?\n```python\ndef f(x):\n    return x + 1\n```"
    for step, words in [(0, "It is a function."), (2, "It adds one:\n```\nf(1) == 2\n```\nthat is all.")]:
        run.add(SampleEvent(step=step, prompt=asked, text=words, seconds=1.0))
    page = open_widget(chromium, view_of(run))
    code = page.locator(".tunebook-samples pre code")
    expect(code).to_have_text(["def f(x):\n    return x + 1", "f(1) == 2"])
    expect(page.locator(".tunebook-samples")).not_to_contain_text("```")
    page.locator(".tunebook-samples").screenshot(path=screenshots / "page-samples.png")
    page.context.close()


def test_a_chart_without_a_value_has_no_axes(chromium):
    page = open_widget(chromium, view_of(run_of([], total=9)))
    inked = """(canvas) => {
        const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const inked = (x, y) => data[4 * (y * width + x) + 3] > 0;
        return [...Array(height).keys()].filter((y) => inked(70, y) || inked(width - 30, y)).length;
    }"""
    assert [canvas.evaluate(inked) for canvas in page.locator("canvas").all()] == [0] * 5
    page.context.close()


def test_a_work_that_is_over_in_a_moment_is_not_named(chromium):
    run = run_of([1.0, 2.0], total=9)
    view = view_of(run)
    page = open_widget(chromium, view)
    phase = page.locator(".tunebook-phase")
    run.add(Working(step=2, what="evaluating", done=1, total=3))
    view.publish(run)
    page.evaluate("(traits) => window.publish(traits)", traits_of(view))
    assert phase.text_content() == "Training"
    expect(phase).to_have_text("Evaluating 1 of 3", timeout=5000)  # it goes on
    page.context.close()


def test_a_blind_choice_is_counted_for_whom_it_was_and_told_to_the_kernel(chromium):
    run = run_of([1.0, 2.0])
    for prompt in ("Why?", "Who?"):
        for step, words in [(0, "base words"), (2, "tuned words")]:
            run.add(SampleEvent(step=step, prompt=prompt, text=words, seconds=1.0))
    run.add(ended_run(2))
    page = open_widget(chromium, view_of(run))
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


def test_a_press_of_stop_is_sent_once_and_answered_by_the_page_itself(chromium):
    page = open_widget(chromium, view_of(run_of([3.0, 2.5], total=9, output_dir="runs")))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".tunebook-headline")).to_have_text("Stopping after step 3…")
    expect(page.get_by_role("button", name="Stopping…")).to_be_disabled()
    assert asked_of(page) == [{"command": "stop"}]
    page.context.close()


def test_elapsed_and_left_go_on_while_the_kernel_is_silent(chromium):
    page = open_widget(chromium, view_of(run_of([3.0, 2.5, 2.0], total=100)))  # 4 s a step: 12 s gone, 388 s left
    elapsed = page.locator("dt", has_text="Elapsed").locator("xpath=..").locator(".tunebook-value")
    left = page.locator("dt", has_text="Left").locator("xpath=..").locator(".tunebook-value")
    expect(elapsed).to_have_text("0:14", timeout=4000)
    expect(left).to_have_text("6:25", timeout=1000)
    page.context.close()


@pytest.mark.parametrize("width", [480, 1200])
def test_nothing_is_wider_than_the_page(chromium, screenshots, width):
    run = run_of(
        [3.0, 2.5, 2.0, 1.9], total=100_000, model="an-organisation-with-a-long-name/a-model-with-a-longer-name-7B"
    )
    run.add(Notice(step=3, text="/a/path/without/a/single/space/" + 20 * "that-goes-on-and-on/"))
    for step in (0, 3):
        run.add(SampleEvent(step=step, prompt="A question " * 20, text="words " * step, seconds=1.0))
    page = open_widget(chromium, view_of(run), width=width)
    widest = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=screenshots / f"page-{width}.png", full_page=True)
    page.context.close()
    assert widest <= width


def test_a_later_state_reaches_an_open_page(chromium):
    run = run_of([3.0, 2.5], total=1000)
    view = view_of(run)
    page = open_widget(chromium, view)
    for step in range(3, 700):  # past the point where rows move from one trait to the other
        run.add(step_event(step, 1000, 1.5))
    view.publish(run)
    page.evaluate("(traits) => window.publish(traits)", traits_of(view))
    expect(page.locator(".tunebook-headline")).to_contain_text("Step 699 of 1,000")
    expect(page.locator("canvas").first).to_have_attribute(
        "aria-label", "Loss over 699 steps: first 3.000, now 1.500, lowest 1.500, highest 3.000."
    )
    page.context.close()
