"""How an image is written out in a text: what the processor puts in the place of one placeholder.

It depends on the image's size alone, so the processor is asked once for each size, with a blank image; no pixels of the
row are read for it. What comes out is proven to be tokenized as the processor tokenizes it.
"""

from functools import lru_cache
from typing import Any, final

from PIL import Image

from ...data.tokenizer_state import uncut
from .base import NotEncodable


@final
class Expander:
    """Writes images out as one processor does."""

    def __init__(self, processor: Any, placeholder: str):
        self._processor, self._placeholder = processor, placeholder
        self.text_of = lru_cache(maxsize=4096)(self._text_of)

    def _text_of(self, size: tuple[int, int]) -> str:
        """The text in place of the placeholder of an image of (width, height).

        Raises NotEncodable for a size the processor refuses, and ValueError for a processor whose tokens are not those
        of any text.
        """
        # Grey, not black: a processor of tiles takes an image that is zero after scaling for padding.
        blank = Image.new("RGB", size, (90, 120, 150))
        try:
            made = self._processor(
                text=[self._placeholder], images=[[blank]], padding=True, padding_side="right", add_special_tokens=False
            )
        except Exception as error:  # each processor has errors of its own
            raise NotEncodable(
                f"{type(self._processor).__name__} refuses its image of {size[0]} x {size[1]} pixels ({error})."
            ) from error
        tokens = made["input_ids"][0].tolist()
        backend = uncut(self._processor.tokenizer)
        text = backend.decode(tokens, skip_special_tokens=False)
        if backend.encode(text, add_special_tokens=False).ids != tokens:
            raise ValueError(
                f"{type(self._processor).__name__} writes an image of {size[0]} x {size[1]} pixels as tokens that are "
                f"no text of its tokenizer ({text[:60]!r}), so this model cannot be tuned on images here."
            )
        return text
