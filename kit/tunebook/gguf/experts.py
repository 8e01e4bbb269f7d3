"""The experts of a mixture: one tensor per expert in transformers' folders, one stacked in mlx-lm's and in GGUF.

Each tensor of a folder becomes a tuple of parts, for all but the experts of one: what is read, arranged and encoded at
once is never more than one expert's matrix.
"""

import re
from collections import defaultdict
from dataclasses import replace

from .tensor_files import StoredTensor

_SINGLE = re.compile(r"(.+\.mlp\.experts)\.(\d+)\.(\w+\.weight)")  # transformers
_STACKED = re.compile(r"(.+\.mlp)\.switch_mlp\.(\w+\.weight)")  # mlx-lm

Parts = tuple[StoredTensor, ...]


def gathered(stored: dict[str, StoredTensor]) -> dict[str, Parts]:
    """Each tensor's parts; experts under the name the table has, as `model.layers.0.mlp.experts.up_proj.weight`.

    Raises ValueError where the experts of a layer are not numbered from 0 without a gap.
    """
    found: dict[str, Parts] = {}
    singles: dict[str, dict[int, StoredTensor]] = defaultdict(dict)
    for name, tensor in stored.items():
        if match := _SINGLE.fullmatch(name):
            singles[f"{match[1]}.{match[3]}"][int(match[2])] = tensor
        else:
            found[table_name(name)] = _slices(tensor) if _STACKED.fullmatch(name) else (tensor,)
    for name, tensors in singles.items():
        if missing := sorted(set(range(max(tensors) + 1)) - set(tensors)):
            raise ValueError(f"The model folder lacks {name} of experts {missing[:8]}.")
        found[name] = tuple(tensors[index] for index in range(len(tensors)))
    return found


def table_name(name: str) -> str:
    """A tensor's or module's name in the table, where mlx-lm calls it otherwise."""
    return name.replace(".mlp.switch_mlp.", ".mlp.experts.")


def name_of_expert(name: str, index: int) -> str:
    """What transformers calls one expert's part of a stacked tensor; mlx-lm reads that too."""
    return name.replace(".mlp.experts.", f".mlp.experts.{index}.")


def _slices(tensor: StoredTensor) -> Parts:
    """The E matrices of an (E, outputs, inputs) tensor."""
    count, *shape = tensor.shape
    return tuple(
        replace(tensor, shape=tuple(shape), offset=tensor.offset + index * (tensor.size_bytes // count))
        for index in range(count)
    )
