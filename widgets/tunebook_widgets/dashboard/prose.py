"""Text of people and models as HTML that is read without a style sheet: code as code, lines as lines.

The rule is that of `view/prose.js`: what stands between fences is code. Nothing in the text becomes markup.
"""

import html
import re

_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.MULTILINE)


def passages(text: str) -> list[tuple[bool, str]]:
    """(whether it is code, the text) piece by piece; a fence that is never closed runs to the end."""
    pieces = [(at % 2 == 1, piece) for at, piece in enumerate(_FENCE.split(text))]
    kept = [(is_code, re.sub(r"^\n|\n$", "", piece) if is_code else piece.strip()) for is_code, piece in pieces]
    return [(is_code, piece) for is_code, piece in kept if piece]


def as_html(text: str) -> str:
    """A text as HTML."""
    return "".join(
        f"<pre><code>{html.escape(piece)}</code></pre>" if is_code else html.escape(piece).replace("\n", "<br>")
        for is_code, piece in passages(text)
    )
