"""The family of a loaded model, chosen in `family_of`, and the processor of images that one of them needs.

The choice may go by the model's config, and by whether it sees, which `folder.py` told before anything was opened.
mlx-vlm is imported where it is needed: that takes seconds, and a text model needs none of it.
"""

from typing import Any

import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerBase

from ...model_files.transformers_config import quiet_transformers
from ...model_files.trusted import Unopened
from ..families.base import Family
from ..families.image_rows import ImageRows
from ..families.text import TextFamily
from .folder import ModelFolder
from .refusals import why_no_images


def open_processor(folder: ModelFolder) -> Any:
    """What turns images into arrays; None for a model that reads none."""
    if not folder.sees:
        return None
    try:
        with folder.opening(), quiet_transformers():
            from mlx_vlm.utils import load_processor

            # Left to itself mlx-vlm trusts the code of most families.
            return load_processor(folder.shown, add_detokenizer=False, trust_remote_code=folder.trust_remote_code)
    except Unopened as error:
        raise Unopened(why_no_images(folder.config, str(error))) from error


def family_of(
    folder: ModelFolder, config: dict[str, Any], module: nn.Module, tokenizer: TokenizerWrapper, processor: Any
) -> Family:
    """How the model encodes, predicts and writes. Raises ValueError for what cannot be tuned here."""
    if not folder.sees:
        return TextFamily(module, tokenizer)
    from ..families.vision import VisionFamily

    return VisionFamily(module, image_rows(folder, config, tokenizer, processor), config)


def image_rows(folder: ModelFolder, config: dict[str, Any], tokenizer: TokenizerWrapper, processor: Any) -> ImageRows:
    """How a model that reads images reads its rows; the processor's chat template is taken where there is no other.

    Raises ValueError for a processor that cannot be used.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(
            why_no_images(
                config,
                f"{folder.path} is more than a text model (its config has vision_config), but holds no processor of "
                "images that mlx-vlm knows.",
            )
        )
    if not tokenizer.has_chat_template and processor.chat_template is not None:
        tokenizer.chat_template = processor.chat_template
        tokenizer.has_chat_template = True
    return ImageRows(tokenizer, processor, config)
