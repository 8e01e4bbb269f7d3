"""The data of a config: a folder of train.jsonl and valid.jsonl, or a set on the hub, read as mlx-lm reads it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ... import read_rows
from ..told import tell
from .config_file import COLUMNS, Settings
from .settings import TrainOn

ANSWERS_END = "mask_prompt: an answer is trained up to the token that ends it, and not what the template writes behind."


class Data(NamedTuple):
    """What a `tunebook.Trainer` is told of the rows."""

    train: Any
    valid: Any | None
    format: str
    train_on: TrainOn
    formatting_func: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None


def data_of(settings: Settings) -> Data:
    """The rows to train and to measure with.

    Of their kinds the first that fits the first row is theirs, as in mlx-lm: prompt and completion, messages, text.
    Raises ValueError for rows of none, for mask_prompt with text, and what `tunebook.read_rows` raises.
    """
    given = str(settings["data"])
    if os.path.isdir(Path(given).expanduser()):
        folder = Path(given).expanduser()
        train = read_rows(folder / "train.jsonl")
        valid = read_rows(folder / "valid.jsonl") if (folder / "valid.jsonl").is_file() else None
    else:
        train, valid = read_rows(f"{given}:train"), read_rows(f"{given}:valid")
    names = {usual: settings[key] for key, usual in COLUMNS.items()}
    columns = {*train[0]}
    kinds = {"prompt_completion": ("prompt", "completion"), "messages": ("messages",), "text": ("text",)}
    kind = next((kind for kind, needs in kinds.items() if {names[need] for need in needs} <= columns), None)
    if kind is None:
        raise ValueError(
            f"Rows of {given} have {', '.join(sorted(columns))}; mlx-lm reads prompt and completion, messages, or text."
        )
    renamed = {usual: names[usual] for usual in kinds[kind] if names[usual] != usual}
    if settings["mask_prompt"] and kind == "text":
        raise ValueError("mask_prompt is on, and these rows are text, which has no prompt. Take it out.")
    if settings["mask_prompt"]:
        tell(ANSWERS_END)
    masked: TrainOn = "last_assistant" if kind == "messages" else "assistant"
    return Data(
        train,
        valid,
        kind,
        masked if settings["mask_prompt"] else "everything",
        _renaming(renamed) if renamed else None,
    )


def _renaming(names: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda row: {**row, **{usual: row[own] for usual, own in names.items()}}
