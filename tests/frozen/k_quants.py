"""Writes k_quants.json: the type llama.cpp itself gives every tensor of some models, for each kind of K-quant file.

`python -m tests.frozen.k_quants FOLDER`, where FOLDER holds a Linux build of llama.cpp (libggml-base.so, libggml*.so,
libllama*.so); the numbers here are release v0.5.0's, from the npm package @node-llama-cpp/linux-x64 3.22.1. The models
are random and tiny; llama.cpp's quantizer looks at their shapes only.
"""

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

import gguf

from tests.makers.tiny import tiny_model_folder
from tunebook.gguf import write_gguf
from tunebook.gguf.quantizations import KINDS, is_k_quant

FILE = Path(__file__).with_suffix(".json")

# One letter per type, so that the layers of a module are one word.
LETTERS = {
    "Q2_K": "2",
    "Q3_K": "3",
    "Q4_K": "4",
    "Q5_K": "5",
    "Q6_K": "6",
    "Q8_0": "8",
    "Q4_0": "a",
    "Q5_0": "b",
    "Q5_1": "c",
    "F16": "h",
}

_WIDE = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512}
_MIXED = {**_WIDE, "moe_intermediate_size": 256, "num_hidden_layers": 9}
CASES: dict[str, tuple[str, dict]] = {
    "17 layers": ("llama", {**_WIDE, "num_hidden_layers": 17, "tie_word_embeddings": False}),
    "32 layers, tied": ("qwen3", {**_WIDE, "num_hidden_layers": 32}),
    "80 layers of Llama, 8 heads to a value": (
        "llama",
        {**_WIDE, "num_hidden_layers": 80, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32},
    ),
    "80 layers of Llama, heads not grouped": ("llama", {**_WIDE, "num_hidden_layers": 80, "num_key_value_heads": 4}),
    "80 layers of Qwen 2": ("qwen2", {**_WIDE, "num_hidden_layers": 80, "num_key_value_heads": 4}),
    "4 experts": ("qwen3_moe", _MIXED),
    "8 experts": ("qwen3_moe", {**_MIXED, "num_experts": 8, "tie_word_embeddings": False}),
    "attention in one": ("phi3", {**_WIDE, "num_hidden_layers": 16, "tie_word_embeddings": False}),
    "rows of 64": ("llama", {}),
    "rows of 96 and 72": ("llama", {"hidden_size": 96, "head_dim": 24, "intermediate_size": 72}),
}


class Parameters(ctypes.Structure):
    """The first fields of llama_model_quantize_params, and room for the others."""

    _fields_ = (("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("others", ctypes.c_char * 512))


def quantizer(folder: Path):
    """llama.cpp's `llama_model_quantize`, as a function of (from, to, LlamaFileType)."""
    ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    ggml = ctypes.CDLL(str(next(folder.glob("libggml.*so"))), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(os.fsencode(folder))
    llama = ctypes.CDLL(str(next(folder.glob("libllama.*so"))), mode=ctypes.RTLD_GLOBAL)
    llama.llama_model_quantize_default_params.restype = Parameters
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]

    def quantize(source: Path, target: Path, file_type: int) -> None:
        parameters = llama.llama_model_quantize_default_params()
        parameters.threads, parameters.file_type = 1, file_type
        if llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)):
            raise RuntimeError(f"llama.cpp did not quantize {source}.")

    return quantize


def words(path: Path) -> dict[str, str]:
    """Module -> one letter per layer, for the matrices of a file that are quantized."""
    found: dict[str, str] = {}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    layers = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("blk.")), default=0)
    for name in [*(f"blk.{layer}.{module}" for layer in range(layers) for module in modules(tensors)), *ends(tensors)]:
        kind = tensors[name].tensor_type.name
        if kind != "F32":
            module = name.split(".")[-2]
            found[module] = found.get(module, "") + LETTERS[kind]
    return found


def modules(tensors: dict) -> list[str]:
    return [name.removeprefix("blk.0.") for name in tensors if name.startswith("blk.0.")]


def ends(tensors: dict) -> list[str]:
    return [name for name in tensors if not name.startswith("blk.")]


def main(folder: Path) -> None:
    quantize, table = quantizer(folder), {}
    for case, (architecture, settings) in CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            model = tiny_model_folder(Path(scratch) / "model", architecture, **settings)
            source = write_gguf(model, Path(scratch) / "f32.gguf", "f32").path
            table[case] = {}
            for kind in filter(is_k_quant, KINDS):
                target = Path(scratch) / "quantized.gguf"
                quantize(source, target, KINDS[kind].file_type)
                table[case][kind] = words(target)
    FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
