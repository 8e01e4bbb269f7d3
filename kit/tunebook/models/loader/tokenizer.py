"""The tokenizer of a model, or the one that a folder of adapters brings, with the chat template that was asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from ...data.tokenizer_state import bring_up_to_date
from ...model_files.chat_templates import Templates, read_templates
from ...model_files.trusted import openable, opening
from .folder import ModelFolder


@dataclass(frozen=True)
class TokenizerFolder:
    """A folder whose tokenizer may be opened."""

    path: Path
    shown: Path  # what mlx-lm opens in its place
    of_adapters: bool  # it is not the model's
    trust_remote_code: bool


def tokenizer_folder(model: ModelFolder, adapters: Path | None) -> TokenizerFolder:
    """The folder of adapters where PEFT's users, or another kit, left a tokenizer in it, else the model's."""
    names = ("tokenizer.json", "tokenizer_config.json")
    trust = model.trust_remote_code
    if adapters is None or not all((adapters / name).is_file() for name in names):
        return TokenizerFolder(model.path, model.shown, False, trust)
    return TokenizerFolder(adapters, openable(adapters, trust_remote_code=trust), True, trust)


def open_tokenizer(folder: TokenizerFolder, config: dict[str, Any]) -> TokenizerWrapper:
    """The tokenizer in a folder; `config` is the model's."""
    settings = {"trust_remote_code": folder.trust_remote_code}
    with opening(folder.path, folder.shown, trust_remote_code=folder.trust_remote_code):
        tokenizer = load_tokenizer(folder.shown, settings, eos_token_ids=config.get("eos_token_id"))
    tokenizer.name_or_path = str(folder.path)
    return tokenizer


def give_template(tokenizer: TokenizerWrapper, asked: str | None, adapters: Path | None) -> None:
    """Have `tokenizer` render by the template that was asked for, else by the one in the folder of adapters."""
    beside = None if adapters is None else read_templates(adapters)
    tokenizer.chat_template = _chosen(asked, tokenizer.chat_template if beside is None else beside)
    bring_up_to_date(tokenizer)


def _chosen(asked: str | None, found: Templates | None) -> Templates | None:
    """The chat template to use: the one that was asked for, by its source or its name, else what was found."""
    return found[asked] if isinstance(found, dict) and asked in found else asked or found
