"""The tokenizer in use, written beside weights or adapters: the base's own files, brought up to date where it changed.

Truncation and padding are in force in none of them. What a person left alone stays as the base has it, byte for byte.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ..data.tokenizer_state import bring_up_to_date, digest_of, uncut
from ..machine.working import working_folder
from ..model_files.chat_templates import save_templates
from ..models.loaded import Loaded

TOKENIZER, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"


def save_tokenizer(loaded: Loaded, folder: Path) -> None:
    """Bring the tokenizer's files in `folder`, copies of the base's, to what is in use, and its chat templates."""
    bring_up_to_date(loaded.tokenizer)
    if is_changed(loaded):
        _write_changed(loaded, folder)
    elif (folder / TOKENIZER).exists():
        document = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
        if document.get("truncation") is not None or document.get("padding") is not None:
            _write_json(folder / TOKENIZER, {**document, "truncation": None, "padding": None})
    save_templates(loaded.tokenizer.chat_template, folder)


def save_beside_adapters(loaded: Loaded, folder: Path) -> None:
    """Write what the base does not have: the chat templates in use, and the tokenizer where it is another."""
    bring_up_to_date(loaded.tokenizer)
    if is_changed(loaded):
        _write_changed(loaded, folder)
    save_templates(loaded.tokenizer.chat_template, folder)


def is_changed(loaded: Loaded) -> bool:
    """Whether the tokenizer in use is not that of the model folder any more."""
    return digest_of(loaded.tokenizer) != loaded.tokenizer_digest


def _write_changed(loaded: Loaded, folder: Path) -> None:
    """The tokenizer as it is, with the settings of the folder it was opened from where nobody changed them."""
    special = {
        name: str(token) for name, token in loaded.tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    source = loaded.tokenizer_folder / SETTINGS
    with working_folder("tokenizer") as scratch:
        loaded.tokenizer.save_pretrained(scratch)
        settings = json.loads((source if source.exists() else (scratch / SETTINGS)).read_text(encoding="utf-8"))
        shutil.copyfile(scratch / TOKENIZER, folder / TOKENIZER)
    settings.pop("added_tokens_decoder", None)  # tokenizer.json has them all
    settings.pop("chat_template", None)  # in files of their own
    _write_json(folder / SETTINGS, settings | special)
    (folder / SPECIAL).unlink(missing_ok=True)  # transformers below 5 would take it for the newer
    ids = {token.content: number for number, token in uncut(loaded.tokenizer).get_added_tokens_decoder().items()}
    if (folder / "added_tokens.json").exists():
        _write_json(folder / "added_tokens.json", ids)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
