"""Execute a tutorial anew and keep what it shows: `python -m tests.notebooks.executed NAME FOLDER`.

It runs as its source in `notebooks/src/` has it, and leaves what it makes in FOLDER. Its outputs, tidied, become those
of the committed notebook, with a note of which cells they are of.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SECONDS = 3600  # of a cell
BAR = re.compile(r"(\S+:?\s+)*\s*\d+%\|")  # a progress bar that was still drawn when its cell ended


def note_of(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What tells the cells of code and the version of the kit from others; words between them change nothing."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode() + b"\0")
    return {"cells": digest.hexdigest()[:16], "version": version("tunebook")}


def tidied(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs with texts that follow one another put together, as a terminal would show them, and without bars."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    for output in found:
        if output.output_type == "stream":
            lines = [_overwritten(line).rstrip() for line in output.text.split("\n")]
            output.text = "\n".join(line for line in lines if not BAR.match(line)).strip("\n")
            output.text += "\n" if output.text else ""
    return [output for output in found if output.output_type != "stream" or output.text]


def executed(name: str, folder: Path) -> nbformat.NotebookNode:
    """The tutorial `name` as its source has it, executed in `folder`."""
    notebook = jupytext.read(NOTEBOOKS / "src" / f"{name}.py")
    formats, kernel = notebook.metadata["jupytext"]["formats"], notebook.metadata["kernelspec"]
    notebook.metadata = nbformat.from_dict({"jupytext": {"formats": formats}, "kernelspec": kernel})
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(NOTEBOOKS / "images", folder / "images", dirs_exist_ok=True)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = tidied(cell.outputs)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["tunebook"] = note_of(notebook)
    return notebook


def _overwritten(line: str) -> str:
    """What a line with carriage returns shows in the end."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def main() -> None:
    """Execute and keep."""
    name, folder = sys.argv[1:]
    nbformat.write(executed(name, Path(folder)), NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    main()
