"""A .gguf written anew with other keys or tensors, by the gguf package: what a stranger's file may hold."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType


def rewritten(source: Path, target: Path, keys: dict[str, Any]) -> Path:
    """`source` with `keys` in place of its own or beside them; None leaves one out. A text is stored as such,
    a number as uint32, a list as it was."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    kept = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    for name, field in kept.items():
        if name == "general.architecture":
            continue
        value = keys.get(name, field.contents())
        if value is not None:
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, value, field.types[0], sub_type=sub_type)
    for name, value in keys.items():
        if name not in kept and value is not None:
            kind = GGUFValueType.STRING if isinstance(value, str) else GGUFValueType.UINT32
            writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
