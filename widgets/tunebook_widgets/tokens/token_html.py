"""A card about a data set and a few of its rows as one piece of HTML that needs no kernel, no widget and no script.

Every word from the data is escaped. Where a viewer drops the style and the drawing (an untrusted notebook, GitHub),
trained text is still underlined (`ins`), special tokens still look like keys (`kbd`) and rows still fold (`details`).
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from .bad_rows_html import BadRows, bad_rows_html
from .token_book import Page
from .token_pieces import Piece

STYLE = Path(__file__).parent / "tokens.css"

_HEIGHT = 72  # units of the drawing; 10 are a bar's width
# What is left of the colour where the style sheet is dropped; translucent, so that it suits either theme.
_TRAINED = "background-color: rgba(0, 150, 136, 0.2)"
_LEGEND = (
    f'<p class="tunebook-legend">The model learns to write the <ins style="{_TRAINED}">marked</ins> tokens and only '
    'reads the rest. Each <kbd class="tunebook-key">key</kbd> is one special token, or × so many of '
    "it; ↵ a newline that is learnt.</p>"
)


@dataclass(frozen=True)
class Bars:
    """Rows by length: bar i counts rows of i * width + 1 to (i + 1) * width tokens, the last one those beyond too."""

    width: int
    counts: Sequence[int]
    limit: int  # tokens; a row is cut there

    @property
    def end(self) -> int:
        """Tokens at the right edge."""
        return self.width * len(self.counts)


@dataclass(frozen=True)
class Card:
    """What is said about the whole set."""

    facts: Sequence[str]  # sentences; the first is the heading
    bars: Bars
    findings: Sequence[tuple[str, str]]  # what is odd, and what to do


def static_html(card: Card | None, pages: Sequence[Page], bad: BadRows | None = None) -> str:
    """What cannot be trained on, the card of the rest, a legend and its pages, of which one is open at a time."""
    group = f"tunebook-{uuid.uuid4().hex[:8]}"  # two views in one notebook must not close each other's rows
    return "".join(
        [
            f'<div class="tunebook-tokens"><style>{STYLE.read_text()}</style>',
            bad_rows_html(bad) if bad is not None else "",
            _card(card, pages, group) if card is not None else "",
            "</div>",
        ]
    )


def _card(card: Card, pages: Sequence[Page], group: str) -> str:
    heading, *facts = card.facts
    return "".join(
        [
            f'<p class="tunebook-heading"><b>{escape(heading)}</b></p>',
            *(f"<p>{escape(fact)}</p>" for fact in facts),
            _drawing(card.bars),
            _findings(card.findings),
            _LEGEND,
            *(_page(page, group, is_open=place == 0) for place, page in enumerate(pages)),
        ]
    )


def _findings(findings: Sequence[tuple[str, str]]) -> str:
    if not findings:
        return '<p class="tunebook-fine">✓ Nothing odd was found.</p>'
    items = [f"<li><b>{escape(text)}</b><br>{escape(remedy)}</li>" for text, remedy in findings]
    return f'<ul class="tunebook-findings">{"".join(items)}</ul>'


def _drawing(bars: Bars) -> str:
    """The histogram. It holds no text: a viewer that drops the drawing would leave its words behind."""
    tallest, across = max(bars.counts), 10 * len(bars.counts)
    drawn = []
    for place, count in enumerate(bars.counts):
        height = max(_HEIGHT * count / tallest, 1.5) if count else 0
        beyond = ' class="tunebook-beyond"' if place * bars.width >= bars.limit else ""
        drawn.append(f'<rect{beyond} x="{10 * place + 1}" y="{_HEIGHT - height:.4g}" width="8" height="{height:.4g}"/>')
    line, limit, end = "", "", f"{bars.end:,} tokens; max_seq_length {bars.limit:,} is further right"
    if bars.limit <= bars.end:
        at = 10 * bars.limit / bars.width
        line = f'<line x1="{at:.5g}" x2="{at:.5g}" y1="0" y2="{_HEIGHT}"/>'
        right = 100 * (1 - at / across)
        limit = f'<span class="tunebook-limit" style="right: {right:.4g}%">max_seq_length {bars.limit:,}</span>'
        end = f"{bars.end:,} tokens" if right > 15 else ""  # else the two would lie over one another
    said = f"Histogram of {sum(bars.counts):,} rows by length, up to {bars.end:,} tokens; the limit is {bars.limit:,}."
    return (
        f'<svg class="tunebook-bars" viewBox="0 0 {across} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}">{"".join(drawn)}{line}</svg>'
        # Shown by the style sheet alone, like the drawing it belongs to. JupyterLab drops attributes without a value.
        f'<div class="tunebook-scale" hidden="hidden" aria-hidden="true"><span>1</span>{limit}<span>{end}</span></div>'
    )


def _page(page: Page, group: str, *, is_open: bool) -> str:
    why = f' <em class="tunebook-why">{escape(page.why)}</em>' if page.why else ""
    gap = f'<em class="tunebook-note">\n{page.gap}\n</em>' if page.gap else ""
    cut = f'<em class="tunebook-note">{page.cut_note}</em>' if page.cut else ""
    return (
        f'<details name="{group}"{" open" if is_open else ""}><summary><b>{escape(page.title)}</b>{why} '
        f'<span class="tunebook-count">{page.caption}</span></summary>'
        f'<pre class="tunebook-row" tabindex="0" aria-label="{escape(page.title)}" '
        f'style="white-space: pre-wrap; overflow-wrap: anywhere">'
        f"{_text(page.head)}{gap}{_text(page.tail)}{cut}</pre></details>"
    )


def _text(pieces: Iterable[Piece]) -> str:
    made = []
    for trained, run in groupby(pieces, key=lambda piece: piece.trained):
        text = "".join(map(_piece, run))
        made.append(f'<ins style="{_TRAINED}">{text}</ins>' if trained else text)
    return "".join(made)


def _piece(piece: Piece) -> str:
    if piece.special:
        return f'<kbd class="tunebook-key">{escape(piece.text)}</kbd>'
    return f"<span>{escape(shown(piece))}</span>"


def shown(piece: Piece) -> str:
    """The text of a piece; a newline that is trained can be seen."""
    return piece.text.replace("\n", "↵\n") if piece.trained else piece.text
