"""A folder of saved adapters, as PEFT or an MLX program left it -> its settings and tensors, as they are written.

Nothing in the folder is trusted: settings are plain JSON of sensible size, tensors come from .safetensors files whose
header was checked, and pickles are not opened. What the settings mean is not asked here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from .tensor_files import shapes_in

SETTINGS_FILE, MLX_FILE, PEFT_FILE = "adapter_config.json", "adapters.safetensors", "adapter_model.safetensors"
MAX_SETTINGS_BYTES = 10_000_000
MAX_DEPTH = 20
FLOATS = ("F32", "F16", "BF16")

_PICKLE = "adapter_model.bin"
_NUMBERED = "[0-9]*_adapters.safetensors"  # what mlx-lm writes while it trains


@dataclass(frozen=True)
class Base:
    """The model that saved adapters are for."""

    name: str  # a hub id or a path
    revision: str | None
    note: str  # what a person should know of how the folder was read; "" where there was no choice


def base_of_adapters(folder: Path) -> Base | None:
    """The model the adapters saved in `folder` are for; None when it holds none.

    With a whole model beside them, adapters are still meant, on the model their settings name, as transformers and PEFT
    read such a folder. Raises FileNotFoundError for adapters without settings and settings without adapters, ValueError
    for settings that name no model.
    """
    whole = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    found = _weights(folder)
    if not (folder / SETTINGS_FILE).is_file():
        if found is None or (folder / "config.json").is_file():
            return None
        raise FileNotFoundError(
            f"{folder} holds {found.name}, but no {SETTINGS_FILE}, which says their rank, scale and base model; copy "
            "it from where they were trained."
        )
    if found is None:
        if whole:
            return None
        raise FileNotFoundError(_no_weights(folder, (PEFT_FILE, MLX_FILE)))
    settings = read_settings(folder)
    name = settings.get("base_model_name_or_path") or settings.get("model")  # mlx-lm's own command line calls it model
    revision = settings.get("revision") if "peft_type" in settings else None
    if not name and whole:
        return Base(str(folder), None, " (their settings name no base model, so it is the one beside them)")
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"{folder} does not say what model its adapters are for; write its name as base_model_name_or_path into "
            f"{SETTINGS_FILE}, or load that model and call load_adapters(model.module, folder) of "
            "tunebook.models.adapters."
        )
    if revision is not None and not isinstance(revision, str):
        raise ValueError(f"{folder / SETTINGS_FILE}: revision is {revision!r}, which is no name of a revision.")
    notes = ["the whole model beside them was not read"] if whole else []
    if (numbered := _numbered(folder)) and found in numbered:
        others = f", of {len(numbered)} numbered ones" if len(numbered) > 1 else ""
        notes.append(f"from {found.name}{others}")
    return Base(name, revision, f" ({'; '.join(notes)})" if notes else "")


def read_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises ValueError, in one sentence, for what is not a plain JSON object."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {SETTINGS_FILE}; give the folder the adapters were saved to.")
    if path.stat().st_size > MAX_SETTINGS_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for settings; save the adapters again.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as JSON ({reason}); save the adapters again.") from None
    if _depth(settings) > MAX_DEPTH:
        raise ValueError(f"{path} is nested deeper than settings are ({MAX_DEPTH} levels); save the adapters again.")
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__} where settings by name were expected.")
    return settings


def read_tensors(folder: Path, *, of_peft: bool) -> dict[str, mx.array]:
    """The tensors by the names they have in the file, still on the disk. Raises FileNotFoundError, ValueError."""
    path = _weights(folder, of_peft=of_peft)
    if path is None:
        raise FileNotFoundError(_no_weights(folder, (PEFT_FILE,) if of_peft else (MLX_FILE,)))
    shapes_in(path, types=FLOATS)
    return cast("dict[str, mx.array]", mx.load(str(path)))


def _weights(folder: Path, *, of_peft: bool | None = None) -> Path | None:
    """The file of tensors; of numbered checkpoints alone the newest. `of_peft` None: either kind's."""
    named = {True: [PEFT_FILE], False: [MLX_FILE], None: [PEFT_FILE, MLX_FILE]}[of_peft]
    for name in named:
        if (folder / name).is_file():
            return folder / name
    return None if of_peft else next(iter(_numbered(folder)), None)


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints of mlx-lm's, the newest first."""
    found = [path for path in folder.glob(_NUMBERED) if path.name.split("_")[0].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.split("_")[0][:18]), reverse=True)


def _no_weights(folder: Path, wanted: tuple[str, ...]) -> str:
    if (folder / _PICKLE).is_file():
        return (
            f"{folder} holds its adapters as {_PICKLE}, a pickle, which can run code when it is opened and is "
            f"not. Where torch is: safetensors.torch.save_file(torch.load('{_PICKLE}', weights_only=True), "
            f"'{PEFT_FILE}')."
        )
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
    return f"{folder} holds settings of adapters, but no {' and no '.join(wanted)} (it holds {found})."


def _depth(document: Any) -> int:
    """How many lists and objects are within each other; counted without a call within a call."""
    depth, level = 0, [document]
    while level:
        level = [one for each in level for one in _inside(each)]
        depth += 1
    return depth


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
