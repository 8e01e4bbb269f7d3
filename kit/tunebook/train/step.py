"""One optimizer step: the rows of its micro-batches in, one update of the trainable parameters out.

All numbers of a run are made here. A step follows from the weights, the optimizer's state, the step's number and the
configuration alone, which is what lets a resumed run be the run that was interrupted, bit for bit.
"""

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from ..config import TrainingConfig
from ..data.encoded import Batch, Encoded
from ..fast.forms import Forms, forms_for
from ..fast.training_form import form_notices, inference_form
from ..machine import runtime
from ..machine.gpu_errors import gpu_fault
from ..models.layers import has_dropout
from ..models.loaded import Loaded
from ..models.tensors import number, random_key, set_random_key
from ..objectives.base import Objective, Summed
from ..objectives.next_token import NextToken, measured_nats, supervised_positions
from ..objectives.reference import Reference, with_what_is_known
from ..tokens.batch_order import padded_width
from ..tokens.collation import Collator
from . import optim
from .passes.compiled import commonest_shapes, shape_of, why_not_here
from .passes.one_pass import OnePass
from .ranks.counted import Counted, together
from .ranks.group import ALONE, Ranks

FREELY_KEPT_BYTES = 64_000_000  # of trained parameters and optimizer state, whatever a step takes


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an optimizer step came to."""

    loss: float  # nats per supervised token, over all its micro-batches; or what its objective has for each answer
    grad_norm: float  # global L2 norm before clipping
    rate: float  # the schedule's learning rate
    tokens: int  # supervised tokens
    total_tokens: int  # all tokens of its batches, padding included
    trainable_tokens: int  # tokens with a label; a row's first is one, and is never predicted
    seconds: float  # spent on it
    metrics: dict[str, float]  # what the objective reports beside its loss
    applied: bool  # False: loss, gradients or what they would change are not finite, and nothing was changed


@final
class Stepper:
    """Takes the steps of one run: `begin`, `add` for each micro-batch, `finish`."""

    def __init__(
        self,
        loaded: Loaded,
        config: TrainingConfig,
        rows: Sequence[Encoded],
        *,
        total_steps: int,
        max_seq_length: int,
        skip_unreadable: bool = False,
        forms: Forms | None = None,
        objective: Objective | None = None,
        reference: Reference | None = None,
        ranks: Ranks = ALONE,
    ):
        """`rows` are those that are known beforehand; `notices` then says what of the configuration is not followed.

        `skip_unreadable` leaves rows out whose images cannot be opened when their batch is made. No `forms` are those
        for this machine, no `objective` is the next token; a `reference` that it needs is settled by the first step.
        Of `ranks` each adds its own micro-batches, and all finish a step together.
        """
        self.notices = optim.said_of_the_warmup(config, total_steps)
        self.is_torn = False  # the weights are of no step, an update having failed without the memory to undo it
        self.optimizer = optim.make_optimizer(config, loaded.module)
        self._module, self._family = loaded.module, loaded.family
        self._config, self._max_seq_length = config, max_seq_length
        self._objective = objective or NextToken()
        self._reference, self._ranks = reference, ranks
        self._collator = Collator(loaded.family, max_seq_length, skip_unreadable=skip_unreadable)
        self.learning_rate = config.learning_rate  # the schedule is followed as if the configuration said this
        self.notices += form_notices(loaded.module)
        if loaded.family.head_layer(loaded.module) is None:
            self.notices.append("The logits of whole batches are made: the model does not show where its head begins.")
        self._rate = optim.learning_rate(config, total_steps)
        self._mean_and_norm = runtime.compiled_on_a_gpu(self._averaged)
        self._loaded, self._rows, forms = loaded, rows, forms or forms_for()
        self._cannot_compile = self._why_not_compiled() if self._asks_to_compile(forms) else None
        if self._cannot_compile is not None:
            self.notices.append(f"The pass is not compiled: {self._cannot_compile}.")
        self.use(forms)
        self._pass.check()  # a model that cannot be trained as configured is refused here, not in the first step

    def use(self, forms: Forms) -> None:
        """Compute passes in `forms` from the next on."""
        self.forms, shapes = forms, None
        if self._compiles(forms):
            shapes = (
                set()
                if self._family.looks_at_tokens
                else commonest_shapes(self._rows, self._config, self._max_seq_length, self._objective)
            )
        self._pass = OnePass(self._loaded, self._config, forms, shapes, self._objective)
        self._known_in = inference_form(self._module, forms)

    def pass_in(self, forms: Forms, batch: Batch, positions: mx.array) -> OnePass:
        """The next-token pass over `batch` in `forms`, with no noise: it could not be held against another."""
        shapes = None
        if self._compiles(forms):
            shapes = set() if self._family.looks_at_tokens else {shape_of(batch, positions)}
        return OnePass(self._loaded, replace(self._config, neftune_noise_alpha=None), forms, shapes, NextToken())

    def begin(self, step: int, rows: Sequence[Encoded] = ()) -> None:
        """Start on `step`, 1-based, of `rows`, all it will have, which a mean over its tokens has to know beforehand.

        What was added to an earlier one and not finished is forgotten.
        """
        # Seeded by the step, so that dropout and noise at step n are the same in a run that was resumed; and by the
        # rank: what is dropped of one row is no reason to drop it of another.
        seeds = [self._config.seed, step, *([self._ranks.rank] if self._ranks.rank else [])]
        mx.random.seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        self._step, self._counted, self._seconds = step, Counted(), 0.0
        self._known_of_step = self._objective.known_of_step(rows) if rows else {}
        self._gradients: optim.Arrays = {}  # gathered; none so far

    def add(self, rows: Sequence[Encoded], *, alone: bool, upcoming: Sequence[Encoded] = ()) -> list[str]:
        """Forward and backward pass over one micro-batch; `alone` when the step has no other.

        The images of `upcoming`, the rows that are added next, are opened meanwhile. Gives a sentence about each row
        that was left out, and about a pass that was computed twice.
        """
        began = time.perf_counter()
        objective = self._objective
        # Only where it matters: some layers take another way than the one with a gradient when they are not training.
        self._module.train(not (objective.without_dropout and has_dropout(self._module)))
        batch, left_out = self._collator.batch(rows)
        batch |= self._known_of_step
        if self._reference is not None:
            batch = self._reference.known_of(batch, rows, "training")
        self._collator.expect(upcoming)
        positions = objective.positions(batch)
        key = random_key()
        try:
            batch = self._with_what_is_known(batch)
            (loss, sums), gradients = self._passed(batch, positions, alone=alone)
        except RuntimeError as error:
            if gpu_fault(error) != "watchdog":
                raise
            # The system wants the GPU for the display for a moment. What was drawn is drawn again, so that the step is
            # the same; what was added before was evaluated, and is whole.
            traceback.clear_frames(error.__traceback__)
            set_random_key(key)
            batch = self._with_what_is_known(batch)
            (loss, sums), gradients = self._passed(batch, positions, alone=alone)
            left_out.append("The system took the GPU away for the display; the micro-batch was computed once more.")
        self._gradients = gradients
        self._counted.add(
            Counted(
                loss=number(loss),
                units=objective.units(batch),
                tokens=positions.size,
                total_tokens=batch["tokens"].size,
                trainable_tokens=int(number(batch["loss_mask"].sum())),
                sums=sums,
            )
        )
        self._seconds += time.perf_counter() - began
        return left_out

    def _with_what_is_known(self, batch: Batch) -> Batch:
        """`batch` with what the objective reads of it that has no gradient: what its reference says of the answers."""
        if not self._objective.needs_reference:
            return batch
        with self._known_in:
            return with_what_is_known(self._objective, batch, self._family, self._module, self._reference, self.forms)

    def _passed(self, batch: Batch, positions: mx.array, *, alone: bool) -> tuple[Summed, optim.Arrays]:
        """(loss of a micro-batch, its gradients, gathered and added to those of the step so far), evaluated."""
        found, gradients = self._pass(batch, positions)
        # Before they are gathered: MLX computes what one array waits for side by side, layers that are recomputed too.
        mx.eval(found, gradients)
        gradients = self.optimizer.gathered(gradients)
        if not (alone and self._ranks.is_alone):  # a sum of many in half precision would lose the small ones
            gradients = tree_map(lambda gradient: gradient.astype(mx.float32), gradients)
        if self._gradients:
            gradients = tree_map(mx.add, self._gradients, gradients)
        mx.eval(gradients)
        return found, gradients

    def finish(self) -> Outcome:
        """Update the parameters and the optimizer's state together, unless the step is not finite."""
        began = time.perf_counter()
        config, counted = self._config, self._of_all()
        gradients, self._gradients = self._gradients, {}
        gradients, norm = self._mean_and_norm(gradients, mx.array(float(counted.units)))
        loss, grad_norm = counted.loss / counted.units, number(norm)
        rate = self._rate(self._step) * (self.learning_rate / config.learning_rate)
        applied = math.isfinite(loss) and math.isfinite(grad_norm)
        if applied:
            self._gradients = gradients
            del gradients  # so that `_update` holds the only ones
            applied = self._update(rate)
        return Outcome(
            loss=loss,
            grad_norm=grad_norm,
            rate=rate,
            tokens=counted.tokens,
            total_tokens=counted.total_tokens,
            trainable_tokens=counted.trainable_tokens,
            seconds=self._seconds + time.perf_counter() - began,
            metrics=self._objective.metrics(counted.sums),
            applied=applied,
        )

    def _of_all(self) -> Counted:
        """What all ranks counted, whose gradients are added up, as sums: nothing is divided before all is there."""
        if self._ranks.is_alone:
            return self._counted
        if not self._gradients:  # there were fewer rows than ranks
            zeros = tree_map(lambda value: mx.zeros(value.shape), self._module.trainable_parameters())
            self._gradients = self.optimizer.gathered(zeros)
        counted = together(self._ranks.exchange(self._counted.as_plain()))
        self._gradients = self._ranks.summed(self._gradients)
        return counted

    def _averaged(self, gradients: optim.Arrays, units: mx.array) -> tuple[optim.Arrays, mx.array]:
        """(the mean of a sum over `units`, within the limit; its norm before); both gathered."""
        # Sum first, divide once: a short row must not weigh more than a long one.
        mean = {key: (summed.astype(mx.float32) / units).astype(summed.dtype) for key, summed in gradients.items()}
        if not self._config.max_grad_leaf_norm:
            return optim.clip(mean, self._config)
        clipped, norm = optim.clip(self.optimizer.spread(mean), self._config)
        return self.optimizer.gathered(clipped), norm

    def _update(self, rate: float) -> bool:
        """Apply the gradients; False where something would be NaN or infinite. Then, and if it fails, nothing changes.

        Where keeping what was there takes more memory than the step has taken already, the update is computed once
        more beforehand, only to be looked at; if the one that counts fails then, the model `is_torn`.
        """
        before, memory = optim.Moment(self._module, self.optimizer), runtime.memory()
        if before.nbytes > FREELY_KEPT_BYTES and memory.active_gb + before.nbytes / 1e9 > memory.peak_gb:
            before = None
        gradients, self._gradients = self._gradients, {}
        factors = {"rate": rate, "weight_decay": self._config.weight_decay}
        if before is None and not optim.would_be_finite(self._module, gradients, self.optimizer, **factors):
            return False
        finite = False
        try:
            optim.update(self._module, gradients, self.optimizer, **factors)
            del gradients  # so that each is given back as soon as it was used
            all_finite = optim.all_finite(self.optimizer)
            mx.eval(self._module.trainable_parameters(), self.optimizer.held.arrays, all_finite)
            finite = bool(number(all_finite))
        finally:
            if not finite and before is not None:
                before.put_back()
            self.is_torn = not finite and before is None
        return finite

    @property
    def own_tokens(self) -> int:
        """Supervised tokens this process has added to the step."""
        return self._counted.tokens

    def closing_notices(self) -> list[str]:
        """What there is to say of all steps together once the last is done."""
        return [self._pass.compiled.account()] if self._pass.compiled is not None else []

    def not_finite(self, row: Encoded) -> bool:
        """Whether the loss of one row, alone and with nothing dropped, is NaN or infinite."""
        was_training = self._module.training
        self._module.eval()
        try:
            batch = self._family.collate(row.sequences, padded_width(row.longest, self._max_seq_length))
            with inference_form(self._module):
                nats = measured_nats(self._family, self._module, batch, supervised_positions(batch), self.forms)
                return not math.isfinite(nats)
        finally:
            self._module.train(was_training)

    def _compiles(self, forms: Forms) -> bool:
        return self._asks_to_compile(forms) and self._cannot_compile is None

    def _asks_to_compile(self, forms: Forms) -> bool:
        return forms.compiled if self._config.compile == "auto" else self._config.compile

    def _why_not_compiled(self) -> str | None:
        if self._config.gradient_checkpointing and has_dropout(self._module):
            return "gradient_checkpointing redraws each layer's dropout, which a compiled pass cannot; set one off"
        return why_not_here()
