"""Where encoded rows are kept between sessions, under a key of everything they follow from.

The key is a hash of the rows themselves, the state of their images, the tokenizer, the kind of model and what it
encodes by, the chat template, the settings, the versions of what renders and tokenizes, and the code of the wings that
do: an entry can be missing, but never stale.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.sources import Row, content_of
from ..data.tokenizer_state import uncut
from ..machine import runtime
from ..machine.atomic import remove_folder
from ..machine.sealed import digest_of_code
from ..models.loaded import Loaded

FOLDER = "tokenized"
KEPT = 20  # entries; the one used longest ago goes first

_KEY = re.compile(r"[0-9a-f]{24}")  # the name of an entry; what is called otherwise is not ours to remove
_LIBRARIES = ("tokenizers", "transformers", "jinja2", "mlx-lm")
_CODE = ("data", "models/families", "tokens")  # the wings that decide what a row becomes


def key_of(rows: Iterable[Row | list[str]], loaded: Loaded, settings: list[Any]) -> str:
    """The key of `rows`, each with the states of its images behind it, encoded for a model with plain `settings`."""
    tokenizer = loaded.tokenizer
    template = json.dumps(tokenizer.chat_template)
    digest = hashlib.sha256()
    _add(digest, [settings, _code(), [version(name) for name in _LIBRARIES], template, sorted(tokenizer.eos_token_ids)])
    _add(digest, [uncut(tokenizer).to_str(), tokenizer.special_tokens_map])
    _add(digest, [type(loaded.family).__qualname__, loaded.family.encoding_settings()])
    if "strftime_now" in template:  # such a template writes today's date into every row
        _add(digest, time.strftime("%Y-%m-%d"))
    for row in rows:
        digest.update(content_of(row))
    return digest.hexdigest()[:24]


def cached_folder(key: str) -> Path:
    """Where the rows of `key` are, or are to be written."""
    return runtime.cache_folder() / FOLDER / key


def prune(used: Path) -> None:
    """Note that `used` was used now, and remove all but the newest entries."""
    used.touch()
    by_age = []
    for path in used.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may be removing it too
            if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                by_age.append((path.stat().st_mtime, path))
    for _, old in sorted(by_age)[:-KEPT]:
        with contextlib.suppress(OSError):
            remove_folder(old)


def _add(digest: "hashlib._Hash", value: Any) -> None:
    # What JSON does not know goes by its `repr`. Where that holds an address in memory, the entry is not found again,
    # which costs time; no wrong entry is ever found.
    digest.update(json.dumps(value, sort_keys=True, default=repr).encode() + b"\n")


@cache
def _code() -> str:
    kit = Path(__file__).parents[1]
    return digest_of_code(*(kit / wing for wing in _CODE))
