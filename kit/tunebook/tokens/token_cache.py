"""Where encoded rows are kept between sessions, under a key of everything they follow from.

The key is a hash of the rows themselves, the state of their images, the tokenizer, the kind of model and what it
encodes by, the chat template, the settings, the versions of what renders and tokenizes, and the code of the wings that
do: an entry can be missing, but never stale.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.sources import Row, content_of
from ..data.tokenizer_state import uncut
from ..machine import runtime
from ..machine.entries import KEY_DIGITS
from ..machine.sealed import digest_of_code
from ..models.loaded import Loaded

FOLDER = "tokenized"

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
    return digest.hexdigest()[:KEY_DIGITS]


def cached_folder(key: str) -> Path:
    """Where the rows of `key` are, or are to be written."""
    return runtime.cache_folder() / FOLDER / key


def _add(digest: "hashlib._Hash", value: Any) -> None:
    # What JSON does not know goes by its `repr`. Where that holds an address in memory, the entry is not found again,
    # which costs time; no wrong entry is ever found.
    digest.update(json.dumps(value, sort_keys=True, default=repr).encode() + b"\n")


@cache
def _code() -> str:
    kit = Path(__file__).parents[1]
    return digest_of_code(*(kit / wing for wing in _CODE))
