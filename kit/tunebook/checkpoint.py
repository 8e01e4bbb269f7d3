"""A whole run on disk, and back: trainable weights, optimizer state, and everything the loop counts.

A checkpoint is a folder `step-00120` that appears whole or not at all, carries a digest of each of its files, and says
what it is a checkpoint of. A torn or foreign one is told apart before anything is changed. The random state follows
from the step (`step.Stepper.begin`) and needs no saving; the place in a stream of rows is part of the progress.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from .atomic import new_folder
from .runs import run_folders
from .tensors import flat, save_tensors

FOLDER = "checkpoints"
WEIGHTS, OPTIMIZER, BEST, STATE = "weights.safetensors", "optimizer.safetensors", "best.safetensors", "state.json"


class TornCheckpoint(ValueError):
    """A checkpoint whose files are not those that were written."""


class ForeignCheckpoint(ValueError):
    """A sound checkpoint of another model, other data or another configuration."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    weights: dict[str, mx.array]  # the trainable parameters, by dotted name
    optimizer_state: Any  # the tree of `optimizer.state`
    best_weights: dict[str, mx.array] | None  # the parameters of the lowest held-out loss, where they are wanted
    identity: dict[str, Any]  # what it is a checkpoint of, as `differences` compares it
    progress: dict[str, Any]  # counters of the loop, as plain values


def save_checkpoint(run_folder: Path, step: int, checkpoint: Checkpoint, *, keep: int | None) -> Path:
    """Write `run_folder/checkpoints/step-NNNNN` and then remove all but the newest `keep` (None: remove none)."""
    folder = run_folder / FOLDER / f"step-{step:05d}"
    with new_folder(folder) as partial:
        save_tensors(partial / WEIGHTS, checkpoint.weights)
        save_tensors(partial / OPTIMIZER, flat(checkpoint.optimizer_state))
        if checkpoint.best_weights is not None:
            save_tensors(partial / BEST, checkpoint.best_weights)
        document = {
            "identity": checkpoint.identity,
            "progress": checkpoint.progress,
            "sha256": {file.name: _digest(file) for file in sorted(partial.glob("*.safetensors"))},
        }
        (partial / STATE).write_text(json.dumps(document, indent=2) + "\n")
    if keep is not None:
        for old in checkpoint_folders(run_folder)[:-keep]:
            shutil.rmtree(old)
    return folder


def checkpoint_folders(run_folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in (run_folder / FOLDER).glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint back. Raises TornCheckpoint when a file is missing or is not the one that was written."""
    try:
        document = json.loads((folder / STATE).read_text())
        torn = [name for name, digest in document["sha256"].items() if _digest(folder / name) != digest]
    except (FileNotFoundError, json.JSONDecodeError, KeyError) as error:
        raise TornCheckpoint(f"{folder} is not a whole checkpoint ({type(error).__name__}: {error}).") from error
    if torn:
        raise TornCheckpoint(f"{folder} is damaged: {', '.join(torn)} changed since it was written.")
    return Checkpoint(
        weights=_load(folder / WEIGHTS),
        optimizer_state=tree_unflatten(list(_load(folder / OPTIMIZER).items())),
        best_weights=_load(folder / BEST) if BEST in document["sha256"] else None,
        identity=document["identity"],
        progress=document["progress"],
    )


def find_checkpoint(place: Path) -> tuple[Path, Checkpoint, list[str]]:
    """(run folder, checkpoint, sentences about torn ones passed over).

    `place` is one checkpoint, whose run is then resumed from just there; a run folder, for its newest sound one; or a
    folder of runs, for the newest run that has any. Raises TornCheckpoint when a checkpoint asked for by name cannot be
    read, FileNotFoundError when there is none.
    """
    if (place / STATE).exists():
        return place.parents[1], read_checkpoint(place), []
    skipped: list[str] = []
    for run_folder in [place, *reversed(run_folders(place))]:
        for folder in reversed(checkpoint_folders(run_folder)):
            try:
                return run_folder, read_checkpoint(folder), skipped
            except TornCheckpoint as torn:
                skipped.append(f"{torn} The one before it is used.")
    said = " ".join(skipped) or "It holds no run that has saved one."
    raise FileNotFoundError(f"There is no checkpoint to resume from in {place}. {said}")


def check_is_of(checkpoint: Checkpoint, identity: Mapping[str, Any], run_folder: Path) -> None:
    """Raise ForeignCheckpoint, listing every difference, unless `checkpoint` is of the run `identity` describes."""
    keys = sorted(checkpoint.identity.keys() | identity.keys())
    different = [
        f"  {key}: {checkpoint.identity.get(key)!r} there, {identity.get(key)!r} here"
        for key in keys
        if checkpoint.identity.get(key) != identity.get(key)
    ]
    if different:
        raise ForeignCheckpoint(
            f"The checkpoint in {run_folder} is of another run:\n"
            + "\n".join(different)
            + "\nSet these as they were to resume it, or start afresh without resume_from_checkpoint."
        )


def _load(path: Path) -> dict[str, mx.array]:
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    mx.eval(arrays)  # now, while the file is known to be whole; MLX would read it when first used
    return arrays


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
