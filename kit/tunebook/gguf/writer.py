"""A model folder becomes one .gguf file, with neither torch nor llama.cpp, one matrix in memory at a time.

The folder is what MLX or transformers saves in 16 or 32 bits: config.json, model*.safetensors, a tokenizer. The layout,
the names and the types follow llama.cpp's own converter and quantizer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from ..machine.atomic import new_file
from ..model_files.generation_config import usable_generation
from .architectures.lookup import architecture_of_config, completed, refuse_variants
from .architectures.metadata import add_hyper_parameters
from .architectures.rope import FACTORS_TENSOR, scaling_to_gguf
from .encode import check_k_quants
from .experts import gathered
from .plan import planned
from .quantizations import KINDS, QUANTIZATIONS, is_k_quant
from .streaming import Streamed, write_tensors
from .tensor_files import stored_tensors
from .tokenizers.tokenizer_json import vocabulary_of_folder
from .tokenizers.vocabulary import add_to_gguf


@dataclass(frozen=True)
class WrittenGguf:
    """What `write_gguf` left on the disk."""

    path: Path
    size_bytes: int
    fallbacks: dict[str, str]  # tensors whose rows do not divide into their type's blocks -> the type they have instead
    notices: tuple[str, ...]  # what the file cannot say about the model, in sentences for people


def check_architecture(config: dict) -> None:
    """Raise UnsupportedArchitecture unless `write_gguf` can write the model this config.json describes."""
    architecture = architecture_of_config(config)
    whole = completed(config, architecture)
    refuse_variants(architecture, whole)
    scaling_to_gguf(architecture, whole)


def check_quantizations(quantizations: Sequence[str]) -> None:
    """Raise ValueError for kinds of file that nobody can write, ModuleNotFoundError for those we cannot here."""
    unknown = [kind for kind in quantizations if kind not in KINDS]
    if unknown or not quantizations:
        raise ValueError(
            f"Cannot write GGUF type {', '.join(unknown) or '(none)'}; choose from {', '.join(QUANTIZATIONS)}."
        )
    if any(is_k_quant(kind) for kind in quantizations):
        check_k_quants()


def write_gguf(folder: Path | str, path: Path | str, quantization: str, name: str | None = None) -> WrittenGguf:
    """Write the model in `folder` to `path`, which appears whole or not at all.

    `quantization` is one of QUANTIZATIONS and applies to the matrices (`quantizations.py`); vectors (norms, biases)
    stay in fp32. `name` is stored as the model's name; by default it is the folder's. Raises UnsupportedArchitecture,
    ValueError or ModuleNotFoundError before anything is written, DiskFull later.
    """
    folder, path = Path(folder), Path(path)
    check_quantizations([quantization])
    config = json.loads((folder / "config.json").read_text())
    check_architecture(config)
    if "quantization" in config or "quantization_config" in config:
        raise ValueError(f"The weights in {folder} are already quantized; save them in 16 bits first (merged_16bit).")
    architecture = architecture_of_config(config)
    config = completed(config, architecture)
    plan, notices = planned(architecture, config, gathered(stored_tensors(folder)), quantization)
    rows = next(tensor.shape[0] for tensor in plan if tensor.name == "token_embd.weight")
    config["vocab_size"] = rows
    vocabulary, unsaid = vocabulary_of_folder(folder, rows=rows, end_ids=_end_ids(folder, config))
    name, renamed = _loadable_name(name or folder.resolve().name, vocabulary.tokens)
    with new_file(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture.name)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(KINDS[quantization].file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        factors = add_hyper_parameters(writer, architecture, config)
        add_to_gguf(writer, vocabulary)
        tensors = [*_rope_factors(factors), *(tensor.streamed(config) for tensor in plan)]
        write_tensors(writer, partial, tensors, f"Writing {path.name}")
        size = partial.stat().st_size
    fallbacks = {tensor.name: tensor.type.name.lower() for tensor in plan if tensor.type != tensor.wanted}
    return WrittenGguf(path, size, fallbacks, (*notices, *unsaid, *renamed))


def _loadable_name(name: str, tokens: list[str]) -> tuple[str, list[str]]:
    """The name to store, and a sentence where it is not the one asked for.

    llama.cpp looks for Phi-3's tokens in any model so named, and does not load without them (src/llama-vocab.cpp).
    """
    stored = re.sub(r"phi-?3", "phi 3", name, flags=re.IGNORECASE)
    if stored == name or {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(tokens):
        return name, []
    return stored, [f"The file names the model {stored!r}: llama.cpp does not load one named {name!r} with its tokens."]


def _rope_factors(factors: np.ndarray | None) -> list[Streamed]:
    if factors is None:
        return []
    return [Streamed(FACTORS_TENSOR, factors.shape, GGMLQuantizationType.F32, lambda: [factors])]


def _end_ids(folder: Path, config: dict) -> list[int]:
    """The end-of-turn tokens generation_config.json lists, or else config.json."""
    listed = usable_generation(folder)[0].get("eos_token_id")
    ids = config.get("eos_token_id") if listed is None else listed
    if ids is None:
        return []
    return ids if isinstance(ids, list) else [ids]
