"""A model folder becomes one .gguf file, with neither torch nor llama.cpp, one tensor in memory at a time.

The folder is what MLX or transformers saves in 16 or 32 bits: config.json, model*.safetensors, a tokenizer. The layout,
the names and which tensors stay in fp32 follow llama.cpp's own converter. K-quants are not made here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

from ..atomic import new_file
from ..progress import bytes_bar
from .architectures import (
    Architecture,
    TensorRule,
    UnsupportedArchitecture,
    architecture_of_config,
    completed,
    refuse_variants,
)
from .metadata import add_hyper_parameters
from .rope import FACTORS_TENSOR, scaling_to_gguf
from .tensor_files import StoredTensor, stored_tensors
from .tokenizer_json import vocabulary_of_folder
from .vocabulary import add_to_gguf

_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q4_1": (GGMLQuantizationType.Q4_1, LlamaFileType.MOSTLY_Q4_1),
    "q5_0": (GGMLQuantizationType.Q5_0, LlamaFileType.MOSTLY_Q5_0),
    "q5_1": (GGMLQuantizationType.Q5_1, LlamaFileType.MOSTLY_Q5_1),
}
QUANTIZATIONS = tuple(_TYPES)

# Logits suffer most from a coarse head; llama.cpp gives it a finer type too (src/llama-quant.cpp), there Q6_K.
_HEAD_TYPE: dict[str, str] = dict.fromkeys(("q4_0", "q4_1", "q5_0", "q5_1"), "q8_0")


@dataclass(frozen=True)
class WrittenGguf:
    """What `write_gguf` left on the disk."""

    path: Path
    size_bytes: int
    fallbacks: tuple[str, ...]  # tensors stored as f16 because their rows do not divide into blocks
    notices: tuple[str, ...]  # what the file cannot say about the model, in sentences for people


@dataclass(frozen=True)
class _Planned:
    """One tensor of the file to be written."""

    name: str  # in GGUF
    source: StoredTensor
    rule: TensorRule
    type: GGMLQuantizationType

    @property
    def size_bytes(self) -> int:
        rows, width = int(np.prod(self.source.shape[:-1])), self.source.shape[-1]
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.type]
        return rows * (width // block) * block_bytes

    def encoded(self, config: dict) -> np.ndarray:
        array = np.ascontiguousarray(self.rule.to_gguf(self.source.read(), config))
        if self.type == GGMLQuantizationType.F16 and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
            raise ValueError(f"{self.source.name} holds values beyond fp16's 65504; write bf16 or f32 instead.")
        return gguf.quantize(array, self.type)


def check_architecture(config: dict) -> None:
    """Raise UnsupportedArchitecture unless `write_gguf` can write the model this config.json describes."""
    architecture = architecture_of_config(config)
    whole = completed(config, architecture)
    refuse_variants(architecture, whole)
    scaling_to_gguf(architecture, whole)


def write_gguf(folder: Path | str, path: Path | str, quantization: str, name: str | None = None) -> WrittenGguf:
    """Write the model in `folder` to `path`, which appears whole or not at all.

    `quantization` is one of QUANTIZATIONS and applies to the matrices; vectors (norms, biases) stay in fp32, and the
    4- and 5-bit kinds keep the output head (and a tied embedding) in q8_0. `name` is stored as the model's name; by
    default it is the folder's. Raises UnsupportedArchitecture or ValueError before anything is written, DiskFull later.
    """
    folder, path = Path(folder), Path(path)
    if quantization not in _TYPES:
        raise ValueError(
            f"quantization {quantization!r} cannot be written; supported are {', '.join(QUANTIZATIONS)}. "
            "K-quants are made by llama.cpp's llama-quantize from an f16 file."
        )
    config = json.loads((folder / "config.json").read_text())
    check_architecture(config)
    architecture = architecture_of_config(config)
    config = completed(config, architecture)
    plan, notices = _plan(architecture, config, stored_tensors(folder), quantization)
    rows = next(tensor.source.shape[0] for tensor in plan if tensor.source.name == "model.embed_tokens.weight")
    config["vocab_size"] = rows
    vocabulary, unsaid = vocabulary_of_folder(folder, rows=rows, end_ids=_end_ids(folder, config))
    with new_file(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture.name)
        writer.add_type("model")
        writer.add_name(_safe_name(name or folder.resolve().name, vocabulary.tokens))
        writer.add_file_type(_TYPES[quantization][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        factors = add_hyper_parameters(writer, architecture, config)
        add_to_gguf(writer, vocabulary)
        _write_tensors(writer, partial, plan, factors, config)
        size = partial.stat().st_size
    wanted = _TYPES[quantization][0]
    fallbacks = tuple(
        tensor.name
        for tensor in plan
        if tensor.type == GGMLQuantizationType.F16 != wanted and len(tensor.source.shape) > 1
    )
    return WrittenGguf(path, size, fallbacks, (*notices, *unsaid))


def _plan(
    architecture: Architecture, config: dict, stored: dict[str, StoredTensor], quantization: str
) -> tuple[list[_Planned], list[str]]:
    """What becomes of each stored tensor, and what to say of those left out. Raises for one missing or without rule."""
    layers = config["num_hidden_layers"]
    names = architecture.tensor_names(layers)
    tied = config.get("tie_word_embeddings", "lm_head.weight" not in stored)
    notices = []
    # Computed from the config by every reader; some old Llama checkpoints still store it.
    wanted = {key: tensor for key, tensor in stored.items() if not key.endswith("rotary_emb.inv_freq")}
    if tied and wanted.pop("lm_head.weight", None):
        notices.append("lm_head.weight is left out: the config ties the head to the embedding.")
    if unknown := [key for key in wanted if key not in names]:
        raise UnsupportedArchitecture(
            f"{len(unknown)} tensors have no rule for {architecture.name} and would be lost: {', '.join(unknown[:8])}."
        )
    if missing := [key for key in architecture.required_tensors(layers, tied=tied) if key not in wanted]:
        raise ValueError(f"The model folder lacks {len(missing)} tensors: {', '.join(missing[:8])}.")
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    plan = []
    for key, (gguf_name, rule) in names.items():
        if key in wanted:
            kind = _HEAD_TYPE.get(quantization, quantization) if key == head else quantization
            plan.append(_Planned(gguf_name, wanted[key], rule, _type_for(wanted[key].shape, _TYPES[kind][0])))
    return plan, notices


def _type_for(shape: tuple[int, ...], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """llama.cpp's rule (conversion/base.py, prepare_tensors): vectors in fp32, rows that do not divide in fp16."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if shape[-1] % block == 0 else GGMLQuantizationType.F16


