"""A folder's weights in a module: built by the library it is for, in the float type or the bits that were asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_model, quantize_model

from ...machine import runtime
from ...model_files.checkpoint_config import windows_of
from ...model_files.trusted import Unopened
from ..families.quirks import is_of_language
from ..fused_experts import classes_of
from ..tensors import flat
from ..vision_names import open_vision_model
from ..windows import apply_windows
from .folder import ModelFolder
from .refusals import why_no_module

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class Held:
    """A module as it is held in memory."""

    module: nn.Module
    config: dict[str, Any]  # config.json as the library read it, and how the module is quantized
    checkpoint_dtype: mx.Dtype  # the float type of the weights on disk
    dtype: mx.Dtype  # the float type they have in memory


def open_module(folder: ModelFolder) -> tuple[nn.Module, dict[str, Any]]:
    """(the module, not yet evaluated, its config as the library read it)."""
    try:
        return _built(folder)
    except Unopened as error:
        if (reason := why_no_module(folder.config, folder.path, error.__cause__, sees=folder.sees)) is None:
            raise
        raise Unopened(reason) from error


def _built(folder: ModelFolder) -> tuple[nn.Module, dict[str, Any]]:
    shown, trust_remote_code = folder.shown, folder.trust_remote_code
    with folder.opening():
        if folder.sees:
            return open_vision_model(shown, trust_remote_code=trust_remote_code), folder.config
        module, read = load_model(shown, lazy=True, trust_remote_code=trust_remote_code, get_model_classes=classes_of)
        config = read | {key: folder.config[key] for key in ("rope_scaling",) if key in folder.config}
        apply_windows(module, windows_of(config))
        return module, config


def held(
    module: nn.Module,
    config: dict[str, Any],
    folder: ModelFolder,
    *,
    dtype: str | mx.Dtype | None,
    bits: Literal[4, 8] | None,
    name: str | Path,
) -> Held:
    """The weights of `module` read and converted; its dropout is off. Raises what `load` tells of."""
    _check_floats(module, folder.path)
    checkpoint_dtype = _float_type(module)
    live_dtype = _as_dtype(dtype) if dtype is not None else runtime.default_dtype(checkpoint_dtype)
    module.set_dtype(live_dtype)
    if bits is not None:
        module, config = _quantized(module, config, bits=bits, name=name, sees=folder.sees)
    mx.eval(module.parameters())
    module.eval()
    return Held(module, config, checkpoint_dtype, live_dtype)


def _check_floats(module: nn.Module, folder: Path) -> None:
    """Raise Unopened for weights that are whole numbers without a scale, as MLX reads 8-bit floats."""
    for name, leaf in module.named_modules():
        weight = leaf.get("weight")
        if not isinstance(weight, mx.array) or {"scales", "weight_scale"} & set(leaf):
            continue
        if not mx.issubdtype(weight.dtype, mx.floating):
            raise Unopened(
                f"{name}.weight in {folder} is stored in a type of 8 bits or of whole numbers, of which MLX does not "
                "make floats; take the model in 16 bits."
            )


def _float_type(module: nn.Module) -> mx.Dtype:
    """The float type that most of the parameters have."""
    sizes: dict[mx.Dtype, int] = {}
    for array in flat(module.parameters()).values():
        if mx.issubdtype(array.dtype, mx.floating):
            sizes[array.dtype] = sizes.get(array.dtype, 0) + array.size
    return max(sizes, key=lambda kind: sizes[kind])


def _as_dtype(dtype: str | mx.Dtype) -> mx.Dtype:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    return dtype


def _quantized(
    module: nn.Module, config: dict[str, Any], bits: int, name: str | Path, *, sees: bool
) -> tuple[nn.Module, dict]:
    """`module` with its linear layers and embeddings in `bits`-bit affine groups of 64, as mlx-lm's converter does.

    Of a model that reads images, only the language model is: what its vision tower loses no adapter brings back.
    """
    if "quantization" in config:
        raise ValueError(
            f"{name} is already quantized ({config['quantization']}); leave out load_in_{bits}bit to use it as it is."
        )
    if not sees:
        return quantize_model(module, config, group_size=64, bits=bits)
    return quantize_model(module, config, group_size=64, bits=bits, quant_predicate=is_of_language)
