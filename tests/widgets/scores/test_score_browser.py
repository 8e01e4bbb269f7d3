"""The panel of an exam's rows in a real browser: alone in a page, then in JupyterLab."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import LabNotebook
from tests.browser.widget_page import open_answered
from tests.widgets.odd_rows import HOSTILE
from tests.widgets.scores.made_marks import marks
from tunebook import scores
from tunebook_widgets import ScoreView

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

PANEL = ".tunebook-scores"
HOSTILE_ELEMENTS = "img, script, iframe, svg[onload], [onerror], [onclick]"
DARK = """<style>:root { --jp-ui-font-color0: #fff; --jp-ui-font-color1: #ddd; --jp-ui-font-color2: #aaa;
--jp-layout-color1: #111; --jp-border-color2: #444 } body { background: #111 }</style>"""
BASE = marks("base", [0, 1, 0, 1, None, *[1] * 25], [0.5] * 30, cut=[2])
TUNED = marks("tuned", [1, 0, 0, 1, 1, *[1] * 25], [0.1 * (number % 7) for number in range(30)])
NOTEBOOK = """from tunebook import FastModel, scores
from tunebook_widgets import ScoreView
model, _ = FastModel.from_pretrained({folder!r}, max_seq_length=128)
FastModel.get_peft_model(model, r=4)
rows = [{{"prompt": f"Say {{word}}.", "completion": {hostile!r} if word == "fox" else f"{{word}} it is"}}
        for word in ("tune", "fox", "dog", "sun", "noon", "June")]
exam = scores.Exam(rows, metrics=["exact_match", "perplexity"], max_tokens=6)
base, tuned = exam.take(model, adapters=False), exam.take(model)
view = ScoreView(base, tuned, model=model, exam=exam)"""


@pytest.fixture
def opened() -> Iterator[list[Page]]:
    """Pages to close."""
    pages: list[Page] = []
    yield pages
    for page in pages:
        page.context.close()


@pytest.fixture
def measured(tuned) -> ScoreView:
    """Of a model that can be asked."""
    rows = [{"prompt": f"Say {word}.", "completion": f"{word} it is"} for word in ("tune", "fox", "dog")]
    exam = scores.Exam(rows, metrics=["exact_match", "perplexity"], max_tokens=6)
    return ScoreView(exam.take(tuned, adapters=False), exam.take(tuned), model=tuned, exam=exam)


def titles(page: Page) -> str:
    return page.locator(".tunebook-row-title b").inner_text()


# ---- alone


def test_every_control_is_reached_with_tab_in_the_order_it_is_read_and_shows_that_it_is(chromium, measured, opened):
    page = open_answered(chromium, measured.browse())
    opened.append(page)
    expect(page.locator(".tunebook-heat")).to_have_count(2)
    names = []
    page.keyboard.press("Tab")
    while (element := page.locator(":focus")).count():
        names.append(element.evaluate("(e) => e.ariaLabel || e.textContent.trim()"))
        assert element.evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid", names[-1]
        page.keyboard.press("Tab")
    expected = ["exact_match", "worst first (3)", "Row 0", "Row number", "Go to row", "Marks of the row", "Asked"]
    places = [next(place for place, name in enumerate(names) if name.startswith(each)) for each in expected]
    assert places == sorted(places)
    assert {"Answer of base", "Answer of tuned", "Text whose losses are shown", "Every token in numbers"} <= set(names)
    assert sum(name.startswith("Tokens as ") for name in names) == 2


def test_rows_are_reached_through_their_orders_with_the_keyboard_alone(chromium, opened):
    page = open_answered(chromium, ScoreView(BASE, TUNED).browse())
    opened.append(page)
    for name, row in (("flipped to right (1)", 0), ("flipped to wrong (1)", 1), ("cut (1)", 2), ("not scored (1)", 4)):
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".tunebook-row-title b")).to_have_text(f"Row {row}")
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.get_by_role("button", name="all (30)").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    for key, row in (
        *(("ArrowUp", 0), ("ArrowDown", 1), ("ArrowDown", 2), ("PageDown", 12), ("ArrowUp", 11)),
        *(("End", 29), ("ArrowDown", 29), ("PageUp", 23), ("Home", 0)),
    ):
        page.keyboard.press(key)
        expect(page.locator(".tunebook-row-title b")).to_have_text(f"Row {row}")
        expect(page.locator("[role=option][aria-selected=true]")).to_be_focused()
    expect(page.locator(f"{PANEL} > [aria-live]")).to_have_text("Row 0, flipped to right. all: 1 of 30.")


