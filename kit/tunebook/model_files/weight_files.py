"""The weights in a model folder, looked at before a library opens them: which files they are, and that each is whole.

What MLX cannot read is refused here, by the name it has on the person's disk, and only headers are read: mlx-vlm (0.6)
answers a file that MLX refuses by rewriting its header in place for a moment, and libraries name the folder of links.
"""

import json
from pathlib import Path

import mlx.core as mx

from .tensor_files import DamagedWeights, shapes_in

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_AGAIN = "download or copy it again"


def weight_files(folder: Path) -> list[Path]:
    """The files a model's weights are in, checked; none for a folder without a model.

    As in transformers: model.safetensors alone where there is one and no index that names it, else what the index
    names, else every model*.safetensors. Raises DamagedWeights.
    """
    places = _places(folder)
    if not places and not (folder / _WHOLE).is_file():
        files = sorted(folder.glob("model*.safetensors"))
    elif not places or ((folder / _WHOLE).is_file() and _WHOLE not in places.values()):
        files = [folder / _WHOLE] if places else sorted(folder.glob("model*.safetensors"))
        places = {}
    else:
        files = sorted({folder / name for name in places.values()})
        gone = [file for file in files if not file.is_file()]
        if gone:
            raise DamagedWeights(
                f"{gone[0]} is not there, and {folder / INDEX} says that weights are in it ({len(gone)} of "
                f"{len(files)} files are missing); download the model again."
            )
    held = {file.name: _names_in(file) for file in files}
    for name, place in places.items():
        if name not in held[place]:
            raise DamagedWeights(
                f"{folder / place} does not hold {name}, though {folder / INDEX} says so; download both again."
            )
    return files


def _places(folder: Path) -> dict[str, str]:
    """{tensor: the file it is in}, as the index of a model in several files says; empty without an index."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        document = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedWeights(f"{index} is no JSON ({error or type(error).__name__}); {_AGAIN}.") from None
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not places:
        raise DamagedWeights(f"{index} has no weight_map of names and files; {_AGAIN}.")
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            raise DamagedWeights(f"weight_map in {index} names {place!r}, which is no file of weights; {_AGAIN}.")
    return places


def _names_in(file: Path) -> set[str]:
    """The tensors in a .safetensors file. Raises DamagedWeights unless it is whole and MLX reads its types."""
    names = set(shapes_in(file))
    try:
        mx.load(str(file))  # the header alone; tensors are read when they are used
    except RuntimeError as error:
        raise DamagedWeights(f"{file} cannot be read by MLX ({_types(error)}); take the model in 16 bits.") from None
    return names


def _types(error: RuntimeError) -> str:
    return " ".join(str(error).split()).removeprefix("[safetensor] ")[:200]
