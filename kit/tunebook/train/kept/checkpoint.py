"""A whole run on disk, and back: trainable weights, optimizer state, and everything the loop counts.

A checkpoint is a folder `step-00120` that appears whole or not at all, carries a digest of each of its files, and says
what it is a checkpoint of. A torn or foreign one is told apart before anything is changed. The random state follows
from the step (`train/step.py`) and needs no saving; the place in a stream of rows is part of the progress.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from ...machine.atomic import remove_folder
from ...machine.private import make_private_folder, new_private_folder
from ...machine.scratch import recover_in
from ...machine.sealed import Damaged, digest_of_file, sealed_json, unsealed
from ...models.tensors import flat, save_tensors
from ...runs.folder import EVENTS_FILE, run_folders

FOLDER = "checkpoints"
MOST_NAMED = 3  # of the runs that are passed over
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
BEST, REFERENCE, SAID = "best.safetensors", "reference.safetensors", "reference_logps.safetensors"
NOT_IN_EVERY = {BEST, REFERENCE, SAID}


class TornCheckpoint(ValueError):
    """A checkpoint whose files are not those that were written."""


class ForeignCheckpoint(ValueError):
    """A sound checkpoint of another model, other data or another configuration."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    weights: dict[str, mx.array]  # the trainable parameters, by dotted name
    optimizer_state: Any  # the tree of `optimizer.state`
    best_weights: dict[str, mx.array] | None  # the parameters of the best step, where they are wanted
    identity: dict[str, Any]  # what it is a checkpoint of, as `identity.differences` compares it
    progress: dict[str, Any]  # counters of the loop, as plain values
    reference: dict[str, mx.array] | None = None  # the parameters an objective's reference has and the model had not
    said: dict[str, mx.array] | None = None  # what it said of all rows, where it was asked beforehand


def save_checkpoint(run_folder: Path, step: int, checkpoint: Checkpoint, *, keep: int | None) -> Path:
    """Write `run_folder/checkpoints/step-NNNNN` and then remove all but the newest `keep` (None: remove none).

    What lies beyond `step`, left by a course the run did not take, does not count and stays.
    """
    folder = checkpoint_at(run_folder, step)
    make_private_folder(run_folder)
    with new_private_folder(folder) as partial:
        save_tensors(partial / WEIGHTS, checkpoint.weights)
        save_tensors(partial / OPTIMIZER, flat(checkpoint.optimizer_state))
        if checkpoint.best_weights is not None:
            save_tensors(partial / BEST, checkpoint.best_weights)
        if checkpoint.reference is not None:
            save_tensors(partial / REFERENCE, checkpoint.reference)
        if checkpoint.said is not None:
            save_tensors(partial / SAID, checkpoint.said)
        document = {
            "identity": checkpoint.identity,
            "progress": checkpoint.progress,
            "sha256": {file.name: digest_of_file(file) for file in sorted(partial.glob("*.safetensors"))},
        }
        (partial / STATE).write_text(sealed_json(document))
    if keep is not None:
        upto = [old for old in checkpoint_folders(run_folder) if step_of(old) <= step]
        for old in upto[:-keep]:
            if _holds_nothing_else(old):
                remove_folder(old)
    return folder


def checkpoint_at(run_folder: Path, step: int) -> Path:
    """Where the checkpoint that is written after `step` lies."""
    return run_folder / FOLDER / f"step-{step:05d}"


def checkpoint_folders(run_folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in (run_folder / FOLDER).glob("step-*") if path.name[5:].isdecimal() and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint_folder: Path) -> int:
    """The step after which a checkpoint was written, by its name."""
    return int(checkpoint_folder.name[5:])


