"""The learning rates someone asked for while a run went on, in a sealed file of their own beside the log.

They decide numbers of a resumed run, so the log and the sealed file vouch for one another, and a rate that may be lost
with both is the one thing that keeps a run from going on by itself. The sealed file is there from the start of a run,
also where nobody asks for a rate, so that it is missed where it was taken away.
"""

import errno
import os
from pathlib import Path

from ..events import RunStarted, StepEvent
from ..machine.private import new_private_file
from ..machine.sealed import Damaged, sealed_json, unsealed
from .log_lines import EVENTS_FILE, OddLines, lines_in

RATES_FILE = "learning_rates.json"


class LearningRatesLost(ValueError):
    """A learning rate someone asked for may be in no file that can still be read."""


def check_learning_rates(run_folder: Path | str, step: int, *, newest: int, checkpoint: Path, is_kept: bool) -> None:
    """Raise LearningRatesLost where a rate that was asked for after `step` may be missing, and weights would differ.

    A `checkpoint` at `step` holds the rates up to it. Later ones are in the sealed file; where that is damaged, the log
    has to tell of every step, up to the `newest` checkpoint at least. So it has where there is none, if `is_kept` says
    that the run had one; of a run of an earlier version, nobody asked for any then.
    """
    _, damage = _sealed_rates(Path(run_folder), is_kept=is_kept)
    if damage is None or (gap := _gap_in(Path(run_folder) / EVENTS_FILE, step, newest)) is None:
        return
    raise LearningRatesLost(
        f"In {run_folder}, {damage} and {gap}, so a learning rate asked for after step {step} may be lost; to go on "
        f"with the rates that the checkpoint of that step holds, pass resume_from_checkpoint={str(checkpoint)!r}, and "
        "ask for the later rate again while it trains."
    )


def keep_rates(run_folder: Path, rates: dict[int, float]) -> None:
    """Write the rates, each by the step after which it was asked for, in place of those before. Raises OSError."""
    if not run_folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run_folder))
    with new_private_file(run_folder / RATES_FILE) as partial:
        partial.write_text(sealed_json({"learning_rates": sorted(rates.items())}))


def with_sealed(run_folder: Path, rates: dict[int, float], *, is_kept: bool) -> tuple[dict[int, float], list[str]]:
    """(`rates` with those of the sealed file, what is to be said of that file); one that `is_kept` is missed."""
    sealed, damage = _sealed_rates(run_folder, is_kept=is_kept)
    if damage is not None:
        return rates, [f"{damage}; of the learning rates that were asked for, those in {EVENTS_FILE} are taken."]
    return rates | sealed, []


def _gap_in(file: Path, step: int, newest: int) -> str | None:
    """Why a log cannot tell of all learning rates that were asked for after `step`; None where it can."""
    if not file.is_file():
        return f"{file.name} is no file"
    odd, steps, begun, before = OddLines(), set[int](), False, 0
    try:
        for _, event in lines_in(file, odd):
            if isinstance(event, StepEvent):
                steps.add(event.step)
            if event is not None and event.step < step:
                before = odd.damaged  # lines of steps that the checkpoint holds
            begun = begun or (isinstance(event, RunStarted) and event.step == 0)
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"
    if odd.damaged > before:
        return f"{file.name} has damaged lines"
    if odd.is_cut:
        return f"{file.name} ends within a line"
    missing = set(range(max(step, 1), max([newest, *steps]) + 1)) - steps
    if missing:
        return f"{file.name} does not tell of step {min(missing)}"
    # A log that was rewound lost the rates that were to come, which only the sealed file then knows.
    return None if begun else f"{file.name} begins where the run was resumed"


def _sealed_rates(run_folder: Path, *, is_kept: bool) -> tuple[dict[int, float], str | None]:
    """(the rates in the sealed file, what is wrong with it)."""
    file = run_folder / RATES_FILE
    if not os.path.lexists(file):
        return {}, f"{file.name} is missing" if is_kept else None
    try:
        document, is_sealed = unsealed(file)
    except Damaged as damage:
        return {}, str(damage)
    return (dict(document["learning_rates"]), None) if is_sealed else ({}, f"{file.name} has no seal")
