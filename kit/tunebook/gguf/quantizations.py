"""Which type each tensor of a file gets: the kinds of file that can be asked for, and llama.cpp's K-quant mixtures.

A K-quant file is a mixture: the tensors that cost a model most when they are coarse get more bits. The rules for them
are llama.cpp's, `llama_tensor_get_type_impl` and `tensor_type_fallback` of src/llama-quant.cpp as of release v0.5.0,
without an importance matrix. Nothing is encoded here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import gguf
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType

from .architectures.rules import Architecture


class Kind(NamedTuple):
    """A kind of file: the type most of its matrices have, and its number in `general.file_type`."""

    type: Type
    file_type: LlamaFileType


KINDS = {
    "f32": Kind(Type.F32, LlamaFileType.ALL_F32),
    "f16": Kind(Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": Kind(Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": Kind(Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": Kind(Type.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q4_1": Kind(Type.Q4_1, LlamaFileType.MOSTLY_Q4_1),
    "q5_0": Kind(Type.Q5_0, LlamaFileType.MOSTLY_Q5_0),
    "q5_1": Kind(Type.Q5_1, LlamaFileType.MOSTLY_Q5_1),
    "q2_k": Kind(Type.Q2_K, LlamaFileType.MOSTLY_Q2_K),
    "q3_k_s": Kind(Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_S),
    "q3_k_m": Kind(Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_M),
    "q3_k_l": Kind(Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_L),
    "q4_k_s": Kind(Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_S),
    "q4_k_m": Kind(Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q5_k_s": Kind(Type.Q5_K, LlamaFileType.MOSTLY_Q5_K_S),
    "q5_k_m": Kind(Type.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q6_k": Kind(Type.Q6_K, LlamaFileType.MOSTLY_Q6_K),
}
QUANTIZATIONS = tuple(KINDS)

# What a K-quant gives way to where rows do not divide into its blocks of 256.
_FALLBACKS = {
    Type.Q2_K: Type.Q4_0,
    Type.Q3_K: Type.Q4_0,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}


@dataclass(frozen=True, kw_only=True)
class Build:
    """What the mixtures depend on beside a tensor's name and width."""

    architecture: str
    layers: int
    heads: int
    heads_kv: int
    experts: int  # 0 where there are none
    tied: bool  # the embedding is the head, too

    @property
    def is_70b(self) -> bool:
        """llama.cpp's LLM_TYPE_70B (src/models/llama.cpp and qwen2.cpp)."""
        grouped = self.architecture == "qwen2" or (self.architecture == "llama" and self.heads != self.heads_kv)
        return self.layers == 80 and grouped


def build_of(architecture: Architecture, config: dict, *, tied: bool) -> Build:
    """The build of a completed config.json."""
    return Build(
        architecture=architecture.name,
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        heads_kv=config["num_key_value_heads"],
        experts=config.get("num_experts", 0),
        tied=tied,
    )


def is_k_quant(kind: str) -> bool:
    """Whether a kind of file holds K-quants, which libgguf makes."""
    return KINDS[kind].type in _FALLBACKS


def wanted_type(name: str, kind: str, build: Build) -> Type:
    """The type the matrix `name`, as GGUF calls it, has in a file of this kind if its rows divide into blocks."""
    base = KINDS[kind].type
    is_head = name == ("token_embd.weight" if build.tied else "output.weight")
    if not is_k_quant(kind):
        # Logits suffer most from a coarse head. llama.cpp gives these kinds Q6_K there, which needs libgguf.
        return Type.Q8_0 if is_head and kind in ("q4_0", "q4_1", "q5_0", "q5_1") else base
    if is_head:
        return Type.Q6_K
    if name in ("token_embd.weight", "output.weight"):
        return base
    _, layer, module, _ = name.split(".")
    return _MODULES[module](kind, int(layer), build) or base if module in _MODULES else base


def stored_type(width: int, wanted: Type) -> Type:
    """The type rows of `width` numbers can have: `wanted`, else llama.cpp's next, else F16."""
    for kind in (wanted, _FALLBACKS.get(wanted, Type.F16)):
        block, _ = gguf.GGML_QUANT_SIZES[kind]
        if width % block == 0:
            return kind
    return Type.F16


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _values(kind: str, layer: int, build: Build) -> Type | None:
    """attn_v, and attn_qkv where the three are one; None is the kind's own type, here and below."""
    wide = build.heads // build.heads_kv >= 4
    by_kind = {
        "q2_k": Type.Q4_K if wide else Type.Q3_K,
        "q3_k_m": Type.Q5_K if layer < 2 else Type.Q4_K,
        "q3_k_l": Type.Q5_K,
        "q4_k_s": Type.Q5_K if layer < 4 else None,
        "q4_k_m": Type.Q6_K if _more_bits(layer, build.layers) else None,
        "q5_k_m": Type.Q6_K if _more_bits(layer, build.layers) else None,
    }
    if build.experts == 8:
        return Type.Q8_0
    chosen = by_kind.get(kind)
    return Type.Q5_K if build.is_70b and (chosen or KINDS[kind].type) in (Type.Q3_K, Type.Q4_K) else chosen


def _keys(_kind: str, _layer: int, build: Build) -> Type | None:
    return Type.Q8_0 if build.experts == 8 else None


def _attention_output(kind: str, _layer: int, build: Build) -> Type | None:
    if build.experts == 8:
        return Type.Q5_K if kind in ("q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m") else None
    return {"q2_k": Type.Q3_K, "q3_k_m": Type.Q4_K, "q3_k_l": Type.Q5_K}.get(kind)


def _down(kind: str, layer: int, build: Build) -> Type | None:
    by_kind = {
        "q2_k": Type.Q3_K,
        "q3_k_m": Type.Q5_K if layer < build.layers // 16 else Type.Q4_K,
        "q3_k_l": Type.Q5_K,
        "q4_k_s": Type.Q5_K if layer < build.layers // 8 else None,
        "q4_k_m": Type.Q6_K if _more_bits(layer, build.layers) else None,
        "q5_k_m": Type.Q6_K if _more_bits(layer, build.layers) else None,
    }
    return by_kind.get(kind)


_MODULES: dict[str, Callable[[str, int, Build], Type | None]] = {
    "attn_v": _values,
    "attn_qkv": _values,
    "attn_k": _keys,
    "attn_output": _attention_output,
    "ffn_down": _down,
    "ffn_down_exps": _down,
}
