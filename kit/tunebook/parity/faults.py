"""Known ways for a fine-tune to go wrong, each a Procedure that differs from this kit in the one part that is wrong.

They are for practice (`notebooks/03_parity_lab.ipynb`) and for proving that the lab finds them: each knows the stage at
which it must show first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
from mlx.utils import tree_map, tree_unflatten
from mlx_lm.utils import load_model

from ..config import LoraConfig, TrainingConfig
from ..data.encoded import Batch, Encoded
from ..data.sources import Row
from ..model_files.trusted import openable
from ..models.adapters import adapter_paths, add_adapters
from ..models.families.base import Family
from ..models.layers import layers_of
from ..models.loaded import Loaded
from ..models.tensors import flat
from ..objectives.answers import OverAnswers
from ..tokens.batch_order import Window, windows
from ..train import optim
from .procedure import KIT, Loss, Pass, Procedure, encoded_whole, loaded_in_float32


@dataclass(frozen=True)
class Fault:
    """A part that is wrong."""

    stage: str  # at which it shows first
    procedure: Procedure
    objective: OverAnswers | None = None  # with which it shows; None: the next token


def _fault(stage: str, name: str, **part: Callable[..., Any]) -> tuple[str, Fault]:
    return name, Fault(stage, replace(KIT, name=name, **part))


# Reading


def _without_last_token(rows: Sequence[Row], loaded: Loaded, max_seq_length: int) -> Sequence[Encoded]:
    return [
        replace(row, tokens=row.tokens[:-1], loss_mask=row.loss_mask[:-1])
        for row in encoded_whole(rows, loaded, max_seq_length)
    ]


def _without_last_row(rows: Sequence[Row], loaded: Loaded, max_seq_length: int) -> Sequence[Encoded]:
    return encoded_whole(rows, loaded, max_seq_length)[:-1]


def _all_supervised(rows: Sequence[Row], loaded: Loaded, max_seq_length: int) -> Sequence[Encoded]:
    return [replace(row, loss_mask=np.ones_like(row.loss_mask)) for row in encoded_whole(rows, loaded, max_seq_length)]


def _with_one_pad(batch: Batch) -> mx.array:
    """The position behind each row's last supervised one too, as in mlx-lm 0.32's own batches."""
    mask = np.array(batch["loss_mask"])[:, 1:]
    ends = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    mask[np.arange(len(mask)), np.minimum(ends + 1, mask.shape[1] - 1)] = True
    return mx.array(np.flatnonzero(mask).astype(np.int32))


# Batches


def _to_multiples_of_eight(longest: int, max_seq_length: int) -> int:
    return min(max_seq_length, 8 * math.ceil(longest / 8))


def _without_tail(lengths: Sequence[int], config: TrainingConfig) -> Iterator[Window]:
    for window in windows(lengths, config):
        kept = [batch for batch in window if len(batch) == config.per_device_train_batch_size]
        if kept and len(kept) == config.gradient_accumulation_steps:
            yield kept


# The model


def _rounded(name: Path | str, max_seq_length: int) -> Loaded:
    loaded = loaded_in_float32(name, max_seq_length)
    loaded.module.set_dtype(mx.bfloat16)
    loaded.module.set_dtype(mx.float32)
    return loaded


def _one_weight_off(name: Path | str, max_seq_length: int) -> Loaded:
    """The last layer's attention writes one in a hundred too much."""
    loaded = loaded_in_float32(name, max_seq_length)
    layer = len(layers_of(loaded.module)) - 1
    path = f"model.layers.{layer}.self_attn.o_proj.weight"
    loaded.module.update(tree_unflatten([(path, 1.01 * flat(loaded.module.parameters())[path])]))
    return loaded


# The loss


def _unshifted(family: Family) -> Loss:
    """Each token is asked for itself."""

    def loss(module: nn.Module, batch: Batch, positions: mx.array) -> mx.array:
        hidden = family.hidden(module, batch)
        logits = family.head(module, hidden.reshape(-1, hidden.shape[-1])[positions])
        return nn.losses.cross_entropy(logits, batch["tokens"][:, :-1].reshape(-1)[positions], reduction="sum")

    return loss


def _over_all_tokens(family: Family) -> Loss:
    """Divided by the size of the batch, prompts and padding and all."""
    right = KIT.loss(family)

    def loss(module: nn.Module, batch: Batch, positions: mx.array) -> mx.array:
        return right(module, batch, positions) * (positions.size / batch["tokens"][:, 1:].size)

    return loss


