"""One training step of a model, built and never computed: the kit's own, and that of mlx-lm's `train`."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from itertools import repeat
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
from mlx_lm.tuner import trainer

from tunebook.config import TrainingConfig
from tunebook.data.encoded import Encoded
from tunebook.machine import runtime
from tunebook.models.base_model import without_adapters
from tunebook.models.families import language_model
from tunebook.models.loaded import Loaded
from tunebook.objectives import DPO, base
from tunebook.objectives.next_token import NextToken, supervised_positions
from tunebook.objectives.reference import Reference
from tunebook.objectives.token_logps import token_logps
from tunebook.train import step as kit

from .counting import arrays, launches
from .models import ROWS, TOKENS, Kind, adapted, family_of, image_batch, rows_of

ROOM = runtime.Memory(active_gb=1.0, cache_gb=0.0, peak_gb=100.0, limit_gb=None)  # a step takes more than an update
WRITE = mx.array.__setitem__  # itself, whoever listens to it
SOME_TOKENS = (64, 128)
DEEPSTACK = ("visual_pos_masks", "deepstack_visual_embeds")  # Qwen3-VL's


@dataclass(frozen=True)
class Setting:
    """What of the configuration is not the default."""

    packing: bool = False
    checkpointing: bool = False
    accumulation: int = 1
    preferences: bool = False  # DPO, each two of the rows being a pair


SETTINGS = {
    "default": Setting(),
    "packing": Setting(packing=True),
    "checkpointing": Setting(checkpointing=True),
    "accumulation 4": Setting(accumulation=4),
    "preferences": Setting(preferences=True),
}


def kit_step(kind: Kind, setting: Setting) -> tuple[Counter[str], Counter[str]]:
    """(what a step of the kit launches, what of that is its update), of the second: the first gathers what is held."""
    config = TrainingConfig(
        max_steps=10,
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=setting.accumulation,
        gradient_checkpointing=setting.checkpointing,
        packing=setting.packing,
    )
    rows = rows_of(kind, packed=setting.packing)
    loaded = SimpleNamespace(module=adapted(kind), family=family_of(kind))
    objective = DPO() if setting.preferences else NextToken()
    if setting.preferences:
        rows = [pair_of(row, other) for row, other in zip(rows[::2], rows[1::2], strict=True)]
    reference = Reference(loaded.module, objective)
    reference.settle()
    stepper = kit.Stepper(
        cast("Loaded", loaded),
        config,
        rows,
        total_steps=10,
        max_seq_length=TOKENS + 1,
        objective=objective,
        reference=reference,
    )
    passes: Counter[str] = Counter()
    with _nothing_computed() as asked_for:
        for step in (1, 2):
            asked_for.clear()
            stepper.begin(step)
            for _ in range(setting.accumulation):
                stepper.add(rows, alone=setting.accumulation == 1)
            passes = launches(asked_for)
            stepper.finish()
            whole = launches(asked_for)
            _as_if_computed(loaded.module.trainable_parameters(), vars(stepper.optimizer.held))
    return whole, whole - passes


def pair_of(chosen: Encoded, rejected: Encoded) -> Encoded:
    """Two rows as the sides of one pair."""
    return replace(
        chosen,
        tokens=np.concatenate([chosen.tokens, rejected.tokens]),
        loss_mask=np.concatenate([chosen.loss_mask, rejected.loss_mask]),
        images=chosen.images + rejected.images,
        second=len(chosen.tokens),
    )


def forward_pass(kind: Kind) -> Counter[str]:
    """What the log-probabilities of a batch launch without a gradient: no adapters, all layers as upstream has them."""
    module, family = adapted(kind), family_of(kind)
    module.eval()
    batch = family.collate(rows_of(kind), TOKENS + 1)
    with _nothing_computed() as asked_for, without_adapters(module):
        asked_for.append(token_logps(family, differentiable=False)(module, batch, supervised_positions(batch)).logps)
        return launches(asked_for)


def _as_if_computed(*trees: Any) -> None:
    """Put zeros into the place of what arrays would be computed from; they stay the arrays they are."""
    for array in arrays(trees):
        WRITE(array, ..., mx.array(0, array.dtype))


@contextmanager
def _nothing_computed() -> Iterator[list[mx.array]]:
    """Have the kit's step go on without what it wants computed; the list that is given gathers that."""
    asked_for: list[mx.array] = []

    def number(scalar: mx.array) -> float:
        asked_for.append(scalar)
        return 1.0

    def features(module: nn.Module, batch: Any) -> dict[str, Any]:
        """As mlx-vlm's, which has most of them computed while they are made; a pass that is compiled finds them so."""
        made = own(module, batch)
        floats = [array for array in arrays(made) if mx.issubdtype(array.dtype, mx.floating)]
        asked_for.extend(map(mx.stop_gradient, floats))
        _as_if_computed(floats)
        return made

    own = language_model.features
    with ExitStack() as patched:
        patched.enter_context(patch.object(mx, "eval", lambda *trees: asked_for.extend(arrays(trees))))
        patched.enter_context(patch.object(language_model, "features", features))
        for home in (kit, base):  # where the loss of a step is read, and what an objective reports
            patched.enter_context(patch.object(home, "number", number))
        patched.enter_context(patch.object(runtime, "memory", lambda: ROOM))
        yield asked_for


