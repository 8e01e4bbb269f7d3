"""A .gguf becomes an ordinary model folder: config.json, model*.safetensors, tokenizer files.

Quantized weights are dequantized; the folder has one dtype throughout. Nothing is downloaded, guessed or dropped: a
tensor, key or tokenizer without a rule is an error that names it. Split files and adapters are not read.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from ..machine.atomic import new_folder
from ..machine.progress_bars import bytes_bar
from .architectures.lookup import architecture_of_gguf, refuse_variants
from .architectures.metadata import config_of_gguf
from .architectures.rope import FACTORS_TENSOR
from .architectures.rules import Architecture, TensorRule, UnsupportedArchitecture
from .architectures.shapes import expected_shape, refuse_settings
from .container import StoredArray, named, open_container, shown
from .experts import name_of_expert
from .tensor_files import write_shards
from .tokenizers.tokenizer_json import tokenizer_files
from .tokenizers.vocabulary import Vocabulary, vocabulary_of_gguf
from .typed import count_of, text_of

_SHARD_BYTES = 5_000_000_000  # as transformers and mlx-lm cut them

_DTYPES = {
    GGMLQuantizationType.F32: ("F32", "float32"),
    GGMLQuantizationType.F16: ("F16", "float16"),
    GGMLQuantizationType.BF16: ("BF16", "bfloat16"),
}


@dataclass(frozen=True)
class _Source:
    """Where a tensor of the model folder comes from."""

    tensor: StoredArray
    rule: TensorRule
    expert: int | None = None  # which of the stacked ones

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.expert is None else self.tensor.shape[1:]

    @property
    def data(self) -> np.ndarray:
        return self.tensor.data if self.expert is None else self.tensor.data[self.expert]


def read_gguf(path: Path | str, folder: Path | str, *, shard_bytes: int = _SHARD_BYTES) -> Path:
    """Write the model in `path` to `folder` and return it; mlx-lm and transformers open the result.

    `folder` must not exist, or be empty; it appears whole or not at all. Its dtype is the one most parameters of the
    file have; a quantized file becomes float16, ggml's own type for scales. Raises UnsupportedArchitecture or
    ValueError before anything is written, DiskFull later.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists and is not an empty folder; choose another one, or remove it.")
    container = open_container(path)
    keys, tensors = container.keys, dict(container.tensors)
    architecture = architecture_of_gguf(text_of(keys, "general.architecture"))
    _refuse_unreadable(path, keys, tensors)
    factors = _factors(tensors.pop(FACTORS_TENSOR)) if FACTORS_TENSOR in tensors else None
    sources = _sources(architecture, keys, tensors)
    rows = tensors["token_embd.weight"].shape[0]
    config = config_of_gguf(architecture, keys, factors, vocab_size=rows, tensor_names=set(sources))
    refuse_variants(architecture, config)
    refuse_settings(config)
    _refuse_shapes(sources, config)
    vocabulary = vocabulary_of_gguf(keys)
    if len(vocabulary.tokens) != rows:
        raise ValueError(f"{path} has {len(vocabulary.tokens)} tokens and an embedding of {rows} rows.")
    stored_dtype, dtype = _DTYPES[_main_type(tensors)]
    ids = _token_ids(vocabulary)
    config |= {"torch_dtype": dtype, "dtype": dtype} | ids
    files = tokenizer_files(vocabulary, max_length=config["max_position_embeddings"]) | {
        "config.json": json.dumps(config, indent=2),
        "generation_config.json": json.dumps(ids, indent=2),
    }
    with new_folder(folder) as partial:
        for name, text in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")
        shapes = {name: source.shape for name, source in sources.items()}
        write_shards(partial, stored_dtype, shapes, _arrays(sources, config, path), shard_bytes=shard_bytes)
    return folder


def read_tokenizer(path: Path | str, folder: Path | str) -> dict[str, int | list[int]]:
    """Write the tokenizer in `path`, and nothing else of it, to `folder`; its `bos_token_id` and the like.

    Raises as `read_gguf`.
    """
    keys = open_container(Path(path)).keys
    _refuse_no_model(Path(path), keys)
    architecture = text_of(keys, "general.architecture")
    vocabulary = vocabulary_of_gguf(keys)
    longest = count_of(keys, f"{architecture}.context_length")
    ids = _token_ids(vocabulary)
    # transformers asks a config which class of tokenizer it is to make.
    files = tokenizer_files(vocabulary, max_length=longest) | {"config.json": json.dumps(ids)}
    for name, text in files.items():
        file = Path(folder) / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return ids