def _mean_of_means(passes: Sequence[Pass]) -> tuple[mx.array, Any]:
    """Every micro-batch weighs the same, however few tokens it has: transformers before 4.46."""
    share = 1 / len(passes)
    losses = [nats / tokens * share for nats, _, tokens in passes]
    means = [tree_map(lambda gradient, n=tokens: gradient / n * share, gradients) for _, gradients, tokens in passes]
    return sum(losses[1:], losses[0]), tree_map(lambda *parts: sum(parts[1:], parts[0]), *means)


# Adapters


def _seeded_before_loading(loaded: Loaded, lora: LoraConfig) -> None:
    """Loading draws the numbers it then replaces, so the adapters get later ones."""
    add_adapters(loaded.module, lora)
    mx.random.seed(lora.random_state)
    load_model(openable(loaded.folder, trust_remote_code=False), lazy=True, trust_remote_code=False)
    values = flat(loaded.module.trainable_parameters())
    for path in adapter_paths(loaded.module):
        shape = values[f"{path}.lora_a"].shape
        bound = 1 / math.sqrt(shape[0])
        drawn = mx.random.uniform(-bound, bound, shape)
        loaded.module.update(tree_unflatten([(f"{path}.lora_a", drawn)]))


def _last_sixteen_layers(loaded: Loaded, lora: LoraConfig) -> None:
    """mlx-lm's default; nothing is wrong in a model of sixteen layers or fewer."""
    add_adapters(loaded.module, replace(lora, finetune_last_n_layers=16))


def _alpha_as_scale(loaded: Loaded, lora: LoraConfig) -> None:
    add_adapters(loaded.module, replace(lora, lora_alpha=lora.lora_alpha * lora.r))


# The step


def _one_step_early(config: TrainingConfig, steps: int) -> Callable[[int], float]:
    rate = optim.learning_rate(config, steps)
    return lambda step: rate(step + 1)


def _without_bias_correction(config: TrainingConfig, module: nn.Module) -> optim.Optimizer:
    """mlx's default."""
    made = optim.make_optimizer(config, module)
    for group in made.groups.values():
        if isinstance(group.optimizer, mlx.optimizers.Adam):
            group.optimizer.bias_correction = False
    return made


def _tensor_by_tensor(gradients: optim.Gradients, config: TrainingConfig) -> tuple[optim.Gradients, mx.array]:
    limits = {"max_grad_norm": None, "max_grad_leaf_norm": config.max_grad_norm or config.max_grad_leaf_norm}
    return optim.clip(gradients, replace(config, **limits))


def _decaying_norms(
    module: nn.Module, gradients: optim.Arrays, optimizer: optim.Optimizer, *, rate: float, weight_decay: float
) -> None:
    """And biases."""
    module.update(tree_map(lambda value: value * (1 - rate * weight_decay), module.trainable_parameters()))
    optim.update(module, gradients, optimizer, rate=rate, weight_decay=0.0)


FAULTS: dict[str, Fault] = dict(
    [
        _fault("tokens", "last token cut off", encode=_without_last_token),
        _fault("tokens", "last row left out", encode=_without_last_row),
        _fault("supervision", "prompts supervised", encode=_all_supervised),
        _fault("supervision", "pad token in the loss", positions=_with_one_pad),
        _fault("batches", "padded to multiples of 8", width=_to_multiples_of_eight),
        _fault("batches", "last batch dropped", windows=_without_tail),
        _fault("logits", "weights rounded to bfloat16", load=_rounded),
        _fault("logits", "one weight off", load=_one_weight_off),
        _fault("reduction", "labels not shifted", loss=_unshifted),
        _fault("reduction", "mean over all tokens", loss=_over_all_tokens),
        _fault("reduction", "mean of means", accumulate=_mean_of_means),
        _fault("adapters", "seed set before loading", adapt=_seeded_before_loading),
        _fault("adapters", "16 instead of all layers", adapt=_last_sixteen_layers),
        _fault("adapters", "alpha taken for the scale", adapt=_alpha_as_scale),
        _fault("rates", "rate one step early", rate=_one_step_early),
        _fault("optimizer", "no bias correction", make_optimizer=_without_bias_correction),
        _fault("optimizer", "clipped tensor by tensor", clip=_tensor_by_tensor),
        _fault("optimizer", "norms decayed", update=_decaying_norms),
    ]
)
