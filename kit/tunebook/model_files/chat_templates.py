"""The chat templates of a model on the disk: one, or several by name, as transformers 5 lays them out in a folder."""

import re
from pathlib import Path

Templates = str | dict[str, str]  # the source of one, or of several by name

DEFAULT = "default"
FILE, FOLDER = "chat_template.jinja", "additional_chat_templates"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def save_templates(templates: Templates | None, folder: Path) -> None:
    """Write `templates` into `folder`. Raises ValueError for a name that is no name of a file."""
    named = {DEFAULT: templates} if isinstance(templates, str) else templates or {}
    if wrong := [name for name in named if not _NAME.fullmatch(name)]:
        raise ValueError(
            f"The tokenizer has a chat template called {wrong[0]!r}, which can be no name of a file; call it by "
            "letters, digits, '_', '-' and '.' in tokenizer.chat_template."
        )
    for name, source in named.items():
        path = folder / FILE if name == DEFAULT else folder / FOLDER / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")


def read_templates(folder: Path) -> Templates | None:
    """The templates that `save_templates` or transformers wrote; None where there are none."""
    named = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / FOLDER).glob("*.jinja"))}
    if (folder / FILE).is_file():
        named[DEFAULT] = (folder / FILE).read_text(encoding="utf-8")
    return named[DEFAULT] if list(named) == [DEFAULT] else named or None
