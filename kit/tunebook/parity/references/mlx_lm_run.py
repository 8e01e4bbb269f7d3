"""mlx-lm's own training function and its command line's way of making adapters, used as they come.

Rows and settings go in, losses and adapters come out. Its loss is right where it is told the last token of each row
(told the length, as its own batches do, it trains on one padding token too), and where the whole row is supervised.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast, final

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
from mlx_lm.cli_ui import make_console
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from ...config import LoraConfig, TrainingConfig
from ...data.encoded import Encoded
from ...model_files.checkpoint_config import translated
from ...model_files.trusted import openable, read_settings
from ...models.tensors import flat
from ...tokens.batch_order import padded_width, total_steps, windows

Arrays = dict[str, np.ndarray]  # by our names, in our layout


def with_adapters(folder: Path, lora: LoraConfig, targets: Sequence[str]) -> nn.Module:
    """The model in `folder`, with adapters on the modules `targets`, as `mlx_lm.lora --seed` makes them (0.32)."""
    config = translated(read_settings(folder / "config.json"))
    shown = openable(folder, trust_remote_code=False, config=config)
    module, _ = load_model(shown, lazy=True, trust_remote_code=False)
    module.set_dtype(mx.float32)
    mx.random.seed(lora.random_state)
    module.freeze()
    layers = len(cast("list[nn.Module]", module.layers))
    linear_to_lora_layers(
        module,
        min(lora.finetune_last_n_layers or layers, layers),
        {"rank": lora.r, "scale": lora.scale, "dropout": 0.0, "keys": _inside_layers(targets)},
        use_dora=lora.use_dora,
    )
    mx.eval(module.parameters())
    return module


def adapters(module: nn.Module) -> Arrays:
    """Its trainable parameters."""
    return {name: np.array(array) for name, array in flat(module.trainable_parameters()).items()}


def losses(module: nn.Module, rows: Sequence[Encoded], config: TrainingConfig, max_seq_length: int) -> list[float]:
    """The loss of each step of mlx-lm's `train` over `rows`, all of whose tokens are supervised; trains in place.

    The settings it has are used: AdamW with bias correction at a constant rate. The batches are ours, one per step.
    """
    heard, steps = Losses(), total_steps(len(rows), config)
    with tempfile.TemporaryDirectory() as scratch, quietly():
        train(
            model=module,
            optimizer=mlx.optimizers.AdamW(
                config.learning_rate,
                betas=[config.adam_beta1, config.adam_beta2],
                eps=config.adam_epsilon,
                weight_decay=config.weight_decay,
                bias_correction=True,
            ),
            train_dataset=rows,
            args=TrainingArgs(
                batch_size=config.per_device_train_batch_size,
                iters=steps,
                steps_per_report=1,
                steps_per_save=steps + 1,
                max_seq_length=max_seq_length,
                adapter_file=str(Path(scratch) / "adapters.safetensors"),
            ),
            iterate_batches=lambda **_: islice(_batches(rows, config, max_seq_length), steps),
            training_callback=heard,
        )
    module.eval()
    return heard.values


@final
class Losses(TrainingCallback):
    """mlx-lm's training callback, keeping the loss of each iteration."""

    def __init__(self):
        self.values: list[float] = []

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.values.append(train_info["train_loss"])

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        pass


@final
class Tokens:
    """Encoded rows in the form mlx-lm's CacheDataset wants."""

    def __init__(self, encoded: Sequence[Encoded]):
        self.encoded = encoded

    def __len__(self):
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"tokens": self.encoded[index].tokens.tolist()}

    def process(self, row: dict[str, list[int]]) -> tuple[list[int], int]:
        return row["tokens"], 0


@contextmanager
def quietly() -> Iterator[None]:
    """mlx-lm's `train` draws a table and a bar, in a notebook a widget too, on the console all of mlx-lm shares."""
    console = make_console()
    kept = console.quiet, console.is_jupyter
    console.quiet, console.is_jupyter = True, False
    try:
        yield
    finally:
        console.quiet, console.is_jupyter = kept


def _batches(
    rows: Sequence[Encoded], config: TrainingConfig, max_seq_length: int
) -> Iterator[tuple[mx.array, mx.array]]:
    """(tokens (B, T), the (first, last) supervised token of each row (B, 2)) as mlx-lm's loss takes them.

    All are of one width, because mlx-lm compiles its step anew for each; padding is not in this loss.
    """
    width = padded_width(max(len(row.tokens) for row in rows), max_seq_length)
    for window in windows([len(row.tokens) for row in rows], config):
        for batch in window:
            some = [rows[index].tokens for index in batch]
            tokens = np.stack([np.pad(row, (0, width - len(row))) for row in some])
            yield mx.array(tokens), mx.array([[1, len(row) - 1] for row in some])


def _inside_layers(targets: Sequence[str]) -> set[str]:
    """Paths inside a decoder layer ("self_attn.q_proj") of full ones; those outside the layers stay full."""
    inside = set()
    for path in targets:
        _, found, rest = path.partition(".layers.")
        inside.add(rest.partition(".")[2] if found else path)
    return inside
