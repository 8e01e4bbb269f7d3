"""memory.py: what it says a run needs, against what MLX counts while the trainer's own steps are taken."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import gemma3_text, llama
from mlx_lm.utils import quantize_model

from tunebook import LoraConfig, TrainingConfig, memory
from tunebook.adapters import add_adapters
from tunebook.families.base import Encoded
from tunebook.families.text import TextFamily
from tunebook.loader import Loaded
from tunebook.norms import keep_norms_in_float32
from tunebook.step import Stepper
from tunebook.tensors import flat

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 2048,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "vocab_size": 100_000,
    "sliding_window": 64,
    "sliding_window_pattern": 6,
}


class Model:
    """A random model, as the estimate asks for one."""

    def __init__(self, settings: dict[str, Any], *, lora: LoraConfig | None = None, dtype=mx.float32, bits=None):
        room = gemma3_text if settings["model_type"] == "gemma3_text" else llama
        module = room.Model(room.ModelArgs.from_dict(settings))
        module.set_dtype(dtype)
        if bits:
            module, _ = quantize_model(module, dict(settings), group_size=64, bits=bits)
        if lora:
            add_adapters(module, lora)
        else:
            keep_norms_in_float32(module)
        mx.eval(module.parameters())
        self.loaded = Loaded(
            name="random",
            source="",
            folder=Path(),
            config=settings,
            module=module,
            tokenizer=None,  # type: ignore - the rows come as tokens
            family=TextFamily(module, tokenizer=None),  # type: ignore
            checkpoint_dtype=dtype,
            dtype=dtype,
            max_seq_length=2048,
        )


def rows_of(tokens: int, count: int, supervised: int) -> list[Encoded]:
    random = np.random.default_rng(0)
    return [
        Encoded(
            tokens=random.integers(1, 500, tokens).astype(np.int32),
            loss_mask=np.arange(tokens) >= tokens - supervised,
        )
        for _ in range(count)
    ]


def measured(model: Model, config: TrainingConfig, rows: list[Encoded]) -> int:
    """Bytes at the peak of two optimizer steps, the weights among them."""
    module = model.loaded.module
    mx.clear_cache()
    elsewhere = mx.get_active_memory() - sum(value.nbytes for value in flat(module.parameters()).values())
    stepper = Stepper(model.loaded, config, rows, total_steps=9, max_seq_length=2048)
    mx.eval(stepper.optimizer.state)
    mx.reset_peak_memory()
    size = config.per_device_train_batch_size
    for step in (1, 2):
        stepper.begin(step)
        for start in range(0, len(rows), size):
            stepper.add(rows[start : start + size], alone=config.gradient_accumulation_steps == 1)
        stepper.finish()
    return mx.get_peak_memory() - elsewhere


ONE = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 2, "gradient_checkpointing": False}
R16 = LoraConfig(r=16)
CONFIGURATIONS = {
    "lora": (LLAMA, {"lora": R16}, {}, (257, 257)),
    "lora, bfloat16": (LLAMA, {"lora": R16, "dtype": mx.bfloat16}, {}, (129, 60)),
    "lora, recomputed": (LLAMA, {"lora": R16}, {"gradient_checkpointing": True}, (513, 513)),
    "lora, 4-bit": (LLAMA, {"lora": R16, "bits": 4}, {}, (257, 60)),
    "dora, dropout": (LLAMA, {"lora": LoraConfig(r=8, use_dora=True, lora_dropout=0.1)}, {}, (129, 60)),
    "everything, adamw": (LLAMA, {}, {}, (129, 129)),
    "everything, lion, accumulated": (LLAMA, {}, {"optim": "lion", "gradient_accumulation_steps": 2}, (65, 65)),
    "a large vocabulary": (GEMMA, {"lora": R16}, {}, (257, 256)),
    "a large vocabulary, recomputed": (GEMMA, {"lora": R16}, {"gradient_checkpointing": True}, (257, 256)),
    "a large vocabulary, everything": (GEMMA, {}, {"optim": "sgd"}, (129, 60)),
    "the last layers": (LLAMA, {"lora": LoraConfig(r=16, finetune_last_n_layers=3)}, {}, (257, 60)),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(name):
    settings, kind, changes, (tokens, supervised) = CONFIGURATIONS[name]
    model, config = Model(settings, **kind), TrainingConfig(**{**ONE, **changes})
    rows = rows_of(tokens, 2 * config.gradient_accumulation_steps, supervised)
    estimate = memory.estimate(model, config, rows=rows)
    assert estimate.total == pytest.approx(measured(model, config, rows), rel=0.2), estimate
