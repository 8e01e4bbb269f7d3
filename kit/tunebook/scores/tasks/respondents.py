"""Who replies to tasks: a model in memory, or an export by the program it is for, in a fresh process.

Token ids go in; what both make of them is the same but for rounding. Neither knows lm-eval.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, final

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded
from ...data.examples import Example, Tokens
from ...export.readback.asking import Elsewhere
from ...models.loaded import Loaded
from ...models.loader import Closed
from ..exports import opening
from ..likelihoods import read_whole, summed_likelihoods, why_apart
from ..sitting import written_one_by_one
from ..undisturbed import in_turns

Ids = list[int]
LONGEST = 2048  # tokens, where no config says (lm_eval/models/huggingface.py, 0.4.13)


class Respondent(Protocol):
    """What the tasks need of a model."""

    notices: list[str]  # of what is to be told beside the scores

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> TokenizerWrapper: ...

    @property
    def longest(self) -> int:
        """Tokens the model takes."""
        ...

    def likelihoods(self, rows: Sequence[Encoded]) -> Iterator[tuple[int, float, bool]]:
        """(place in `rows`, nats of its supervised tokens, whether each is the likeliest), in any order."""
        ...

    def answers(self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[str]) -> Iterator[tuple[int, Ids]]:
        """(place in `prompts`, what is greedily written behind it), in any order; one of `stop` ends it too."""
        ...


@final
class Live:
    """A model that is asked as it is in memory, and is afterwards as it was."""

    def __init__(self, loaded: Loaded, *, adapters: bool, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self._loaded, self._adapters, self._batch_size = loaded, adapters, batch_size
        self.notices: list[str] = []
        self.name, self.tokenizer, self.longest = loaded.name, loaded.tokenizer, longest(loaded.config)

    def likelihoods(self, rows: Sequence[Encoded]) -> Iterator[tuple[int, float, bool]]:
        """As `Respondent` has it."""
        family, module = self._loaded.family, self._loaded.module
        self._tell(lambda: why_apart(family, module, rows), read_whole)
        sums = summed_likelihoods(family, module, rows, batch_size=self._batch_size)
        for place, found in in_turns(module, sums, adapters=self._adapters):
            yield place, found.nats, found.is_greedy

    def answers(self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[str]) -> Iterator[tuple[int, Ids]]:
        """As `Respondent` has it."""
        family, module = self._loaded.family, self._loaded.module
        if self._batch_size > 1:
            self._tell(lambda: family.why_alone(module), written_one_by_one)
        asked = [Example((Tokens(tuple(ids), (False,) * len(ids)),), rendered=True) for ids in prompts]
        found = family.answers(module, asked, max_tokens=max_tokens, batch_size=self._batch_size, stop=stop)
        for place, answer in in_turns(module, found, adapters=self._adapters):
            yield place, list(answer.tokens)

    def _tell(self, why: Callable[[], str | None], sentence: Callable[[str], str]) -> None:
        """Note the `sentence` on the reason that the model gives for what is slow, once."""
        (reason,) = in_turns(self._loaded.module, (why() for _ in range(1)), adapters=self._adapters)
        if reason is not None and sentence(reason) not in self.notices:
            self.notices.append(sentence(reason))


@final
class Exported:
    """An export that is asked where it will run; without `adapters` the base of those in its folder.

    Raises ValueError where there is no such base; its methods raise DidNotReply.
    """

    def __init__(self, model: Closed, *, adapters: bool):
        opened = opening(model, adapters=adapters)
        self._there = Elsewhere(opened)
        self.notices = [f"{opened.program} was asked, in a process of its own."]
        self.name, self.tokenizer = str(model.path), model.tokenizer
        # llama.cpp reads no more than its context, and keeps a place in it for the token it draws.
        self.longest = longest(model.config) - opened.is_gguf

    def likelihoods(self, rows: Sequence[Encoded]) -> Iterator[tuple[int, float, bool]]:
        """As `Respondent` has it."""
        for place, found in enumerate(self._there.likelihoods(rows)):
            yield place, found.nats, found.is_greedy

    def answers(self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[str]) -> Iterator[tuple[int, Ids]]:
        """As `Respondent` has it."""
        for place, wrote in enumerate(self._there.write(prompts, max_tokens=max_tokens, stop=stop)):
            yield place, list(wrote.tokens)

    def close(self) -> None:
        """End the process that was asked."""
        self._there.close()


def longest(config: dict[str, Any]) -> int:
    """Tokens that a model takes by its config, as lm-eval reads it."""
    text = config.get("text_config", config)
    names = ("n_positions", "max_position_embeddings", "n_ctx")
    return int(next((text[name] for name in names if name in text), LONGEST))