def _refuse_no_model(path: Path, keys: dict) -> None:
    if (kind := text_of(keys, "general.type", "model")) != "model":
        raise ValueError(f"{path} holds a {shown(kind)}, not a model.")


def _refuse_unreadable(path: Path, keys: dict, tensors: dict[str, StoredArray]) -> None:
    _refuse_no_model(path, keys)
    if (parts := count_of(keys, "split.count", 1, least=0)) > 1:
        raise ValueError(f"{path} is one of {parts} parts; join them with llama.cpp's gguf-split --merge.")
    odd = {tensor.type for tensor in tensors.values() if not _can_dequantize(tensor.type)}
    if odd:
        names = ", ".join(sorted(kind.name for kind in odd))
        raise ValueError(f"{path} holds tensors of type {names}, which the gguf package cannot dequantize.")


def _can_dequantize(kind: GGMLQuantizationType) -> bool:
    if kind in _DTYPES:
        return True
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _factors(tensor: StoredArray) -> np.ndarray:
    """(head_dim / 2,) fp32."""
    if tensor.type != GGMLQuantizationType.F32 or len(tensor.shape) != 1:
        raise ValueError(f"{FACTORS_TENSOR} is {tensor.type.name} of shape {tensor.shape}; it must be a list of F32.")
    return tensor.data.view(np.float32)


def _sources(architecture: Architecture, keys: dict, tensors: dict[str, StoredArray]) -> dict[str, _Source]:
    """For each tensor of the model folder where it comes from. Raises if any of the file is left over or missing."""
    layers = count_of(keys, f"{architecture.name}.block_count")
    if layers > len(tensors):
        raise ValueError(f"{architecture.name}.block_count is {layers}, and the file has {len(tensors)} tensors.")
    names = architecture.tensor_names(layers)
    if unknown := sorted(set(tensors) - {theirs for theirs, _ in names.values()}):
        raise UnsupportedArchitecture(
            f"{len(unknown)} tensors have no rule for {architecture.name} and would be lost: "
            f"{', '.join(map(named, unknown[:8]))}."
        )
    required = architecture.required_tensors(layers, tied="output.weight" not in tensors)
    if missing := [names[name][0] for name in required if names[name][0] not in tensors]:
        raise ValueError(f"The file lacks {len(missing)} tensors: {', '.join(missing[:8])}.")
    sources = {}
    for name, (theirs, rule) in names.items():
        if theirs in tensors and rule.stacked:
            if len(tensors[theirs].shape) != 3:
                raise ValueError(f"{theirs} has the shape {tensors[theirs].shape}; experts are (experts, rows, width).")
            for index in range(tensors[theirs].shape[0]):
                sources[name_of_expert(name, index)] = _Source(tensors[theirs], rule, index)
        elif theirs in tensors:
            sources[name] = _Source(tensors[theirs], rule)
    return sources


def _refuse_shapes(sources: dict[str, _Source], config: dict) -> None:
    for name, source in sources.items():
        expected = expected_shape(name, config, is_expert=source.expert is not None)
        if source.shape != expected:
            raise ValueError(
                f"The tensor {source.tensor.name} has the shape {source.shape}; by the settings in the file it is "
                f"{expected}."
            )


def _main_type(tensors: dict[str, StoredArray]) -> GGMLQuantizationType:
    """The type most parameters have; F16 where that is a quantized one."""
    parameters: Counter[GGMLQuantizationType] = Counter()
    for tensor in tensors.values():
        quantized = tensor.type not in _DTYPES
        parameters[GGMLQuantizationType.F16 if quantized else tensor.type] += math.prod(tensor.shape)
    return parameters.most_common(1)[0][0]


def _token_ids(vocabulary: Vocabulary) -> dict[str, int | list[int]]:
    """The entries config.json and generation_config.json share."""
    special, ends = vocabulary.special_ids, vocabulary.end_ids
    ids: dict[str, int | list[int]] = {f"{name}_token_id": special[name] for name in ("bos", "pad") if name in special}
    return ids | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def _arrays(sources: dict[str, _Source], config: dict, path: Path) -> Iterator[np.ndarray]:
    """The fp32 arrays of the folder, one at a time."""
    total = sum(source.data.nbytes for source in sources.values())
    with bytes_bar(total, f"Reading {path.name}") as progress:
        for source in sources.values():
            array = gguf.dequantize(source.data, source.tensor.type).astype(np.float32, copy=False)
            yield source.rule.from_gguf(array, config)
            progress.update(source.data.nbytes)
