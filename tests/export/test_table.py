"""The table of exports in a real browser, under the styles a page of Jupyter has."""

import pytest

from tunebook.export.table import as_html

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

# jupyterlab 4.6: .jp-RenderedHTMLCommon th, td and .jp-OutputArea-output pre
JUPYTER = """body { font-size: 14px } th, td { text-align: right }
pre { line-height: 16px; white-space: pre-wrap; word-break: break-all; overflow-wrap: break-word }"""
COMMAND = "ollama create smollm2-135m-f16 -f quickstart/gguf/smollm2-135m.f16.Modelfile && ollama run smollm2-135m-f16"


@pytest.fixture
def page(chromium):
    page = chromium.new_context(viewport={"width": 400, "height": 600}).new_page()
    shown = as_html(("export", "check"), [("quickstart/lora", "PASS")], ["A sentence."], ["short", COMMAND])
    page.set_content(f"<style>{JUPYTER}</style>{shown}")
    yield page
    page.context.close()


def test_a_command_that_is_wider_than_the_page_stays_one_line(page):
    commands = page.locator("pre")
    assert commands.evaluate("(node) => node.clientHeight") < 3 * 16
    assert commands.evaluate("(node) => node.scrollWidth > node.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_every_cell_reads_from_the_left(page):
    aligned = page.locator("th, td").evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell).textAlign)")
    assert aligned == ["left"] * 4
