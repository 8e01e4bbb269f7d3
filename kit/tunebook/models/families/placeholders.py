"""Which token stands for an image in a text, and which tokens the model is never trained to write.

Both are read from the processor, its tokenizer and the model's config together; no name of a model is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .language_alone import instead_of_images

# Placeholders of released models, in the order they are tried where the processor does not say.
CANDIDATES = (
    "<image>",
    "<|image|>",
    "<|image_pad|>",
    "<image_soft_token>",
    "<start_of_image>",
    "[IMG]",
    "<IMG_CONTEXT>",
)
# Words in the names of special tokens that only ever stand around or for an image, a video or a sound.
WORDS = ("image", "img", "vision", "patch", "tile", "video", "audio")
VIDEO_KEYS = ("video_token_id", "video_token_index")
CONFIG_KEYS = (
    "image_token_id",
    "image_token_index",
    *VIDEO_KEYS,
    "vision_start_token_id",
    "vision_end_token_id",
    "boi_token_index",
    "eoi_token_index",
)


@dataclass(frozen=True)
class MediaTokens:
    """The tokens that speak of images."""

    placeholder: str  # what a text has in the place of an image
    placeholder_id: int
    image_id: int  # the token whose states are the image's; there are many to a placeholder, and it may be the same one
    of_pixels: frozenset[int]  # that one and a video's: where none belongs, pixels would move to the next
    never_trained: frozenset[int]  # all these, and all that stand around them


def media_tokens(processor: Any, config: dict[str, Any]) -> MediaTokens:
    """Those of a processor, and of the model whose config.json is `config`.

    Raises ValueError for a processor whose placeholder cannot be told.
    """
    tokenizer = processor.tokenizer
    known = tokenizer.get_vocab()
    special = set(tokenizer.get_added_vocab()) | set(tokenizer.all_special_tokens)
    named = {name: vars(processor).get(name) for name in ("image_token", "boi_token")}
    placeholder = named["image_token"]
    if placeholder is not None and "soft_token" in placeholder and named["boi_token"] in special:
        placeholder = named["boi_token"]  # Gemma 3 writes one token where an image begins, and its processor the rest
    if placeholder is None:
        placeholder = next((name for name in CANDIDATES if name in special), None)
    if placeholder is None or placeholder not in special:
        raise ValueError(
            f"{type(processor).__name__} does not say which token stands for an image, and its tokenizer has none of "
            f"{', '.join(CANDIDATES)}; this model cannot be tuned on images here. {instead_of_images(config)}"
        )
    image_id = image_id_of(config)
    image_id = known[named["image_token"] or placeholder] if image_id is None else image_id
    numbers = {known[name] for name in special if _speaks_of_media(name)}
    said = {key: config[key] for key in CONFIG_KEYS if isinstance(config.get(key), int)}
    numbers |= {known[placeholder], image_id, *said.values()}
    return MediaTokens(
        placeholder=placeholder,
        placeholder_id=known[placeholder],
        image_id=image_id,
        of_pixels=frozenset({image_id, *(number for key, number in said.items() if key in VIDEO_KEYS)}),
        never_trained=frozenset(numbers - set(_ordinary(tokenizer))),
    )


def image_id_of(config: dict[str, Any]) -> int | None:
    """The token whose states are the image's, if config.json says it."""
    said = (config.get(key) for key in ("image_token_id", "image_token_index"))
    return next((number for number in said if number is not None), None)


def _speaks_of_media(name: str) -> bool:
    core = name.strip("<>[]| ").lower()
    return any(word in core for word in WORDS) or ("row" in core and "col" in core)


def _ordinary(tokenizer: Any) -> Iterator[int]:
    """Ids of the special tokens that belong to text, and so may be trained."""
    for number in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id):
        if number is not None:
            yield number
