"""Small real data sets that need no network, and a model small enough to learn one of them from nothing.

`python_docs` reads the standard library of the running interpreter: real functions people wrote, with the sentences
they wrote about them. It parses the files and imports none of them. `digits` are those of scikit-learn, written by
hand, and `digit_reader` is a vision-language model of random weights that can be taught to read them in seconds;
`photographs` and `photograph_reader` are the same for continued pretraining on documents with images.
"""

import ast
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from . import photo_tiles

INSTRUCTION = "Explain what this Python function does."

DIGIT_QUESTION = "Which digit is this?"
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

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
        fits = within(len(source), source_characters) and within(len(answer), answer_characters)
        if not fits or answer in answers:
            continue
        answers.add(answer)
        question = f"{INSTRUCTION}\n\n```python\n{source}\n```"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append({"name": name, "messages": messages})
    return rows


def digits(question: str = DIGIT_QUESTION, *, in_words: bool = False) -> list[dict]:
    """Question and answer rows: an image of a handwritten digit of 8 x 8 pixels, and which it is.

    Each row is `{"messages": [user, assistant]}`, the image a part of the user's turn; the answer is "7", or "seven"
    with `in_words`. There are 1,797 (Alpaydin and Kaynak 1998, UCI, doi 10.24432/C50P49), always in the same order.
    Raises ImportError without scikit-learn, which holds them.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("samples.digits() are those of scikit-learn: pip install scikit-learn") from error
    from PIL import Image

    bundled = cast("Any", load_digits())  # a dict with attributes, which its annotation does not tell
    rows = []
    for strokes, digit in zip(bundled.images, bundled.target.tolist(), strict=True):  # (8, 8), 0 white to 16 black
        image = Image.fromarray((255 - strokes * 255 / 16).astype("uint8"))
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        answer = DIGIT_WORDS[digit] if in_words else str(digit)
        rows.append({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]})
    return rows


def digit_reader(folder: Path | str, *, seed: int = 0) -> Path:
    """Write a vision-language model of random weights that is small enough for `digits`, and return its folder.

    It is SmolVLM's architecture with 100,000 parameters and a tokenizer of its own; `FastModel.from_pretrained(folder)`
    and mlx-vlm open it. The same seed gives the same weights.
    """
    from .digit_model import write_digit_reader  # here, for it brings mlx-vlm, which takes seconds

    return write_digit_reader(Path(folder), [DIGIT_QUESTION, *DIGIT_WORDS, *"0123456789"], seed)


def photographs(folder: Path | str, *, placeholder: str = "<image>") -> list[dict]:
    """Documents for continued pretraining: text with small tiles of two photographs in it, and text alone.

    The tiles are written to `folder` as PNG files of 24 x 24 pixels. A row is `{"text": "<image> A tile of china, at
    the top left: light grey.", "images": ["china-03-11.png"]}`, with references relative to `folder`, and
    `placeholder`, the token by which the model means an image, where each is to be seen. Photograph, quarter and mean
    colour are true of the pixels. No tile is in two documents, so rows held out show tiles nobody trained on. The
    photographs are those of scikit-learn (china.jpg, flower.jpg; CC BY); rows and files are the same each time, and a
    file that is there is left alone. Raises ImportError without scikit-learn.
    """
    return photo_tiles.write_documents(Path(folder), placeholder)


def photograph_reader(folder: Path | str, *, seed: int = 0) -> Path:
    """`digit_reader` with a token for every word of `photographs`; its placeholder is `<image>`."""
    from .digit_model import write_digit_reader

    return write_digit_reader(Path(folder), photo_tiles.WORDS.split(), seed)


def within(length: int, bounds: tuple[int, int]) -> bool:
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
