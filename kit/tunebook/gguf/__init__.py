"""GGUF both ways: a .gguf becomes a model folder that mlx-lm and transformers open, and such a folder becomes a .gguf.

One table (`architectures/table.py`) says how an architecture's metadata and tensors are named and arranged on each
side; one (`tokenizers/pre_tokenizers.py`) does the same for tokenizers. Nothing here trains, generates or knows MLX.
Another architecture is a row of the table.

Doors: `adapter`, `container`, `tokenizers/source`.
"""

from .architectures.rules import UnsupportedArchitecture
from .quantizations import QUANTIZATIONS
from .reader import read_gguf, read_tokenizer
from .tokenizers.tokenizer_json import check_tokenizer
from .writer import WrittenGguf, check_architecture, check_quantizations, write_gguf

__all__ = [
    "QUANTIZATIONS",
    "UnsupportedArchitecture",
    "WrittenGguf",
    "check_architecture",
    "check_quantizations",
    "check_tokenizer",
    "read_gguf",
    "read_tokenizer",
    "write_gguf",
]
