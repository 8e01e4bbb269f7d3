"""What transformers reads in a config.json, and transformers kept quiet meanwhile."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

Config = dict[str, Any]


def read_by_transformers(config: Config, section: str | None = None) -> PreTrainedConfig | None:
    """What transformers makes of a config, or of a section of it; None for a kind or an entry it does not take."""
    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        with quiet_transformers():
            whole = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
    except (AttributeError, KeyError, StrictDataclassError, TypeError, ValueError):
        return None
    return whole if section is None else vars(whole).get(section)


def own_fields(reads: PreTrainedConfig) -> Iterator[Any]:
    """What a kind of config has beside what all have, and whether its head is its embedding."""
    common = {field.name for field in fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    yield from (field for field in fields(reads) if field.name not in common and field.default is not MISSING)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its remarks on entries it renames, and its advice on arguments that libraries pass by themselves."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
