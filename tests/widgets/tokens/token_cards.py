"""A card of tokens as a parser that is not ours reads it."""

from html.parser import HTMLParser

from tunebook_widgets import TokenView


class Seen(HTMLParser):
    """What a parser that is not ours makes of the card: elements with their attributes, and each row's text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[str] = []
        self.trained: list[str] = []  # of each row, the text that is underlined
        self.trained_tokens: list[int] = []
        self.keys: list[str] = []
        self.style = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "pre":
            self.rows.append("")
            self.trained.append("")
            self.trained_tokens.append(0)
        if tag not in ("br", "rect", "line"):
            self.open.append(tag)
        if {"pre", "ins"} <= set(self.open) and tag in ("span", "kbd"):
            self.trained_tokens[-1] += 1

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        elif "pre" in self.open:
            self.rows[-1] += data
            if "ins" in self.open:
                self.trained[-1] += data
            if "kbd" in self.open:
                self.keys.append(data)


def seen(view: TokenView) -> Seen:
    return Seen(view._repr_html_())
