"""The worst rows of an exam as one piece of HTML that needs no kernel, no widget and no script.

Every word from rows and models is escaped. Where a viewer drops the style (an untrusted notebook, GitHub), a token that
was unlikely is still coloured, and what the models make of a row is told in words anyway.
"""

import uuid
from collections.abc import Sequence
from html import escape
from typing import Any

from . import STYLES
from .heat import WORDS, level

# What is left of the colour where the style sheet is dropped; translucent, so that it suits either theme.
_SHADES = ("", *(f"background-color: rgba(213, 94, 0, {alpha})" for alpha in (0.13, 0.3, 0.52)))
_WRAPPED = "white-space: pre-wrap; overflow-wrap: anywhere"


def static_html(heading: str, said: Sequence[str], below: str, rows: Sequence[dict[str, Any]]) -> str:
    """`rows` are those of `ScoreBook.row`, with "losses" and "pictures" where a model was asked; the first is open."""
    group = f"tunebook-{uuid.uuid4().hex[:8]}"  # two views in one notebook must not close each other's rows
    style = "".join(file.read_text(encoding="utf-8") for file in STYLES)
    legend = _legend() if any(row["losses"] for row in rows) else ""
    return "".join(
        [
            f'<div class="tunebook-tokens tunebook-panel tunebook-scores"><style>{style}</style>',
            f'<p class="tunebook-heading"><b>{escape(heading)}</b></p>',
            *(f'<p class="tunebook-said">{escape(one)}</p>' for one in said),
            f'<p class="tunebook-legend">{escape(below)}</p>{legend}',
            *(_row(row, group, is_open=place == 0) for place, row in enumerate(rows)),
            "</div>",
        ]
    )


def _row(row: dict[str, Any], group: str, *, is_open: bool) -> str:
    badge = f' <em class="tunebook-why" data-kind="{row["kind"]}">{escape(row["badge"])}</em>' if row["badge"] else ""
    pictures = [f'<img src="{address}" alt="picture {place + 1}">' for place, address in enumerate(row["pictures"])]
    shown = f'<div class="tunebook-pictures">{"".join(pictures)}</div>' if pictures else ""
    parts = [
        _marks(row),
        *(f'<p class="tunebook-note">{escape(note)}</p>' for note in row["notes"]),
        _passage("Asked", row["prompt"] or "(nothing: the row is a text by itself)"),
        shown,
        f'<p class="tunebook-hint">{escape(row["of_pictures"])}</p>' if row["of_pictures"] else "",
        _passage("The row's own answer", "(it has none)" if row["reference"] is None else row["reference"]),
        f'<div class="tunebook-sides">{"".join(map(_answer, row["answers"]))}</div>',
        _losses(row["losses"]) if row["losses"] else "",
    ]
    return (
        f'<details name="{group}"{" open" if is_open else ""}><summary><b>Row {row["number"]}</b>{badge} '
        f'<span class="tunebook-count">{escape(row["begins"])}</span></summary>{"".join(parts)}</details>'
    )


def _passage(label: str, text: str) -> str:
    shown = f'<pre class="tunebook-row" style="{_WRAPPED}">{escape(text)}</pre>'
    return f'<p class="tunebook-label"><b>{escape(label)}</b></p>{shown}'


def _answer(answer: dict[str, Any]) -> str:
    name, thoughts, note = answer["name"], answer["thoughts"], answer["note"]
    folded = ""
    if thoughts:
        summary = f"Thoughts ({len(thoughts):,} characters)"
        folded = f'<details><summary>{summary}</summary><pre style="{_WRAPPED}">{escape(thoughts)}</pre></details>'
    text = (
        ""
        if answer["text"] is None
        else f'<pre class="tunebook-text" style="{_WRAPPED}">{escape(answer["text"])}</pre>'
    )
    said = f'<p class="tunebook-note">{escape(note)}</p>' if note else ""
    return f'<div class="tunebook-side"><b>Answer of {escape(name)}</b>{folded}{text}{said}</div>'


def _marks(row: dict[str, Any]) -> str:
    names = "".join(f'<th scope="col">{escape(answer["name"])}</th>' for answer in row["answers"])
    lines = [
        f'<tr><th scope="row">{escape(metric)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for metric, *cells in row["marks"]
    ]
    head = f'<thead><tr><th scope="col">metric</th>{names}</tr></thead>'
    return f'<div class="tunebook-wide-table"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _losses(found: dict[str, Any]) -> str:
    title = '<p class="tunebook-label"><b>Loss of each token of the row\'s own answer</b></p>'
    if found["why_not"]:
        return f'{title}<p class="tunebook-note">{escape(found["why_not"])}</p>'
    return title + "".join(
        f'<p class="tunebook-said"><b>{escape(model["name"])}</b>: {escape(model["said"])}</p>'
        f'<pre class="tunebook-row tunebook-heat" style="{_WRAPPED}">{_tokens(found, place)}</pre>'
        for place, model in enumerate(found["models"])
    )


def _tokens(found: dict[str, Any], which: int) -> str:
    made = []
    for text, special, nats in found["pieces"]:
        step, tag = level(nats[which]), "kbd" if special else "span"
        kinds = f"tunebook-heat-{step}" + (" tunebook-key" if special else "")
        said = "only read" if nats[which] is None else f"{nats[which]:.3f} nats"
        inner = escape(text).replace("\n", "↵\n")
        made.append(f'<{tag} class="{kinds}" style="{_SHADES[step]}" title="{said}">{inner}</{tag}>')
    if found["hidden"]:
        made.insert(found["at"], f'<em class="tunebook-note">\n{escape(found["hidden"])}\n</em>')
    return "".join(made)


def _legend() -> str:
    steps = " ".join(
        f'<span class="tunebook-heat-{step}" style="{_SHADES[step]}">{word}</span>' for step, word in enumerate(WORDS)
    )
    return f'<p class="tunebook-legend tunebook-scale-words">How likely a token was: {steps}</p>'
