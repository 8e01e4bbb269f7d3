"""The order in which a model is loaded: its folder, the module, the tokenizer, the float type, the family."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from ...data.tokenizer_state import digest_of
from ..fetch import fetch
from ..loaded import Loaded
from .family import family_of, open_processor
from .folder import model_folder
from .module import held, open_module
from .tokenizer import give_template, open_tokenizer, tokenizer_folder


def load(
    name: str | Path,
    *,
    max_seq_length: int = 2048,
    dtype: str | mx.Dtype | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    token: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_only: bool | None = None,
    chat_template: str | None = None,
    adapters_folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Loaded:
    """Find, open and convert a model; `say` is told in a sentence where it came from.

    `dtype` None keeps the checkpoint's own float type on Metal and CUDA and takes float32 on the CPU, where it is the
    fast one. Without `trust_remote_code` no Python of the folder runs. `chat_template` is a template's source, or the
    name of one the tokenizer has. A tokenizer and chat templates that stand in `adapters_folder` are taken in place of
    the model's. Raises ModelNotFound for a name that leads nowhere, FileNotFoundError for a folder without weights,
    CodeNotTrusted, DamagedWeights and Unopened (ValueErrors) for a model in its own code, for files that are not
    whole and for what does not fit together, ValueError for what cannot be tuned here.
    """
    if load_in_4bit and load_in_8bit:
        raise ValueError("load_in_4bit and load_in_8bit are both on; choose one.")
    found = fetch(str(name), revision=revision, token=token)
    say(f"Loading {Path(name).name} {found.source}.")
    folder = model_folder(
        found.path,
        name,
        max_seq_length=max_seq_length,
        trust_remote_code=trust_remote_code,
        text_only=text_only,
        say=say,
    )
    tokenized_by = tokenizer_folder(folder, adapters_folder)
    module, config = open_module(folder)
    processor = open_processor(folder)
    tokenizer = open_tokenizer(tokenized_by, config)
    bits = 4 if load_in_4bit else 8 if load_in_8bit else None
    weights = held(module, config, folder, dtype=dtype, bits=bits, name=name)
    give_template(tokenizer, chat_template, adapters_folder)
    with folder.opening(ValueError):  # a probe is computed
        family = family_of(folder, weights.config, weights.module, tokenizer, processor)
    return Loaded(
        name=str(name),
        source=found.source,
        folder=folder.path,
        config=weights.config,
        module=weights.module,
        tokenizer=tokenizer,
        family=family,
        checkpoint_dtype=weights.checkpoint_dtype,
        dtype=weights.dtype,
        max_seq_length=max_seq_length,
        trust_remote_code=trust_remote_code,
        tokenizer_digest="" if tokenized_by.of_adapters else digest_of(tokenizer),
        adapters_folder=tokenized_by.path if tokenized_by.of_adapters else None,
    )
