"""Which files of the base model's folder belong to a merged model too, and which are left where they are.

A model's folder may hold anything: the rows it was trained on, a person's notes, programs. Only what makes a model go
with a merge, and so to the hub: vocabularies, settings of the tokenizer, of images and of generation, chat templates,
the licence, and code where it is trusted and named.
"""

import fnmatch
import json
import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

from ...gguf.tokenizers.source import SOURCE_FILE
from ...machine.sealed import SEAL
from ...model_files.generation_config import FILE as GENERATION
from ...model_files.generation_config import usable_generation
from ...model_files.trusted import code_files_in, read_settings, without_code
from ...models.loaded import Loaded
from .earlier import CARD
from .own_files import LICENCES, LIST

_SETTINGS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", GENERATION, "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json", "image_processor_config.json"),
    *("video_preprocessor_config.json", "feature_extractor_config.json"),
)
_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "qwen.tiktoken", "tiktoken.model"),
    SOURCE_FILE,
    *("tokenizer.model", "tokenizer.model.v[0-9]*", "spiece.model", "spm.model", "sentencepiece.bpe.model"),
)
_TEMPLATE = "chat_template.jinja"
_TEXT_SUFFIXES = ("", ".md", ".txt")

# What is made anew, and what no merge has: nothing is said of these.
_OF_THE_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "config.json", "adapter_config.json")
_OF_THE_FOLDER = (CARD.lower(), LIST, SEAL, ".*")


def companions(loaded: Loaded) -> list[Path]:
    """The files of the base model that belong to a merged one too."""
    code = _code(loaded)
    return [path for path in _files(loaded.folder) if _is_companion(path.name, loaded) or path.name in code]


def left_behind(loaded: Loaded) -> list[str]:
    """Sentences on what lies beside the base model and is not in a merge, or not as it is there."""
    taken = {path.name for path in companions(loaded)}
    unsaid = (*_OF_THE_WEIGHTS, *_OF_THE_FOLDER)
    rest = [path.name for path in _files(loaded.folder) if path.name not in taken]
    left = [name for name in rest if not _is_any(name.lower(), unsaid)]
    said = [usable_generation(loaded.folder)[1]]
    if left:
        names = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        only = "it is no part" if len(left) == 1 else "they are no part"
        said.append(f"Not copied from beside the base model, for {only} of a merged one: {names}.")
    return [sentence for sentence in said if sentence]


def copy_companions(loaded: Loaded, folder: Path) -> None:
    """Copy them into `folder` byte for byte, but for settings that name code which does not come along."""
    for file in companions(loaded):
        settings = read_settings(file) if file.name in _SETTINGS and file.name != GENERATION else None
        if settings is None or loaded.trust_remote_code or without_code(settings) == settings:
            shutil.copyfile(file, folder / file.name)
        else:
            (folder / file.name).write_text(json.dumps(without_code(settings), indent=2) + "\n", encoding="utf-8")
    settings, left_out = usable_generation(loaded.folder)
    if left_out:
        (folder / GENERATION).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _is_companion(name: str, loaded: Loaded) -> bool:
    low = name.lower()
    if _is_any(low, LICENCES):
        return Path(low).suffix in _TEXT_SUFFIXES
    vocabularies = loaded.tokenizer.vocab_files_names.values()  # that the class of this tokenizer reads
    return name in (_TEMPLATE, *_SETTINGS) or name in vocabularies or _is_any(name, _VOCABULARIES)


def _code(loaded: Loaded) -> set[str]:
    """The files of code the model is opened with, and those they import from beside them; none without trust."""
    if not loaded.trust_remote_code:
        return set()
    named = [loaded.folder / name for name in code_files_in(loaded.folder) if (loaded.folder / name).is_file()]
    return {Path(path).name for name in named for path in (name, *get_relative_import_files(name))}


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
