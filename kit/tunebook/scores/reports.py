"""Marks as files that other programs read: JSON with every row, or the XML of JUnit that CI servers show."""

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..machine.atomic import new_file
from .marks import Marks


def write_report(path: Path | str, marks: Sequence[Marks], failures: Sequence[str]) -> None:
    """Write a report of `marks`, and of what a gate says against them, to `path`: JUnit's XML where it ends in .xml.

    Raises ValueError as `check_path`.
    """
    path = check_path(path)
    text = (junit if path.suffix == ".xml" else as_json)(marks, failures)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        # Half a character, of which UTF-8 has none, is written as JSON escapes it.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_path(path: Path | str) -> Path:
    """`path`, of a report. Raises ValueError for an ending that is neither .xml nor .json."""
    path = Path(path)
    if path.suffix not in (".xml", ".json"):
        raise ValueError(f"A report is a .json or a .xml file, and {path.name!r} is neither.")
    return path


def as_json(marks: Sequence[Marks], failures: Sequence[str]) -> str:
    """Every score and row, under "marks"; "failures" are the sentences of the gate, none where it holds."""
    return json.dumps(
        {"failures": list(failures), "marks": [one.as_plain() for one in marks]}, ensure_ascii=False, indent=1
    )


def junit(marks: Sequence[Marks], failures: Sequence[str]) -> str:
    """A test case for each model and metric, with its score, and one for the gate, which fails with its sentences."""
    suite = ElementTree.Element("testsuite", name="tunebook score", failures=str(int(bool(failures))))
    for one in marks:
        for metric, score in one.scores.items():
            case = ElementTree.SubElement(suite, "testcase", classname=_plain(one.name), name=_plain(metric))
            ElementTree.SubElement(case, "system-out").text = f"{score:.6g}"
    gate = ElementTree.SubElement(suite, "testcase", classname="tunebook score", name="gate")
    if failures:
        said = _plain("\n".join(failures))
        ElementTree.SubElement(gate, "failure", message=_plain(failures[0])).text = said
    ElementTree.SubElement(gate, "system-out").text = _plain("\n".join(map(repr, marks)))
    suite.set("tests", str(len(suite.findall("testcase"))))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")


def _plain(text: str) -> str:
    """`text` without characters that XML has no way to write."""
    return "".join(letter if letter in "\t\n" or letter.isprintable() else "\ufffd" for letter in text)