def test_a_row_is_reached_by_its_number_from_any_order_and_a_wrong_one_is_said(chromium, opened):
    page = open_answered(chromium, ScoreView(BASE, TUNED).browse())
    opened.append(page)
    page.get_by_role("button", name="flipped to wrong (1)").click()
    page.get_by_label("Row number").fill("17")
    page.keyboard.press("Enter")
    expect(page.locator(".tunebook-row-title b")).to_have_text("Row 17")
    expect(page.get_by_role("button", name="all (30)")).to_have_attribute("aria-pressed", "true")
    for _ in range(2):
        page.get_by_label("Row number").fill("99")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("There is no row 99.")
        expect(page.locator(PANEL)).not_to_have_attribute("aria-busy", "true")


def test_another_metric_brings_its_own_orders_counts_and_sentence(chromium, opened):
    page = open_answered(chromium, ScoreView(BASE, TUNED).browse())
    opened.append(page)
    page.get_by_label("Metric").select_option("graded")
    difference = TUNED.against(BASE)["graded"]
    expect(page.locator(".tunebook-sentence")).to_have_text(difference.sentence)
    expect(page.get_by_role("button", name=f"better ({difference.rose})")).to_be_visible()
    expect(page.get_by_role("button", name=f"worse ({difference.fell})")).to_be_visible()
    expect(page.get_by_role("button", name="not scored (0)")).to_be_disabled()
    expect(page.locator("[role=option]").first).to_contain_text("0.5 → 0")


def test_what_differs_is_marked_against_the_other_answer_or_the_rows_own(chromium, opened):
    long = " ".join(map(str, range(400)))
    before, after = ["the red fox runs", "yes", long], ["the brown fox runs on", "no", f"{long} on"]
    view = ScoreView(
        marks("base", [0, 0, 0], answers=before, references=["a brown fox runs on", None, "no"]),
        marks("tuned", [0, 0, 0], answers=after, references=["a brown fox runs on", None, "no"]),
    )
    page = open_answered(chromium, view.browse())
    opened.append(page)
    assert page.locator("del").all_inner_texts() == ["red"]
    assert [text.strip() for text in page.locator("ins").all_inner_texts()] == ["brown", "on"]
    page.get_by_label("What is marked in the answers").select_option("reference")
    assert page.locator("ins").all_inner_texts() == ["the", "red", "the"]
    page.get_by_label("What is marked in the answers").select_option("")
    assert page.locator("ins, del").count() == 0
    page.get_by_label("What is marked in the answers").select_option("each other")
    for why in ("no word in common", "too long to be compared"):
        page.locator("[role=option][aria-selected=true]").press("ArrowDown")
        expect(page.locator("article > .tunebook-hint")).to_contain_text(why)
        assert page.locator("ins, del").count() == 0


def test_each_token_is_told_in_numbers_by_arrow_keys_and_in_a_table(chromium, measured, opened):
    widget = measured.browse()
    page = open_answered(chromium, widget)
    opened.append(page)
    heat = page.locator(".tunebook-heat")
    expect(heat).to_have_count(2)
    pieces = widget.losses["pieces"]
    assert heat.first.text_content() == "".join(text for text, _, _ in pieces)
    heat.first.focus()
    for place in (0, 1, 2):
        page.keyboard.press("ArrowRight")
        text, _, (base, tuned) = pieces[place]
        said = page.locator(".tunebook-readout")
        expect(said).to_contain_text(f"Token {place + 1} of {len(pieces)}, ‘{text}’: base {base:.3f} nats")
        expect(said).to_contain_text(f"tuned {tuned:.3f} nats")
    page.get_by_text("Every token in numbers").click()
    cells = page.locator(".tunebook-losses tbody tr").nth(1).locator("td").all_inner_texts()
    assert cells[1:] == [f"{nats:.3f}" for nats in pieces[1][2]]
    page.get_by_label("Text whose losses are shown").select_option("1")
    expect(heat.first).to_have_text("".join(text for text, _, _ in widget.losses["pieces"]))
    borders = heat.first.locator(".tunebook-heat-3").first.evaluate("(e) => getComputedStyle(e).borderBottomStyle")
    assert borders == "double"  # told without colour too


