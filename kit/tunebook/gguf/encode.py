"""An fp32 array becomes the bytes of a ggml type: by NumPy (the `gguf` package), K-quants by ggml's own C (libgguf)."""

import importlib
from importlib.util import find_spec
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

_BY_LIBGGUF = (
    GGMLQuantizationType.Q2_K,
    GGMLQuantizationType.Q3_K,
    GGMLQuantizationType.Q4_K,
    GGMLQuantizationType.Q5_K,
    GGMLQuantizationType.Q6_K,
)


def check_k_quants() -> None:
    """Raise ModuleNotFoundError, with what to install, unless K-quants can be made: libgguf is optional."""
    if find_spec("libgguf") is None:
        raise ModuleNotFoundError(
            "K-quants (q4_k_m and the like) need libgguf, which is not installed: pip install libgguf. "
            "Without it there are q8_0, q5_1, q5_0, q4_1 and q4_0."
        )


def encode(array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The array in `kind`; the last axis, if that is a quantized type, in bytes. Rows must divide into its blocks."""
    if kind not in _BY_LIBGGUF:
        return gguf.quantize(array, kind)
    libgguf: Any = importlib.import_module("libgguf")  # optional, and it declares no types
    return libgguf.quantize_rows(array, int(kind))
