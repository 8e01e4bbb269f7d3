"""What the data path and the loss need from a kind of model, which they know by this and nothing else.

Shapes: B rows, T tokens, D width, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...data.encoded import Batch, Encoded
from ...data.examples import Example
from .beginnings import Before, Read

Library = Literal["mlx-lm", "mlx-vlm"]
Sampler = Callable[[mx.array], mx.array]  # (B, V) log-probabilities -> (B,) tokens


@dataclass(frozen=True)
class Tables:
    """How many rows the tables have that the numbers of a row are looked up in (`tables.py` finds them)."""

    tokens: int | None  # ids that can be read; None: no table of them was found
    targets: int  # ids that can be written
    positions: int | None = None  # tokens a row may have; None: positions are computed, and there is no table of them
    paths: tuple[str, ...] = ()  # of the embeddings that are looked up in by token

    @property
    def known(self) -> int:
        """How many ids a probe may be made of."""
        return self.targets if self.tokens is None else self.tokens

    def longest(self, max_seq_length: int) -> int:
        """`max_seq_length`, or as many tokens as there are positions."""
        return max_seq_length if self.positions is None else min(max_seq_length, self.positions)


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    tokens: tuple[int, ...]  # without the one that ends it
    text: str
    ended: bool  # by itself; False: as many tokens were written as were asked for


class Piece(NamedTuple):
    """What a model goes on with: a token, and the text that is certain with it."""

    text: str
    token: int | None  # None: what was held back of the text


class NotEncodable(ValueError):
    """An example that the family refuses, and why."""


class Family(ABC):
    """A kind of model. Nothing that is instantiated is subclassed: `TextFamily` and `VisionFamily` are final."""

    processor: Any = None  # of texts with images; None: the model reads text alone
    placeholder: str | None = None  # what stands for an image in a text; None: the model reads text alone
    looks_at_tokens: bool = False  # whether `hidden` does, so that it can be compiled for no other batch
    library: Library = "mlx-lm"  # that opens the model folder
    config_additions: Mapping[str, Any] = {}  # what a config.json must say and may leave out
    # Beginnings of parameter names here, and what transformers has in their place; None: not known.
    transformers_names: tuple[tuple[str, str], ...] | None = ()
    tables: Tables  # of the model as `measure` last saw it

    @abstractmethod
    def measure(self, module: nn.Module) -> None:
        """Note the tables of `module`; to be asked again when one of them was made longer."""

    @abstractmethod
    def check(self, module: nn.Module) -> None:
        """Raise ValueError when `module`, as it is now, would not be trained on what its rows say.

        Asked once, before the first step of a run.
        """

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Token ids and loss mask of each example, at its full length. Raises NotEncodable."""

    @abstractmethod
    def encoding_settings(self) -> Any:
        """All but the tokenizer that decides what `encode` makes of an example, as values for JSON.

        Encoded rows are kept on the disk under them, so one that is left out lets a run train on another's rows.
        """

    @abstractmethod
    def collate(self, rows: Sequence[Encoded], width: int, *, beside: Batch | None = None) -> Batch:
        """One batch, each row padded on the right to `width` tokens; padding is never in the loss mask.

        `beside` is a batch of rows with the same images, which are then not opened again.
        When a row is packed the batch also has "segments" (B, T) int32. Raises Unreadable, and ValueError for a row
        that reaches beyond `tables`.
        """

    @abstractmethod
    def hidden(self, module: nn.Module, batch: Batch) -> mx.array:
        """(B, T-1, D): the states from which tokens 1..T-1 are predicted.

        With "segments" a token sees those of its own alone, for models `train/packing_check.py` finds nothing wrong
        with. Raises ValueError where the layers carry other state than attention has. With "before" (a `Before` of B
        rows) the tokens go on behind what was read, for models that have nothing against it by `why_apart`.
        """

    @abstractmethod
    def read(self, module: nn.Module, texts: Sequence[np.ndarray], before: Before) -> Read:
        """What is to be kept of `texts`, (T,) token ids each, for rows to go on behind them: one for each of `before`.

        Only for models that have nothing against it by `why_apart`.
        """

    @abstractmethod
    def why_apart(self, module: nn.Module) -> str | None:
        """Why what rows begin with is read again with each of them, as the end of a sentence; None: once is enough."""

    def prepared(self, module: nn.Module, batch: Batch) -> Batch:  # noqa: ARG002 - what is made depends on the module
        """`batch` with what no gradient goes through made already, for `hidden` to find; as it is where it has it."""
        return batch

    @abstractmethod
    def head(self, module: nn.Module, hidden: mx.array) -> mx.array:
        """(..., D) -> (..., V): logits of the given states."""

    @abstractmethod
    def head_layer(self, module: nn.Module) -> nn.Module | None:
        """The part of `module` that holds all parameters `head` uses; None where `hidden` gives logits already."""

    @abstractmethod
    def generate(self, module: nn.Module, prompt: Example, *, max_tokens: int, sampler: Sampler) -> Iterator[Piece]:
        """What the model continues `prompt` with, until it ends its turn or `max_tokens` are written.

        The token that ends it is among them. It stops too where its table of positions ends. Raises ValueError for a
        prompt that reaches beyond `tables`.
        """

    @abstractmethod
    def answers(
        self,
        module: nn.Module,
        prompts: Sequence[Example],
        *,
        max_tokens: int,
        batch_size: int,
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, Written]]:
        """(place in `prompts`, what `module` greedily goes on with), each as soon as it is written.

        One of the texts `stop` ends an answer too, and is no part of its text, while its tokens are among its tokens.
        `batch_size` are written together where that gives the same tokens, which `why_alone` says. Raises as
        `generate`, before anything is written.
        """

    @abstractmethod
    def why_alone(self, module: nn.Module) -> str | None:
        """Why `answers` writes one after another, as the end of a sentence; None: it writes several together."""
