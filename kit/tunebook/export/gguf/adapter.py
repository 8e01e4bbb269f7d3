"""The adapters alone as one .gguf, for llama.cpp's `--lora` on a GGUF of the base model.

It holds low-rank factors and nothing else: DoRA and modules that were trained whole are refused, and go into a merged
file (`files.py`) instead.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.lora import LoRAEmbedding, LoRASwitchLinear

from ...data.encoded import Encoded
from ...data.sources import Row
from ...gguf import write_gguf
from ...gguf.adapter import Factors, write_adapter
from ...machine.working import working_folder
from ...models.adapters import describe
from ...models.loaded import Loaded
from ...tokens.encoding import encode_rows
from ...train.evaluation import score_now
from ..readback import llama_cpp
from ..readback.verify import TOLERANCE, Verification, bytes_on_disk
from .feasibility import check_gguf, check_gguf_adapter
from .files import gguf_names, name_of


def save_gguf_adapter(loaded: Loaded, folder: Path | str) -> Path:
    """Write the adapters to `folder/NAME.lora.gguf` and return it.

    Raises ValueError when the model has none, and UnsupportedArchitecture or ValueError for what such a file cannot
    hold, before anything is written.
    """
    check_gguf(loaded)
    settings = describe(loaded.module)
    if settings is None:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    lora, name = settings["lora_parameters"], name_of(loaded)
    layers: dict[str, Any] = dict(loaded.module.named_modules())
    check_gguf_adapter(loaded)
    return write_adapter(
        loaded.config,
        {module: _factors(layers[module]) for module in lora["keys"]},
        Path(folder) / gguf_adapter_name(loaded),
        alpha=lora["scale"] * lora["rank"],
        name=f"{name} adapters",
        base=loaded.name,
        tied="lm_head" not in layers,
    )


def gguf_adapter_name(loaded: Loaded) -> str:
    """The name of that file."""
    return gguf_names(loaded, ["lora"])[0]


def verify_gguf_adapter(adapter: Path, loaded: Loaded, rows: Sequence[Row]) -> Verification:
    """Compare the loss llama.cpp finds with the adapter on a GGUF of the base with the live model's, on `rows`."""
    encoded = encode_rows(rows, loaded, max_seq_length=loaded.max_seq_length).rows
    here = score_now(loaded.module, loaded.family, encoded, batch_size=1, max_seq_length=loaded.max_seq_length)
    there = loss_with_adapter(loaded, adapter, encoded)
    return Verification(
        path=adapter,
        bytes=bytes_on_disk(adapter),
        reader=f"llama.cpp (xllamacpp {version('xllamacpp')}), on an f16 base",
        loss_here=here.loss,
        loss_there=there,
        tolerance=TOLERANCE["lora"],
        tokens=here.tokens,
        texts=0,  # the tokenizer is the base model's
        texts_alike=0,
        tokens_sec=None,
    )


def loss_with_adapter(loaded: Loaded, adapter: Path, rows: Sequence[Encoded]) -> float:
    """The loss llama.cpp finds with the adapter on a GGUF of the base, in nats per supervised token.

    The base is written as f16 from its own folder to a scratch folder. Raises ValueError for a base that is quantized
    here: a file of it would be another model.
    """
    if "quantization" in loaded.config:
        raise ValueError(
            f"{loaded.name} is quantized here, and a GGUF of it would differ by more than the adapter; nothing can be "
            "compared. Leave out verify_with."
        )
    with working_folder("base") as scratch:
        base = write_gguf(loaded.folder, scratch / "base.gguf", "f16").path
        log_probs = [
            llama_cpp.target_log_probs(base, row.tokens.tolist(), targets, adapter=adapter)
            for row in rows
            if (targets := [int(position) for position in np.flatnonzero(row.loss_mask) if position > 0])
        ]
    return -float(np.mean(np.concatenate(log_probs)))


def _factors(layer: nn.Module) -> Factors:
    """MLX keeps the transposes of the factors of a linear layer, and of the embedding's second."""
    a, b = layer["lora_a"], layer["lora_b"]
    if isinstance(layer, LoRASwitchLinear):
        return Factors(_numpy(a), _numpy(b))
    return Factors(_numpy(a if isinstance(layer, LoRAEmbedding) else a.T), _numpy(b.T))


def _numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))
