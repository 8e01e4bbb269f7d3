"""safetensors files, one tensor at a time and without MLX or torch: their tensors as fp32, and shards written in turn.

The format is a length, a JSON table and the bytes (github.com/huggingface/safetensors, README). Writing the bytes here
keeps one tensor in memory instead of one shard, and makes a full disk an OSError.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

_GGML_TYPES = {
    "F32": GGMLQuantizationType.F32,
    "F16": GGMLQuantizationType.F16,
    "BF16": GGMLQuantizationType.BF16,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, not read yet."""

    name: str
    dtype: str  # as safetensors writes it: "F32", "BF16" ...
    shape: tuple[int, ...]
    file: Path
    offset: int  # bytes from the start of the file

    @property
    def size_bytes(self) -> int:
        """In the file."""
        return (4 if self.dtype == "F32" else 2) * math.prod(self.shape)

    def read(self) -> np.ndarray:
        """The tensor as fp32. Raises ValueError if it holds a number that is not finite."""
        kind = _GGML_TYPES[self.dtype]
        raw = np.fromfile(self.file, np.uint8, count=self.size_bytes, offset=self.offset)
        if kind != GGMLQuantizationType.BF16:  # which NumPy does not know
            raw = raw.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
        array = gguf.dequantize(raw, kind).reshape(self.shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{self.name} in {self.file} holds numbers that are not finite; it cannot be exported.")
        return array


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of `model*.safetensors` in a model folder, by name. Raises ValueError for integer or fp8 weights."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no model*.safetensors; is it a model folder?")
    found: dict[str, StoredTensor] = {}
    for file in files:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            table = json.loads(handle.read(length))
        for name, entry in table.items():
            if name != "__metadata__":
                offset = 8 + length + entry["data_offsets"][0]
                found[name] = StoredTensor(name, entry["dtype"], tuple(entry["shape"]), file, offset)
    odd = [f"{tensor.name} ({tensor.dtype})" for tensor in found.values() if tensor.dtype not in _GGML_TYPES]
    if odd:
        raise ValueError(f"Only F32, F16 and BF16 weights can be written to GGUF; not {', '.join(odd[:5])}.")
    return found


def write_shards(
    folder: Path, dtype: str, shapes: dict[str, tuple[int, ...]], arrays: Iterable[np.ndarray], *, shard_bytes: int
) -> None:
    """Write fp32 arrays, in the order of `shapes`, as model.safetensors or as numbered shards with their index.

    Raises ValueError where a value does not fit `dtype` ("F32", "F16" or "BF16").
    """
    shards = _shards(shapes, 4 if dtype == "F32" else 2, shard_bytes)
    arrays = iter(arrays)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        with (folder / file).open("wb") as handle:
            handle.write(_header(dtype, {name: shapes[name] for name in names}))
            for name in names:
                handle.write(_encoded(next(arrays), dtype, name))
    if len(shards) > 1:
        total = sum(map(math.prod, shapes.values())) * (4 if dtype == "F32" else 2)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _shards(shapes: dict[str, tuple[int, ...]], item_bytes: int, shard_bytes: int) -> list[list[str]]:
    """The names in order, cut where the next tensor would take a shard past `shard_bytes`."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, shape in shapes.items():
        size = item_bytes * math.prod(shape)
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _header(dtype: str, shapes: dict[str, tuple[int, ...]]) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + (4 if dtype == "F32" else 2) * math.prod(shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    return len(text).to_bytes(8, "little") + text


def _encoded(array: np.ndarray, dtype: str, name: str) -> memoryview:
    if dtype == "F16" and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(f"{name} holds values beyond fp16's 65504.")
    return np.ascontiguousarray(gguf.quantize(array, _GGML_TYPES[dtype])).data
