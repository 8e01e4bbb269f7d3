"""What of saved adapters does not fit a model: one sentence for each tensor, layer or copy. Nothing is raised here."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from ..layers import layers_of
from ..tensors import flat
from .peft_format import Moves, moved
from .peft_settings import is_target
from .saved import Saved
from .tied_head import EMBEDDING, LINEAR, are_equal, has_head, is_of_head

_ADAPTABLE = (*LINEAR, *EMBEDDING, SwitchLinear, QuantizedSwitchLinear)


def strangers(module: nn.Module, saved: Saved) -> list[str]:
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


def missing(module: nn.Module, saved: Saved, names: Moves) -> Iterator[str]:
    """Layers that the settings say are adapted, and the file has nothing for."""
    wanted = _named_by_mlx(module, saved.form)
    if saved.peft is not None:
        parts = module.named_modules()
        wanted = [
            path
            for path, part in parts
            if names is not None and isinstance(part, LINEAR) and is_target(saved.peft, moved(path, names))
        ]
    for path in wanted:
        if path not in saved.adapters:
            yield f"{path}.lora_a not in the file"


def of_another_base(module: nn.Module, saved: Saved, added_rows: int) -> Iterator[str]:
    """Copies of the base's own parameters that are not what this base has, its last `added_rows` rows aside."""
    parts, parameters = dict(module.named_modules()), flat(module.parameters())
    for name, tensor in saved.copies.items():
        path = name.rpartition(".")[0]
        if path not in parts and is_of_head(name):
            continue  # a head that is the embedding, which has a copy of its own or was not changed
        place = parameters.get(name)
        if place is None:
            yield f"{name} {list(tensor.shape)} in the file, not in the model"
        elif isinstance(parts[path], nn.QuantizedLinear | nn.QuantizedEmbedding):
            if added_rows and path in saved.adapters:
                yield f"{name} has {added_rows} rows for new tokens in the file, which a quantized table does not take"
            continue  # what quantization leaves of it cannot be compared
        elif place.shape != tensor.shape:
            yield f"{name} {list(tensor.shape)} in the file, {list(place.shape)} in the model{_longer(tensor, place)}"
        elif not are_equal(*(table[: len(table) - added_rows] for table in (place, tensor))):
            yield f"{name} in the file is another than the model's"


def without_new_rows(module: nn.Module, saved: Saved, added_rows: int) -> Iterator[str]:
    """Tables whose `added_rows` are nowhere in what PEFT saved, which at times writes those of the head alone."""
    rows = {len(tensor) for tensor in saved.copies.values()} if added_rows else set()
    for path, part in module.named_modules():
        if not isinstance(part, EMBEDDING) and not is_of_head(path):
            continue
        name = f"{path}.weight"
        if part.get("weight") is not None and len(part["weight"]) in rows and name not in saved.whole | saved.copies:
            yield f"{name} has {added_rows} rows for new tokens, and none of them in the file; merge them with PEFT"


def remedy(module: nn.Module, saved: Saved) -> str:
    """What to do where the adapters were trained with more tokens than the model has; else nothing."""
    parameters = flat(module.parameters())
    tables = [*saved.whole.items(), *saved.copies.items()]
    if not any(_longer(tensor, parameters[name]) for name, tensor in tables if name in parameters):
        return ""
    return (
        " Save the tokenizer they were trained with into that folder (tokenizer.save_pretrained), and from_pretrained "
        "adds its rows to the base as resize_embeddings does; or merge them where they were made, and load that."
    )


def misfits(layers: dict[str, nn.Module], saved: Saved) -> list[str]:
    """Tensors of other shapes than in the adapter `layers` made for them."""
    return [
        f"{path}.{leaf} {list(tensor.shape)} in the file, {list(layers[path][leaf].shape)} in the model"
        for path, leaves in saved.adapters.items()
        for leaf, tensor in leaves.items()
        if layers[path][leaf].shape != tensor.shape
    ]


def _takes_adapter(part: nn.Module | None) -> bool:
    return isinstance(part, _ADAPTABLE) or (part is not None and "to_lora" in dir(part))  # as mlx-lm asks


def _why(name: str, module: nn.Module) -> str:
    if is_of_head(name) and not has_head(module):
        return " (its output head is its embedding; merge them with PEFT and load the merged folder)"
    return ""


def _longer(tensor: mx.array, place: mx.array) -> str:
    if tensor.ndim == 2 and tensor.shape[1:] == place.shape[1:] and tensor.shape[0] > place.shape[0]:
        return f" (they were trained with {tensor.shape[0] - place.shape[0]} more tokens)"
    return ""


def _named_by_mlx(module: nn.Module, form: dict[str, Any]) -> list[str]:
    """Paths of the layers mlx-lm (mlx_lm/tuner/utils.py, 0.32) would adapt."""
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
