"""What a model was when its run began, and what it says of a batch: the reference of an objective, in the same memory.

A model whose adapters change nothing yet is its own reference with its adapters off. One that was tuned before is kept
as a copy of what is trained: small for adapters, a second model where all is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..data.encoded import Batch
from ..fast.forms import Forms
from ..models.base_model import why_no_base, without_adapters
from ..models.families.base import Family
from ..models.tensors import flat
from .answers import OverAnswers
from .base import Objective
from .token_logps import token_logps


@final
class Reference:
    """The model `module` is when this is settled, before the first step of a run; a resumed one takes up what was kept.

    For an objective that asks no reference it holds nothing. `kept` is what of it has to be kept for that, in a
    checkpoint too: nothing of adapters as they begin.
    """

    def __init__(self, module: nn.Module, objective: Objective):
        self._module, self._is_settled = module, not objective.needs_reference
        self.kept: dict[str, mx.array] | None = None

    def settle(self) -> None:
        """Have it be what the module is now, unless it is settled already."""
        if self._is_settled:
            return
        if not is_its_own_reference(self._module):
            # Arithmetic, for an array of its own: the optimizer may write into what it holds alone.
            self.kept = {name: value + 0.0 for name, value in flat(self._module.trainable_parameters()).items()}
            mx.eval(self.kept)
        self._is_settled = True

    def take_up(self, kept: dict[str, mx.array] | None) -> None:
        """Have it be what it was when `kept` was kept of it."""
        self.kept, self._is_settled = kept, True

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the module is what it was, in eval mode."""
        module, was_training = self._module, self._module.training
        module.eval()
        try:
            if self.kept is None:
                with without_adapters(module):
                    yield
                return
            held = flat(module.parameters())  # whether they are trained still or not
            own = {name: held[name] for name in self.kept}
            module.update(tree_unflatten(list(self.kept.items())))
            try:
                yield
            finally:
                module.update(tree_unflatten(list(own.items())))
        finally:
            module.train(was_training)


def with_what_is_known(
    objective: Objective,
    batch: Batch,
    family: Family,
    module: nn.Module,
    reference: Reference | None,
    forms: Forms | None = None,
) -> Batch:
    """`batch` with "reference_logps" and "kl" as far as `objective` needs them and it has them not; evaluated.

    Enter `inference_form` around it. The module's dropout is off for the time.
    """
    if not objective.needs_reference:
        return batch
    assert reference is not None
    known = dict(batch)
    if "reference_logps" not in known:
        with reference.in_place():
            known["reference_logps"] = _row_logps(objective, batch, family, module, forms)
    if objective.needs_kl and "kl" not in known:
        mismatched = batch["mismatched"]
        was_training = module.training
        module.eval()
        ours = _row_logps(objective, mismatched, family, module, forms)
        module.train(was_training)
        if "reference_logps" not in mismatched:
            with reference.in_place():
                theirs = _row_logps(objective, mismatched, family, module, forms)
        else:
            theirs = mismatched["reference_logps"]
        known["kl"] = kl_of(ours, theirs)
    known.pop("mismatched", None)
    mx.eval(known)
    return known


def kl_of(ours: mx.array, theirs: mx.array) -> mx.array:
    """KTO's z_0 (arXiv 2402.01306): the mean of log ratios (B,) of answers to other prompts, never below 0."""
    return mx.maximum((ours - theirs).mean(), 0.0)


def _row_logps(objective: Objective, batch: Batch, family: Family, module: nn.Module, forms: Forms | None) -> mx.array:
    """(B,) evaluated: the module may be another afterwards."""
    assert isinstance(objective, OverAnswers)
    logps = token_logps(family, forms, differentiable=False)
    rows = objective.row_logps(logps(module, batch, objective.positions(batch)).logps, batch)
    mx.eval(rows)
    return rows


def is_its_own_reference(module: nn.Module) -> bool:
    """Whether the module is what it is now with its adapters off too, so that nothing of it has to be kept."""
    return why_no_base(module) is None and _adapters_add_nothing(module)


def _adapters_add_nothing(module: nn.Module) -> bool:
    """Whether every B matrix is zero and is all that could make a difference; DoRA's magnitudes could."""
    trained = flat(module.trainable_parameters())
    matrices = [value for name, value in trained.items() if name.endswith("lora_b")]
    if 2 * len(matrices) != len(trained):
        return False
    largest = [mx.abs(value).max() for value in matrices]
    return not bool(mx.stack(largest).max().item())
