"""mlx-lm's own `train`, as it comes: its batches, its loss, its compiled step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, final

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from .job import RANK, RATE, Job, Timed, timed


def stock_steps(job: Job) -> Timed:
    """The steps, timed."""
    module, _ = load_model(Path(job.folder))
    module.freeze()
    layers = len(cast("list[nn.Module]", module.layers))
    linear_to_lora_layers(module, layers, {"rank": RANK, "scale": 1.0, "dropout": 0.0})
    mx.eval(module.parameters())
    args = TrainingArgs(
        batch_size=len(job.rows),
        iters=job.warmup + job.steps,
        max_seq_length=len(job.rows[0]),
        steps_per_report=1,
        steps_per_save=10**9,
        adapter_file=os.devnull,
        grad_checkpoint=False,
    )
    rows = [(row, 0) for row in job.rows]  # supervised from the first token on
    optimizer = mlx.optimizers.Adam(learning_rate=RATE)
    return timed(job, lambda ended: train(module, optimizer, rows, args=args, training_callback=Ended(ended)))


@final
class Ended(TrainingCallback):
    """mlx-lm's training callback, handing on the loss of each step."""

    def __init__(self, ended: Callable[[float], None]):
        self._ended = ended

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self._ended(train_info["train_loss"])

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        pass
