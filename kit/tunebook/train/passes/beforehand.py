"""A reference that is asked of all rows once, before the first step: of which together, and what is said of it.

Unless a size is given, rows are asked together as the run will have them: in the micro-batches of its first epoch, and
in those of an evaluation. What the reference says is then, bit for bit, what it would have said in them. Rows that meet
others in a later epoch differ by the rounding of float32.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import mlx.core as mx
import numpy as np

from ...config import TrainingConfig
from ...data.encoded import Batch, Encoded
from ...events import Notice, Working
from ...fast.forms import Forms
from ...fast.training_form import inference_form
from ...machine.sealed import Damaged
from ...objectives.answers import AgainstReference
from ...objectives.base import Objective
from ...objectives.kept_logps import DIGEST, Said, by_row, key_of
from ...objectives.reference import Reference, ReferenceGone, SetOfRows, reference_logps
from ...tokens.answers import with_answer_of
from ...tokens.batch_order import chunks, padded_width, steps_per_epoch, total_steps, windows
from ...tokens.collation import collated
from ...tokens.feed import Feed
from ...tokens.stored_rows import lengths_of
from ..evaluation import measured_batches
from ..kept import reference_cache
from ..plan import RunPlan

SAME_BATCHES = ("sequential", "length_sorted")  # orders in which every epoch has the batches of the first


@dataclass(frozen=True)
class Questions:
    """Which rows of a set are asked together, by their places in it."""

    own: list[list[int]]
    mismatched: list[list[tuple[int, int]]]  # (the row of a prompt, that of an answer); none where no KL is taken
    keys: dict[int, bytes]  # what each of these rows is

    @property
    def own_keys(self) -> list[bytes]:
        """Of the rows, in the order they are asked in."""
        return [self.keys[place] for places in self.own for place in places]

    @property
    def mismatched_keys(self) -> list[bytes]:
        """Of prompts with other answers, in theirs."""
        return [self.keys[row] + self.keys[other] for pairs in self.mismatched for row, other in pairs]

    @property
    def content(self) -> Iterator[bytes]:
        """What all of them are, whatever the numbers of the rows."""
        for places in self.own:
            yield repr(len(places)).encode() + b"".join(self.keys[place][DIGEST] for place in places)
        for pairs in self.mismatched:
            yield repr(-len(pairs)).encode() + b"".join(self.keys[row][DIGEST] for pair in pairs for row in pair)


def check_beforehand(objective: Objective, config: TrainingConfig, feed: Feed) -> None:
    """Raise ValueError where the mismatched answers of later epochs would be others than the reference was asked of.

    TRL 1.16 (trl/trainer/kto_trainer.py) takes nothing but `sequential` for a loss with a KL, however many epochs.
    """
    rows = len(feed.known)
    epochs = total_steps(rows, config) / steps_per_epoch(rows, config)
    if objective.asks_beforehand and objective.needs_kl and epochs > 1 and config.dataset_order not in SAME_BATCHES:
        name = type(objective).__name__
        raise ValueError(
            f"{name}.precompute_ref_log_probs is on, and {name} takes its KL of the answers to other prompts of a "
            f"batch, which are others in each epoch with dataset_order={config.dataset_order!r}. Train for one epoch, "
            f"or set dataset_order to {' or '.join(map(repr, SAME_BATCHES))}."
        )


def check_is_known(plan: RunPlan, reference: Reference) -> None:
    """Raise ReferenceGone where a run that is resumed would measure rows its reference was not asked of."""
    if not plan.eval_rows or not reference.is_gone:
        return
    assert isinstance(plan.objective, AgainstReference)
    if not _is_known(reference, "held-out", _questions(plan, plan.objective, "held-out")):
        raise ReferenceGone(
            "The held-out rows are not those this run began with, and what the model was then is not kept with "
            "precompute_ref_log_probs=True. Pass the eval_dataset and the per_device_eval_batch_size of before."
        )


def asked_beforehand(
    plan: RunPlan, reference: Reference, of: SetOfRows, step: int, forms: Forms | None = None
) -> Generator[Working | Notice, None, None]:
    """Have `reference` say what it says of a set of rows, from the disk or in `inference_form(module, forms)`.

    Nothing is done where that is not wanted, or is known already.
    """
    rows, objective = _rows_of(plan, of), plan.objective
    if not objective.asks_beforehand or not rows:
        return
    assert isinstance(objective, AgainstReference)
    questions = _questions(plan, objective, of)
    if _is_known(reference, of, questions):
        return
    entry = reference_cache.entry_of(plan, objective, reference, questions.content, forms)
    sequences = len(rows[0].sequences)
    try:
        said = reference_cache.kept(entry, (questions.own_keys, sequences), questions.mismatched_keys)
    except Damaged as error:
        said, text = None, f"What the reference says of the {of} rows was on the disk, but {error}: it is asked again."
        yield Notice(step=step, text=text)
    else:
        if said is not None:
            text = f"What the reference says of the {of} rows was on the disk; it is not asked of them again."
            yield Notice(step=step, text=text)
    if said is None:
        said = yield from _asked(plan, reference, rows, questions, step, forms)
        if (why := reference_cache.keep(entry, said)) is not None:
            yield Notice(step=step, text=f"What the reference says of the {of} rows is not kept on the disk: {why}.")
    reference.said[of] = said


def _asked(
    plan: RunPlan, reference: Reference, rows: Sequence[Encoded], questions: Questions, step: int, forms: Forms | None
) -> Generator[Working, None, Said]:
    """What it says, asked now."""
    longest, family, module = plan.max_seq_length, plan.loaded.family, plan.loaded.module
    said, form = Said({}, {}), inference_form(module, forms)

    def logps(batch: Batch, rows: int) -> np.ndarray:
        mx.eval(batch)
        with form:
            found = reference_logps(plan.objective, batch, family, module, reference, forms)
        return by_row(np.array(found), rows)  # (rows, S)

    work = Working(step=step, what="precomputing", done=0, total=len(questions.own) + len(questions.mismatched))
    for places in questions.own:
        some = [rows[place] for place in places]
        batch, _ = collated(family, some, longest)
        said.own.update(zip((questions.keys[place] for place in places), logps(batch, len(some)), strict=True))
        yield (work := replace(work, done=work.done + 1))
    for pairs in questions.mismatched:
        some = [with_answer_of(rows[row], rows[other], longest) for row, other in pairs]
        batch = family.collate(some, padded_width(max(row.longest for row in some), longest))
        keys = (questions.keys[row] + questions.keys[other] for row, other in pairs)
        said.mismatched.update(zip(keys, logps(batch, len(some)), strict=True))
        yield (work := replace(work, done=work.done + 1))
    mx.clear_cache()
    return said


def _rows_of(plan: RunPlan, of: SetOfRows) -> Sequence[Encoded]:
    return plan.feed.known if of == "training" else plan.eval_rows


def _questions(plan: RunPlan, objective: AgainstReference, of: SetOfRows) -> Questions:
    """Of the rows that a run comes to, or measures."""
    rows, config = _rows_of(plan, of), plan.config
    lengths, size = lengths_of(rows), objective.precompute_ref_batch_size
    if of == "training":
        steps = min(plan.total_steps, steps_per_epoch(len(rows), config))
        batches = [batch for window in islice(windows(lengths, config), steps) for batch in window]
    else:
        batches = measured_batches(lengths, plan.eval_batch_size)
    mismatched: list[list[tuple[int, int]]] = []
    if objective.needs_kl:
        mismatched = [[(row, batch[index - 1]) for index, row in enumerate(batch)] for batch in batches]
    places = [place for batch in batches for place in batch]
    if size is not None:
        batches = chunks(sorted(places, key=lambda place: (-lengths[place], place)), size)
        mismatched = chunks([pair for pairs in mismatched for pair in pairs], size)
    return Questions(batches, mismatched, {place: key_of(rows[place]) for place in places})


def _is_known(reference: Reference, of: SetOfRows, questions: Questions) -> bool:
    said = reference.said.get(of)
    return (
        said is not None
        and all(key in said.own for key in questions.own_keys)
        and all(key in said.mismatched for key in questions.mismatched_keys)
    )
