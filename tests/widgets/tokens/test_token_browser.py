"""The token card and the browser of rows in a real browser: alone in a page, then in JupyterLab."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import LabNotebook
from tests.browser.widget_page import open_token_browser
from tests.widgets.odd_rows import HOSTILE, KINDS, odd_rows
from tunebook_widgets import TokenView

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

CARD = ".tunebook-tokens"
SETUP = """from tunebook import FastModel
from tunebook_widgets import TokenView
model, _ = FastModel.from_pretrained({folder!r})
view = TokenView(model, {rows!r}, max_seq_length=64)"""
HOSTILE_VIEW = """turns = [{{"role": "user", "content": {0!r}}}, {{"role": "assistant", "content": {0!r}}}]
hostile = TokenView(model, [{{"messages": turns}}], max_seq_length=1024)
hostile"""
UNDERLINED = "(e) => getComputedStyle(e).textDecorationLine"
HOSTILE_ELEMENTS = "img, script, iframe, svg[onload], [onerror], [onclick]"


@pytest.fixture
def hostile(model) -> TokenView:
    turns = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
    return TokenView(model, [{"messages": turns}], max_seq_length=1024)


@pytest.fixture
def opened(chromium) -> Iterator[list[Page]]:
    """Pages to close."""
    pages: list[Page] = []
    yield pages
    for page in pages:
        page.context.close()


# ---- alone


def test_hostile_rows_do_nothing_in_the_card(chromium, hostile, opened):
    page = chromium.new_context().new_page()
    opened.append(page)
    page.set_content(hostile._repr_html_())
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator(HOSTILE_ELEMENTS).count() == 0
    assert page.locator("pre").text_content().count("<script>window.hit = 1</script>") == 2
    assert page.locator("pre").text_content().count("&lt;b&gt;") == 2
    expect(page.locator("pre")).to_be_visible()


def test_hostile_rows_do_nothing_in_the_browser(chromium, hostile, opened):
    page = open_token_browser(chromium, hostile.browse())
    opened.append(page)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator(HOSTILE_ELEMENTS).count() == 0
    assert page.locator("pre").text_content().count("<script>window.hit = 1</script>") == 2
    expect(page.locator("pre")).to_be_visible()


def test_arrow_keys_turn_the_pages_and_stop_at_the_ends(chromium, odd, opened):
    page = open_token_browser(chromium, odd.browse())
    opened.append(page)
    title = page.locator(f"{CARD} b")
    page.locator(CARD).focus()
    for key, row in (("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 9), ("Home", 0)):
        page.keyboard.press(key)
        expect(title).to_have_text(f"Row {row}")
    expect(page.get_by_role("button", name="Previous row")).to_be_disabled()
    assert {"go": "to", "index": -1} not in page.evaluate("window.sent")


def test_every_control_is_reached_with_tab_and_shows_that_it_is(chromium, odd, opened):
    page = open_token_browser(chromium, odd.browse())
    opened.append(page)
    names = []
    page.locator(CARD).focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        element = page.locator(":focus")
        names.append(element.evaluate("(e) => e.ariaLabel || e.textContent"))
        assert element.evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid"
    assert names[:3] == ["Next row", "Row number", "Go to row"]
    assert names[3].startswith("longest")
    assert names[-1] == "Tokens of the row"


def test_a_row_is_reached_by_its_number_and_a_wrong_one_is_said(chromium, odd, opened):
    page = open_token_browser(chromium, odd.browse())
    opened.append(page)
    page.get_by_label("Row number").fill("8")
    page.keyboard.press("Enter")
    expect(page.locator(f"{CARD} b")).to_have_text("Row 8")
    expect(page.locator("pre")).to_contain_text("tokens cut off here")
    page.get_by_label("Row number").fill("4000")
    page.get_by_role("button", name="Go to row").click()
    expect(page.locator("[aria-live]")).to_have_text("There is no row 4000.")
    expect(page.locator(f"{CARD} b")).to_have_text("Row 8")


def test_rows_of_a_text_file_are_reached_by_their_lines(chromium, model, tmp_path, opened):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'\n{{"text": "the dog {number}"}}\n' for number in range(5)))  # on lines 2, 4, ... 10
    page = open_token_browser(chromium, TokenView(model, path).browse())
    opened.append(page)
    expect(page.locator(f"{CARD} b")).to_have_text("Line 2")
    page.get_by_label("Line number").fill("6")
    page.get_by_role("button", name="Go to line").click()
    expect(page.locator(f"{CARD} b")).to_have_text("Line 6")
    expect(page.locator("pre")).to_contain_text("the dog 2")
    page.get_by_label("Line number").fill("5")
    page.keyboard.press("Enter")
    expect(page.locator("[aria-live]")).to_have_text("There is no line 5.")


def test_each_order_leads_to_its_row(chromium, odd, opened):
    page = open_token_browser(chromium, odd.browse())
    opened.append(page)
    reached = {
        "most cut": "cut",
        "left out": "left out",
        "copies": "a copy",
        "empty answer": "empty",
        "two BOS": "two bos",
    }
    for name, kind in reached.items():
        page.get_by_role("button", name=f"{name} (1)").click()
        expect(page.locator(f"{CARD} b")).to_have_text(f"Row {KINDS.index(kind)}")
    page.get_by_role("button", name="left out (1)").click()
    expect(page.locator(".tunebook-why")).to_contain_text("left out")
    assert page.locator(".tunebook-trained").count() == 0


def test_trained_tokens_are_underlined_and_coloured_and_name_their_ids(chromium, odd, opened, model):
    page = open_token_browser(chromium, odd.browse())
    opened.append(page)
    row = odd_rows(model.loaded.tokenizer)[0]
    trained = [label for label in row["labels"] if label != -100]
    marked = page.locator(".tunebook-trained")
    ids = [
        int(number)
        for title in marked.evaluate_all("(all) => all.map((e) => e.title)")
        for number in re.findall(r"\d+", title)
    ]
    assert ids == trained
    assert marked.first.evaluate(UNDERLINED) == "underline"
    colours = {
        which: page.locator(f"pre {which}").first.evaluate("(e) => getComputedStyle(e).backgroundColor")
        for which in (".tunebook-trained", "span:not(.tunebook-trained)")
    }
    assert len(set(colours.values())) == 2


@pytest.mark.parametrize("width", [420, 1200])
def test_nothing_is_wider_than_the_page(chromium, model, opened, width):
    words = [{"text": "x" * 900}, {"text": "the dog " * 20}]
    view = TokenView(model, words, max_seq_length=1024)
    card = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
    card.set_content(view._repr_html_())
    live = open_token_browser(chromium, view.browse(), width=width)
    opened += [card, live]
    for page in (card, live):
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# ---- in JupyterLab


def test_the_card_and_the_browser_work_in_jupyterlab(chromium, lab, screenshots, tiny_folder):
    with _notebook(chromium, lab, "tokens.ipynb", tiny_folder) as notebook:
        page, card = notebook.page, notebook.outputs(1)
        notebook.run_all()
        notebook.wait_until_done(seconds=60)
        expect(card.locator("details[open]")).to_have_count(1)
        card.screenshot(path=screenshots / "tokens-card.png")

        second = card.locator("details").nth(1)
        second.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(second).to_have_attribute("open", "")
        expect(card.locator("details[open]")).to_have_count(1)
        expect(second.locator("pre")).to_contain_text("<script>")

        live = notebook.outputs(2).locator(CARD)
        live.get_by_role("button", name="left out (1)").click()
        expect(live.locator("b")).to_have_text(f"Row {KINDS.index('left out')}")
        live.focus()
        page.keyboard.press("ArrowLeft")
        expect(live.locator("b")).to_have_text(f"Row {KINDS.index('left out') - 1}")
        for _ in range(9):
            page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(30)
        live.screenshot(path=screenshots / "tokens-browser.png")


def test_hostile_rows_do_nothing_in_jupyterlab(chromium, lab, screenshots, tiny_folder):
    cells = (HOSTILE_VIEW.format(HOSTILE), "hostile.browse()")
    with _notebook(chromium, lab, "hostile.ipynb", tiny_folder, cells=cells) as notebook:
        notebook.run_all()
        notebook.wait_until_done(seconds=60)
        for output in (1, 2):
            row = notebook.outputs(output).locator("pre").first
            expect(row).to_be_visible()
            assert row.text_content().count("<script>window.hit = 1</script>") == 2
            assert notebook.outputs(output).locator(HOSTILE_ELEMENTS).count() == 0
        notebook.page.screenshot(path=screenshots / "tokens-hostile.png")
        assert notebook.page.evaluate("window.hit") is None


def test_a_saved_card_can_be_read_with_no_kernel_and_no_trust(chromium, lab, screenshots, tiny_folder):
    with _notebook(chromium, lab, "saved-tokens.ipynb", tiny_folder, cells=("view",)) as notebook:
        notebook.run_all()
        notebook.wait_until_done(seconds=60)
        expect(notebook.outputs(1).locator("details[open]")).to_have_count(1)
        text = notebook.outputs(1).locator("pre").first.inner_text()
        saved = notebook.save()
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)

    path = lab.folder / "saved-tokens.ipynb"
    saved.metadata["edited"] = "elsewhere"  # the signature no longer fits, so JupyterLab does not trust the outputs
    saved.metadata["kernelspec"] = {"name": "gone", "display_name": "Gone", "language": "none"}
    saved.metadata["language_info"] = {"name": "none"}
    path.write_text(json.dumps(saved))
    lab.shut_kernels_down()
    with LabNotebook(chromium, lab, path) as notebook:
        notebook.page.get_by_role("dialog").get_by_role("button", name="No Kernel").click()
        card = notebook.outputs(1)
        expect(card.locator("pre").first).to_be_visible()
        assert card.locator("style, svg").count() == 0  # so this is the card without its style
        assert card.locator("pre").first.inner_text() == text
        assert card.locator("pre ins").first.evaluate(UNDERLINED) == "underline"
        assert "1 row left out" in card.inner_text()
        assert "64.\n\n1 row left out" in card.inner_text()  # nothing of the drawing is left behind
        assert card.locator("details").count() == len(KINDS)
        card.locator("summary").nth(1).click()
        expect(card.locator("pre").nth(1)).to_be_visible()
        card.screenshot(path=screenshots / "tokens-untrusted.png")


def test_the_dark_theme_is_followed(chromium, lab, screenshots, tiny_folder):
    lab.use_theme("JupyterLab Dark")
    try:
        with _notebook(chromium, lab, "dark-tokens.ipynb", tiny_folder) as notebook:
            notebook.run_all()
            notebook.wait_until_done(seconds=60)
            for output in (1, 2):
                root = notebook.outputs(output).locator(CARD)
                expect(root).to_be_visible()
                assert _brightness(root, "backgroundColor") < 60 < 180 < _brightness(root, "color")
                trained = root.locator("pre ins, pre .tunebook-trained").first
                assert _brightness(trained, "color") > 180
                root.screenshot(path=screenshots / f"tokens-dark-{output}.png")
    finally:
        lab.use_theme("JupyterLab Light")


def _notebook(chromium, lab, name: str, tiny_folder, cells: tuple[str, ...] = ("view", "view.browse()")) -> LabNotebook:
    rows = lab.folder / "odd.json"
    if not rows.exists():
        from transformers import AutoTokenizer

        rows.write_text(json.dumps(odd_rows(AutoTokenizer.from_pretrained(tiny_folder))))
    setup = SETUP.format(folder=str(tiny_folder), rows=str(rows))
    return LabNotebook(chromium, lab, lab.write_notebook(name, [setup, *cells]))


def _brightness(element: Locator, what: str) -> float:
    """The mean of the three channels of a computed colour."""
    colour = element.evaluate(f"(e) => getComputedStyle(e).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