def _safe_name(name: str, tokens: list[str]) -> str:
    """llama.cpp looks for Phi-3's tokens in any model so named, and does not load without them (llama-vocab.cpp)."""
    if {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(tokens):
        return name
    return re.sub(r"phi-?3", "phi 3", name, flags=re.IGNORECASE)


def _end_ids(folder: Path, config: dict) -> list[int]:
    """The end-of-turn tokens generation_config.json lists, or else config.json."""
    file = folder / "generation_config.json"
    listed = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
    ids = config.get("eos_token_id") if listed is None else listed
    if ids is None:
        return []
    return ids if isinstance(ids, list) else [ids]


def _write_tensors(
    writer: gguf.GGUFWriter, path: Path, plan: list[_Planned], factors: np.ndarray | None, config: dict
) -> None:
    """The header, the keys and the table by gguf's writer; the bytes by us, for NumPy's `tofile` hides a full disk."""
    if factors is not None:
        writer.add_tensor_info(FACTORS_TENSOR, factors.shape, factors.dtype, factors.nbytes)
    for tensor in plan:
        dtype = np.dtype(np.float32)
        writer.add_tensor_info(tensor.name, tensor.source.shape, dtype, tensor.size_bytes, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    total = sum(tensor.size_bytes for tensor in plan)
    with (
        path.open("ab") as file,
        bytes_bar(total, f"Writing {path.name}") as progress,
    ):
        file.write(bytes(-file.tell() % writer.data_alignment))
        for data in _tensor_data(plan, factors, config):
            file.write(np.ascontiguousarray(data).data)
            file.write(bytes(-file.tell() % writer.data_alignment))
            progress.update(data.nbytes)


def _tensor_data(plan: list[_Planned], factors: np.ndarray | None, config: dict) -> Iterator[np.ndarray]:
    if factors is not None:
        yield factors
    for tensor in plan:
        yield tensor.encoded(config)
