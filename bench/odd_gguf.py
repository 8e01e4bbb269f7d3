"""A whole .gguf with odd contents: lengths and places are right, and keys, tokens or tensors are not what they were.

Damaged bytes are mostly found out by the container; what is made here gets past it, as a stranger's file would.
"""

import math
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType as Kind

ALIGNMENT = 32
FORMATS = {
    Kind.UINT8: "<B", Kind.INT8: "<b", Kind.UINT16: "<H", Kind.INT16: "<h", Kind.UINT32: "<I", Kind.INT32: "<i",
    Kind.FLOAT32: "<f", Kind.BOOL: "<?", Kind.UINT64: "<Q", Kind.INT64: "<q", Kind.FLOAT64: "<d",
}  # fmt: skip
COUNTS = (0, 1, 2, 3, 5, 7, 8, 16, 32, 64, 100, 255, 511, 512, 513, 1 << 16, 1_000_000, (1 << 31) - 1, 1 << 31)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-45, 3e38, 10_000.0, math.nan, math.inf, -math.inf)
TEXTS = (
    *("", " ", "\0", "a", "▁", "llama", "gpt2", "default", "qwen2", "bert", "../../x", "/tmp/x", "\n", "\x1b[31m"),
    *("{{ 1/0 }}", "{% for a in range(10**9) %}{% endfor %}", "{{ messages[0]['content'] }}", "{%", "{{ x.y.z }}"),
    *("x" * 1_000_000, "é" * 5000, "<0x00>", "<0xZZ>", "[PAD3]", "a b", "a b c", "  ", "Ġ", "linear", "yarn", "none"),
)
NEW_KEYS = (
    *("general.type", "general.alignment", "split.count", "tokenizer.chat_template", "tokenizer.chat_template.rag"),
    *("tokenizer.chat_templates", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.pre"),
    *("tokenizer.ggml.add_space_prefix", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "adapter.type"),
    *("tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id", "tokenizer.ggml.mask_token_id"),
    *("tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.scores", "tokenizer.ggml.merges", "tokenizer.ggml.model"),
    *("tokenizer.ggml.token_type", "tokenizer.huggingface.json", "general.file_type", "general.name", "", "é", "\0"),
)
NEW_SETTINGS = (
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.freq_base"),
    *("rope.scaling.attn_factor", "rope.dimension_count", "attention.sliding_window", "attention.key_length"),
    *("attention.value_length", "attention.head_count_kv", "expert_count", "expert_used_count", "vocab_size", "x"),
    *("attention.layer_norm_rms_epsilon", "feed_forward_length", "logit_scale", "attn_logit_softcapping"),
)


@dataclass
class Key:
    """A key; `of` is the kind of a list's items."""

    name: str
    kind: Kind
    value: Any
    of: Kind | None = None


@dataclass
class Tensor:
    """A tensor; `sizes` as the file has them, the width first."""

    name: str
    sizes: list[int]
    type: int
    data: bytes


@dataclass
class Contents:
    """What a .gguf holds, free to be changed."""

    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        return next((key.value for key in self.keys if key.name == "general.architecture"), "llama")


def contents_of(path: Path) -> Contents:
    """Read a good file, by the gguf package."""
    reader, found = gguf.GGUFReader(path), Contents()
    for name, entry in reader.fields.items():
        if not name.startswith("GGUF."):
            of = entry.types[-1] if len(entry.types) > 1 else None
            found.keys.append(Key(name, entry.types[0], entry.contents(), of))
    for tensor in reader.tensors:
        sizes = [int(size) for size in tensor.shape]
        found.tensors.append(Tensor(tensor.name, sizes, int(tensor.tensor_type), tensor.data.tobytes()))
    return found


def written(contents: Contents) -> bytes:
    """The file, every length and place in it being right."""
    table, data = b"", b""
    for tensor in contents.tensors:
        sizes = b"".join(struct.pack("<Q", size) for size in tensor.sizes)
        table += _text(tensor.name) + struct.pack("<I", len(tensor.sizes)) + sizes
        table += struct.pack("<IQ", tensor.type, len(data))
        data += tensor.data + bytes(-len(tensor.data) % ALIGNMENT)
    keys = b"".join(_text(key.name) + struct.pack("<I", key.kind) + _value(key) for key in contents.keys)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(contents.tensors), len(contents.keys)) + keys + table
    return head + bytes(-len(head) % ALIGNMENT) + data


def changed(contents: Contents, dice: random.Random) -> str:
    """Change one thing in place; say what."""
    kind = dice.choice(("value", "value", "value", "same kind", "same kind", "item", "item", "new", "new", "tensor"))
    if kind == "tensor":
        return _change_tensor(contents, dice)
    if kind == "new":
        own = [f"{contents.architecture}.{name}" for name in NEW_SETTINGS]
        key = _odd(Key(dice.choice((*NEW_KEYS, *own)), Kind.UINT8, 0), dice)
        contents.keys = [known for known in contents.keys if known.name != key.name or dice.random() < 0.05]
        contents.keys.append(key)
        return f"{key.name[:40]!r} is {str(key.value)[:40]!r}"
    key = dice.choice(contents.keys)
    if kind == "value" and dice.random() < 0.2:
        contents.keys.remove(key)
        return f"no {key.name}"
    lists = [known for known in contents.keys if isinstance(known.value, list) and known.value]
    if kind == "item" and lists:
        key = dice.choice(lists)
        return _change_item(key, dice)
    if kind == "same kind":
        key.value = _like(key.value, dice)
    else:
        _odd(key, dice)
    return f"{key.name} is {str(key.value)[:40]!r}"


