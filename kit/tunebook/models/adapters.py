"""LoRA adapters on a loaded model, and modules trained whole beside them: which layers, how they are made, described.

The adapter layers are mlx-lm's (`mlx_lm.tuner`, 0.32), wrapped around the model's own in the order mlx-lm's command
line uses, so the same seed gives the same adapters there and here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from ..config import LoraConfig
from .layers import layers_of
from .norms import keep_norms_in_float32
from .saved_adapters.open import prepare
from .saved_adapters.peft_format import Moves
from .tensors import flat

LEAVES = ("lora_a", "lora_b", "m")  # what the parameters of an adapter are called; m is DoRA's magnitude

_ADAPTABLE = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def add_adapters(module: nn.Module, config: LoraConfig) -> list[str]:
    """Freeze `module`, put an adapter on each target in place, and return the targets' full paths.

    With `config.target_modules` None, the targets are all projections of the attention and MLP blocks that are asked
    for. The random state is set immediately before the adapters are made. `config.modules_to_save` are made trainable
    as they are; norms among them go on in float32. Raises ValueError for a name the model does not have, listing those
    it has, for a quantized module that is to be trained whole, and when the model has adapters already.
    """
    if adapter_paths(module):
        raise ValueError("This model has adapters already; load it again with from_pretrained to start afresh.")
    keys = _target_keys(module, config)
    whole = _whole_modules(module, config.modules_to_save or (), keys)
    layers = len(layers_of(module))
    module.freeze()
    mx.random.seed(config.random_state)
    linear_to_lora_layers(
        module,
        min(config.finetune_last_n_layers or layers, layers),
        {"rank": config.r, "scale": config.scale, "dropout": config.lora_dropout, "keys": keys},
        use_dora=config.use_dora,
    )
    for part in whole:
        part.unfreeze()
    keep_norms_in_float32(module)
    module.train(module.training)  # new layers come in training mode, with their dropout on
    mx.eval(module.parameters())
    return adapter_paths(module)


def adapter_paths(module: nn.Module) -> list[str]:
    """Full paths of the layers that carry an adapter, in the model's order."""
    return [path for path, layer in _modules(module) if "lora_a" in layer]


def is_adapter(name: str) -> bool:
    """Whether a parameter's dotted name is that of an adapter's own."""
    return name.rsplit(".", 1)[-1] in LEAVES


def trained_whole(module: nn.Module) -> list[str]:
    """Names of the trainable parameters that are not an adapter's."""
    return [name for name in flat(module.trainable_parameters()) if not is_adapter(name)]


def describe(module: nn.Module) -> dict[str, Any] | None:
    """The settings of a model's adapters as mlx-lm's adapter_config.json names them; None when it has none.

    The adapters of one model are made together and alike, so the first speaks for all.
    """
    layers = dict(module.named_modules())
    paths = adapter_paths(module)
    if not paths:
        return None
    first = layers[paths[0]]
    rank = first["lora_a"].shape[-1] if first["lora_a"].ndim == 2 else first["lora_a"].shape[-2]
    return {
        "fine_tune_type": "dora" if isinstance(first, DoRALinear | DoRAEmbedding) else "lora",
        "num_layers": -1,  # every layer is looked at; the keys, being full paths, say which are adapted
        "lora_parameters": {"rank": rank, "scale": first.scale, "dropout": _dropout(first), "keys": paths},
    }


def load_adapters(
    module: nn.Module, folder: Path | str, transformers_names: Moves = (), *, added_rows: int = 0
) -> None:
    """Put the adapters saved in `folder` on a bare `module`, in place, with the modules trained whole beside them.

    It reads what `export/lora.py`, mlx-lm and PEFT write; `transformers_names` are the family's, for PEFT's. The
    last `added_rows` of the tables, which `resize` made, become what they were when the adapters were trained. They
    are trainable then, and nothing else is. What is refused (see `saved_adapters/open.py`) is refused before anything
    of the model is changed.
    """
    if adapter_paths(module):
        raise ValueError("This model has adapters already; load it again with from_pretrained to start afresh.")
    ready = prepare(module, Path(folder), transformers_names, added_rows=added_rows)
    module.freeze()
    parameters = flat(module.parameters())
    tables = {name: table.astype(parameters[name].dtype) for name, table in ready.tables.items()}
    module.load_weights(list(tables.items()), strict=False)
    module.update_modules(tree_unflatten(list(ready.layers.items())))
    whole = {name.rpartition(".")[0] for name in ready.whole}
    for path, part in _modules(module):
        if path in whole:
            part.unfreeze()
    keep_norms_in_float32(module)
    module.load_weights(list(ready.whole.items()), strict=False)
    module.train(module.training)
    mx.eval(module.parameters())


