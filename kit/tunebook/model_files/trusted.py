"""A model folder as it may be opened: a folder of links to it, in which no code is and nothing names any.

mlx-lm, mlx-vlm and transformers each have doors of their own to Python in a model folder (`auto_map`, `model_file`,
pickled weights, modules named by a setting), and do not all ask a flag. What is not there cannot run: where code is not
trusted they are shown links to weights and vocabularies, and copies of the settings that name no code.
"""

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from ..machine.working import working_folder
from .generation_config import FILE as GENERATION
from .generation_config import usable_generation
from .weight_files import INDEX, weight_files

# What weights, vocabularies, templates and settings are stored in. Python, pickles (.bin, .pt, .npy) and YAML are not.
_DATA = (".bpe", ".jinja", ".json", ".jsonl", ".model", ".safetensors", ".spm", ".tiktoken", ".txt", ".vocab")
_FOLDERS = ("additional_chat_templates",)  # that transformers looks into, of those a model folder may hold
_VOCABULARIES = ("tokenizer.json", "vocab.json", "*.index.json")  # large, and nobody looks for code in them

# The keys that name code: of transformers and diffusers, of mlx-lm, of PEFT, of transformers' pipelines.
_CODE_KEYS = ("auto_map", "model_file", "auto_mapping", "megatron_core", "custom_pipelines", "custom_generate")
# Settings a library imports a module of its own by. One that is no plain name could lead elsewhere.
_MODULE_KEYS = ("model_type", "chat_template_type", "tool_parser_type")
_OF_MLX_LM = {"chat_template_type": "mlx_lm.chat_templates", "tool_parser_type": "mlx_lm.tool_parsers"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LONGEST = 100  # letters of a folder's name that are kept


class CodeNotTrusted(ValueError):
    """A folder that cannot be opened without running code in it."""


class Unopened(ValueError):
    """A folder that a library fails to open."""


def openable(folder: Path, *, trust_remote_code: bool, config: dict[str, Any] | None = None) -> Path:
    """The folder to open in place of `folder`, which lasts as long as this process; it has `config` as config.json.

    What a library writes into the folder it is given stays there: settings and code are copies. Raises CodeNotTrusted
    where a library would run its code and cannot do without, DamagedWeights (a ValueError) for files of weights that
    are not whole, ValueError for a file of settings that is none.
    """
    weights = weight_files(folder)
    shown = Path(tempfile.mkdtemp(dir=_scratch())) / _plain(folder.resolve().name)
    shown.mkdir()
    generation, left_out = usable_generation(folder)
    if trust_remote_code:
        _mirror(folder, shown)
        for file in shown.glob("*.safetensors*"):
            if not _is_shown(folder / file.name, weights):
                file.unlink()
        if config is not None:
            _write(shown / "config.json", _with_code_inside(config, folder, shown))
        if left_out:
            _write(shown / GENERATION, generation)
        return shown
    refuse_code(folder, trust_remote_code=False)
    for file, place in _data_files(folder):
        if not _is_shown(file, weights) or (left_out and file == folder / GENERATION):
            continue
        target = shown / place
        target.parent.mkdir(exist_ok=True)
        if file.suffix == ".json" and not any(file.match(pattern) for pattern in _VOCABULARIES):
            _write(target, without_code(read_settings(file)))
        else:
            target.symlink_to(file.resolve())
    if config is not None:
        _write(shown / "config.json", without_code(config))
    if left_out:
        _write(shown / GENERATION, without_code(generation))
    return shown


def refuse_code(folder: Path, *, trust_remote_code: bool) -> None:
    """Raise CodeNotTrusted for a folder whose model or tokenizer is in its own code, ValueError for a stray name."""
    if trust_remote_code:
        return
    settings = {path.name: read_settings(path) for path in _settings_files(folder)}
    for name, document in settings.items():
        for key, value in _named_modules(document):
            if value is not None and not (isinstance(value, str) and _PLAIN_NAME.fullmatch(value)):
                raise ValueError(f"{key} in {folder / name} is {value!r}, which names no module; correct the file.")
            if value is not None and key in _OF_MLX_LM and find_spec(f"{_OF_MLX_LM[key]}.{value}") is None:
                raise ValueError(f"{key} in {folder / name} is {value!r}, which mlx-lm does not have; take it out.")
    config, tokenizer = settings.get("config.json", {}), settings.get("tokenizer_config.json", {})
    if isinstance(config, dict) and config.get("model_file") is not None:
        raise CodeNotTrusted(_needs(folder, str(config["model_file"])))
    if isinstance(tokenizer, dict) and (reference := _tokenizer_code(tokenizer)) is not None:
        kinds = {str(kind).removesuffix("Fast") for kind in TOKENIZER_MAPPING_NAMES.values()}
        kinds |= {"PreTrainedTokenizer", "TokenizersBackend"}
        known = str(tokenizer.get("tokenizer_class")).removesuffix("Fast") in kinds
        if not known and not (isinstance(config, dict) and config.get("model_type") in TOKENIZER_MAPPING_NAMES):
            raise CodeNotTrusted(_needs(folder, reference))


@contextmanager
def opening(
    folder: Path, shown: Path, *, trust_remote_code: bool, sentences: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Around calls of the libraries that open `folder`, as it is `shown` to them: what they raise is a sentence of it.

    Raises CodeNotTrusted where the folder names code that was not shown to them, else Unopened; errors that are
    `sentences` already rise as they are.
    """
    try:
        yield
    except sentences:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {shortened(error)}".replace(str(shown), str(folder))
        code = None if trust_remote_code else code_named_in(folder)
        if code is not None:
            raise CodeNotTrusted(
                f"{folder} could not be opened without its own code ({reason}). If it needs the file {code}, read it "
                "and pass trust_remote_code=True."
            ) from error
        raise Unopened(
            f"{folder} could not be opened ({reason}); its settings, its tokenizer or its weights are damaged or of a "
            "kind not known here, so download or save it again."
        ) from error


def shortened(error: Exception) -> str:
    """What an error says, on one line and not for long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:397]}..."


