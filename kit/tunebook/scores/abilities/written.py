"""Rows that people wrote for this exam: facts, everyday sense, and short texts in English and six other languages.

The right choice stands first in the files, and the rows are drawn from them without one twice.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from .draws import shuffled, with_choices


def facts(chance: Random) -> list[dict]:
    """What most people know; each with three wrong answers of the kind of the right one."""
    return _choices(chance, "facts.jsonl", "{}")


def sense(chance: Random) -> list[dict]:
    """Sentences with the end that makes sense and two that do not."""
    return _choices(chance, "sense.jsonl", "Finish this sentence: {}")


def english(chance: Random) -> list[dict]:
    """The beginning of a text, and how it goes on."""
    return _texts(chance, "english.jsonl")


def languages(chance: Random) -> list[dict]:
    """The same in German, French, Spanish, Italian, Dutch and Portuguese."""
    return _texts(chance, "languages.jsonl")


def _choices(chance: Random, name: str, asked: str) -> list[dict]:
    return [
        with_choices(chance, asked.format(row["question"]), row["choices"][0], row["choices"][1:])
        for row in shuffled(chance, _read(name))
    ]


def _texts(chance: Random, name: str) -> list[dict]:
    return [
        {"question": f"Go on with this text: {row['begins']}", "answer": row["goes_on"]}
        for row in shuffled(chance, _read(name))
    ]


def _read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(__file__).with_name(name).read_text("utf-8").splitlines()]
