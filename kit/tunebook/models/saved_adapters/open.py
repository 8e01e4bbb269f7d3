"""Saved adapters held against a model: the layers that would go into it, with their tensors, or what does not fit.

A bare module and a folder come in. The module is only looked at: whoever has a `Prepared` in hand can put it on without
anything left that may be refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.utils import linear_to_lora_layers

from ..norms import is_norm
from ..tensors import flat, number
from .complaints import misfits, missing, of_another_base, remedy, strangers, without_new_rows
from .peft_format import Moves
from .saved import Tensors, read_saved
from .tied_head import check_tied, without_second_head


@dataclass(frozen=True)
class Prepared:
    """What a folder of adapters puts on a model."""

    layers: dict[str, nn.Module]  # by path, each around the model's own layer there
    whole: Tensors  # parameters that were trained as they are, by name
    tables: Tensors  # weights of adapted tables, with the rows added for new tokens, by name


def prepare(module: nn.Module, folder: Path, names: Moves = (), *, added_rows: int = 0) -> Prepared:
    """Read `folder` and hold it against `module`; `names` lead from names here to those transformers has.

    The last `added_rows` of the module's tables are not its base's: they are as the adapters have them.
    Raises ValueError, with names and shapes, unless every tensor has its place, every adapter its tensors, and every
    number is finite; FileNotFoundError where a file is missing.
    """
    saved = without_second_head(module, read_saved(folder, names))
    complaints = strangers(module, saved) or [
        *missing(module, saved, names),
        *of_another_base(module, saved, added_rows),
        *without_new_rows(module, saved, added_rows),
    ]
    _refuse(folder, complaints, remedy(module, saved))
    if saved.peft is not None:
        check_tied(module, saved, saved.peft)
    layers = adapter_layers(module, saved.form, list(saved.adapters))
    _refuse(folder, misfits(layers, saved))
    parameters = flat(module.parameters())
    whole = {
        name: tensor.astype(mx.float32 if is_norm(name) else parameters[name].dtype)
        for name, tensor in saved.whole.items()
    }
    for path, leaves in saved.adapters.items():
        layers[path].update({leaf: tensor.astype(mx.float32) for leaf, tensor in leaves.items()})
    adapters = {f"{path}.{leaf}": layers[path][leaf] for path in layers for leaf in saved.adapters[path]}
    names_of_tables = [f"{path}.weight" for path in saved.adapters] if added_rows else []
    tables = {name: saved.copies[name] for name in names_of_tables if name in saved.copies}
    _check_finite(folder, adapters | whole | tables)
    return Prepared(layers, whole, tables)


def _refuse(folder: Path, complaints: list[str], remedy: str = "") -> None:
    if complaints:
        more = f" and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        said = "; ".join(complaints[:5])
        raise ValueError(f"The adapters in {folder} are not this model's: {said}{more}.{remedy}")


def adapter_layers(module: nn.Module, form: Mapping[str, Any], paths: Sequence[str]) -> dict[str, nn.Module]:
    """Adapter layers of mlx-lm's settings `form`, around the model's own at `paths`; the model keeps the bare ones."""
    if not paths:
        return {}
    parts, bench = dict(module.named_modules()), nn.Module()
    bench.layers = []  # mlx-lm looks there first
    places = {f"part{place}": path for place, path in enumerate(paths)}
    for place, path in places.items():
        bench[place] = parts[path]
    lora = {**form["lora_parameters"], "keys": set(places)}
    linear_to_lora_layers(bench, 0, lora, use_dora=form["fine_tune_type"] == "dora")
    return {path: cast(nn.Module, bench[place]) for place, path in places.items()}


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
