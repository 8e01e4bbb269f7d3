"""Rows of strings as a table: aligned text for a terminal, HTML for a notebook, whatever is in the strings."""

import html
from collections.abc import Iterable, Sequence

from ..machine.inert import one_line

Row = Sequence[str]

_LEFT = 'style="text-align: left"'  # JupyterLab sets the cells of a table to the right
# A command is one line that scrolls; JupyterLab's own style breaks it in the middle of a word.
_COMMANDS = 'style="white-space: pre; overflow-x: auto; font-family: monospace"'


def as_text(headings: Row, rows: Iterable[Row], below: Iterable[str] = ()) -> str:
    """Columns padded to their widest cell; the sentences `below` follow, a line each."""
    table = [[one_line(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, *map(one_line, below)])


def as_html(headings: Row, rows: Iterable[Row], below: Iterable[str] = (), commands: Sequence[str] = ()) -> str:
    """The same; `commands`, to be copied, come last in a block of their own."""
    head = "".join(f"<th {_LEFT}>{_escaped(name)}</th>" for name in headings)
    body = "".join("<tr>" + "".join(f"<td {_LEFT}>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    said = "".join(f"<p>{_escaped(sentence)}</p>" for sentence in below)
    copied = f"<pre {_COMMANDS}>{chr(10).join(map(_escaped, commands))}</pre>" if commands else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}{copied}"


def _escaped(text: str) -> str:
    return html.escape(one_line(text))
