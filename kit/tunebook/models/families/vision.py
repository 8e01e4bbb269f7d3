"""Vision-language models loaded through mlx-vlm: one row is a text with images in it, one batch has pixels beside it.

Rows keep references to their images, and a batch opens them. The tokens of an image are the processor's own; that they
are the same when its pixels are made is checked in every batch.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, cast, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import PIL.Image
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_vlm.models.cache import make_prompt_cache

from ...data.encoded import Batch, Encoded, Unreadable
from ...data.examples import Example, Image, Text, Tokens
from ...data.images import opened, size_of
from ...data.tokenizer_state import uncut
from ..layers import trained_outside
from . import language_model
from .base import Family, NotEncodable, Written
from .batched import Ending, greedy, until_end
from .beginnings import Before, Read
from .check import check_family
from .fingerprint import fingerprint
from .head import head_layer, projection
from .image_tokens import Expander
from .language_alone import instead_of_images
from .placeholders import media_tokens
from .quirks import quirks_of
from .tables import check_batch, find_tables, most_written

# What a processor may say of each token; here it is given the images without their text.
FEATURES = "features"  # of images and text, in a batch that was prepared
OF_TOKENS = ("token_type_ids", "mm_token_type_ids", "images_seq_mask", "position_ids")


@final
class VisionFamily(Family):
    """Any mlx-vlm model with `get_input_embeddings` and a `language_model`; whether it can be trained, `check` says."""

    looks_at_tokens = True
    library = "mlx-vlm"

    def __init__(self, module: nn.Module, tokenizer: TokenizerWrapper, processor: Any, config: dict[str, Any]):
        self.tokenizer, self.processor = tokenizer, processor
        self.quirks = quirks_of(config["model_type"])
        self.media = media_tokens(processor, config)
        self.instead_of_images = instead_of_images(config)  # where it turns out that it cannot be tuned on them
        self.placeholder = self.media.placeholder
        self.transformers_names = self.quirks.transformers_names
        if self.quirks.mends_config:
            self.config_additions = language_model.mend_config(module)
        self._expander = Expander(processor, self.media.placeholder)
        self._has_head = language_model.has_head(module)  # False: `hidden` holds logits, and `head` passes them on
        self.measure(module)

    def measure(self, module: nn.Module) -> None:
        self.tables = find_tables(module, lambda tokens: language_model.logits(module, tokens))

    def check(self, module: nn.Module) -> None:
        check_family(self, module)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        return [self._encoded(example) for example in examples]

    def encoding_settings(self) -> list[Any]:
        media = self.media
        tokens = [media.placeholder, media.image_id, sorted(media.of_pixels), sorted(media.never_trained)]
        return [version("mlx-vlm"), fingerprint(self.processor), tokens, self.quirks.wrapped_in]

    def collate(self, rows: Sequence[Encoded], width: int, *, beside: Batch | None = None) -> Batch:
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)  # any would do: nothing looks at padding
        tokens = np.full((len(rows), width), next(number for number in known if number is not None), np.int32)
        loss_mask = np.zeros((len(rows), width), dtype=bool)
        attention_mask = np.zeros((len(rows), width), dtype=np.int32)
        for index, row in enumerate(rows):
            if row.segments is not None:
                raise ValueError("rows of a model that reads images are not packed")
            tokens[index, : len(row.tokens)] = row.tokens
            loss_mask[index, : len(row.tokens)] = row.loss_mask
            attention_mask[index, : len(row.tokens)] = 1
        check_batch(rows, tokens, loss_mask, self.tables)
        batch = {"tokens": tokens, "loss_mask": loss_mask, "attention_mask": attention_mask}
        pixels = self._pixels(rows) if beside is None else {name: beside[name] for name in beside.keys() - batch.keys()}
        return {name: mx.array(array) for name, array in batch.items()} | pixels

    def hidden(self, module: nn.Module, batch: Batch) -> mx.array:
        # The whole row goes in and the last state is left out: positions and images need all of its tokens.
        given = batch[FEATURES] if FEATURES in batch else language_model.features(module, batch)
        return self._states(module, batch["tokens"], given)[:, :-1]

    def prepared(self, module: nn.Module, batch: Batch) -> Batch:
        if FEATURES in batch or trained_outside(module):
            return batch
        return {**batch, FEATURES: language_model.features(module, batch)}

    def head(self, module: nn.Module, hidden: mx.array) -> mx.array:
        return projection(module, hidden) if self._has_head else hidden

    def head_layer(self, module: nn.Module) -> nn.Module | None:
        return head_layer(module) if self._has_head else None

    def generate(
        self, module: nn.Module, prompt: Example, *, max_tokens: int, temperature: float, top_p: float
    ) -> Iterator[str]:
        detokenizer = self.tokenizer.detokenizer
        sampler = make_sampler(temp=temperature, top_p=top_p)
        for token in self._tokens(module, self._encoded(prompt, ends=False), max_tokens, sampler):
            if token in self.tokenizer.eos_token_ids:
                break
            detokenizer.add_token(token)
            yield detokenizer.last_segment
        detokenizer.finalize()
        yield detokenizer.last_segment

    def answers(
        self,
        module: nn.Module,
        prompts: Sequence[Example],
        *,
        max_tokens: int,
        batch_size: int,  # noqa: ARG002 - they are written one after another
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, Written]]:
        rows = [self._encoded(prompt, ends=False) for prompt in prompts]
        limits = [most_written(row.tokens, self.tables, self.tokenizer, max_tokens) for row in rows]
        ending = Ending(self.tokenizer, stop)
        for place, (row, limit) in enumerate(zip(rows, limits, strict=True)):
            tokens, ended = until_end(self._tokens(module, row, limit, greedy), ending)
            yield place, ending.written(tokens, ended=ended)

    def why_alone(self, module: nn.Module) -> str:  # noqa: ARG002 - it is the same for all
        return "it reads images, whose rows are answered one by one"

    def read(self, module: nn.Module, texts: Sequence[np.ndarray], before: Before) -> Read:
        raise NotImplementedError("what rows with images begin with is not read by itself; ask `why_apart` first")

    def why_apart(self, module: nn.Module) -> str:  # noqa: ARG002 - it is the same for all
        return "it reads images, and rows with them are read whole"

    def _tokens(
        self, module: nn.Module, row: Encoded, max_tokens: int, sampler: Callable[[mx.array], mx.array]
    ) -> Iterator[int]:
        """What `module` goes on with after `row`, at most `max_tokens`; nothing is asked of what ends an answer."""
        max_tokens = most_written(row.tokens, self.tables, self.tokenizer, max_tokens)
        batch = self.collate([row], len(row.tokens))
        given = language_model.features(module, batch)
        cache = make_prompt_cache(module["language_model"])
        states = self._states(module, batch["tokens"], given, cache)
        logits = self.head(module, states[:, -1:])  # (1, 1, V)
        # Positions behind an image are not those of the tokens; the difference holds for all that follow.
        later = {name: given[name] for name in ("rope_deltas",) if name in given}
        for _ in range(max_tokens):
            token = sampler(nn.log_softmax(logits[:, -1].astype(mx.float32)))  # (1,)
            yield cast(int, token.item())
            logits = module["language_model"](token[None], cache=cache, **later).logits

    def _states(self, module: nn.Module, tokens: mx.array, given: dict[str, Any], cache: Any = None) -> mx.array:
        """(B, T, D) of tokens whose features are `given`; logits where the head cannot be told apart."""
        called = language_model.states if self._has_head else language_model.called
        return called(module, tokens, given, self.media.image_id, self.quirks, cache)

    def _encoded(self, example: Example, *, ends: bool = True) -> Encoded:
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

    def _pixels(self, rows: Sequence[Encoded]) -> dict[str, mx.array]:
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
