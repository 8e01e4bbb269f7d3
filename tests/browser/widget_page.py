"""A live view in a bare page, without a notebook or a kernel: its script, its style and the traits of one widget.

The page holds the script's view of a widget (`get`, `on`, `off`, `send`), so what the browser draws and sends can be
looked at alone. What was sent is in `window.sent`.
"""

import base64
import json
from pathlib import Path
from typing import Any

import anywidget
from playwright.sync_api import Browser, Page, expect

import tunebook_widgets
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.esm import VIEW
from tunebook_widgets.tokens.token_browser import TokenBrowser

_SOURCE = Path(tunebook_widgets.__file__).parent / "tokens"

_START = """async ([script, traits]) => {
    const decode = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const read = (traits) => ({...traits, sealed: decode(traits.sealed), recent: decode(traits.recent)});
    const listeners = [];
    window.sent = [];
    let values = read(traits);
    const model = {
        get: (name) => values[name],
        set: (name, value) => (values[name] = value),
        save_changes: () => {},
        on: (_name, listener) => listeners.push(listener),
        off: () => {},
        send: (content) => window.sent.push(content),
    };
    window.model = model;
    window.publish = (traits) => { values = read(traits); listeners.forEach((listener) => listener()); };
    const module = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
    module.default.render({model, el: document.body});
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}"""

_START_TOKENS = """async ([script, traits]) => {
    const listeners = [];
    window.sent = [];
    const model = {
        get: (name) => traits[name],
        on: (_name, listener) => listeners.push(listener),
        off: () => {},
        send: async (content) => {
            window.sent.push(content);
            traits.page = await window.answer(content);
            listeners.forEach((listener) => listener());
        },
    };
    const module = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
    module.default.render({model, el: document.body});
}"""

_START_PANEL = """async ([script, traits]) => {
    const listeners = [];
    window.sent = [];
    const model = {
        get: (name) => traits[name],
        on: (_name, listener) => listeners.push(listener),
        off: () => {},
        send: (content) => window.sent.push(content),
    };
    window.publish = (changed) => { Object.assign(traits, changed); listeners.forEach((listener) => listener()); };
    const module = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
    module.default.render({model, el: document.body});
}"""

_START_ANSWERED = """async ([script, traits]) => {
    const listeners = new Map();
    window.sent = [];
    const tell = (changed) => {
        const isOther = (name) => JSON.stringify(changed[name]) !== JSON.stringify(traits[name]);
        const differ = Object.keys(changed).filter(isOther);
        Object.assign(traits, changed);
        differ.forEach((name) => (listeners.get(`change:${name}`) ?? []).forEach((listener) => listener()));
    };
    const model = {
        get: (name) => traits[name],
        on: (name, listener) => listeners.set(name, [...(listeners.get(name) ?? []), listener]),
        off: () => {},
        send: async (content) => {
            window.sent.push(content);
            tell(await window.answer(content));
        },
    };
    const module = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
    module.default.render({model, el: document.body});
}"""


def open_widget(browser: Browser, view: LiveView, *, width: int = 1000, **context: Any) -> Page:
    """A page that shows `view` as it is now; `context` is the browser's. Close its context when done."""
    page = browser.new_context(viewport={"width": width, "height": 1000}, **context).new_page()
    page.set_content(f"<style>{(VIEW / 'dashboard.css').read_text()}</style>")
    page.evaluate(_START, [str(view._esm), traits_of(view)])
    return page


def traits_of(view: LiveView) -> dict[str, object]:
    """The traits as they cross into the page; raises ValueError for a state that is not strict JSON."""
    return {
        "columns": view.columns,
        "mode": view.mode,
        **json.loads(
            json.dumps(
                {"state": view.state, "record": view.record, "samples": view.samples, "picks": view.picks},
                allow_nan=False,
            )
        ),
        "sealed": base64.b64encode(view.sealed).decode(),
        "recent": base64.b64encode(view.recent).decode(),
    }


def open_token_browser(browser: Browser, widget: TokenBrowser, *, width: int = 1000) -> Page:
    """A page that shows `widget`, which answers what the page sends; close its context when done."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        widget._receive(widget, message, [])
        return json.loads(json.dumps(widget.page))

    page.expose_function("answer", answer)
    page.set_content(f"<style>{(_SOURCE / 'tokens.css').read_text()}</style>")
    traits = {name: getattr(widget, name) for name in ("name", "total", "orders", "word", "page")}
    page.evaluate(_START_TOKENS, [(_SOURCE / "token_browser.js").read_text(), json.loads(json.dumps(traits))])
    return page


def open_panel(browser: Browser, panel: anywidget.AnyWidget, *, width: int = 1000) -> Page:
    """A page that shows `panel` as it is now; `publish({trait: value})` in it is what a kernel does. Close it after."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_content(f"<style>{panel._css}</style>")
    page.evaluate(_START_PANEL, [str(panel._esm), plain_traits(panel)])
    return page


def open_answered(browser: Browser, widget: Any, *, width: int = 1000, head: str = "", body: str = "") -> Page:
    """A page that shows `widget`, which answers what the page sends as in a kernel. Close its context when done."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        widget._receive(widget, message, [])
        return plain_traits(widget)

    page.expose_function("answer", answer)
    page.set_content(f"<html><head><style>{widget._css}</style>{head}</head><body {body}></body></html>")
    page.evaluate(_START_ANSWERED, [str(widget._esm), plain_traits(widget)])
    return page


def plain_traits(panel: anywidget.AnyWidget) -> dict[str, Any]:
    """The traits of its own as they cross into a page; raises ValueError for what is not strict JSON."""
    own = set(panel.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
    traits = {name: getattr(panel, name) for name in sorted(own) if not name.startswith("_")}
    return json.loads(json.dumps(traits, allow_nan=False))


def table_of_curves(page: Page) -> tuple[list[str], list[str]]:
    """(its heads, the cells of its last row) of a dashboard's table, which the page makes once it has been opened."""
    page.get_by_text("The curves as a table").click()
    rows = page.locator(".tunebook-table tbody tr")
    expect(rows).not_to_have_count(0)
    return page.locator(".tunebook-table th").all_inner_texts(), rows.last.locator("td").all_inner_texts()
