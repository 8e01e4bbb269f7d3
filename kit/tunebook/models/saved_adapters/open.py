"""Saved adapters held against a model: the layers that would go into it, with their tensors, or what does not fit.

A bare module and a folder come in. The module is only looked at: whoever has a `Prepared` in hand can put it on without
anything left that may be refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from ...model_files.adapter_files import read_settings, read_tensors
from ..layers import layers_of
from ..norms import is_norm
from ..tensors import flat, number
from .mlx_settings import from_mlx
from .peft_format import NAMES, Moves, base_of_copy, from_peft, moved
from .peft_settings import is_target

Tensors = dict[str, mx.array]

_LINEAR = (nn.Linear, nn.QuantizedLinear)
_EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)
_ADAPTABLE = (*_LINEAR, *_EMBEDDING, SwitchLinear, QuantizedSwitchLinear)
_OLD_LEAVES = {"A": "lora_a", "B": "lora_b"}  # mlx-vlm's names, once


@dataclass(frozen=True)
class Prepared:
    """What a folder of adapters puts on a model."""

    layers: dict[str, nn.Module]  # by path, each around the model's own layer there
    whole: Tensors  # parameters that were trained as they are, by name


@dataclass(frozen=True)
class _Saved:
    """The content of a folder, by the names the model here has."""

    form: dict[str, Any]  # mlx-lm's settings
    adapters: dict[str, Tensors]  # path -> lora_a, lora_b and DoRA's m
    whole: Tensors
    copies: Tensors  # what the file says the base's own parameters are
    peft: dict[str, Any] | None  # PEFT's settings, where it wrote the folder
    head_agrees: bool = False  # the file had a head as well, and it is the embedding once more


def prepare(module: nn.Module, folder: Path, names: Moves = ()) -> Prepared:
    """Read `folder` and hold it against `module`; `names` lead from names here to those transformers has.

    Raises ValueError, with names and shapes, unless every tensor has its place, every adapter its tensors, and every
    number is finite; FileNotFoundError where a file is missing.
    """
    saved = _without_second_head(module, _read(folder, names))
    complaints = _strangers(module, saved) or [*_missing(module, saved, names), *_of_another_base(module, saved)]
    _refuse(folder, complaints)
    if saved.peft is not None:
        _check_tied(module, saved, saved.peft)
    layers = _layers(module, saved)
    _refuse(folder, _misfits(layers, saved))
    parameters = flat(module.parameters())
    whole = {
        name: tensor.astype(mx.float32 if is_norm(name) else parameters[name].dtype)
        for name, tensor in saved.whole.items()
    }
    for path, leaves in saved.adapters.items():
        layers[path].update({leaf: tensor.astype(mx.float32) for leaf, tensor in leaves.items()})
    adapters = {f"{path}.{leaf}": layers[path][leaf] for path in layers for leaf in saved.adapters[path]}
    _check_finite(folder, adapters | whole)
    return Prepared(layers, whole)


def _refuse(folder: Path, complaints: list[str]) -> None:
    if complaints:
        more = f" and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise ValueError(f"The adapters in {folder} are not this model's: {'; '.join(complaints[:5])}{more}.")


def _read(folder: Path, names: Moves) -> _Saved:
    settings = read_settings(folder)
    peft = settings if "peft_type" in settings else None
    form = {} if peft else from_mlx(settings)
    tensors = read_tensors(folder, of_peft=peft is not None)
    if peft:
        form, tensors = from_peft(settings, tensors, [(there, here) for here, there in names or ()])
    if not tensors:
        raise ValueError(f"The file of adapters in {folder} holds no tensors; save the adapters again.")
    adapters: dict[str, Tensors] = {}
    whole, copies = {}, {}
    for name, tensor in sorted(tensors.items()):
        path, _, leaf = name.rpartition(".")
        base = base_of_copy(name) if peft else None
        leaf = leaf if peft else _OLD_LEAVES.get(leaf, leaf)
        if base is not None:
            copies[base] = tensor
        elif leaf in NAMES and form["fine_tune_type"] != "full":
            adapters.setdefault(path, {})[leaf] = tensor
        else:
            whole[name] = tensor
    if not adapters and not whole:
        raise ValueError(f"The file of adapters in {folder} holds nothing that was trained; save the adapters again.")
    return _Saved(form, adapters, whole, copies, peft)


def _strangers(module: nn.Module, saved: _Saved) -> list[str]:
    """Tensors that have no place in the model, and those of other shapes than their place."""
    parts, parameters = dict(module.named_modules()), flat(module.parameters())
    rank, use_dora = saved.form["lora_parameters"].get("rank"), saved.form["fine_tune_type"] == "dora"
    found = []
    for path, leaves in saved.adapters.items():
        wanted = ("lora_a", "lora_b", "m") if use_dora else ("lora_a", "lora_b")
        part = parts.get(path)
        for leaf, tensor in leaves.items():
            if not _takes_adapter(part):
                found.append(f"{path}.{leaf} {list(tensor.shape)} in the file, not in the model{_why(path, module)}")
            elif leaf not in wanted:
                found.append(f"{path}.{leaf} {list(tensor.shape)} in the file, which is DoRA's, and they are not DoRA")
            elif leaf != "m" and rank not in tensor.shape:
                found.append(f"{path}.{leaf} {list(tensor.shape)} in the file, and rank {rank} in its settings")
        found += [f"{path}.{leaf} not in the file" for leaf in wanted if leaf not in leaves]
        if use_dora and (isinstance(part, SwitchLinear | QuantizedSwitchLinear | nn.QuantizedEmbedding)):
            found.append(f"{path} is {type(part).__name__}, which takes no DoRA here")
        if use_dora and saved.peft and isinstance(part, nn.Embedding):
            found.append(f"{path} is an embedding, which PEFT's DoRA scales by columns and this one by rows")
    for name, tensor in saved.whole.items():
        place = parameters.get(name)
        if place is None or name.rpartition(".")[0] in saved.adapters:
            found.append(f"{name} {list(tensor.shape)} in the file, not in the model{_why(name, module)}")
        elif place.shape != tensor.shape:
            found.append(
                f"{name} {list(tensor.shape)} in the file, {list(place.shape)} in the model{_longer(tensor, place)}"
            )
        elif not mx.issubdtype(place.dtype, mx.floating):
            found.append(f"{name} is quantized in the model and trained whole in the file")
    return found


def _takes_adapter(part: nn.Module | None) -> bool:
    return isinstance(part, _ADAPTABLE) or (part is not None and "to_lora" in dir(part))  # as mlx-lm asks


def _why(name: str, module: nn.Module) -> str:
    if _is_of_head(name) and not _has_head(module):
        return " (its output head is its embedding; merge them with PEFT and load the merged folder)"
    return ""


def _longer(tensor: mx.array, place: mx.array) -> str:
    if tensor.ndim == 2 and tensor.shape[1:] == place.shape[1:] and tensor.shape[0] > place.shape[0]:
        return (
            f" (they were trained with {tensor.shape[0] - place.shape[0]} more tokens; merge them where they were made "
            "and load the merged folder)"
        )
    return ""


def _without_second_head(module: nn.Module, saved: _Saved) -> _Saved:
    """`saved` without the head that the model does not have, where it is but what the file has for the embedding."""
    if saved.peft is None or _has_head(module):
        return saved
    whole = {
        name: tensor
        for name, tensor in saved.whole.items()
        if not (
            _is_of_head(name) and any(other != name and _are_equal(tensor, saved.whole[other]) for other in saved.whole)
        )
    }
    adapters = {
        path: leaves
        for path, leaves in saved.adapters.items()
        if not (_is_of_head(path) and any(_mirrors(leaves, other) for other in saved.adapters.values()))
    }
    dropped = len(whole) < len(saved.whole) or len(adapters) < len(saved.adapters)
    return replace(saved, whole=whole, adapters=adapters, head_agrees=dropped)


def _mirrors(head: Tensors, embedding: Tensors) -> bool:
    """Whether an adapter on a head is the one on its embedding read backwards: A in the place of B, each turned."""
    if head.keys() != {"lora_a", "lora_b"} or head.keys() != embedding.keys():
        return False
    return _are_equal(head["lora_a"], embedding["lora_b"].T) and _are_equal(head["lora_b"], embedding["lora_a"].T)


def _is_of_head(name: str) -> bool:
    return "lm_head" in name.split(".")


def _has_head(module: nn.Module) -> bool:
    return any(_is_of_head(path) for path, _ in module.named_modules())


def _missing(module: nn.Module, saved: _Saved, names: Moves) -> Iterator[str]:
    """Layers that the settings say are adapted, and the file has nothing for."""
    wanted = _named_by_mlx(module, saved.form)
    if saved.peft is not None:
        parts = module.named_modules()
        wanted = [
            path
            for path, part in parts
            if names is not None and isinstance(part, _LINEAR) and is_target(saved.peft, moved(path, names))
        ]
    for path in wanted:
        if path not in saved.adapters:
            yield f"{path}.lora_a not in the file"


def _named_by_mlx(module: nn.Module, form: dict[str, Any]) -> list[str]:
    """Paths of the layers mlx-lm (0.32, tuner/utils.py) would adapt."""
    if form["fine_tune_type"] == "full":
        return []
    keys = form["lora_parameters"].get("keys")
    paths = {id(part): path for path, part in module.named_modules()}
    adaptable = {path: part for path, part in module.named_modules() if _takes_adapter(part)}
    found = [path for path in adaptable if keys is not None and path in keys]
    for layer in layers_of(module)[-max(form["num_layers"], 0) :]:
        start = paths.get(id(layer))
        inside = (path for path, _ in layer.named_modules() if f"{start}.{path}" in adaptable)
        found += [f"{start}.{path}" for path in inside if keys is None or path in keys]
    return found


def _of_another_base(module: nn.Module, saved: _Saved) -> Iterator[str]:
    """Copies of the base's own parameters that are not what this base has."""
    parts, parameters = dict(module.named_modules()), flat(module.parameters())
    for name, tensor in saved.copies.items():
        path = name.rpartition(".")[0]
        if path not in parts and _is_of_head(name):
            continue  # a head that is the embedding, which has a copy of its own or was not changed
        place = parameters.get(name)
        if place is None:
            yield f"{name} {list(tensor.shape)} in the file, not in the model"
        elif isinstance(parts[path], nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue  # what quantization leaves of it cannot be compared
        elif place.shape != tensor.shape:
            yield f"{name} {list(tensor.shape)} in the file, {list(place.shape)} in the model{_longer(tensor, place)}"
        elif not _are_equal(place, tensor):
            yield f"{name} in the file is another than the model's"


def _are_equal(one: mx.array, other: mx.array) -> bool:
    """Whether two arrays hold the same numbers, once both are of the coarser of their types."""
    kind = min((one.dtype, other.dtype), key=lambda dtype: (dtype.size, dtype == mx.float16))
    return bool(mx.array_equal(one.astype(kind), other.astype(kind)).item())


def _check_tied(module: nn.Module, saved: _Saved, config: dict[str, Any]) -> None:
    """Raise ValueError where PEFT would change the embedding and leave the head, which here is the same array."""
    if config.get("ensure_weight_tying"):
        return
    trained_whole = config.get("modules_to_save") or ()
    for path, part in module.named_modules():
        if not isinstance(part, _EMBEDDING) or not _is_head_too(module, part):
            continue
        leaf, name = path.rsplit(".", 1)[-1], f"{path}.weight"
        alone = name in saved.whole and not saved.head_agrees
        if path in saved.adapters or (alone and any(leaf == one.rsplit(".", 1)[-1] for one in trained_whole)):
            raise ValueError(
                f"{path} is also this model's output head, and PEFT trained it as the embedding alone, which "
                "cannot be had here. Merge them with PEFT (merge_and_unload, then save_pretrained) and load the merged "
                "folder, or train with PEFT's ensure_weight_tying=True."
            )


def _is_head_too(module: nn.Module, embedding: nn.Module) -> bool:
    """Whether an embedding is read backwards for the logits: it has the most rows, no projection ends in as many."""
    sizes = [
        (isinstance(part, _EMBEDDING), cast(mx.array, part["weight"]).shape[0])
        for _, part in module.named_modules()
        if isinstance(part, _EMBEDDING + _LINEAR)
    ]
    rows = cast(mx.array, embedding["weight"]).shape[0]
    return rows == max(size for is_table, size in sizes if is_table) and (False, rows) not in sizes


def _layers(module: nn.Module, saved: _Saved) -> dict[str, nn.Module]:
    """Adapter layers around the model's own, as mlx-lm makes them; the model keeps the bare ones."""
    if not saved.adapters:
        return {}
    parts, bench = dict(module.named_modules()), nn.Module()
    bench.layers = []  # mlx-lm looks there first
    places = {f"part{place}": path for place, path in enumerate(saved.adapters)}
    for place, path in places.items():
        bench[place] = parts[path]
    lora = {**saved.form["lora_parameters"], "keys": set(places)}
    linear_to_lora_layers(bench, 0, lora, use_dora=saved.form["fine_tune_type"] == "dora")
    return {path: cast(nn.Module, bench[place]) for place, path in places.items()}


def _misfits(layers: dict[str, nn.Module], saved: _Saved) -> list[str]:
    return [
        f"{path}.{leaf} {list(tensor.shape)} in the file, {list(layers[path][leaf].shape)} in the model"
        for path, leaves in saved.adapters.items()
        for leaf, tensor in leaves.items()
        if layers[path][leaf].shape != tensor.shape
    ]


def _check_finite(folder: Path, tensors: Tensors) -> None:
    counts = {name: int(number(mx.sum(~mx.isfinite(tensor)))) for name, tensor in tensors.items()}
    bad = {name: count for name, count in counts.items() if count}
    if bad:
        first = ", ".join(f"{name} ({count:,})" for name, count in list(bad.items())[:3])
        raise ValueError(
            f"The adapters in {folder} hold {sum(bad.values()):,} values that are NaN or infinite, in {len(bad)} of "
            f"{len(counts)} tensors: {first}{', ...' if len(bad) > 3 else ''}. The run that made them diverged; take a "
            "checkpoint from before, or train with a lower learning rate."
        )
