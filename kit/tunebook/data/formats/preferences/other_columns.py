"""Preferences under other names -> the call that makes them rows of ours; said, never followed.

Names are compared, and values looked at where a name alone does not say which answer is the better one: a verdict
beside two answers, scores or ranks beside several, a rating beside one. What a line made here cannot decide, such as a
tie, it fails on, and the row is then told of by its number.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...sources import Row
from ..columns import listed

Line = str | None  # a row of ours as an expression of `row`; None: nothing is likely

ASKED = (
    "prompt",
    "question",
    "query",
    "instruction",
    "input",
    "user",
    "human",
    "problem",
    "request",
    "context",
    "post",
)
ANSWERS = {"response", "answer", "completion", "output", "text", "reply", "message", "messages", "conversation"}
ANSWERS |= {"summary", "solution", "code", "sample", "side", "model"}
CHOSEN = {"chosen", "accepted", "preferred", "better", "good", "best", "winner", "winning", "positive", "pos", "j"}
REJECTED = {"rejected", "dispreferred", "worse", "bad", "worst", "loser", "losing", "negative", "neg", "k", "declined"}
REJECTED |= {"refused"}
VERDICTS = {"winner", "better", "preference", "preferred", "choice", "chosen", "best", "label", "safer", "vote"}
SEVERAL = ("responses", "completions", "answers", "candidates", "outputs", "samples", "generations")
SCORES = ("scores", "ratings", "rewards", "ranks", "rankings", "rank", "score", "rating", "overall_score", "reward")
TEXTS = ("response", "text", "content", "completion", "output", "answer")
JUDGED = ("completion", "response", "answer", "output", "reply", "generation", "text")
LABELS = ("label", "labels", "thumbs_up", "feedback", "is_good", "good", "correct", "score", "rating", "reward", "vote")
GOOD = {"good", "positive", "yes", "true", "up", "thumbs_up", "like", "liked", "accepted", "chosen", "desirable", "+"}
BAD = {"bad", "negative", "no", "false", "down", "thumbs_down", "dislike", "rejected", "undesirable", "-"}


def ours_of(rows: Sequence[Row], kind: Literal["pairs", "labelled"]) -> Line:
    """How a row of these is made one of `kind`, by the first of `rows` that tells."""
    for row in rows:
        plain = {name: listed(value) for name, value in row.items() if value is not None}
        made = _pair(plain) if kind == "pairs" else _judged(plain)
        if made is not None:
            return made
    return None


def truth_of(label: Any) -> Line:
    """How a label that is no True or False becomes one, as an expression of `row['label']`; None where that is open."""
    if isinstance(label, str):
        word = label.strip().lower()
        return f"row['label'] == {label!r}" if word in GOOD else f"row['label'] != {label!r}" if word in BAD else None
    return "row['label'] > 0" if label == -1 else None


def _pair(row: Mapping[str, Any]) -> Line:
    return _two_sides(row) or _two_and_a_verdict(row) or _several(row)


def _two_sides(row: Mapping[str, Any]) -> Line:
    sides = []
    for words in (CHOSEN, REJECTED):
        of_side = [name for name in row if _is_side(name, words) and isinstance(row[name], str | list)]
        if not of_side:
            return None
        sides.append(of_side[0])
    chosen, rejected = sides
    return f"{{{_prompt(row)}'chosen': row[{chosen!r}], 'rejected': row[{rejected!r}]}}"


def _is_side(name: str, words: set[str]) -> bool:
    parts = _parts(name)
    return len(parts & words) == 1 and parts - words <= ANSWERS


def _two_and_a_verdict(row: Mapping[str, Any]) -> Line:
    for first, second, marks in _numbered(row):
        for name, value in row.items():
            if name in (first, second) or not _parts(name) & VERDICTS or isinstance(value, float | list | dict):
                continue
            said = _said(value, (first, second), marks)
            if said is not None:
                both = f"row[{first!r}], row[{second!r}]"
                turned = f"row[{second!r}], row[{first!r}]"
                sides = f"{{{said[0]!r}: ({both}), {said[1]!r}: ({turned})}}[row[{name!r}]]"
                return f"{{{_prompt(row)}**dict(zip(('chosen', 'rejected'), {sides}))}}"
    return None


def _numbered(row: Mapping[str, Any]) -> list[tuple[str, str, tuple[str, str]]]:
    """(one column, another, what tells them apart) of columns whose names differ in that alone."""
    found = []
    for marks in (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B")):
        for first in (name for name in row if name.endswith(marks[0])):
            stem = first[: -len(marks[0])]
            second = stem + marks[1]
            are_answers = all(isinstance(row.get(name), str | list) for name in (first, second))
            if are_answers and _parts(stem) <= ANSWERS:
                found.append((first, second, marks))
    return found


def _said(value: Any, names: tuple[str, str], marks: tuple[str, str]) -> tuple[Any, Any] | None:
    """What a verdict says where the first is better, and where the second is; `value` is one of both."""
    if isinstance(value, int) and marks[0].isdigit():
        both = int(marks[0]), int(marks[1])
        return both if value in both else None
    if not isinstance(value, str):
        return None
    if value in names:
        return names
    for here in (marks, (marks[0].upper(), marks[1].upper())):
        for mark in here:
            if value.endswith(mark) and _parts(value[: -len(mark)]) <= ANSWERS:
                return value[: -len(mark)] + here[0], value[: -len(mark)] + here[1]
    return None


def _several(row: Mapping[str, Any]) -> Line:
    name = next((each for each in SEVERAL if isinstance(row.get(each), list) and len(row[each]) > 1), None)
    if name is None:
        return None
    first, answers = row[name][0], f"row[{name!r}]"
    if isinstance(first, Mapping):
        text = next((key for key in TEXTS if isinstance(first.get(key), str)), None)
        score = next((key for key in SCORES if isinstance(first.get(key), int | float)), None)
        if text is None or score is None:
            return None
        best, worst = _ends(score)
        each = f"({answers}, key=lambda one: one[{score!r}])[{text!r}]"
        return f"{{{_prompt(row)}'chosen': {best}{each}, 'rejected': {worst}{each}}}"
    score = next((key for key in SCORES if isinstance(row.get(key), list) and len(row[key]) == len(row[name])), None)
    if score is None or not isinstance(first, str):
        return None
    best, worst = _ends(score)
    each = f"(zip(row[{score!r}], {answers}))[1]"
    return f"{{{_prompt(row)}'chosen': {best}{each}, 'rejected': {worst}{each}}}"


def _ends(score: str) -> tuple[str, str]:
    """What finds the best and the worst: the first rank is the best, and the highest of other numbers."""
    return ("min", "max") if "rank" in score else ("max", "min")


def _judged(row: Mapping[str, Any]) -> Line:
    answer = next((name for name in JUDGED if isinstance(row.get(name), str | list)), None)
    label = next((name for name in LABELS if isinstance(row.get(name), bool | int | float | str)), None)
    prompt = _prompt(row, (answer, label))
    if answer is None or label is None or not prompt:
        return None
    value, truth = row[label], f"row[{label!r}]"
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in GOOD | BAD:
            return None
        truth += f" {'==' if word in GOOD else '!='} {value!r}"
    elif not isinstance(value, bool) and not (value in (0, 1) and label not in ("score", "rating", "reward")):
        truth += f" > {0.5 if 0 <= value <= 1 else 0 if value < 0 else 3}"
    return f"{{{prompt}'completion': row[{answer!r}], 'label': {truth}}}"


def _prompt(row: Mapping[str, Any], taken: Sequence[str | None] = ()) -> str:
    """ "'prompt': row['question'], ", or nothing where no column asks."""
    name = next((name for name in ASKED if name in row and name not in taken), None)
    return "" if name is None else f"'prompt': row[{name!r}], "


def _parts(name: str) -> set[str]:
    return {part for part in re.split(r"[^a-z0-9]+", name.lower()) if part and part != "id"}
