"""The folder a name leads to, checked, and what of it the libraries that open it are shown."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...gguf import read_gguf
from ...machine import runtime
from ...machine.private import new_private_folder
from ...machine.sealed import Damaged, SealedFolder, seal
from ...model_files.believable import check_config
from ...model_files.checkpoint_config import for_rows, translated
from ...model_files.generation_config import usable_generation
from ...model_files.tensor_files import shapes_in
from ...model_files.trusted import Unopened, openable, opening, read_settings, refuse_code, shortened
from ...model_files.unsupported_settings import UnreadableConfig
from .refusals import why_no_images, why_no_model


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that may be opened."""

    path: Path
    shown: Path  # what the libraries open in its place
    config: dict[str, Any]  # config.json in the words of the library that opens it
    sees: bool  # images are read as well: it is mlx-vlm's
    trust_remote_code: bool

    def opening(self, *sentences: type[Exception]) -> AbstractContextManager[None]:
        """Around calls of the libraries; errors that are `sentences` already rise as they are."""
        return opening(self.path, self.shown, trust_remote_code=self.trust_remote_code, sentences=sentences)


def model_folder(
    path: Path,
    name: str | Path,
    *,
    max_seq_length: int,
    trust_remote_code: bool,
    text_only: bool | None,
    say: Callable[[str], None],
) -> ModelFolder:
    """The folder of what was found at `path`; `say` is told what is left out of it. Raises what `load` tells of."""
    folder = _as_folder(path)
    if (reason := why_no_model(folder, name)) is not None:
        raise FileNotFoundError(reason)
    config = read_settings(folder / "config.json")
    _check_config(config, folder)
    sees = _sees(config, name, text_only)
    refuse_code(folder, trust_remote_code=trust_remote_code)
    if left_out := usable_generation(folder)[1]:
        say(left_out)
    config = _said(config, folder, "mlx-vlm" if sees else "mlx-lm")
    shown = openable(folder, trust_remote_code=trust_remote_code, config=for_rows(config, max_seq_length))
    return ModelFolder(folder, shown, config, sees, trust_remote_code)


def _as_folder(path: Path) -> Path:
    """A .gguf file's model folder, written once into the cache and again where it is not what was written; a folder is
    itself.
    """
    if path.is_dir():
        return path
    stat = path.stat()
    identity = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    # Names have 255 bytes on most file systems, and the writer's scratch folder a longer one.
    stem = path.stem.encode()[:100].decode(errors="ignore")
    folder = runtime.cache_folder() / "from-gguf" / f"{stem}-{identity}"
    try:
        SealedFolder(folder).check()
    except Damaged:
        with new_private_folder(folder) as partial:
            read_gguf(path, partial)
            seal(partial)
    return folder


def _sees(config: dict[str, Any], name: str | Path, text_only: bool | None) -> bool:
    """Whether the model is to read images. Raises ValueError for one that hears, and for images asked of a text model.

    `text_only` None decides by the config: a model that has a vision tower uses it.
    """
    has_vision = "vision_config" in config
    if text_only is False and not has_vision:
        raise ValueError(f"text_only is False, but {name} has no vision_config: it is a text model.")
    if text_only:
        return False
    if "audio_config" in config:
        raise ValueError(
            why_no_images(config, f"{name} reads sound as well (its config has audio_config), which is not tuned here.")
        )
    return has_vision


def _check_config(config: Any, folder: Path) -> None:
    """Raise ValueError for files of weights that are not whole, and for a config that fits no model with them."""
    shapes = [shape for file in sorted(folder.glob("model*.safetensors")) for shape in shapes_in(file).values()]
    check_config(config, shapes, folder / "config.json")


def _said(config: dict[str, Any], folder: Path, library: Literal["mlx-lm", "mlx-vlm"]) -> dict[str, Any]:
    """`config` in the words of `library`. Raises UnreadableConfig for what has none, Unopened where its words fail."""
    try:
        return translated(config, library)
    except UnreadableConfig:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unopened(
            f"{folder / 'config.json'} cannot be read ({type(error).__name__}: {shortened(error)}); correct it, or "
            "download or save the model again."
        ) from error
