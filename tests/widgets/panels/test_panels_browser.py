"""The chat, the fit check and the export panel in a real browser, alone in a page."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.browser.widget_page import open_panel
from tests.widgets.odd_rows import HOSTILE
from tunebook.export.report import ExportTable
from tunebook_widgets import Chat, ExportPanel, FitCheck

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

HOSTILE_ELEMENTS = "img, script, iframe, svg[onload], [onerror], [onclick]"
DARK = """:root { --jp-ui-font-color0: #fff; --jp-ui-font-color1: #ddd; --jp-ui-font-color2: #aaa;
--jp-layout-color1: #111; --jp-border-color2: #444 } body { background: #111 }"""


@pytest.fixture
def opened() -> Iterator[list[Page]]:
    """Pages to close."""
    pages: list[Page] = []
    yield pages
    for page in pages:
        page.context.close()


def turn(**parts: str) -> dict[str, str]:
    return {"you": "", "tuned": "", "base": "", "note": ""} | parts


def no_wider_than_the_page(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_markup_in_a_message_an_answer_or_an_error_stays_text(chromium, tuned, opened):
    chat = Chat(tuned)
    chat.turns, chat.complaint = [turn(you=HOSTILE, tuned=HOSTILE, base=HOSTILE)], HOSTILE
    page = open_panel(chromium, chat)
    opened.append(page)
    page.evaluate("(text) => publish({now: {you: text, tuned: text, base: '', note: '', side: 'tuned'}})", HOSTILE)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator(HOSTILE_ELEMENTS).count() == 0
    assert page.locator(".tunebook-panel").text_content().count("<script>window.hit = 1</script>") == 6


def test_an_answer_grows_in_place_and_stop_can_be_pressed_meanwhile(chromium, tuned, opened, screenshots):
    page = open_panel(chromium, Chat(tuned, system="Be brief.", temperature=0.5), width=480)
    opened.append(page)
    stop, send = page.get_by_role("button", name="Stop"), page.get_by_role("button", name="Send")
    expect(stop).to_be_disabled()
    page.get_by_label("Message").fill("What is a fox?")
    page.keyboard.press("Enter")
    settings = {"system": "Be brief.", "temperature": 0.5, "top_p": 0.9, "max_tokens": 256}
    assert page.evaluate("sent") == [{"say": "What is a fox?", "settings": settings}]
    writing = turn(you="What is a fox?", tuned="A fox") | {"side": "tuned"}
    page.evaluate("(now) => publish({now})", writing)
    page.evaluate("(now) => publish({now})", writing | {"tuned": "A fox is quick"})
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator(".tunebook-tuned .tunebook-text")).to_have_text("A fox is quick")
    expect(send).to_be_disabled()
    stop.click()
    assert page.evaluate("sent.at(-1)") == {"do": "stop"}
    page.screenshot(path=screenshots / "chat_480.png")
    over = turn(you="What is a fox?", tuned="A fox is quick", base="A fox is an animal.", note="stopped")
    page.evaluate("(turns) => publish({turns, now: {}})", [over])
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator("[aria-live]")).to_have_text("tuned: A fox is quick. base: A fox is an animal. stopped")
    expect(stop).to_be_disabled()
    assert no_wider_than_the_page(page)


def test_a_setting_out_of_range_is_not_sent(chromium, tuned, opened):
    page = open_panel(chromium, Chat(tuned))
    opened.append(page)
    page.get_by_label("Top-p").fill("7")
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    assert page.evaluate("sent") == []
    expect(page.get_by_label("Message")).to_have_value("Hello")


def test_forms_are_ticked_with_the_keyboard_and_their_rows_appear(chromium, tuned, opened, tmp_path, screenshots):
    panel = ExportPanel(tuned, tmp_path, [])
    page = open_panel(chromium, panel, width=480)
    opened.append(page)
    start = page.get_by_role("button", name="Export")
    expect(start).to_be_disabled()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    start.click()
    assert page.evaluate("sent") == [{"export": ["lora"]}]
    cells = [f"{heading}!" for heading in ExportTable.HEADINGS[:-1]] + ["PASS"]
    done = {"state": "done", "said": "", "cells": cells, "commands": ["mlx_lm.chat --model '<b>'"]}
    failed = {"state": "failed", "said": HOSTILE}
    page.evaluate("(progress) => publish({progress})", {"lora": done, "peft": failed})
    expect(page.get_by_role("cell", name="PASS")).to_be_visible()
    expect(page.locator("pre")).to_have_text("mlx_lm.chat --model '<b>'")
    assert page.locator(HOSTILE_ELEMENTS).count() == 0
    assert page.evaluate("window.hit") is None
    assert no_wider_than_the_page(page)
    page.screenshot(path=screenshots / "export_480.png")


def test_without_a_clipboard_the_commands_are_left_selected(chromium, tuned, opened, tmp_path):
    page = open_panel(chromium, ExportPanel(tuned, tmp_path))
    opened.append(page)
    done = {"state": "done", "said": "", "cells": ["a", "PASS"], "commands": ["one", "two"]}
    page.evaluate("(progress) => publish({progress})", {"lora": done})
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("[aria-live]")).to_have_text("Selected; copy it with the keyboard.")
    assert page.evaluate("getSelection().toString()") == "one\ntwo"


@pytest.mark.parametrize("dark", [False, True])
def test_the_fit_check_is_whole_at_480_pixels(chromium, tuned, opened, screenshots, dark):
    fit = FitCheck(tuned)
    fit.estimate = replace(fit.estimate, device=round(0.8 * fit.estimate.total))
    page = chromium.new_context(viewport={"width": 480, "height": 700}).new_page()
    opened.append(page)
    theme = f"<style>{DARK}</style>" if dark else ""
    page.set_content(f'{theme}<body data-jp-theme-light="{str(not dark).lower()}">{fit._repr_html_()}')
    expect(page.get_by_role("img")).to_be_visible()
    assert no_wider_than_the_page(page)
    page.screenshot(path=screenshots / f"fit_{'dark' if dark else 'light'}.png")