class _Built(BaseException):
    """A step of mlx-lm is built as far as it is computed together."""


def stock_step(kind: Kind, setting: Setting) -> Counter[str]:
    """What a step of mlx-lm's `train` launches, compiled as it is there, with its own loss.

    Where it loops over tokens it is counted for 64 and for 128 of them and continued on a straight line, for the graph
    of 1,024 takes minutes to build. mlx-lm has no models that read images: there the embeddings, which look at tokens
    while they are made, are made before the compiled step, and what it calls is the language model.
    """
    if not kind.loops:
        return _stock_step(kind, setting, TOKENS)
    few, more = (_stock_step(kind, setting, tokens) for tokens in SOME_TOKENS)
    further = (TOKENS - SOME_TOKENS[0]) // (SOME_TOKENS[1] - SOME_TOKENS[0])
    return Counter({name: few[name] + further * (more[name] - few[name]) for name in few.keys() | more.keys()})


def _stock_step(kind: Kind, setting: Setting, predicted: int) -> Counter[str]:
    module = adapted(kind)
    optimizer = mlx.optimizers.AdamW(learning_rate=1e-4)
    optimizer.init(module.trainable_parameters())
    mx.eval(optimizer.state)
    asked_for: list[Any] = []
    steps = 0

    def evaluate(*trees: Any) -> None:
        nonlocal steps
        asked_for.append(arrays(trees))
        steps += 1
        if steps == setting.accumulation:
            raise _Built

    batches, loss = _with_images(module, kind, asked_for) if kind.reads_images else _of_text(kind, predicted)
    args = trainer.TrainingArgs(
        iters=10**6,
        batch_size=ROWS,
        steps_per_report=10**6,
        max_seq_length=predicted + 1,
        grad_checkpoint=setting.checkpointing,
        grad_accumulation_steps=setting.accumulation,
    )
    layer = type(cast("Any", module).layers[0])
    plain = layer.__call__
    with patch.object(mx, "eval", evaluate), redirect_stdout(StringIO()):
        try:
            trainer.train(module, optimizer, [], args=args, loss=loss, iterate_batches=batches)
        except _Built:
            return launches(asked_for)
        finally:
            layer.__call__ = plain  # grad_checkpoint changes the class
    raise AssertionError("mlx-lm's train ended before its first step was computed")


Batches = Callable[..., Iterator[Any]]


def _of_text(kind: Kind, predicted: int) -> tuple[Batches, Callable[..., Any]]:
    tokens = mx.array([row.tokens.tolist() for row in rows_of(kind, predicted=predicted)])
    lengths = mx.array([[0, predicted + 1]] * ROWS)
    return lambda **_: repeat((tokens, lengths)), trainer.default_loss


def _with_images(module: nn.Module, kind: Kind, asked_for: list[Any]) -> tuple[Batches, Callable[..., Any]]:
    """What is computed while embeddings are made goes to `asked_for`."""
    batch = image_batch(rows_of(kind))
    lengths = mx.array([[0, TOKENS + 1]] * ROWS)

    def batches(**_: Any) -> Iterator[Any]:
        while True:
            with patch.object(mx, "eval", lambda *trees: asked_for.append(arrays(trees))):
                given = language_model.features(module, batch)
            # Added to the first layers where images are, which nothing compiled can look for: some launches too few.
            given = {name: value for name, value in given.items() if name not in DEEPSTACK}
            yield batch["tokens"], lengths, given

    def loss(module: nn.Module, tokens: mx.array, lengths: mx.array, given: dict[str, Any]) -> Any:
        def called(inputs: mx.array) -> mx.array:
            return module["language_model"](tokens, mask=None, cache=None, **given).logits[:, : inputs.shape[1]]

        return trainer.default_loss(called, tokens, lengths)

    return batches, loss