def put_right_beside(run_folder: Path) -> None:
    """Remove what writers that were killed left unfinished in a run folder, in those beside it and where they save.

    A run that was killed may never be gone on with; whichever starts next in its place does it.
    """
    for folder in [run_folder.parent, *run_folders(run_folder.parent)]:
        for home in (folder, folder / FOLDER):
            with suppress(OSError):  # it was taken away in the meantime, or is another user's
                recover_in(home)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint back. Raises TornCheckpoint when a file is missing or is not the one that was written."""
    try:
        document = _state(folder / STATE)
        torn = [name for name, digest in document["sha256"].items() if digest_of_file(folder / name) != digest]
    except Damaged as error:
        raise TornCheckpoint(f"{folder} is not a whole checkpoint: {error}.") from error
    if torn:
        raise TornCheckpoint(f"{folder} is damaged: {', '.join(torn)} changed since it was written.")
    return Checkpoint(
        weights=_load(folder / WEIGHTS),
        optimizer_state=tree_unflatten(list(_load(folder / OPTIMIZER).items())),
        best_weights=_load(folder / BEST) if BEST in document["sha256"] else None,
        identity=document["identity"],
        progress=document["progress"],
        reference=_load(folder / REFERENCE) if REFERENCE in document["sha256"] else None,
        said=_load(folder / SAID) if SAID in document["sha256"] else None,
    )


def find_checkpoint(
    place: Path,
    hold: Callable[[Path], None] | None = None,
    differs: Callable[[Mapping[str, Any]], Sequence[str]] | None = None,
) -> tuple[Path, Checkpoint, list[str]]:
    """(run folder, checkpoint, sentences about what was passed over).

    `place` is one checkpoint, whose run is then resumed from just there; a run folder, for its newest sound one; or a
    folder of runs, for the newest run that has any and is not of another identity, which `differs` tells by a line for
    each value. `hold` is called with a run folder before its checkpoints are read, so that nobody else writes there in
    the meantime. Raises TornCheckpoint when a checkpoint asked for by name cannot be read, ForeignCheckpoint when all
    runs are others, FileNotFoundError when there is none.
    """
    if (place / STATE).exists() or place.absolute().parent.name == FOLDER:
        if hold is not None:
            hold(place.absolute().parents[1])
        return place.absolute().parents[1], read_checkpoint(place), []
    torn: list[TornCheckpoint] = []
    others: list[tuple[Path, Sequence[str]]] = []  # the newest first
    without: list[Path] = []
    for run_folder in [place, *reversed(run_folders(place))]:
        if not checkpoint_folders(run_folder):
            without += [run_folder] * (run_folder / EVENTS_FILE).is_file()
            continue
        if differs is not None and run_folder != place and (different := differs(_identity_in(run_folder))):
            others.append((run_folder, different))
            continue
        if hold is not None:
            hold(run_folder)
        for folder in reversed(checkpoint_folders(run_folder)):
            try:
                checkpoint = read_checkpoint(folder)
            except TornCheckpoint as error:
                torn.append(error)
                continue
            said = [f"{damage} The one before it is used." for damage in torn]
            return run_folder, checkpoint, said + _passed_over(run_folder, others, without)
    if others and not torn:
        check_is_of(others[0][1], others[0][0])
    if not torn:
        raise FileNotFoundError(
            f"There is no checkpoint to resume from in {place}. It holds no run that has saved one; start afresh "
            "without resume_from_checkpoint."
        )
    all_of_them = f"All {len(torn)} of them are damaged, the newest so: " if len(torn) > 1 else ""
    raise FileNotFoundError(
        f"There is no checkpoint to resume from in {place}. {all_of_them}{torn[0]} Start afresh without "
        "resume_from_checkpoint, or give another run."
    )


def check_is_of(different: Sequence[str], run_folder: Path) -> None:
    """Raise ForeignCheckpoint where a checkpoint in `run_folder` is `different` from the run that resumes it."""
    if different:
        raise ForeignCheckpoint(
            f"The checkpoint in {run_folder} is of another run:\n"
            + "\n".join(different)
            + "\nSet these as they were to resume it, or start afresh without resume_from_checkpoint."
        )


def _passed_over(found: Path, others: Sequence[tuple[Path, Sequence[str]]], without: Sequence[Path]) -> list[str]:
    """Why it is `found` that is resumed though there are newer runs."""
    why = []
    if without:
        why.append(f"{_some(without)} left no checkpoint")
    if others:
        newest, different = others[0]
        values = "; ".join(line.strip() for line in different)
        why.append(f"{_some([run for run, _ in others])} differ{'s' * (len(others) == 1)} ({newest.name}: {values})")
    return [f"The run that goes on is {found.name}; of those after it, {', and '.join(why)}."] if why else []


def _some(runs: Sequence[Path]) -> str:
    more = f" and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
    return ", ".join(run.name for run in runs[:MOST_NAMED]) + more


def _identity_in(run_folder: Path) -> dict[str, Any]:
    """What the checkpoints of a run are of; empty where none of them can say."""
    for folder in reversed(checkpoint_folders(run_folder)):
        try:
            return _state(folder / STATE)["identity"]
        except Damaged:
            continue
    return {}


def _holds_nothing_else(folder: Path) -> bool:
    """Whether a folder that has the name of a checkpoint is one, and nobody has put anything into it."""
    names = {path.name for path in folder.iterdir()}
    return not folder.is_symlink() and STATE in names and names <= {WEIGHTS, OPTIMIZER, STATE, *NOT_IN_EVERY}


def _state(path: Path) -> dict[str, Any]:
    """What STATE holds. Raises Damaged unless that is what was written; without a seal (version 0.1) its form tells."""
    document, is_sealed = unsealed(path)
    files = document.get("sha256", {})
    is_of_form = (
        document.keys() == {"identity", "progress", "sha256"}
        and all(isinstance(part, dict) for part in document.values())
        and {WEIGHTS, OPTIMIZER} <= files.keys() <= {WEIGHTS, OPTIMIZER, *NOT_IN_EVERY}
    )
    if not is_of_form or not (is_sealed or _is_progress(document["progress"])):
        raise Damaged(f"{path.name} does not have the form of one")
    return document


def _is_progress(progress: Mapping[str, Any]) -> bool:
    """Whether the counters every version writes are numbers, and scores are records."""
    counts = [progress.get(name) for name in ("step", "num_tokens", "not_finite", "elapsed")]
    scores = progress.get("evals")
    return (
        all(isinstance(count, int | float) and count >= 0 for count in counts)
        and isinstance(scores, list)
        and all(isinstance(score, dict) for score in scores)
    )


def _load(path: Path) -> dict[str, mx.array]:
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    mx.eval(arrays)  # now, while the file is known to be whole; MLX would read it when first used
    return arrays
