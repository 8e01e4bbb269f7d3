"""Text models loaded through mlx-lm: one row is a string, one batch is a rectangle of token ids.

The loss wants hidden states and the output head apart, so that logits are made for supervised tokens only. mlx-lm's
models do not promise that the two can be called apart, so it is proven on a probe before it is done; a model where
they cannot is called whole.
"""

from collections.abc import Iterator, Sequence
from typing import final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm import stream_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Encoding

from ...data.encoded import Batch, Encoded
from ...data.examples import Example, Tokens, texts
from ...data.tokenizer_state import uncut
from .base import Family, Piece, Sampler, Written
from .batched import Ending, answered_alone, answered_together, why_not_together
from .beginnings import Before, Read, caches_behind, read_texts
from .beginnings_check import why_not_begun
from .document_mask import isolating_caches, padded_segments
from .head import find_head, head_layer, language_model
from .tables import check_batch, find_tables, most_written


@final
class TextFamily(Family):
    """Any mlx-lm model whose call is `module(tokens) -> logits`."""

    def __init__(self, module: nn.Module, tokenizer: TokenizerWrapper):
        self.tokenizer = tokenizer
        self._head = find_head(module)  # None: `hidden` already holds logits, and `head` passes them on
        self._alone: list[str | None] = []  # why answers are written one by one, once that was tried
        self._apart: list[str | None] = []  # why what rows begin with is read with each of them, once that was tried
        self.measure(module)

    def measure(self, module: nn.Module) -> None:
        self.tables = find_tables(module, module)

    def check(self, module: nn.Module) -> None:
        pass  # mlx-lm's models are called in one way, and it is the causal one

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        return encode_texts(examples, self.tokenizer)

    def encoding_settings(self) -> None:
        return None  # the tokenizer is all there is

    def collate(self, rows: Sequence[Encoded], width: int, *, beside: Batch | None = None) -> Batch:  # noqa: ARG002
        tokens = np.zeros((len(rows), width), dtype=np.int32)
        loss_mask = np.zeros((len(rows), width), dtype=bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row.tokens)] = row.tokens
            loss_mask[index, : len(row.tokens)] = row.loss_mask
        check_batch(rows, tokens, loss_mask, self.tables)
        batch = {"tokens": mx.array(tokens), "loss_mask": mx.array(loss_mask)}
        if any(row.segments is not None for row in rows):
            batch["segments"] = mx.array(padded_segments(rows, width))
        return batch

    def hidden(self, module: nn.Module, batch: Batch) -> mx.array:
        inputs, called = batch["tokens"][:, :-1], self._trunk(module)  # (B, T-1)
        if "before" in batch:
            return called(inputs, cache=caches_behind(module, batch["before"], inputs.shape[1]))
        if "segments" not in batch:
            return called(inputs)
        return called(inputs, cache=isolating_caches(module, batch["segments"][:, :-1]))

    def read(self, module: nn.Module, texts: Sequence[np.ndarray], before: Before) -> Read:
        return read_texts(module, self._trunk(module), texts, before)

    def why_apart(self, module: nn.Module) -> str | None:
        if not self._apart:
            self._apart.append(why_not_begun(self, module))
        return self._apart[0]

    def _trunk(self, module: nn.Module) -> nn.Module:
        """What gives the states; the whole module where its head is not told apart from it."""
        return module if self._head is None else language_model(module)["model"]

    def head(self, module: nn.Module, hidden: mx.array) -> mx.array:
        return hidden if self._head is None else self._head(module, hidden)

    def head_layer(self, module: nn.Module) -> nn.Module | None:
        return None if self._head is None else head_layer(module)

    def generate(self, module: nn.Module, prompt: Example, *, max_tokens: int, sampler: Sampler) -> Iterator[Piece]:
        ((tokens, _),) = _tokenize([prompt], self.tokenizer, ends=False)
        max_tokens = most_written(tokens, self.tables, self.tokenizer, max_tokens)
        for piece in stream_generate(module, self.tokenizer, tokens.tolist(), max_tokens=max_tokens, sampler=sampler):
            yield Piece(piece.text, piece.token)

    def answers(
        self,
        module: nn.Module,
        prompts: Sequence[Example],
        *,
        max_tokens: int,
        batch_size: int,
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, Written]]:
        asked = [tokens for tokens, _ in _tokenize(prompts, self.tokenizer, ends=False)]
        limits = [most_written(tokens, self.tables, self.tokenizer, max_tokens) for tokens in asked]
        ids, ending = [tokens.tolist() for tokens in asked], Ending(self.tokenizer, stop)
        if batch_size > 1 and self.why_alone(module) is None:
            found = answered_together(module, ids, limits, ending, batch_size=batch_size)
        else:
            found = ((place, answered_alone(module, ids[place], limits[place], ending)) for place in range(len(ids)))
        for place, (tokens, ended) in found:
            yield place, ending.written(tokens, ended=ended)

    def why_alone(self, module: nn.Module) -> str | None:
        if not self._alone:
            self._alone.append(why_not_together(module, self.tables.known))
        return self._alone[0]


def encode_texts(examples: Sequence[Example], tokenizer: TokenizerWrapper, *, ends: bool = True) -> list[Encoded]:
    """One row of ids for each example; raw text is ended by EOS, where there is one, unless it is to go on."""
    return [
        Encoded(tokens=tokens, loss_mask=supervised) for tokens, supervised in _tokenize(examples, tokenizer, ends=ends)
    ]


def _tokenize(
    examples: Sequence[Example], tokenizer: TokenizerWrapper, *, ends: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(T,) token ids and (T,) supervision of the whole text of each example, or of the tokens it came as.

    A text is tokenized in one piece, as it stands, and a token belongs to the part its first character is in. A
    rendered chat brings its own special tokens; raw text gets the tokenizer's opening ones, unless it begins with BOS,
    and, when it `ends`, EOS if there is one.
    """
    encodings: dict[int, Encoding] = {}
    end = tokenizer.eos_token_id
    for opens in (False, True):  # the tokenizer takes many texts at once, and shares them among the cores
        alike = [index for index, example in enumerate(examples) if _opens(example, tokenizer) is opens]
        batch = [examples[index].text for index in alike]
        encodings |= zip(alike, uncut(tokenizer).encode_batch(batch, add_special_tokens=opens), strict=True)
    for index, example in enumerate(examples):
        first = example.parts[0]
        if isinstance(first, Tokens):
            yield np.array(first.ids, dtype=np.int32), np.array(first.supervised, dtype=bool)
            continue
        parts, encoding = texts(example), encodings[index]
        tokens, starts = encoding.ids, [start for start, _ in encoding.offsets]
        part_starts = np.cumsum([0, *(len(part.text) for part in parts[:-1])])
        part_of = np.searchsorted(part_starts, starts, side="right") - 1  # (T,) index into parts
        supervised = [parts[part].supervised for part in part_of]
        if ends and end is not None and not example.rendered and tokens[-1:] != [end]:
            tokens.append(end)
            supervised.append(parts[-1].supervised)
        yield np.array(tokens, dtype=np.int32), np.array(supervised, dtype=bool)


def _opens(example: Example, tokenizer: TokenizerWrapper) -> bool | None:
    """Whether the tokenizer is to open a text with its special tokens; None for what came as tokens."""
    if isinstance(example.parts[0], Tokens):
        return None
    return not example.rendered and not (tokenizer.bos_token and example.text.startswith(tokenizer.bos_token))
