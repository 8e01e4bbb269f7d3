"""Prove, time, then use: which forms a run's passes are computed in, settled on its own first micro-batch.

The usual forms have to give the loss and gradients of the plain pass, or a plainer part takes the place of the one that
is wrong. On a GPU others are timed too, and the fastest that agrees and takes no more memory is used. Neither weights
nor MLX's random state are changed.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import mlx.nn as nn

from ...data.encoded import Batch, Encoded, Unreadable
from ...fast.forms import Forms
from ...machine import runtime
from ...machine.gpu_errors import gpu_fault
from ...models.layers import has_dropout
from ...models.loaded import Loaded
from ...objectives.next_token import NextToken, supervised_positions
from .candidates import PLAIN, others, simpler
from .proof import Pass, Passed, distance, passed, tolerance_of
from .trial_batch import part_of

SECONDS = 4.0  # for all passes that are timed
FEWEST_TOKENS = 512  # that say anything about a micro-batch of more
PASSES_EACH = 3  # that a candidate takes: one to get ready, two that count
GAIN = 0.97  # of the time of the best so far: what a faster one has to stay below
ROOM = 1.02  # of its memory

MakePass = Callable[[Forms, Batch, mx.array], Pass]  # a pass in these forms, which will be given this batch
Waiting = Generator[tuple[int, int], None, "Settled"]  # yields (done, total) between passes


@dataclass(frozen=True)
class Tried:
    """One way to compute the pass."""

    what: str
    distance: float | None = None  # from the plain pass, relative; None: it could not be computed
    seconds: float | None = None  # of a pass, the better of two; None: it was not timed
    peak_gb: float | None = None
    why_not: str = ""  # empty: it may be used


@dataclass(frozen=True)
class Settled:
    """What is used, and what it was chosen from."""

    forms: Forms
    tried: tuple[Tried, ...]
    timed_tokens: int = 0  # of the part of a micro-batch that was timed; 0: none was
    why_untried: str = ""  # empty: it could be tried

    @property
    def is_proven(self) -> bool:
        """Whether the forms gave what the plain pass does."""
        return any(not one.why_not for one in self.tried)


@dataclass(frozen=True)
class Trial:
    """The parts of a micro-batch that passes are tried on, and what they are held against."""

    module: nn.Module
    make_pass: MakePass
    batch: Batch
    positions: mx.array
    plain: Passed = field(repr=False)
    tolerance: float

    def proven(self, what: str, forms: Forms) -> Tried:
        """Whether a pass in `forms` gives what the plain one does. A GPU that fails is raised."""
        try:
            one_pass = self.make_pass(forms, self.batch, self.positions)
            apart = distance(passed(self.module, one_pass, self.batch, self.positions), self.plain)
        except (RuntimeError, ValueError) as error:  # MLX's, of a kernel or a compiler that will not have this model
            if gpu_fault(error) is not None:
                raise
            return Tried(what, why_not=f"it could not be computed: {error}")
        if apart <= self.tolerance:
            return Tried(what, apart)
        return Tried(
            what, apart, why_not=f"it is {apart:.1%} from the plain pass; rounding explains {self.tolerance:.0%}"
        )


def settle(loaded: Loaded, usual: Forms, rows: Sequence[Encoded], make_pass: MakePass) -> Waiting:
    """The forms for micro-batches like `rows`, which has one row at least.

    The usual ones where the plain pass cannot be computed or gives no finite loss: then there is nothing to hold them
    against, and the first step will say the same.
    """
    module = loaded.module
    was_training = module.training
    module.train(not has_dropout(module))  # what is drawn would be drawn in another order
    try:
        batch, positions = _batch(loaded, part_of(rows, usual.attention_rows * 3 // 2))  # a block and a half
        plain = passed(module, _plain_pass(loaded, usual), batch, positions)
        if not math.isfinite(plain.nats):
            return Settled(usual, ())
        yield 1, 2
        trial = Trial(module, make_pass, batch, positions, plain, tolerance_of(loaded.dtype))
        settled = _proven(trial, usual)
        yield 2, 2
        return (yield from _timed(loaded, trial, settled, rows)) if settled.is_proven else settled
    except (Unreadable, RuntimeError) as error:  # a row's image is gone, or a GPU that fails or has too little memory
        return Settled(usual, (), why_untried=str(error))
    finally:
        module.train(was_training)
        runtime.reset_peak_memory()


def _proven(trial: Trial, usual: Forms) -> Settled:
    """The usual forms, or the first of the simpler ones that agrees with the plain pass, or else the simplest."""
    tried, forms = [trial.proven("as usual", usual)], usual
    for what, simple in simpler(usual) if tried[0].why_not else ():
        forms = simple
        tried.append(trial.proven(f"without {what}", forms))
        if not tried[-1].why_not:
            break
    return Settled(forms, tuple(tried))


def _timed(loaded: Loaded, trial: Trial, settled: Settled, rows: Sequence[Encoded]) -> Waiting:
    """The fastest of the forms there are on this backend, where enough of `rows` can be computed in time to tell."""
    candidates = list(others(settled.forms, runtime.backend()))
    if not candidates:
        return settled
    part = _affordable(trial, settled.forms, rows, PASSES_EACH * (1 + len(candidates)))
    if not part:
        return settled
    batch, positions = _batch(loaded, part)
    best, forms = _time(trial, settled.tried[-1], settled.forms, batch, positions), settled.forms
    tried = [*settled.tried[:-1], best]
    for number, (what, name, value) in enumerate(candidates):
        yield number, len(candidates)
        other = replace(forms, **{name: value})
        one = _proven_and_timed(trial, what, other, batch, positions)
        tried.append(one)
        if _is_better(one, best):
            best, forms = one, other
    return Settled(forms, tuple(tried), timed_tokens=batch["tokens"].size)


def _proven_and_timed(trial: Trial, what: str, forms: Forms, batch: Batch, positions: mx.array) -> Tried:
    try:
        one = trial.proven(what, forms)
    except RuntimeError as error:  # a GPU that fails is reason enough to leave what is only tried
        return Tried(what, why_not=f"it could not be computed: {error}")
    return one if one.why_not else _time(trial, one, forms, batch, positions)


def _is_better(one: Tried, best: Tried) -> bool:
    if one.why_not or one.seconds is None or best.seconds is None or one.peak_gb is None or best.peak_gb is None:
        return False
    return one.seconds < GAIN * best.seconds and one.peak_gb <= ROOM * best.peak_gb


def _affordable(trial: Trial, forms: Forms, rows: Sequence[Encoded], passes: int) -> list[Encoded]:
    """As many tokens of `rows` as `passes` can be computed for in SECONDS; none where that says nothing about all."""
    warm = _time(trial, Tried("ready"), forms, trial.batch, trial.positions)
    if warm.seconds is None:
        return []
    each = warm.seconds / trial.batch["tokens"].size
    tokens, whole = int(SECONDS / passes / each), sum(len(row.tokens) for row in rows)
    return part_of(rows, tokens) if tokens >= min(whole, FEWEST_TOKENS) else []


def _time(trial: Trial, tried: Tried, forms: Forms, batch: Batch, positions: mx.array) -> Tried:
    """`tried` with the better time of a pass in `forms`, and its memory."""
    try:
        one_pass = trial.make_pass(forms, batch, positions)
        times = []
        for _ in range(PASSES_EACH):
            runtime.reset_peak_memory()
            began = time.perf_counter()
            mx.eval(one_pass(batch, positions))
            times.append(time.perf_counter() - began)
    except (RuntimeError, ValueError) as error:
        return replace(tried, why_not=f"it could not be computed: {error}")
    return replace(tried, seconds=min(times[1:]), peak_gb=runtime.memory().peak_gb)


def _plain_pass(loaded: Loaded, usual: Forms) -> Pass:
    """The pass as MLX and the model's library compute it, with all logits at once."""
    with_all_logits = replace(usual, **PLAIN, logit_bytes=2**62)
    value_and_grad = nn.value_and_grad(loaded.module, NextToken().summed(loaded.family, with_all_logits))
    return lambda batch, positions: value_and_grad(loaded.module, batch, positions)


def _batch(loaded: Loaded, rows: Sequence[Encoded]) -> tuple[Batch, mx.array]:
    batch = loaded.family.collate(rows, max(len(row.tokens) for row in rows))
    return batch, supervised_positions(batch)
