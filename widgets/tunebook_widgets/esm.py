"""One ES module from several: anywidget takes the script of a widget as a single module, ours has a file per subject.

The files in `view/` are modules that import one another by name, and so do scripts that lie beside their widget; a
browser or an editor reads each as it is. What goes out is their text, one behind the other, without the lines that
import and export; nothing is renamed or rewritten.
"""

import re
from pathlib import Path

VIEW = Path(__file__).parent / "view"

_IMPORT = re.compile(r'^import \{[^}]*\} from "(\.\.?/[\w./]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const)", re.MULTILINE)
_NAME = re.compile(r"^(?:function\*?|const|let) (\w+)", re.MULTILINE)


def esm(entry: str | Path) -> str:
    """The text of `entry`, a path from `view/`, and of all it imports, each name before it is used.

    Raises ValueError when two files declare the same name: side by side in one module it would be one.
    """
    texts = _in_order((VIEW / entry).resolve(), {})
    parts = {path.name: _EXPORT.sub("", _IMPORT.sub("", text)) for path, text in texts.items()}
    owners: dict[str, str] = {}
    for file, text in parts.items():
        for name in _NAME.findall(text):
            if name in owners:
                raise ValueError(f"Both {owners[name]} and {file} in {VIEW} declare {name!r}; rename one of them.")
            owners[name] = file
    return "\n".join(f"// {file}\n{text}" for file, text in parts.items())


def _in_order(path: Path, found: dict[Path, str]) -> dict[Path, str]:
    """`found` with the text of a file added, behind those it imports."""
    text = path.read_text(encoding="utf-8")
    for other in _IMPORT.findall(text):
        if (path.parent / other).resolve() not in found:
            _in_order((path.parent / other).resolve(), found)
    found[path] = text
    return found
