"""generation_config.json of a model folder: how its makers sample from it, and the tokens an answer ends with.

It is read by mlx-lm, mlx-vlm, transformers and our exports, none of which checks it. In comes the file, out go the
settings that programs can use, and a sentence on those that none can.
"""

import json
import math
from pathlib import Path
from typing import Any

FILE = "generation_config.json"

_IDS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
_SEVERAL = ("eos_token_id",)  # that may be a list
_NUMBERS = ("max_length", "max_new_tokens", "min_p", "repetition_penalty", "temperature", "top_k", "top_p")


def usable_generation(folder: Path) -> tuple[dict[str, Any], str]:
    """(the settings in `folder` that can be used, a sentence on what was left out of them); ({}, "") without the file.

    Left out are token ids that are none, numbers that are none or not finite, and the whole of what is no JSON object.
    """
    path = folder / FILE
    if not path.is_file():
        return {}, ""
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        return {}, f"{FILE} of the base model is no JSON object, so nothing of it is used."
    odd = {name: value for name, value in settings.items() if not _is_usable(name, value)}
    listed = ", ".join(f"{name} {json.dumps(value)[:40]}" for name, value in odd.items())
    said = f"What {FILE} of the base model says is left out where it is no value of its kind: {listed}." if odd else ""
    return {name: value for name, value in settings.items() if name not in odd}, said


def _is_usable(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name in _IDS:
        ids = value if name in _SEVERAL and isinstance(value, list) else [value]
        return all(_is_count(token) for token in ids)
    if name in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    return _is_finite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_finite(value: Any) -> bool:
    """Whether no number in a value, however deep within, is infinite or NaN; JSON has no such numbers."""
    level = [value]
    while level:
        if not all(math.isfinite(one) for one in level if isinstance(one, float)):
            return False
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
    return True


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
