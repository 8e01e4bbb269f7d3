"""What was settled for a machine, a model and a shape of micro-batches, kept in the cache folder: one small file each.

A file is sealed and lies in a private folder; one that is damaged, or of other forms than there are, is settled anew.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...data.encoded import Encoded
from ...fast.forms import Forms
from ...machine import runtime
from ...machine.atomic import new_file
from ...machine.private import make_private_folder
from ...machine.sealed import Damaged, digest_of_code, sealed_json, unsealed
from ...models.loaded import Loaded
from ...models.tensors import flat
from .candidates import as_plain, from_plain
from .self_test import Settled, Tried

FOLDER = "forms"
_CODE = ("fast", "models", "objectives", "train/passes")  # what decides how a pass is computed
MOST = 500  # files; those that were written first go first


def key_of(loaded: Loaded, usual: Forms, rows: Sequence[Encoded], *, recomputed: bool) -> str:
    """What a choice depends on, digested: chip, system, versions, the model's arrays and the shape of `rows`."""
    parameters = flat(loaded.module.parameters())
    trained = flat(loaded.module.trainable_parameters())
    facts = {
        "chip": runtime.device_name(),
        "system": runtime.operating_system(),
        "mlx": version("mlx"),
        "kit": _code(),
        "model": f"{type(loaded.module).__module__}.{type(loaded.module).__qualname__}",
        "arrays": {name: f"{array.dtype}{array.shape} {name in trained}" for name, array in parameters.items()},
        "rows": [len(rows), max(len(row.tokens) for row in rows), any(row.segments is not None for row in rows)],
        "usual": as_plain(usual),
        "recomputed": recomputed,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def kept(key: str, usual: Forms) -> Settled | None:
    """What was settled under `key`; None where nothing was, or nothing that can be used."""
    try:
        plain, is_sealed = unsealed(_file(key))
    except (Damaged, OSError):
        return None
    if not is_sealed:
        return None
    return Settled(
        from_plain(plain["forms"], usual), tuple(Tried(**each) for each in plain["tried"]), plain["timed_tokens"]
    )


def keep(key: str, settled: Settled) -> None:
    """Keep it, where the disk will have it: what is not kept is settled once more."""
    plain: dict[str, Any] = {**asdict(settled), "forms": as_plain(settled.forms)}
    with suppress(OSError):
        make_private_folder(_file(key).parent)
        with new_file(_file(key)) as file:
            file.write_text(sealed_json(plain))
        files = sorted(_file(key).parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MOST]:
            file.unlink(missing_ok=True)


@cache
def _code() -> str:
    kit = Path(__file__).parents[2]
    return digest_of_code(*(kit / wing for wing in _CODE))


def _file(key: str) -> Path:
    return runtime.cache_folder() / FOLDER / f"{key}.json"
