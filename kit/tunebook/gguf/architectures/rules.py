"""What one row of the architecture table says: hyper-parameters, tensors, and what GGUF cannot express of a model.

The rows themselves are in `table.py` and `gemma.py`; `lookup.py` finds them. A rule turns an array of a model
folder into llama.cpp's arrangement and back; it reads and writes no file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import gguf
import numpy as np


class UnsupportedArchitecture(ValueError):
    """A model of a kind, or with a setting, that cannot be carried to or from GGUF faithfully."""


@dataclass(frozen=True)
class Key:
    """One hyper-parameter: its GGUF key without the architecture's prefix, and its entry in config.json."""

    gguf: str
    config: str
    kind: type[int] | type[float] = int  # uint32 or float32 in the file
    optional: bool = False  # a config without it is complete


@dataclass(frozen=True)
class TensorRule:
    """How the weight and bias of one module are arranged; the GGUF name comes from gguf's own tensor-name map."""

    module: str  # the module's path; inside `model.layers.N.` unless `once`
    once: bool = False
    heads: str | None = None  # the config entry that counts this projection's heads, where llama.cpp rotates neighbours
    shift: float = 0.0  # added on the way to GGUF
    stacked: bool = False  # one tensor (experts, outputs, inputs) in GGUF, one per expert in a folder (`experts.py`)
    exact: bool = False  # a matrix that is never quantized

    def to_gguf(self, array: np.ndarray, config: dict) -> np.ndarray:
        """The fp32 array as llama.cpp wants it; for a `stacked` rule one expert's.

        llama.cpp's "normal" rope rotates neighbouring rows (2i, 2i+1) of a head, the Hugging Face one rows (i, i+d/2):
        the rows of each head are reordered from two halves to pairs, as in llama.cpp/conversion/llama.py, `permute`.
        """
        if self.heads:
            count = config[self.heads]
            halves = array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        return array + np.float32(self.shift) if self.shift else array

    def from_gguf(self, array: np.ndarray, config: dict) -> np.ndarray:
        """The inverse of `to_gguf`."""
        if self.heads:
            count = config[self.heads]
            pairs = array.reshape(count, len(array) // count // 2, 2, *array.shape[1:])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        return array - np.float32(self.shift) if self.shift else array


def _nothing_to_refuse(_config: dict) -> list[str]:
    return []


def _nothing_to_add(_config: dict) -> dict:
    return {}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table."""

    arch: gguf.MODEL_ARCH
    model_types: tuple[str, ...]  # of config.json; the first is the one a .gguf is read as
    class_name: str  # transformers' class, for config.json
    keys: tuple[Key, ...]
    tensors: tuple[TensorRule, ...]
    fixed: dict[str, object] = field(default_factory=dict)  # config entries that may have no other value
    defaults: dict[str, object] = field(default_factory=dict)  # what transformers assumes where config.json is silent
    rope_scaling: tuple[str, ...] = ("linear",)  # the kinds that both sides know
    bias_flags: dict[str, str] = field(default_factory=dict)  # config entry -> the module whose bias it switches on
    refuse: Callable[[dict], list[str]] = _nothing_to_refuse  # reasons why a completed config cannot be carried over
    implied: Callable[[dict], dict] = _nothing_to_add  # config entries llama.cpp does not store but assumes

    @property
    def name(self) -> str:
        """`general.architecture`, and the prefix of the keys."""
        return gguf.MODEL_ARCH_NAMES[self.arch]

    def tensor_names(self, num_hidden_layers: int) -> dict[str, tuple[str, TensorRule]]:
        """Every tensor that may exist: its name in the model folder -> its name in GGUF, and its rule."""
        names = gguf.get_tensor_name_map(self.arch, num_hidden_layers)
        modules = [
            (rule.module if rule.once else f"model.layers.{layer}.{rule.module}", rule)
            for rule in self.tensors
            for layer in range(1 if rule.once else num_hidden_layers)
        ]
        return {
            module + part: (f"{names.get_name(module)}{part}", rule)
            for module, rule in modules
            for part in (".weight", ".bias")
        }

    def required_tensors(self, num_hidden_layers: int, *, tied: bool) -> list[str]:
        """The tensors a model folder must hold; the biases are not among them."""
        return [
            name
            for name in self.tensor_names(num_hidden_layers)
            if name.endswith(".weight") and not (tied and name == "lm_head.weight")
        ]
