"""Vision-language models loaded through mlx-vlm: one row is a text with images in it, one batch has pixels beside it.

Rows keep references to their images, and a batch opens them. How both are read is `image_rows.py`'s.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_vlm.models.cache import make_prompt_cache

from ...data.encoded import Batch, Encoded
from ...data.examples import Example
from ..layers import trained_outside
from . import language_model
from .base import Family, Piece, Sampler, Written
from .batched import Ending, greedy, until_end
from .beginnings import Before, Read
from .check import check_family
from .head import head_layer, projection
from .image_rows import ImageRows
from .language_alone import instead_of_images
from .tables import check_batch, find_tables, most_written

FEATURES = "features"  # of images and text, in a batch that was prepared


@final
class VisionFamily(Family):
    """Any mlx-vlm model with `get_input_embeddings` and a `language_model`; whether it can be trained, `check` says."""

    looks_at_tokens = True
    library = "mlx-vlm"

    def __init__(self, module: nn.Module, rows: ImageRows, config: dict[str, Any]):
        self.rows, self.tokenizer, self.processor = rows, rows.tokenizer, rows.processor
        self.media, self.quirks = rows.media, rows.quirks
        self.instead_of_images = instead_of_images(config)  # where it turns out that it cannot be tuned on them
        self.placeholder = self.media.placeholder
        self.transformers_names = self.quirks.transformers_names
        if self.quirks.mends_config:
            self.config_additions = language_model.mend_config(module)
        self._has_head = language_model.has_head(module)  # False: `hidden` holds logits, and `head` passes them on
        self.measure(module)

    def measure(self, module: nn.Module) -> None:
        self.tables = find_tables(module, lambda tokens: language_model.logits(module, tokens))

    def check(self, module: nn.Module) -> None:
        check_family(self, module)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        return [self.rows.encoded(example) for example in examples]

    def encoding_settings(self) -> list[Any]:
        return self.rows.settings()

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
        pixels = (
            self.rows.pixels(rows) if beside is None else {name: beside[name] for name in beside.keys() - batch.keys()}
        )
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

    def generate(self, module: nn.Module, prompt: Example, *, max_tokens: int, sampler: Sampler) -> Iterator[Piece]:
        detokenizer, end = self.tokenizer.detokenizer, None
        for token in self._tokens(module, self.rows.encoded(prompt, ends=False), max_tokens, sampler):
            if token in self.tokenizer.eos_token_ids:
                end = token
                break
            detokenizer.add_token(token)
            yield Piece(detokenizer.last_segment, token)
        detokenizer.finalize()
        yield Piece(detokenizer.last_segment, end)

    def answers(
        self,
        module: nn.Module,
        prompts: Sequence[Example],
        *,
        max_tokens: int,
        batch_size: int,  # noqa: ARG002 - they are written one after another
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, Written]]:
        rows = [self.rows.encoded(prompt, ends=False) for prompt in prompts]
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

    def _tokens(self, module: nn.Module, row: Encoded, max_tokens: int, sampler: Sampler) -> Iterator[int]:
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
