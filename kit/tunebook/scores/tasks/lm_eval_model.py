"""A model as lm-eval (0.4.13) asks for one: the only file that imports it, and no torch.

Requests become tokens as in lm-eval's own `hf` backend (lm_eval/models/huggingface.py), so that both give the same
numbers for the same weights; who replies to them is another's matter (`respondents.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ...data.encoded import Encoded
from ...machine.progress_bars import progress
from .respondents import Ids, Respondent

FEWSHOT_SEED = 1234  # lm-eval's own (lm_eval/defaults)
MOST_WRITTEN = 256  # tokens, where a task does not say (lm-eval's own)


@final
class AskedByTasks(TemplateLM):
    """Whoever replies, as lm-eval asks for it; `batch_size` is what results are kept under.

    `notices` tell of requests that are longer than the model takes, which are cut on the left as by lm-eval.
    """

    def __init__(self, respondent: Respondent, *, batch_size: int):
        super().__init__()
        self._respondent, self.batch_size = respondent, batch_size
        self.tokenizer: Any = respondent.tokenizer
        self.max_length = respondent.longest
        self.notices: list[str] = []

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """What cached requests are kept under."""
        return self._respondent.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Ids:
        """Token ids; with the tokenizer's opening ones, unless the text has them or they are not wanted."""
        opens = add_special_tokens
        if opens is None:
            opens = not has_bos_prefix(string, self.tokenizer.decode([self.prefix_token_id]))
        return self.tokenizer.encode(string, add_special_tokens=opens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Of each whole text, in pieces of as many tokens as the model takes."""
        windows: list[tuple[Any, Ids, Ids]] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(place)
        nats = [0.0] * len(requests)
        for place, (found, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            nats[place] += found
        for request, found in zip(requests, nats, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found)
        return nats

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, Ids, Ids]],
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """(nats, whether greedy) of each continuation, the third of a request, behind its context, the second."""
        self._tell_cut([len(context) + len(continuation) - 1 for _, context, continuation in requests], self.max_length)
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        found = [(0.0, True)] * len(rows)
        for place, nats, is_greedy in progress(self._respondent.likelihoods(rows), "Scoring", total=len(rows)):
            found[place] = (nats, is_greedy)
            if requests[place][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[place][0], found[place])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The greedy answer to each, up to the first of the texts that end it."""
        alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
        asked = [cast("tuple[str, dict[str, Any]]", request.args) for request in requests]
        for place, (_, given) in enumerate(asked):
            options: Any = normalize_gen_kwargs(given, MOST_WRITTEN)
            if options.get("do_sample"):
                raise ValueError(
                    "This task draws its answers at random; set do_sample: false under generation_kwargs in the task."
                )
            alike.setdefault((tuple(options["until"]), options["max_gen_toks"]), []).append(place)
        written = [""] * len(requests)
        for (until, longest), places in alike.items():
            contexts = self._contexts([asked[place][0] for place in places], longest)
            for at, text in self._answers(contexts, until, longest):
                place = places[at]
                written[place] = text
                self.cache_hook.add_partial("generate_until", requests[place].args, text)
        return written

    def _contexts(self, texts: Sequence[str], longest: int) -> list[Ids]:
        """Prompts as tokens, cut on the left where an answer of `longest` has no place behind them."""
        room = self.max_length - longest
        if room < 1:
            raise ValueError(
                f"This task has answers of up to {longest} tokens, and the model takes {self.max_length} with its "
                "prompt; set a lower max_gen_toks under generation_kwargs in the task."
            )
        contexts = [self.tok_encode(text) for text in texts]
        self._tell_cut([len(context) for context in contexts], room)
        return [context[-room:] for context in contexts]

    def _tell_cut(self, lengths: Sequence[int], most: int) -> None:
        beyond = [length - most for length in lengths if length > most]
        if beyond:
            self.notices.append(
                f"{len(beyond)} of {len(lengths)} requests were cut on the left, as by lm-eval, by up to {max(beyond)} "
                f"tokens: the model takes {self.max_length}."
            )

    def _answers(self, contexts: Sequence[Ids], until: Sequence[str], longest: int) -> list[tuple[int, str]]:
        stop = [*until, self.tokenizer.decode([self.eot_token_id])]
        taken = self._respondent.answers(contexts, longest, stop)
        found = []
        for place, tokens in progress(taken, "Answering", total=len(contexts)):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            found.append((place, postprocess_generated_text(text, stop, None)))
        return found

    def _row(self, context: Ids, continuation: Ids) -> Encoded:
        """Both as a row, cut on the left to what the model takes."""
        tokens = np.array([*context, *continuation], np.int32)[-(self.max_length + 1) :]
        supervised = np.arange(len(tokens)) >= len(tokens) - len(continuation)
        return Encoded(tokens=tokens, loss_mask=supervised)


def evaluated(
    model: AskedByTasks,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None,
    limit: int | None,
    num_fewshot: int | None,
    apply_chat_template: bool,
) -> dict[str, Any]:
    """What lm-eval's `evaluate` gives, with the requests and replies of every row.

    It is called rather than `simple_evaluate`, which looks at torch and at git to describe the machine.
    """
    loaded = _manager(tasks, include_path).load(list(tasks))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):  # a task that says 0 is one without examples
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    found = evaluate(
        model,
        loaded,
        limit=limit,
        bootstrap_iters=0,  # intervals are those of the marks
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=apply_chat_template,
    )
    return cast("dict[str, Any]", found)


def _manager(tasks: Sequence[str], include_path: str | Path | None) -> TaskManager:
    """Of the folder's own tasks where all are there: to go through lm-eval's thousands takes half a minute."""
    if include_path is not None:
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
        return TaskManager(include_path=str(include_path))
    return TaskManager()
