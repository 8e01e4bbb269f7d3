"""Small real data sets that need no network.

`python_docs` reads the standard library of the running interpreter: real functions people wrote, with the sentences
they wrote about them. It parses the files and imports none of them.
"""

import ast
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

INSTRUCTION = "Explain what this Python function does."

# Folders of the standard library that hold tests, bundled third-party code or games rather than documented functions.
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "ensurepip",
    "__pycache__",
}


def python_docs(
    *,
    source_characters: tuple[int, int] = (180, 500),
    answer_characters: tuple[int, int] = (60, 160),
) -> list[dict]:
    """Question and answer rows: a standard-library function's source, and the docstring its author gave it.

    Each row is `{"name": "textwrap.shorten", "messages": [user, assistant]}`. Only public functions and methods whose
    source (docstring taken out) and docstring have a length inside the given bounds are kept, one row per answer, in
    alphabetical order of their names. The rows depend on the Python version alone.
    """
    rows, answers = [], set()
    for name, source, answer in sorted(_documented_functions(Path(sysconfig.get_path("stdlib")))):
        fits = _within(len(source), source_characters) and _within(len(answer), answer_characters)
        if not fits or answer in answers:
            continue
        answers.add(answer)
        question = f"{INSTRUCTION}\n\n```python\n{source}\n```"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append({"name": name, "messages": messages})
    return rows


def _within(length: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= length <= bounds[1]


def _documented_functions(library: Path) -> Iterator[tuple[str, str, str]]:
    """(dotted name, source without its docstring, docstring) of every public documented function under `library`."""
    for path in library.rglob("*.py"):
        parts = path.relative_to(library).with_suffix("").parts
        if _SKIPPED_FOLDERS.isdisjoint(parts) and not any(part.startswith("_") for part in parts):
            module = ".".join(parts)
            code = path.read_text(encoding="utf-8", errors="replace")
            lines = code.splitlines()
            for name, function in _functions(ast.parse(code)):
                docstring = ast.get_docstring(function)
                if docstring and len(function.body) > 1:
                    yield f"{module}.{name}", _source_without_docstring(lines, function), docstring


def _source_without_docstring(lines: list[str], function: ast.FunctionDef) -> str:
    """The lines of a function as its author wrote them, comments included, the docstring's lines taken out."""
    docstring = function.body[0]
    head = lines[function.lineno - 1 : docstring.lineno - 1]
    body = lines[docstring.end_lineno : function.end_lineno]
    return textwrap.dedent("\n".join(head + body)).strip()


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions of a module and public methods of its public classes, with their names inside the module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member
