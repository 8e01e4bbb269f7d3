"""The three exports as a person asks for them: written, described in a model card, read back if rows are given.

Which writer, which type, what to say beside the file: that is decided here. The writers are the files beside this one,
and how their files come into a folder with other things in it is `export/target/place.py`'s.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import mlx.core as mx

from ..data.sources import Row, Source, read_rows
from ..events import Event
from ..gguf import check_quantizations
from ..models.adapters import trained_whole
from ..models.loaded import Loaded
from ..models.loader import DTYPES
from .card import hub_id, model_card, short_name
from .gguf.adapter import gguf_adapter_name, save_gguf_adapter, verify_gguf_adapter
from .gguf.feasibility import check_gguf
from .gguf.files import gguf_names, notes_on, save_gguf
from .gguf.ollama import modelfile_of, write_modelfile
from .lora import AdapterFormat, save_lora
from .merged import save_merged
from .quantize import QUANTIZATIONS, adapters_lost
from .readback.compared_rows import comparable
from .readback.stock import misread_by_stock, unlike_stock
from .readback.verify import verify_export
from .report import Export
from .target.companions import companions, left_behind
from .target.place import adding, place_of
from .usage import gguf_commands
from .weight_names import names_of_mlx_lm

SaveMethod = Literal["merged_16bit", "merged_8bit", "merged_4bit", "merged_mxfp4"]


class Tuned(Protocol):
    """What is asked of a model: `FastModel` is one."""

    loaded: Loaded
    run_events: Sequence[Event]  # of its latest run


def export_lora(
    model: Tuned,
    folder: Path | str,
    format: AdapterFormat | Literal["gguf"] = "mlx",
    *,
    verify_with: Source | None = None,
    repo_id: str | None = None,
) -> Export:
    """The adapters in a folder; "gguf" is one file there, which has no card.

    With `repo_id` the folder is for the hub: nothing in it names a path of this machine.
    """
    loaded, folder, rows = model.loaded, Path(folder).expanduser(), _to_compare(verify_with)
    if format == "gguf":
        path = folder / gguf_adapter_name(loaded)
        with adding(folder, "lora_gguf", loaded, names=[path.name]) as draft:
            save_gguf_adapter(loaded, draft.new)
        check = None if rows is None else verify_gguf_adapter(path, loaded, rows)
        return Export(kind="lora", path=path, verification=check)
    form = "peft" if format == "peft" else "lora"
    card = model_card(loaded, model.run_events, form, place=repo_id or place_of(folder).name, hub=repo_id is not None)
    base = loaded.name if repo_id is None else hub_id(loaded.name) or short_name(loaded.name)
    with adding(folder, form, loaded, card=card) as draft:
        save_lora(loaded, draft.new, format, base=base)
    whole, notes = trained_whole(loaded.module), [*draft.notes, *_on_patterns(loaded.name)]
    if whole and format == "mlx":
        notes.append(
            f"{len(whole)} tensors of modules_to_save are in it too, so tunebook alone opens it; for other programs "
            "use save_pretrained_merged."
        )
    notes += [*misread_by_stock(loaded), *unlike_stock(loaded)]
    return _read_back(model, "lora", folder, rows, notes)


def export_merged(
    model: Tuned,
    folder: Path | str,
    save_method: SaveMethod = "merged_16bit",
    *,
    dtype: str | mx.Dtype | None = None,
    verify_with: Source | None = None,
    repo_id: str | None = None,
) -> Export:
    """The merged model in a folder, in `dtype` or quantized from it.

    None is the checkpoint's own 16-bit type, else bfloat16. Raises ValueError for an unknown method or type.
    """
    if save_method not in get_args(SaveMethod):
        raise ValueError(f"save_method is {save_method!r}; choose one of {', '.join(get_args(SaveMethod))}.")
    rows = _to_compare(verify_with)
    loaded, folder, quantization = model.loaded, Path(folder).expanduser(), QUANTIZATIONS.get(save_method)
    dtype = _float_type(loaded, dtype)
    library = loaded.family.library
    foreign = [] if quantization or library == "mlx-vlm" else names_of_mlx_lm(loaded)
    card = model_card(
        loaded,
        model.run_events,
        "merged for mlx-lm" if quantization or foreign or library == "mlx-vlm" else "merged",
        place=repo_id or place_of(folder).name,
        hub=repo_id is not None,
        stored=str(quantization or dtype).removeprefix("mlx.core."),
    )
    with adding(folder, "merged", loaded, names=[file.name for file in companions(loaded)], card=card) as draft:
        save_merged(loaded, draft.new, dtype, quantization=quantization)
    notes = [*left_behind(loaded), *draft.notes, *_on_patterns(draft.folder)]
    if foreign:
        notes.append(
            f"{len(foreign)} layers, the first {foreign[0]}, are stored under mlx-lm's names, so mlx-lm opens the "
            "folder and transformers does not."
        )
    if library == "mlx-vlm":
        notes.append("Names and shapes are mlx-vlm's, so mlx-vlm opens the folder and transformers does not.")
    if quantization and (lost := adapters_lost(loaded.module, quantization)) is not None:
        notes.append(
            f"The base is quantized already, and quantizing it again costs {lost:.0%} of the change the adapters make "
            "(|error| / |change|, over all adapted layers). merged_16bit, or the adapters alone, keep it."
        )
    notes += unlike_stock(loaded)
    return _read_back(model, save_method, folder, rows, notes)


def export_gguf(
    model: Tuned,
    folder: Path | str,
    quantization_method: str | Sequence[str],
    *,
    verify_with: Source | None = None,
    repo_id: str | None = None,
) -> list[Export]:
    """One .gguf per type in `folder`, all from one merge, each with a Modelfile for Ollama beside it.

    The folder's README.md becomes the model card, unless it is somebody else's.
    """
    loaded, folder, methods = model.loaded, Path(folder).expanduser(), quantization_method
    kinds = [kind.lower() for kind in ([methods] if isinstance(methods, str) else methods)]
    check_quantizations(kinds)
    rows = _to_compare(verify_with)
    check_gguf(loaded)
    names = gguf_names(loaded, kinds)
    place, hub = repo_id or place_of(folder).name, repo_id is not None
    card = model_card(loaded, model.run_events, "gguf", place=place, hub=hub, files=names)
    beside = [modelfile_of(Path(name)).name for name in names]
    with adding(folder, "gguf", loaded, names=[*names, *beside], card=card) as draft:
        files = save_gguf(loaded, draft.new, kinds, draft.aside)
        said = [[*notes_on(file), *write_modelfile(loaded, file.path)] for file in files]
    exports = []
    for kind, name, notes in zip(kinds, names, said, strict=True):
        path = folder / name
        commands = gguf_commands(path, modelfile=modelfile_of(path))
        exports.append(_read_back(model, kind, path, rows, [*notes, *draft.notes], commands))
    return exports


def _to_compare(given: Source | None) -> Sequence[Row] | None:
    """Rows as they were given, or read from where they are, and of a kind to compare, before anything is written."""
    return None if given is None else comparable(read_rows(given, "verify_with"))


def _read_back(
    model: Tuned,
    kind: str,
    path: Path,
    rows: Sequence[Row] | None,
    notes: Sequence[str],
    commands: Sequence[str] = (),
) -> Export:
    held_to = "merged" if kind == "merged_16bit" else kind
    check = None if rows is None else verify_export(path, model, rows, kind=held_to)
    return Export(kind=kind, path=path, verification=check, notes=tuple(notes), commands=tuple(commands))


def _on_patterns(model: Path | str) -> list[str]:
    """A sentence on a model's folder that mlx-lm and mlx-vlm do not open by its name, which they take for a pattern."""
    if not glob.has_magic(str(model)) or not Path(model).expanduser().exists():
        return []
    return [
        f"mlx-lm and mlx-vlm look for weights by a pattern and take {str(model)!r} for one, so by themselves they may "
        "not open that folder; tunebook does. Give it a name without [, ], * and ? for them."
    ]


def _float_type(loaded: Loaded, dtype: str | mx.Dtype | None) -> mx.Dtype:
    if dtype is None:
        return loaded.checkpoint_dtype if loaded.checkpoint_dtype.size == 2 else mx.bfloat16
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
    return DTYPES[dtype] if isinstance(dtype, str) else dtype