def _like(value: Any, dice: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, list):
        cut = dice.randrange(len(value) + 1)
        return dice.choice((value[:cut], value[::-1], [value[0]] * len(value) if value else [], value + value[:cut]))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return dice.choice((*COUNTS, value + 1, value * 2, max(value // 2, 0), max(value - 1, 0)))
    return dice.choice(NUMBERS if isinstance(value, float) else TEXTS)


def _odd(key: Key, dice: random.Random) -> Key:
    """The key with a value of some kind."""
    items: Any = dice.choice(([], [0], [1, 2], [3] * 512, [0] * 300_000, list(range(512))))
    key.kind, key.value, key.of = dice.choice(
        (
            (Kind.UINT32, dice.choice(COUNTS), None), (Kind.UINT64, dice.choice((*COUNTS, (1 << 64) - 1)), None),
            (Kind.INT32, dice.choice((-1, -100, 0, 4)), None), (Kind.FLOAT32, dice.choice(NUMBERS), None),
            (Kind.FLOAT64, dice.choice((*NUMBERS, 1e300)), None), (Kind.STRING, dice.choice(TEXTS), None),
            (Kind.STRING, dice.choice(TEXTS), None), (Kind.BOOL, dice.random() < 0.5, None),
            (Kind.ARRAY, items, Kind.INT32), (Kind.ARRAY, [float(item) for item in items], Kind.FLOAT32),
            (Kind.ARRAY, [str(item) for item in items], Kind.STRING), (Kind.ARRAY, dice.sample(TEXTS, 3), Kind.STRING),
            (Kind.ARRAY, [bool(item) for item in items], Kind.BOOL),
        )
    )  # fmt: skip
    return key


def _change_item(key: Key, dice: random.Random) -> str:
    """Change a few items of a list."""
    for _ in range(dice.choice((1, 1, 3, 50))):
        place = dice.randrange(len(key.value))
        item = key.value[place]
        if isinstance(item, str):
            key.value[place] = dice.choice((*TEXTS, dice.choice(key.value), item + " ", item[:-1], item + item))
        elif isinstance(item, float):
            key.value[place] = dice.choice(NUMBERS)
        else:
            key.value[place] = dice.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 1 << 30, -(1 << 31)))
    return f"{key.name}: its item {place} is {str(key.value[place])[:40]!r}"


def _change_tensor(contents: Contents, dice: random.Random) -> str:
    tensor = dice.choice(contents.tensors)
    kind = dice.choice(("away", "name", "again", "turned", "one more", "flat", "type", "values", "cut", "doubled"))
    match kind:
        case "away":
            contents.tensors.remove(tensor)
        case "name":
            tensor.name = dice.choice(("", "x", tensor.name + ".x", "rope_freqs.weight", "output.weight", "a" * 127))
        case "again":
            contents.tensors.append(Tensor(f"{tensor.name}{dice.choice(('', '2'))}", *_rest(tensor)))
        case "turned":
            tensor.sizes.reverse()
        case "one more":
            tensor.sizes.append(1)
        case "flat":
            tensor.sizes = [math.prod(tensor.sizes)]
        case "type":
            fitting = [kind for kind, (block, _) in gguf.GGML_QUANT_SIZES.items() if tensor.sizes[0] % block == 0]
            tensor.type = int(dice.choice(fitting))
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.type)]
            tensor.data = dice.randbytes(math.prod(tensor.sizes) // block * size)
        case "values":
            half = tensor.type == gguf.GGMLQuantizationType.F16
            value = np.array(dice.choice((math.nan, math.inf, 6e4, 0.0)), "<f2" if half else "<f4").tobytes()
            tensor.data = value * (len(tensor.data) // len(value))
        case "cut":
            tensor.sizes[-1] -= 1
        case "doubled":
            tensor.sizes[-1] *= 2
            tensor.data *= 2
    return f"{kind} of the tensor {tensor.name[:40]!r}"


def _rest(tensor: Tensor) -> tuple[list[int], int, bytes]:
    return list(tensor.sizes), tensor.type, tensor.data


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: Key) -> bytes:
    if key.kind != Kind.ARRAY:
        return _scalar(key.kind, key.value)
    assert key.of is not None
    return struct.pack("<IQ", key.of, len(key.value)) + b"".join(_scalar(key.of, item) for item in key.value)


def _scalar(kind: Kind, value: Any) -> bytes:
    if kind == Kind.STRING:
        return _text(value)
    if kind in (Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64, Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64):
        bits = 8 * struct.calcsize(FORMATS[kind])
        value = int(value) % (1 << bits)
        if kind in (Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64) and value >= 1 << (bits - 1):
            value -= 1 << bits
    return struct.pack(FORMATS[kind], value)