def code_named_in(folder: Path) -> str | None:
    """The first file of code that the settings in `folder` name."""
    return next(iter(code_files_in(folder)), None)


def code_files_in(folder: Path) -> list[str]:
    """All files of code that the settings in `folder` name."""
    documents = [read_settings(path) for path in _settings_files(folder)]
    return [reference for document in documents for reference in _references(document)]


def read_settings(file: Path) -> Any:
    """A file of JSON. Raises ValueError, naming it, for what is none."""
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({shortened(error)}); save or download it again.") from error
    if file.name.endswith("config.json") and not isinstance(document, dict):
        raise ValueError(f"{file} holds a {type(document).__name__} where settings by name were expected.")
    return document


def _settings_files(folder: Path) -> list[Path]:
    """The settings a library may find code named in; how to generate is read apart (`generation_config.py`)."""
    return sorted(path for path in folder.glob("*config.json") if path.name != GENERATION)


def without_code(document: Any) -> Any:
    """A copy of settings that names no code, however deep within."""
    if isinstance(document, dict):
        return {key: without_code(value) for key, value in document.items() if key not in _CODE_KEYS}
    return [without_code(value) for value in document] if isinstance(document, list) else document


@cache
def _scratch() -> Path:
    """A folder that is removed when the process ends."""
    return _kept.enter_context(working_folder("opened"))


_kept = ExitStack()  # for as long as the process lives
atexit.register(_kept.close)


def _plain(name: str) -> str:
    """A folder's name as no library takes it for more: mlx-lm and mlx-vlm look for weights by a pattern made of it."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:_LONGEST] or "model"


def _data_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, its place in the folder) of all that is data."""
    for within in ("", *_FOLDERS):
        place = folder / within
        if not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            if entry.suffix in _DATA and entry.is_file():
                yield entry, str(entry.relative_to(folder))


def _is_shown(file: Path, weights: list[Path]) -> bool:
    """Whether a file is none of weights, or is one of those the model is in: mlx-lm and mlx-vlm read all they find."""
    if file.name == INDEX:
        return len(weights) != 1 or weights[0].name != "model.safetensors"
    return file.suffix != ".safetensors" or not weights or file in weights


def _mirror(folder: Path, shown: Path) -> None:
    """Links in `shown` to all that is in `folder`, but copies of settings and code.

    Python leaves a `__pycache__` beside a file it imports.
    """
    for entry in folder.iterdir():
        place = shown / entry.name
        if entry.is_file() and entry.suffix in (".json", ".py"):
            shutil.copyfile(entry, place)
        elif entry.is_dir() and any(entry.glob("*.py")):
            place.mkdir()
            _mirror(entry, place)
        else:
            place.symlink_to(entry.resolve())


def _named_modules(document: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            if key in _MODULE_KEYS:
                yield key, value
            yield from _named_modules(value)


def _references(document: Any) -> Iterator[str]:
    """What the keys of code in a document refer to."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in _CODE_KEYS:
                yield from (_file_of(leaf) for leaf in _leaves(value))
            else:
                yield from _references(value)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)


def _tokenizer_code(settings: dict[str, Any]) -> str | None:
    """The file of the tokenizer's own code, if it names one."""
    named = settings.get("auto_map")
    named = named.get("AutoTokenizer") if isinstance(named, dict) else named
    return next((_file_of(leaf) for leaf in _leaves(named)), None)


def _file_of(reference: str) -> str:
    """ "tokenization.Mine" and "owner/name--tokenization.Mine" -> the file they name."""
    if reference.endswith(".py"):
        return reference
    repository, _, name = reference.rpartition("--")
    file = f"{name.rpartition('.')[0] or name}.py"
    return f"{repository}: {file}" if repository else file


def _with_code_inside(config: dict[str, Any], folder: Path, shown: Path) -> dict[str, Any]:
    """`config` whose model_file, where it leads out of the folder, is a copy in `shown`."""
    code = config.get("model_file")
    if not isinstance(code, str) or (folder / code).resolve().is_relative_to(folder.resolve()):
        return config
    shutil.copyfile(folder / code, shown / f"model_file_{Path(code).name}")
    return config | {"model_file": f"model_file_{Path(code).name}"}


def _write(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=2), encoding="utf-8")


def _needs(folder: Path, code: str) -> str:
    return f"{folder} needs its own code (file {code}); read it and pass trust_remote_code=True."
