"""A model that another program will open: here its tokenizer and processor are, and its weights stay on the disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded
from ...data.examples import Example
from ...gguf import read_tokenizer
from ...machine.working import working_folder
from ...model_files.adapter_files import base_of_adapters
from ..families.base import Library, Written
from ..families.batched import Ending
from ..families.image_rows import ImageRows
from ..families.text import encode_texts
from ..fetch import ModelNotFound, fetch
from .family import image_rows, open_processor
from .folder import model_folder
from .tokenizer import TokenizerFolder, give_template, open_tokenizer, tokenizer_folder


@final
@dataclass(frozen=True)
class TextAlone:
    """What `TextFamily` makes of examples, for which no weight is needed."""

    tokenizer: TokenizerWrapper
    placeholder: None = None  # it reads no images
    seen_otherwise: None = None

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """One row of ids for each example."""
        return encode_texts(examples, self.tokenizer)

    def prompts(self, examples: Sequence[Example]) -> list[Encoded]:
        """What a live model goes on from."""
        return encode_texts(examples, self.tokenizer, ends=False)

    def beside(self, row: Encoded) -> Mapping[str, np.ndarray]:  # noqa: ARG002 - as `WithImages` has it
        """What the model is given of a row beside its ids: nothing."""
        return {}


@final
@dataclass(frozen=True)
class WithImages:
    """What `VisionFamily` makes of examples, for which no weight is needed. Raises as that does."""

    rows: ImageRows

    @property
    def placeholder(self) -> str:
        """What stands for an image in a text."""
        return self.rows.media.placeholder

    @property
    def seen_otherwise(self) -> str | None:
        """What mlx-vlm's own calls (0.7.10) see otherwise than a live model does, as a sentence; None: nothing."""
        if not self.rows.quirks.sees_images_whole:
            return None
        return (
            "In mlx-vlm a token of an image sees those before it alone; of the live model, as in transformers, all of "
            "one image see one another. So answers about images may be other ones."
        )

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """One row of ids for each example."""
        return [self.rows.encoded(example) for example in examples]

    def prompts(self, examples: Sequence[Example]) -> list[Encoded]:
        """What a live model goes on from."""
        return [self.rows.encoded(example, ends=False) for example in examples]

    def beside(self, row: Encoded) -> Mapping[str, np.ndarray]:
        """What the model is given of a row beside its ids: what the processor makes of its images."""
        return {name: np.array(array) for name, array in self.rows.pixels([row]).items()}


@final
@dataclass(frozen=True)
class Closed:
    """A model on the disk, and how it reads."""

    path: Path  # a .gguf file, a model folder or a folder of adapters
    base: Path | None  # the model folder that adapters go on
    tokenizer: TokenizerWrapper
    family: TextAlone | WithImages
    config: dict[str, Any]  # config.json; of a .gguf how many tokens it takes, and those that end a text
    library: Library = "mlx-lm"  # that opens a folder of it

    def written(self, tokens: Sequence[int], *, ended: bool) -> Written:
        """An answer as text, spelled as a live model's."""
        return Ending(self.tokenizer).written(list(tokens), ended=ended)


def without_weights(path: Path | str) -> Closed:
    """The model in a .gguf file, a model folder or a folder of adapters, whose base is found as `fetch` does.

    Raises ModelNotFound where there is none, ValueError for what cannot be read.
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
    adapters = None if base is None else path
    processor = open_processor(folder)
    tokenizer = open_tokenizer(tokenizer_folder(folder, adapters), folder.config)
    give_template(tokenizer, None, adapters)
    on = None if base is None else folder.path
    if not folder.sees:
        return Closed(path, on, tokenizer, TextAlone(tokenizer), folder.config)
    family = WithImages(image_rows(folder, folder.config, tokenizer, processor))
    return Closed(path, on, tokenizer, family, folder.config, "mlx-vlm")


def _of_gguf(path: Path) -> Closed:
    with working_folder("tokenizer") as scratch:
        ids = read_tokenizer(path, scratch)
        tokenizer = open_tokenizer(TokenizerFolder(scratch, scratch, False, False), ids)
        give_template(tokenizer, None, None)
    tokenizer.name_or_path = str(path)
    config = {"max_position_embeddings": tokenizer.model_max_length, **ids}
    return Closed(path, None, tokenizer, TextAlone(tokenizer), config)
