"""Vision-language models loaded through mlx-vlm: one row is a text with images in it, one batch has pixels beside it.

Rows keep references to their images, and a batch opens them. The tokens of an image are the processor's own; that they
are the same when its pixels are made is checked in every batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_vlm.models.cache import make_prompt_cache

from ..examples import Example, Image, Text, Tokens
from ..images import opened, size_of
from . import language
from .base import Batch, Encoded, Family, Unreadable
from .check import check_family
from .expansion import Expander
from .media import media_tokens
from .quirks import quirks_of
from .seam import head_layer, projection

# What a processor may say of each token; here it is given the images without their text.
OF_TOKENS = ("token_type_ids", "mm_token_type_ids", "images_seq_mask", "position_ids")


@final
class VisionFamily(Family):
    """Any mlx-vlm model with `get_input_embeddings` and a `language_model`; whether it can be trained, `check` says."""

    cannot_compile = "a model that reads images looks at its tokens while it runs"
    library = "mlx-vlm"

    def __init__(self, module: nn.Module, tokenizer: TokenizerWrapper, processor: Any, config: dict[str, Any]):
        self.tokenizer, self.processor = tokenizer, processor
        self.quirks = quirks_of(config["model_type"])
        self.media = media_tokens(processor, config)
        self.placeholder = self.media.placeholder
        self.transformers_names = self.quirks.transformers_names
        if self.quirks.mends_config:
            self.config_additions = language.mend_config(module)
        self._expander = Expander(processor, self.media.placeholder)
        self._has_head = language.has_head(module)  # False: `hidden` holds logits, and `head` passes them on

    def check(self, module: nn.Module) -> None:
        check_family(self, module)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        return [self._encoded(example) for example in examples]

    def collate(self, rows: Sequence[Encoded], width: int) -> Batch:
        padding = self.tokenizer.pad_token_id
        tokens = np.full((len(rows), width), self.tokenizer.eos_token_id if padding is None else padding, np.int32)
        loss_mask = np.zeros((len(rows), width), dtype=bool)
        attention_mask = np.zeros((len(rows), width), dtype=np.int32)
        for index, row in enumerate(rows):
            if row.segments is not None:
                raise ValueError("rows of a model that reads images are not packed")
            tokens[index, : len(row.tokens)] = row.tokens
            loss_mask[index, : len(row.tokens)] = row.loss_mask
            attention_mask[index, : len(row.tokens)] = 1
        batch = {"tokens": tokens, "loss_mask": loss_mask, "attention_mask": attention_mask}
        return {name: mx.array(array) for name, array in batch.items()} | self._pixels(rows)

    def hidden(self, module: nn.Module, batch: Batch) -> mx.array:
        # The whole row goes in and the last state is left out: positions and images need all of its tokens.
        return self._states(module, batch["tokens"], language.features(module, batch))[:, :-1]

    def head(self, module: nn.Module, hidden: mx.array) -> mx.array:
        return projection(module, hidden) if self._has_head else hidden

    def head_layer(self, module: nn.Module) -> nn.Module | None:
        return head_layer(module) if self._has_head else None

    def generate(
        self, module: nn.Module, prompt: Example, *, max_tokens: int, temperature: float, top_p: float
    ) -> Iterator[str]:
        row = self._encoded(prompt, ends=False)
        batch = self.collate([row], len(row.tokens))
        given = language.features(module, batch)
        cache = make_prompt_cache(module["language_model"])
        states = self._states(module, batch["tokens"], given, cache)
        logits = self.head(module, states[:, -1:])  # (1, 1, V)
        # Positions behind an image are not those of the tokens; the difference holds for all that follow.
        later = {name: given[name] for name in ("rope_deltas",) if name in given}
        sampler, detokenizer = make_sampler(temp=temperature, top_p=top_p), self.tokenizer.detokenizer
        for _ in range(max_tokens):
            token = sampler(nn.log_softmax(logits[:, -1].astype(mx.float32)))  # (1,)
            if token.item() in self.tokenizer.eos_token_ids:
                break
            detokenizer.add_token(token.item())
            yield detokenizer.last_segment
            logits = module["language_model"](token[None], cache=cache, **later).logits
        detokenizer.finalize()
        yield detokenizer.last_segment

    def _states(self, module: nn.Module, tokens: mx.array, given: dict[str, Any], cache: Any = None) -> mx.array:
        """(B, T, D) of tokens whose features are `given`; logits where the head cannot be told apart."""
        called = language.states if self._has_head else language.called
        return called(module, tokens, given, self.media.image_id, self.quirks, cache)

    def _encoded(self, example: Example, *, ends: bool = True) -> Encoded:
        """One example; a raw text `ends` in EOS. Raises ValueError for an image that cannot be opened."""
        first = example.parts[0]
        if isinstance(first, Tokens):
            return Encoded(tokens=np.array(first.ids, np.int32), loss_mask=np.array(first.supervised, bool))
        texts, supervised = [], []
        for text, is_supervised in self._written(example):
            texts.append(text)
            supervised.append(is_supervised)
        whole = "".join(texts)
        bos = self.tokenizer.bos_token
        opens = not example.rendered and not (bos and whole.startswith(bos))
        encoding = self.tokenizer.backend_tokenizer.encode(whole, add_special_tokens=opens)
        tokens = list(encoding.ids)
        part_starts = np.cumsum([0, *(len(text) for text in texts[:-1])])
        part_of = np.searchsorted(part_starts, [start for start, _ in encoding.offsets], side="right") - 1  # (T,)
        mask = [supervised[part] for part in part_of]
        if ends and not example.rendered and tokens[-1:] != [self.tokenizer.eos_token_id]:
            tokens.append(self.tokenizer.eos_token_id)
            mask.append(supervised[-1])
        is_media = np.isin(tokens, list(self.media.never_trained))
        return Encoded(
            tokens=np.array(tokens, dtype=np.int32),
            loss_mask=np.array(mask, dtype=bool) & ~is_media,
            images=tuple(part.picture for part in example.parts if isinstance(part, Image)),
            images_end=int(np.flatnonzero(is_media)[-1]) + 1 if is_media.any() else 0,
        )

    def _written(self, example: Example) -> Iterator[tuple[str, bool]]:
        """(text, whether it is supervised) of each part, images written out as the processor does."""
        before, after = self.quirks.wrapped_in or ("", "")
        for number, part in enumerate(example.parts):
            if isinstance(part, Text):
                yield part.text, part.supervised
            elif isinstance(part, Image):
                text = self._expander.text_of(size_of(part.picture))
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
        images = []
        for row in with_images:
            try:
                images.append([opened(picture) for picture in row.images])
            except ValueError as error:
                raise Unreadable(row.number, f"Row {row.number}: {error}") from error
        # A copy of the list, for one processor writes into it.
        texts = [self.media.placeholder * len(row.images) for row in with_images]
        made = dict(
            self.processor(
                text=list(texts), images=images, padding=True, padding_side="right", add_special_tokens=False
            )
        )
        theirs = np.array(made.pop("input_ids"))  # (rows with images, T')
        for row, tokens in zip(with_images, theirs, strict=True):
            expected, found = ((some == self.media.image_id).sum() for some in (row.tokens, tokens))
            if expected != found:
                raise ValueError(
                    f"Row {row.number}: its images are {found} tokens now and were {expected} when it was read; make "
                    "the Trainer again."
                )
        made.pop("attention_mask")
        if of_tokens := [name for name in OF_TOKENS if name in made]:
            raise ValueError(
                f"{type(self.processor).__name__} gives {', '.join(of_tokens)}, one number for each token, which no "
                "batch here carries"
            )
        return {name: _as_array(value) for name, value in made.items()}


def _as_array(value: Any) -> mx.array:
    return value if isinstance(value, mx.array) else mx.array(np.array(value))