def _dropout(layer: nn.Module) -> float:
    """The dropout of an adapter layer. nn.Dropout (MLX 0.32) keeps only the share it lets through."""
    return round(1.0 - layer["dropout"]._p_1, 12)


def parameter_counts(module: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters; a quantized weight counts as the numbers it stands for."""
    trainable = sum(array.size for array in flat(module.trainable_parameters()).values())
    return trainable, sum(_sizes(module))


def _modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of all parts, as the model lists them; MLX walks them from the last to the first."""
    return module.named_modules()[::-1]


def _sizes(module: nn.Module) -> Iterator[int]:
    for _, layer in module.named_modules():
        quantized = isinstance(layer, _QUANTIZED)
        for name, value in layer.items():
            if isinstance(value, mx.array) and not (quantized and name in ("scales", "biases")):
                yield value.size * 32 // layer.bits if quantized and name == "weight" else value.size


def _target_keys(module: nn.Module, config: LoraConfig) -> set[str]:
    """The keys mlx-lm matches modules by: paths inside a layer ("self_attn.q_proj"), or full ones ("lm_head")."""
    names = config.target_modules
    inside = dict.fromkeys(
        path for layer in layers_of(module) for path, part in _modules(layer) if isinstance(part, _ADAPTABLE)
    )
    offered = [path for path in inside if config.finetune_language_layers and _is_wanted(path, config)]
    if config.finetune_vision_layers:
        offered += [path for path in _vision_paths(module) if _is_wanted(path, config)]
    if names is None or names == ("all-linear",):
        if not offered:
            raise ValueError(f"No projection is left to adapt; this model's are {', '.join(inside)}.")
        return set(offered)
    outside = [path for path, part in _modules(module) if isinstance(part, (*_ADAPTABLE, nn.Embedding))]
    matches = {
        name: [path for path in offered if path == name or path.split(".")[-1] == name]
        or [
            path
            for path in outside
            if path == name or (path.split(".")[-1] == name and "layers" not in path.split("."))
        ]
        for name in names
    }
    unknown = [name for name, paths in matches.items() if not paths]
    if unknown:
        have = ", ".join(dict.fromkeys(path.split(".")[-1] for path in [*offered, *outside]))
        raise ValueError(f"target_modules names {', '.join(unknown)}; this model's modules are called {have}.")
    return {path for paths in matches.values() for path in paths}


def _whole_modules(module: nn.Module, names: tuple[str, ...], target_keys: set[str]) -> list[nn.Module]:
    """The modules `names` speak of, by leaf name or full path; none of them may be quantized or carry adapters."""
    parts = dict(_modules(module))
    complaints, whole = [], []
    for name in names:
        paths = [path for path in parts if path and name in (path, path.split(".")[-1])]
        if not paths:
            have = ", ".join(dict.fromkeys(path.split(".")[-1] for path in parts if path and not path[-1].isdigit()))
            tied = " Its output head is its embedding: embed_tokens is both." if name == "lm_head" else ""
            complaints.append(f"{name!r} is not in this model, whose modules are called {have}.{tied}")
        for path in paths:
            inside = [part for part in parts if part == path or part.startswith(f"{path}.")]
            quantized = [part for part in inside if isinstance(parts[part], _QUANTIZED)]
            adapted = [part for part in inside if any(part == key or part.endswith(f".{key}") for key in target_keys)]
            if quantized:
                complaints.append(
                    f"{quantized[0]} is quantized and cannot be trained whole; load the model without load_in_4bit / "
                    "load_in_8bit, or adapt it through target_modules."
                )
            elif adapted:
                complaints.append(f"{adapted[0]} is to get an adapter too; leave it out of target_modules.")
            else:
                whole.append(parts[path])
    if complaints:
        raise ValueError("\n".join(f"LoraConfig.modules_to_save: {text}" for text in dict.fromkeys(complaints)))
    return whole


def _vision_paths(module: nn.Module) -> list[str]:
    """Full paths of the projections that are not the language model's: those of the tower, and between the two."""
    paths = [
        path
        for path, part in _modules(module)
        if "language_model" in module and isinstance(part, _ADAPTABLE) and not path.startswith("language_model.")
    ]
    if not paths:
        raise ValueError("finetune_vision_layers is on, but this model has no vision layers; leave it out.")
    return paths


def _is_wanted(path: str, config: LoraConfig) -> bool:
    """Whether a path inside a layer belongs to a block asked for; a mixture's router picks experts and never does."""
    *blocks, leaf = path.split(".")
    if leaf in ("router", "gate"):
        return False
    is_attention = any("attn" in block or "attention" in block for block in blocks)
    return config.finetune_attention_modules if is_attention else config.finetune_mlp_modules
