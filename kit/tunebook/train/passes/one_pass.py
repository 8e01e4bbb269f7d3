"""The forward and backward pass over one micro-batch, in given forms: a batch in, its loss and gradients out."""

from typing import Any, final

import mlx.core as mx
import mlx.nn as nn

from ...config import TrainingConfig
from ...data.encoded import Batch
from ...fast.forms import Forms
from ...fast.training_form import training_form
from ...models.loaded import Loaded
from ...objectives.base import Objective, Summed
from .compiled import CompiledPass, Shape


@final
class OnePass:
    """Called with a batch and the positions asked for, gives ((sum, Sums), gradients), not yet evaluated.

    Compiled where there are `shapes`, and for these once and for all. Raises ValueError for NEFTune's noise on a model
    whose token embedding is not found.
    """

    def __init__(
        self, loaded: Loaded, config: TrainingConfig, forms: Forms, shapes: set[Shape] | None, objective: Objective
    ):
        self._loaded = loaded
        self._value_and_grad = nn.value_and_grad(loaded.module, objective.summed(loaded.family, forms))
        self.compiled: CompiledPass | None = None
        if shapes is not None:
            self.compiled = CompiledPass(loaded.module, self._value_and_grad, shapes, loaded.family.prepared)
        self._form = training_form(
            loaded.module,
            forms,
            recomputed=bool(config.gradient_checkpointing),
            noise=config.neftune_noise_alpha,
        )

    def __call__(self, batch: Batch, positions: mx.array) -> tuple[Summed, Any]:
        module = self._loaded.module
        own = module.trainable_parameters()
        with self._form:
            found = (self.compiled or self._value_and_grad)(module, batch, positions)
        module.update(own)  # MLX leaves copies behind, of which the optimizer does not know that it holds them already
        return found

    def check(self) -> None:
        """Refuse a model that cannot be trained in these forms: as its family's `check` does."""
        with self._form:
            self._loaded.family.check(self._loaded.module)
