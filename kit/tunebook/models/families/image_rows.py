"""Rows with images as one processor reads them: an example -> ids and loss mask, its images -> pixels; no weights.

The tokens of an image are the processor's own; that they are the same when its pixels are made is checked each time.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, final

import mlx.core as mx
import numpy as np
import PIL.Image
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded, Unreadable
from ...data.examples import Example, Image, Text, Tokens
from ...data.images import opened, size_of
from ...data.tokenizer_state import uncut
from .base import NotEncodable
from .fingerprint import fingerprint
from .image_tokens import Expander
from .placeholders import media_tokens
from .quirks import quirks_of

# What a processor may say of each token; here it is given the images without their text.
OF_TOKENS = ("token_type_ids", "mm_token_type_ids", "images_seq_mask", "position_ids")


@final
class ImageRows:
    """How the model of `config` reads; `media` are the tokens that speak of images, `quirks` those of its family.

    Raises ValueError for a processor whose placeholder cannot be told.
    """

    def __init__(self, tokenizer: TokenizerWrapper, processor: Any, config: dict[str, Any]):
        self.tokenizer, self.processor = tokenizer, processor
        self.quirks = quirks_of(config["model_type"])
        self.media = media_tokens(processor, config)
        self._expander = Expander(processor, self.media.placeholder)

    def settings(self) -> list[Any]:
        """As `Family.encoding_settings`."""
        media = self.media
        tokens = [media.placeholder, media.image_id, sorted(media.of_pixels), sorted(media.never_trained)]
        return [version("mlx-vlm"), fingerprint(self.processor), tokens, self.quirks.wrapped_in]

    def encoded(self, example: Example, *, ends: bool = True) -> Encoded:
        """One example; a raw text `ends` in EOS if there is one.

        Raises NotEncodable for an image that is refused, and for a token of pixels that no image brought.
        """
        first = example.parts[0]
        if isinstance(first, Tokens):
            self._refuse_typed(np.array(first.ids, np.int32))
            return Encoded(tokens=np.array(first.ids, np.int32), loss_mask=np.array(first.supervised, bool))
        texts, supervised = [], []
        for text, is_supervised in self._written(example):
            texts.append(text)
            supervised.append(is_supervised)
        whole = "".join(texts)
        bos = self.tokenizer.bos_token
        opens = not example.rendered and not (bos and whole.startswith(bos))
        encoding = uncut(self.tokenizer).encode(whole, add_special_tokens=opens)
        tokens = list(encoding.ids)
        part_starts = np.cumsum([0, *(len(text) for text in texts[:-1])])
        part_of = np.searchsorted(part_starts, [start for start, _ in encoding.offsets], side="right") - 1  # (T,)
        is_typed = np.array([isinstance(part, Text) for part in example.parts])[part_of]
        self._refuse_typed(np.array(tokens, np.int32)[is_typed])
        mask, end = [supervised[part] for part in part_of], self.tokenizer.eos_token_id
        if ends and end is not None and not example.rendered and tokens[-1:] != [end]:
            tokens.append(end)
            mask.append(supervised[-1])
        is_media = np.isin(tokens, list(self.media.never_trained))
        return Encoded(
            tokens=np.array(tokens, dtype=np.int32),
            loss_mask=np.array(mask, dtype=bool) & ~is_media,
            images=tuple(part.image for part in example.parts if isinstance(part, Image)),
            images_end=int(np.flatnonzero(is_media)[-1]) + 1 if is_media.any() else 0,
        )

    def _refuse_typed(self, tokens: np.ndarray) -> None:
        """Raise NotEncodable where (T,) tokens that no image brought would be given the pixels of one."""
        typed = tokens[np.isin(tokens, list(self.media.of_pixels))]
        if typed.size:
            name = self.tokenizer.convert_ids_to_tokens(int(typed[0]))
            raise NotEncodable(f"a text holds {name}, which stands for pixels, and brings none; take it out.")

    def _written(self, example: Example) -> Iterator[tuple[str, bool]]:
        """(text, whether it is supervised) of each part, images written out as the processor does."""
        before, after = self.quirks.wrapped_in or ("", "")
        for number, part in enumerate(example.parts):
            if isinstance(part, Text):
                yield part.text, part.supervised
            elif isinstance(part, Image):
                text = self._expander.text_of(size_of(part.image))
                earlier = example.parts[number - 1] if number else None
                is_wrapped = isinstance(earlier, Text) and earlier.text.endswith(before)
                yield (text if is_wrapped else before + text + after), False

    def pixels(self, rows: Sequence[Encoded]) -> dict[str, mx.array]:
        """What the processor makes of the images of `rows`, in order; nothing where there are none.

        Raises Unreadable for an image that cannot be opened or is not the one that was encoded.
        """
        with_images = [row for row in rows if row.images]
        if not with_images:
            return {}
        images, known = [], dict[bytes, PIL.Image.Image]()  # both sides of a pair see the same
        for row in with_images:
            try:
                known |= {image.digest: opened(image) for image in row.images if image.digest not in known}
                images.append([known[image.digest] for image in row.images])
            except ValueError as error:
                raise Unreadable(row.number, f"Row {row.number}: {error}") from error
        made = self._processed(with_images, images)
        theirs = np.array(made.pop("input_ids"))  # (rows with images, T')
        for row, tokens in zip(with_images, theirs, strict=True):
            expected, found = ((some == self.media.image_id).sum() for some in (row.tokens, tokens))
            if expected != found:
                raise Unreadable(
                    row.number,
                    f"Row {row.number}: its images are {found} tokens now and were {expected} when it was read; make "
                    "the Trainer again.",
                )
        made.pop("attention_mask")
        if of_tokens := [name for name in OF_TOKENS if name in made]:
            raise ValueError(
                f"{type(self.processor).__name__} gives {', '.join(of_tokens)}, one number for each token, which no "
                "batch here carries"
            )
        arrays = {name: _as_array(value) for name, value in made.items()}
        if self.quirks.zero_is_padding:
            arrays["pixel_values"] = _told_from_padding(arrays["pixel_values"], arrays["pixel_attention_mask"])
        return arrays

    def _processed(self, rows: Sequence[Encoded], images: list[list[PIL.Image.Image]]) -> dict[str, Any]:
        """What the processor gives for `rows` and their opened `images`.

        Raises Unreadable for a row it refuses, and ValueError where it takes each row alone and not all together.
        """
        texts = [self.media.placeholder * len(some) for some in images]
        try:
            return dict(
                self.processor(text=texts, images=images, padding=True, padding_side="right", add_special_tokens=False)
            )
        except Exception as error:  # each processor has errors of its own, and none says which row it is about
            said = f"{type(self.processor).__name__} refuses the images ({type(error).__name__}: {error})"
            if len(rows) == 1:
                raise Unreadable(rows[0].number, f"Row {rows[0].number}: {said}.") from error
            for row, some in zip(rows, images, strict=True):
                self._processed([row], [some])
            numbers = ", ".join(str(row.number) for row in rows)
            raise ValueError(f"{said} of rows {numbers} together, and takes each row's alone.") from error


def _told_from_padding(pixels: mx.array, mask: mx.array) -> mx.array:
    """(B, N, C, H, W) with images of which `mask` (B, N, H, W) has pixels a trifle off 0 where all their values are."""
    is_image, is_zero = mask.any(axis=(2, 3)), (pixels == 0).all(axis=(2, 3, 4))
    return mx.where((is_image & is_zero)[..., None, None, None], 1e-6, pixels)


def _as_array(value: Any) -> mx.array:
    return value if isinstance(value, mx.array) else mx.array(np.array(value))