def test_markup_in_rows_answers_and_reasons_stays_text(chromium, opened):
    hostile = {
        "answers": [HOSTILE, f"<think>{HOSTILE}</think>x"],
        "prompts": [HOSTILE] * 2,
        "references": [HOSTILE] * 2,
    }
    view = ScoreView(
        marks(HOSTILE, [0, None], **hostile, why=HOSTILE), marks("tuned", [1, None], **hostile, why=HOSTILE)
    )
    page = open_answered(chromium, view.browse())
    opened.append(page)
    page.get_by_role("button", name="not scored (1)").click()
    page.locator("summary").first.click()
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator(HOSTILE_ELEMENTS).count() == 0
    assert page.locator(PANEL).text_content().count("<script>window.hit = 1</script>") >= 6
    expect(page.locator(PANEL)).to_be_visible()


@pytest.mark.parametrize("width", [480, 700, 1100])
@pytest.mark.parametrize("dark", [False, True])
def test_the_panel_and_the_page_that_stays_fit_and_can_be_read(chromium, measured, opened, screenshots, width, dark):
    theme, body = DARK if dark else "", f'data-jp-theme-light="{str(not dark).lower()}"'
    live = open_answered(chromium, measured.browse(), width=width, head=theme, body=body)
    still = chromium.new_context(viewport={"width": width, "height": 900}, java_script_enabled=False).new_page()
    opened += [live, still]
    still.set_content(f"<html><head>{theme}</head><body {body}>{measured._repr_html_()}")
    expect(live.locator(".tunebook-heat")).to_have_count(2)
    for name, page in (("live", live), ("still", still)):
        page.screenshot(path=screenshots / f"scores_{name}_{width}{'_dark' if dark else ''}.png", full_page=True)
        expect(page.locator(".tunebook-heat").first).to_be_visible()
    assert live.evaluate("document.documentElement.scrollWidth") <= width
    second = still.locator("details").nth(1)
    second.locator("summary").first.click()
    expect(second.locator(".tunebook-heat").first).to_be_visible()


def test_a_long_word_or_prompt_makes_nothing_wider_than_the_page(chromium, opened):
    long = {"answers": ["x" * 900], "prompts": ["y" * 9000], "references": ["z" * 900], "why": "w" * 900}
    view = ScoreView(marks("b" * 300, [0], **long), marks("t" * 300, [None], **long))
    page = open_answered(chromium, view.browse(), width=480)
    still = chromium.new_context(viewport={"width": 480, "height": 900}).new_page()
    still.set_content(view._repr_html_())
    opened += [page, still]
    for each in opened:
        assert each.evaluate("document.documentElement.scrollWidth") <= 480


# ---- in JupyterLab


def test_the_panel_works_in_jupyterlab_and_the_page_stays_in_the_saved_notebook(
    chromium, lab, screenshots, tiny_folder
):
    setup = NOTEBOOK.format(folder=str(tiny_folder), hostile=HOSTILE)
    path = lab.write_notebook("scores.ipynb", [setup, "view", "view.browse()"])
    with LabNotebook(chromium, lab, path) as notebook:
        page = notebook.page
        notebook.run_all()
        notebook.wait_until_done(seconds=120)
        expect(notebook.outputs(1).locator("details[open]")).to_have_count(1)
        notebook.outputs(1).screenshot(path=screenshots / "lab-scores-still.png")
        live = notebook.outputs(2).locator(PANEL)
        expect(live.locator(".tunebook-heat")).to_have_count(2, timeout=20_000)
        live.get_by_role("button", name="all (6)").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        expect(live.locator(".tunebook-row-title b")).to_have_text("Row 1")
        expect(live.locator(".tunebook-heat").first).to_contain_text("<script>", timeout=20_000)
        live.screenshot(path=screenshots / "lab-scores.png")
        assert notebook.page.evaluate("window.hit") is None
        assert page.locator(".jp-Cell").count() == 3  # no key of the panel was a command to the notebook
        still = notebook.outputs(1).locator("details[open]").inner_text()
        saved = notebook.save()

    saved.metadata["edited"] = "elsewhere"  # the signature no longer fits, so JupyterLab does not trust the outputs
    saved.metadata["kernelspec"] = {"name": "gone", "display_name": "Gone", "language": "none"}
    saved.metadata["language_info"] = {"name": "none"}
    path.write_text(json.dumps(saved))
    lab.shut_kernels_down()
    with LabNotebook(chromium, lab, path) as notebook:
        notebook.page.get_by_role("dialog").get_by_role("button", name="No Kernel").click()
        card = notebook.outputs(1)
        expect(card.locator("details[open]")).to_have_count(1)
        assert card.locator("style").count() == 0
        card.screenshot(path=screenshots / "lab-scores-untrusted.png")
        for words in ("nats per token over", "exact_match", "Answer of tuned", "least expected"):
            assert words in card.inner_text()
        assert card.locator("pre span[style*='213, 94, 0']").count() > 0
    assert "nats per token over" in still
