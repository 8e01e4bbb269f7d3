"""Tensors into a .gguf, a piece in memory at a time: the header and the table by gguf's writer, the bytes by us.

NumPy's `tofile`, which gguf's writer uses, hides a full disk; a plain write says so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from ..machine.progress_bars import bytes_bar


@dataclass(frozen=True)
class Streamed:
    """A tensor to be written; `pieces` makes its bytes, in order, when their turn comes."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    pieces: Callable[[], Iterable[np.ndarray]]

    @property
    def size_bytes(self) -> int:
        """In the file, without padding."""
        rows, width = int(np.prod(self.shape[:-1])), self.shape[-1]
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.type]
        return rows * (width // block) * block_bytes


def write_tensors(writer: gguf.GGUFWriter, path: Path, tensors: Sequence[Streamed], title: str) -> None:
    """Write the file at `path`, whose keys are in `writer`, and close the writer; `title` is the progress bar's."""
    for tensor in tensors:
        dtype = np.dtype(np.float32)
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.size_bytes, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    total = sum(tensor.size_bytes for tensor in tensors)
    with path.open("ab") as file, bytes_bar(total, title) as progress:
        file.write(bytes(-file.tell() % writer.data_alignment))
        for tensor in tensors:
            for data in tensor.pieces():
                file.write(np.ascontiguousarray(data).data)
                progress.update(data.nbytes)
            file.write(bytes(-file.tell() % writer.data_alignment))
