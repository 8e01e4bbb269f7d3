"""What a model was when its run began, and what it says of a batch: the reference of an objective, in the same memory.

A model whose adapters change nothing yet is its own reference with its adapters off. One that was tuned before is kept
as a copy of what is trained: small for adapters, a second model where all is. Where the reference is asked of all rows
before the first step no copy is made: it is then the model as it is, and afterwards there is only what it said.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..data.encoded import Batch, Encoded
from ..fast.forms import Forms
from ..models.base_model import why_no_base, without_adapters
from ..models.families.base import Family
from ..models.tensors import flat
from .answers import OverAnswers
from .base import Objective
from .kept_logps import Said
from .token_logps import token_logps

SetOfRows = Literal["training", "held-out"]
SETS: tuple[SetOfRows, ...] = ("training", "held-out")

HAS_BASE = "has base"  # among what is kept of it: whether the model with its adapters off is the reference


class ReferenceGone(ValueError):
    """The reference is asked of rows it was not asked of while it was there."""


@final
class Reference:
    """The model `module` is when this is settled, before the first step of a run; a resumed one takes up what was kept.

    For an objective that asks no reference it holds nothing. `kept` is what of it has to be kept for that, in a
    checkpoint too: nothing of adapters as they begin. `said` is what it said of whole sets of rows beforehand.
    """

    def __init__(self, module: nn.Module, objective: Objective):
        self._module, self._is_settled = module, not objective.needs_reference
        self._asks_beforehand = objective.asks_beforehand
        self._is: Literal["the base", "a copy", "the model", "gone"] = "the base"
        self.kept: dict[str, mx.array] | None = None
        self.said: dict[SetOfRows, Said] = {}

    @property
    def is_base(self) -> bool:
        """Whether it is the model with its adapters off, which a run leaves as it is."""
        return self._is == "the base"

    @property
    def is_gone(self) -> bool:
        """Whether there is only what it said."""
        return self._is == "gone"

    def settle(self) -> None:
        """Have it be what the module is now, unless it is settled already."""
        if self._is_settled:
            return
        if is_its_own_reference(self._module):
            self._is = "the base"
        elif self._asks_beforehand:
            self._is = "the model"
        else:
            self._is = "a copy"
            # Arithmetic, for an array of its own: the optimizer may write into what it holds alone.
            self.kept = {name: value + 0.0 for name, value in flat(self._module.trainable_parameters()).items()}
            mx.eval(self.kept)
        self._is_settled = True

    def let_go(self) -> None:
        """Have there be only what it said: the module it is will change now."""
        if self._is == "the model":
            self._is = "gone"

    def take_up(self, kept: dict[str, mx.array] | None, said: Mapping[str, mx.array] | None = None) -> None:
        """Have it be what it was when `kept`, and `written` as `said`, were kept of it.

        Where it is to be asked beforehand and had not been, it is still to be settled.
        """
        if self._asks_beforehand and said is None:
            return
        self.kept, self._is_settled = kept, True
        self._is = "the base" if kept is None else "a copy"
        if said is not None:
            self._is = "the base" if said[HAS_BASE].item() else "gone"
            for name in SETS:
                arrays = {key.removeprefix(f"{name}."): value for key, value in said.items() if key.startswith(name)}
                if arrays:
                    self.said[name] = Said.from_arrays(arrays)

    @property
    def written(self) -> dict[str, mx.array] | None:
        """What it said, for a checkpoint; None before it was asked of all rows that are trained on."""
        if "training" not in self.said:
            return None
        arrays = {f"{name}.{key}": value for name, said in self.said.items() for key, value in said.arrays.items()}
        return arrays | {HAS_BASE: mx.array(self.is_base)}

    def known_of(self, batch: Batch, rows: Sequence[Encoded], of: SetOfRows) -> Batch:
        """`batch` with what was said beforehand of its `rows`, which are of that set."""
        return self.said[of].added_to(batch, rows) if of in self.said else batch

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the module is what it was, in eval mode. Raises ReferenceGone where nobody knows that."""
        if self.is_gone:
            raise ReferenceGone(
                "What the model was when its run began is not kept with precompute_ref_log_probs=True, and it was not "
                "asked of these rows then. Pass them as eval_dataset before the run, or set "
                "precompute_ref_log_probs=False."
            )
        module, was_training = self._module, self._module.training
        module.eval()
        try:
            if self.is_base:
                with without_adapters(module):
                    yield
                return
            if self.kept is None:
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
        known = family.prepared(module, known)  # once for the model and its reference: no gradient goes through it
        known["reference_logps"] = reference_logps(objective, known, family, module, reference, forms)
    if objective.needs_kl and "kl" not in known:
        mismatched = family.prepared(module, batch["mismatched"])
        was_training = module.training
        module.eval()
        ours = _row_logps(objective, mismatched, family, module, forms)
        module.train(was_training)
        if "reference_logps" not in mismatched:
            theirs = reference_logps(objective, mismatched, family, module, reference, forms)
        else:
            theirs = mismatched["reference_logps"]
        known["kl"] = kl_of(ours, theirs)
    known.pop("mismatched", None)
    mx.eval(known)
    return known


def reference_logps(
    objective: Objective,
    batch: Batch,
    family: Family,
    module: nn.Module,
    reference: Reference,
    forms: Forms | None = None,
) -> mx.array:
    """(B,) what `reference` says of each answer of a batch, evaluated. Enter `inference_form` around it."""
    with reference.in_place():
        return _row_logps(objective, batch, family, module, forms)


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
