"""The part of Go's text/template that our Ollama templates use, rendered in Python, so that tests need no Go.

Literal text, string literals, fields, variables and their assignment, `range`, `if` / `else if` on a field, a variable
or `eq`, and the trimming of whitespace before `{{-`. Everything else is an error. Go 1.27 renders what this renders.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_ACTION = re.compile(r'(\s*)\{\{(-?)\s*((?:"(?:\\.|[^"\\])*"|[^"}])*?)\s*\}\}')


def render(template: str, data: dict[str, Any]) -> str:
    """`template` executed on `data`, whose names are Go's, such as Messages and System."""
    out: list[str] = []
    _run(_parsed(iter(_pieces(template)))[0], data, {}, out)
    return "".join(out)


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """("text", ...) and ("action", ...) in order."""
    at = 0
    for match in _ACTION.finditer(template):
        text = template[at : match.start()] + ("" if match[2] else match[1])
        if text:
            yield "text", text
        yield "action", match[3]
        at = match.end()
    if template[at:]:
        yield "text", template[at:]


def _parsed(pieces: Iterator[tuple[str, str]]) -> tuple[list, str]:
    """(nodes, the action that ended them): nodes are text, ("do", action) or (head, nodes, else nodes)."""
    nodes: list = []
    for kind, body in pieces:
        if kind == "text":
            nodes.append(body)
        elif body == "end" or body.startswith("else"):
            return nodes, body
        elif body.startswith(("range ", "if ")):
            nodes.append(_block(body, pieces))
        else:
            nodes.append(("do", body))
    return nodes, ""


def _block(head: str, pieces: Iterator[tuple[str, str]]) -> tuple[str, list, list]:
    then, ended = _parsed(pieces)
    if ended.startswith("else if"):
        return head, then, [_block(ended.removeprefix("else "), pieces)]
    return head, then, _parsed(pieces)[0] if ended == "else" else []


def _run(nodes: list, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif node[0] == "do":
            _do(node[1], dot, variables, out)
        elif node[0].startswith("range "):
            for item in _value(node[0].removeprefix("range "), dot, variables):
                _run(node[1], item, variables, out)
        else:
            _run(node[1] if _value(node[0].removeprefix("if "), dot, variables) else node[2], dot, variables, out)


def _do(action: str, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    assignment = re.match(r"(\$\w+)\s*:?=\s*(.*)", action, re.DOTALL)
    if assignment:
        variables[assignment[1]] = _value(assignment[2], dot, variables)
    else:
        out.append(str(_value(action, dot, variables)))


def _value(expression: str, dot: Any, variables: dict[str, Any]) -> Any:
    if expression.startswith("eq "):
        left, right = expression.removeprefix("eq ").split(" ", 1)
        return _value(left, dot, variables) == _value(right, dot, variables)
    if expression in ("true", "false"):
        return expression == "true"
    if expression.startswith('"'):
        return json.loads(expression)
    if expression.startswith("$"):
        return variables[expression]
    if expression.startswith("."):
        return dot[expression[1:]]
    raise ValueError(f"This stand-in for Go's templates does not know {expression!r}.")
