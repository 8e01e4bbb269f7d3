"""A text model that another program will open: here its tokenizer is opened, and its weights stay on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded
from ...data.examples import Example
from ...gguf import read_tokenizer
from ...machine.working import working_folder
from ...model_files.adapter_files import base_of_adapters
from ..families.base import Written
from ..families.batched import Ending
from ..families.text import encode_texts
from ..fetch import ModelNotFound, fetch
from .folder import model_folder
from .tokenizer import TokenizerFolder, give_template, open_tokenizer, tokenizer_folder


@final
@dataclass(frozen=True)
class TextAlone:
    """What `TextFamily` makes of examples, for which no weight is needed."""

    tokenizer: TokenizerWrapper
    placeholder: None = None  # it reads no images

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """One row of ids for each example."""
        return encode_texts(examples, self.tokenizer)

    def prompt_ids(self, examples: Sequence[Example]) -> list[list[int]]:
        """The ids that a live model goes on from."""
        return [row.tokens.tolist() for row in encode_texts(examples, self.tokenizer, ends=False)]

    def written(self, tokens: Sequence[int], *, ended: bool) -> Written:
        """An answer as text, spelled as a live model's."""
        return Ending(self.tokenizer).written(list(tokens), ended=ended)


@final
@dataclass(frozen=True)
class Closed:
    """A model on the disk, and how it reads."""

    path: Path  # a .gguf file, a model folder or a folder of adapters
    base: Path | None  # the model folder that adapters go on
    tokenizer: TokenizerWrapper
    family: TextAlone
    config: dict[str, Any]  # config.json; of a .gguf how many tokens it takes, and those that end a text


def without_weights(path: Path | str) -> Closed:
    """The text model in a .gguf file, a model folder or a folder of adapters, whose base is found as `fetch` does.

    Raises ModelNotFound where there is none, ValueError for one that reads images and for what cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _of_gguf(fetch(path).path)
    if not path.is_dir():
        raise ModelNotFound(f"There is no file or folder {path.absolute()}; give the path of an export.")
    base = base_of_adapters(path)
    found = fetch(path) if base is None else fetch(base.name, revision=base.revision)
    folder = model_folder(
        found.path, found.path, max_seq_length=1, trust_remote_code=False, text_only=None, say=lambda _: None
    )
    if folder.sees:
        raise ValueError(
            f"{path} reads images, and only text is asked of a model on the disk; load it with FastModel and ask that."
        )
    adapters = None if base is None else path
    tokenizer = open_tokenizer(tokenizer_folder(folder, adapters), folder.config)
    give_template(tokenizer, None, adapters)
    return Closed(path, None if base is None else folder.path, tokenizer, TextAlone(tokenizer), folder.config)


def _of_gguf(path: Path) -> Closed:
    with working_folder("tokenizer") as scratch:
        ids = read_tokenizer(path, scratch)
        tokenizer = open_tokenizer(TokenizerFolder(scratch, scratch, False, False), ids)
        give_template(tokenizer, None, None)
    tokenizer.name_or_path = str(path)
    config = {"max_position_embeddings": tokenizer.model_max_length, **ids}
    return Closed(path, None, tokenizer, TextAlone(tokenizer), config)
