"""Rows that cannot be trained on as HTML: what is wrong, the rows as they came, and the lines that mend them.

Every word from the data is made visible and escaped; there is no script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tunebook.machine.inert import visible


@dataclass(frozen=True)
class BadRows:
    """What is said about rows that cannot be trained on."""

    heading: str
    findings: Sequence[tuple[str, Sequence[tuple[str, str]]]]  # what is wrong, and (place, as it came) of some rows
    mends: Sequence[str]  # lines to write


def bad_rows_html(bad: BadRows) -> str:
    """The findings, the rows of the first one open, and the lines that mend them."""
    items = [_finding(text, rows, is_open=place == 0) for place, (text, rows) in enumerate(bad.findings)]
    mends = "".join(f'<pre class="tunebook-mend">{_inert(line)}</pre>' for line in bad.mends)
    said = '<p class="tunebook-legend">What mends them, or does without them:</p>' if bad.mends else ""
    return (
        f'<div class="tunebook-bad"><p class="tunebook-heading"><b>{_inert(bad.heading)}</b></p>'
        f'<ul class="tunebook-findings">{"".join(items)}</ul>{said}{mends}</div>'
    )


def _finding(text: str, rows: Sequence[tuple[str, str]], *, is_open: bool) -> str:
    shown = "".join(
        f"<details{' open' if is_open and place == 0 else ''}><summary>{_inert(title)}, as it came</summary>"
        f'<pre class="tunebook-came" tabindex="0" aria-label="{_inert(title)}, as it came" '
        f'style="white-space: pre-wrap; overflow-wrap: anywhere">{_inert(came)}</pre></details>'
        for place, (title, came) in enumerate(rows)
    )
    return f"<li><b>{_inert(text)}</b>{shown}</li>"


def _inert(text: str) -> str:
    return escape(visible(text))
