"""What a reference said of rows, in the cache folder: for other runs of the same model on the same rows.

The key is a hash of the weights as the run began, the rows in the batches they were asked in, the settings that decide
what is said of them, the forms of the pass, the versions of what computes it, and the code of the wings that do: an
entry can be missing, but never stale. It is a private folder, sealed, of plain float32 numbers in the order of the key.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...fast.forms import Forms
from ...machine import runtime
from ...machine.entries import KEY_DIGITS, prune
from ...machine.private import new_private_folder
from ...machine.sealed import Damaged, SealedFolder, digest_of_code, seal
from ...models.adapters import describe
from ...models.base_digest import digest_of
from ...models.tensors import flat
from ...objectives.answers import AgainstReference
from ...objectives.kept_logps import Said
from ...objectives.reference import Reference
from ..plan import RunPlan

FOLDER = "reference-logps"
OWN, MISMATCHED = "own.float32", "mismatched.float32"

_LIBRARIES = ("mlx", "mlx-lm", "mlx-vlm")
_CODE = ("data", "fast", "models", "objectives")  # the wings that decide what a model says of a batch


def entry_of(
    plan: RunPlan, objective: AgainstReference, reference: Reference, content: Iterable[bytes], forms: Forms | None
) -> Path:
    """Where what `reference` says is, or is to be; `content` is of the rows, and of which are asked together."""
    module = plan.loaded.module
    facts = {
        "code": [_code(), *map(version, _LIBRARIES)],
        "forms": [forms and asdict(forms), runtime.backend()],
        "objective": [type(objective).__name__, objective.reference_settings, objective.needs_kl],
        "family": type(plan.loaded.family).__qualname__,
        "max_seq_length": plan.max_seq_length,
        "base": plan.base(),
        # With its adapters off a model is the same, whatever they are.
        "trained": None if reference.is_base else [digest_of(flat(module.trainable_parameters())), describe(module)],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for piece in content:
        digest.update(piece)
    return runtime.cache_folder() / FOLDER / digest.hexdigest()[:KEY_DIGITS]


def kept(entry: Path, own: tuple[list[bytes], int], mismatched: list[bytes]) -> Said | None:
    """What the entry holds of rows with these keys, `own` with the number of their sequences; None: there is none.

    Raises Damaged for one that is not what was written.
    """
    if not os.path.lexists(entry):
        return None
    sealed = SealedFolder(entry)
    keys, sequences = own
    said = Said(_read(sealed, OWN, keys, sequences), _read(sealed, MISMATCHED, mismatched, 1))
    with suppress(OSError):
        prune(entry)
    return said


def keep(entry: Path, said: Said) -> str | None:
    """Write what was said; why it is not kept, where it is not."""
    tables = {OWN: said.own, MISMATCHED: said.mismatched}
    numbers = {name: np.array([*table.values()], "<f4") for name, table in tables.items()}
    if not all(np.isfinite(values).all() for values in numbers.values()):
        return "not all of it is a finite number"
    try:
        with new_private_folder(entry) as partial:
            for name, values in numbers.items():
                (partial / name).write_bytes(values.tobytes())
            seal(partial)
        prune(entry)
    except OSError as error:
        return str(error)
    return None


def _read(sealed: SealedFolder, name: str, keys: list[bytes], sequences: int) -> dict[bytes, np.ndarray]:
    values = np.frombuffer(sealed.read(name), "<f4")
    if values.size != len(keys) * sequences:
        raise Damaged(f"{name} holds {values.size} numbers in place of {len(keys) * sequences}")
    return dict(zip(keys, values.reshape(len(keys), sequences), strict=True))


@cache
def _code() -> str:
    kit = Path(__file__).parents[2]
    return digest_of_code(*(kit / wing for wing in _CODE))
