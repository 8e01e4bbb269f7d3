"""One ES module from several: anywidget takes the script of a widget as a single module, ours has a file per subject.

The files in `view/` are modules that import one another by name, so a browser or an editor reads each as it is. What
goes out is their text, one behind the other, without the lines that import and export; nothing is renamed or rewritten.
"""

import re
from pathlib import Path

VIEW = Path(__file__).parent / "view"

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const)", re.MULTILINE)
_NAME = re.compile(r"^(?:function\*?|const|let) (\w+)", re.MULTILINE)


def esm(entry: str) -> str:
    """The text of `view/entry` and of all it imports, in an order in which each name is known before it is used.

    Raises ValueError when two files declare the same name: side by side in one module it would be one.
    """
    parts = {name: _EXPORT.sub("", _IMPORT.sub("", text)) for name, text in _in_order(entry, {}).items()}
    owners: dict[str, str] = {}
    for file, text in parts.items():
        for name in _NAME.findall(text):
            if name in owners:
                raise ValueError(f"Both {owners[name]} and {file} in {VIEW} declare {name!r}; rename one of them.")
            owners[name] = file
    return "\n".join(f"// {file}\n{text}" for file, text in parts.items())


def _in_order(name: str, found: dict[str, str]) -> dict[str, str]:
    """`found` with the text of a file in `view/` added, behind those it imports."""
    text = (VIEW / name).read_text(encoding="utf-8")
    for other in _IMPORT.findall(text):
        if other not in found:
            _in_order(other, found)
    found[name] = text
    return found
