"""Rope scaling in config.json and in GGUF: linear and YaRN as keys, Llama 3's as the tensor `rope_freqs.weight`.

Every other kind is refused, because a model read without its scaling still speaks, only worse the longer the text.
Among them is Phi-3's longrope: mlx-lm (0.32) computes with the long factors alone where transformers and llama.cpp use
the short ones for short texts, so a file could not agree with the model it was made from.
"""

import math

import numpy as np

from ..typed import count_of, number_of, text_of
from .rules import Architecture, UnsupportedArchitecture

FACTORS_TENSOR = "rope_freqs.weight"

# The settings of every Llama 3.1 to 3.3; a GGUF stores only the factors that follow from them.
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192


def scaling_to_gguf(architecture: Architecture, config: dict) -> tuple[dict[str, str | float | int], np.ndarray | None]:
    """The keys (without the architecture's prefix) and the frequency factors (head_dim / 2,) of a completed config."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return {}, None
    _refuse_unless_known(architecture, kind)
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling["factor"])}, None
    if kind == "yarn":
        return _yarn_to_gguf(scaling), None
    context = int(scaling["original_max_position_embeddings"])
    factors = llama3_factors(
        config["head_dim"],
        config["rope_theta"],
        factor=scaling["factor"],
        low=scaling["low_freq_factor"],
        high=scaling["high_freq_factor"],
        context=context,
    )
    return {"rope.scaling.original_context_length": context}, factors


def scaling_from_gguf(architecture: Architecture, keys: dict, factors: np.ndarray | None, config: dict) -> dict | None:
    """The `rope_scaling` entry for config.json, or None. `keys` are the file's, without the architecture's prefix."""
    kind = text_of(keys, "rope.scaling.type", "none")
    if factors is not None:
        kind = "llama3" if kind == "none" else f"{kind} and frequency factors"
    if kind == "none":
        return None
    _refuse_unless_known(architecture, kind)
    if kind == "linear":
        return {"rope_type": "linear", "type": "linear", "factor": number_of(keys, "rope.scaling.factor")}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "type": "yarn",
            "factor": number_of(keys, "rope.scaling.factor"),
            "original_max_position_embeddings": count_of(
                keys,
                "rope.scaling.original_context_length",
                keys["context_length"],  # as llama.cpp does
            ),
        }
    context = count_of(keys, "rope.scaling.original_context_length", _LLAMA3_CONTEXT)
    return _llama3_from_factors(np.asarray(factors), config, context)


def _refuse_unless_known(architecture: Architecture, kind: str) -> None:
    if kind not in architecture.rope_scaling:
        known = ", ".join(("none", *architecture.rope_scaling))
        raise UnsupportedArchitecture(
            f"rope scaling {kind!r} cannot be carried between config.json and GGUF for {architecture.name}; "
            f"supported are {known}."
        )


def _yarn_to_gguf(scaling: dict) -> dict[str, str | float | int]:
    """The keys for YaRN with the paper's betas (32 and 1) and temperature, which are llama.cpp's and mlx-lm's own."""
    plain = {"beta_fast": 32, "beta_slow": 1, "mscale": 1, "mscale_all_dim": 0, "truncate": True}
    odd = [f"{key} is {scaling[key]}" for key, value in plain.items() if scaling.get(key) not in (None, value)]
    if scaling.get("attention_factor") is not None:
        odd.append(f"attention_factor is {scaling['attention_factor']}")
    if "original_max_position_embeddings" not in scaling:
        odd.append("original_max_position_embeddings is missing")
    if odd:
        raise UnsupportedArchitecture(f"This YaRN rope scaling cannot be carried to GGUF: {', '.join(odd)}.")
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling["factor"]),
        "rope.scaling.original_context_length": int(scaling["original_max_position_embeddings"]),
    }


def llama3_factors(head_dim: int, theta: float, *, factor: float, low: float, high: float, context: int) -> np.ndarray:
    """(head_dim / 2,) fp32: how much each frequency is divided by (transformers, modeling_rope_utils, `llama3`)."""
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    smooth = (context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelength < context / high, 1.0, np.where(wavelength > context / low, factor, between))
    return factors.astype(np.float32)


def _llama3_from_factors(factors: np.ndarray, config: dict, context: int) -> dict:
    factor = round(float(factors.max()), 4)
    if not math.isfinite(factor) or factor <= 0:
        raise UnsupportedArchitecture(f"The frequency factors in {FACTORS_TENSOR} go up to {factor}.")
    settings = {"factor": factor, "low": _LLAMA3_LOW, "high": _LLAMA3_HIGH, "context": context}
    expected = llama3_factors(config["head_dim"], config["rope_theta"], **settings)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise UnsupportedArchitecture(
            f"The frequency factors in {FACTORS_TENSOR} (up to {factor}) are not Llama 3's for a context of {context} "
            f"tokens, low_freq_factor {_LLAMA3_LOW} and high_freq_factor {_LLAMA3_HIGH}; config.json cannot say so."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": _LLAMA3_HIGH,
        "original_max_position_embeddings": context,
    }
