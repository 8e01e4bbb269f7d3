"""Tasks of lm-eval, run on a model in memory or on an export: its numbers, and marks of each task to compare."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..export.table import as_html, as_text
from ..machine.without_torch import torch_unseen
from ..models.loaded import HoldsLoaded, loaded_in
from ..models.loader import without_weights
from .compared.difference import number
from .exam import BATCH, Asked, path_of
from .marks import Answered, Marks
from .metrics.metric import Mark, Metric
from .metrics.optional import optional
from .sitting import name_of
from .statistics import Total, mean_of_rows
from .tasks.respondents import Exported, Live

HEADINGS = ("task", "metric", "score", "rows")

# Of metrics whose rows are (nats, how many words or bytes): how their sums become their score (lm_eval/api/metrics).
RATIOS: dict[str, Total] = {
    "word_perplexity": lambda sums: np.exp(-sums[..., 0] / sums[..., 1]),
    "byte_perplexity": lambda sums: np.exp(-sums[..., 0] / sums[..., 1]),
    "bits_per_byte": lambda sums: -sums[..., 0] / sums[..., 1] / np.log(2),
    "perplexity": lambda sums: np.exp(-sums[..., 0] / sums[..., 1]),
}


@dataclass(frozen=True, kw_only=True)
class Harness:
    """What `harness` gives."""

    marks: Mapping[str, Marks]  # by task: what `compare` takes
    results: Mapping[str, Any]  # as lm-eval's `evaluate` returns it

    def __repr__(self):
        return as_text(HEADINGS, self._cells(), self._said())

    def _repr_html_(self) -> str:
        return as_html(HEADINGS, self._cells(), self._said())

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (task, metric.name, number(marks[metric.name]), str(len(marks.rows)))
            for task, marks in self.marks.items()
            for metric in marks.metrics
        ]

    def _said(self) -> list[str]:
        return list(dict.fromkeys(said for marks in self.marks.values() for said in marks.notices))


def harness(
    model: Asked,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    adapters: bool = True,
    name: str | None = None,
    batch_size: int = BATCH,
) -> Harness:
    """Run lm-eval's `tasks` on `model` as it is in memory, or without its `adapters`; it is left as it was.

    `model` may be an export, by its path or as a saving method returned it: then the program it is for is asked, in a
    fresh process, as by `Exam.take`. `tasks` are names that lm-eval knows, or of tasks in the folder `include_path`,
    which need no network where their data is local. `limit` is how many rows of each are asked, `num_fewshot` how many
    examples stand before each, `apply_chat_template` puts both as a conversation. `name`, None: "tuned" or "base", and
    as the file of an export, is what the marks are called; `batch_size` requests are computed at a time, of an export
    one. Raises ImportError without lm-eval, and for an export as `Exam.take`.
    """
    with torch_unseen():
        optional("lm_eval", "harness")
        from .tasks.lm_eval_model import AskedByTasks, evaluated  # lm-eval takes seconds to import, and is optional

    options = {"limit": limit, "num_fewshot": num_fewshot, "apply_chat_template": apply_chat_template}
    with _respondent(model, adapters=adapters, batch_size=batch_size) as asked, _python_random_state_kept():
        posed = AskedByTasks(asked, batch_size=batch_size)
        results = evaluated(posed, tasks, include_path=include_path, **options)
    called, settings = name or _called(model, adapters=adapters), repr((results["versions"], options))
    marks = {task: _marks(task, samples, results, called, settings) for task, samples in results["samples"].items()}
    marks = {task: replace(one, notices=(*asked.notices, *posed.notices, *one.notices)) for task, one in marks.items()}
    return Harness(marks=marks, results=results)


@contextmanager
def _respondent(model: Asked, *, adapters: bool, batch_size: int) -> Iterator[Live | Exported]:
    """Who replies for `model`; a process that was begun for that has ended afterwards."""
    path = path_of(model)
    if path is None:
        yield Live(loaded_in(cast("HoldsLoaded", model), "harness"), adapters=adapters, batch_size=batch_size)
        return
    exported = Exported(without_weights(path), adapters=adapters)
    with closing(exported):
        yield exported


def _called(model: Asked, *, adapters: bool) -> str:
    path = path_of(model)
    if path is None:
        return name_of(loaded_in(cast("HoldsLoaded", model), "harness"), adapters=adapters)
    return path.name if adapters else "base"


@contextmanager
def _python_random_state_kept() -> Iterator[None]:
    """Put Python's and NumPy's random states back: tasks may draw from them, and so may whoever is training."""
    python, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)


def _marks(task: str, samples: Sequence[Any], results: Mapping[str, Any], name: str, settings: str) -> Marks:
    """The marks of one task: those of its metrics whose score is one over rows."""
    taken, others = [], []
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    for kind in filters:
        some = [sample for sample in samples if sample["filter"] == kind]
        for metric in some[0]["metrics"]:
            made = _metric(task, metric, kind, some, results)
            if made is None:
                others.append(metric)
            else:
                taken.append((made, some, metric, kind))
    rows = [sample for sample in samples if sample["filter"] == filters[0]]
    notices = [f"{task}: {metric} is no score over rows; it is in results alone." for metric in dict.fromkeys(others)]
    return Marks(
        name=name,
        exam=f"{task} {settings} {','.join(sample['doc_hash'] for sample in rows)}",
        metrics=tuple(metric for metric, *_ in taken),
        rows=tuple(_answered(place, sample, taken) for place, sample in enumerate(rows)),
        notices=tuple(notices),
    )


def _metric(task: str, metric: str, kind: str, samples: Sequence[Any], results: Mapping[str, Any]) -> Metric | None:
    """A metric of a task as one of ours; None where lm-eval's score is not made of a number for each row."""
    terms = [_terms(sample[metric]) for sample in samples]
    total = RATIOS.get(metric, mean_of_rows)
    score = results["results"][task].get(f"{metric},{kind}")
    if not isinstance(score, int | float) or any(term is None for term in terms):
        return None
    if not np.isclose(total(np.array(terms).sum(axis=0)), score, rtol=1e-9, atol=1e-12):
        return None
    return Metric(
        name=metric if kind == "none" else f"{metric},{kind}",
        judge=lambda *_: float("nan"),  # lm-eval has judged already
        total=total,
        higher_is_better=bool(results["higher_is_better"][task].get(metric, True)),
    )


def _terms(value: Any) -> tuple[float, float] | None:
    """What a row adds to the sums: (value, 1), or the pair it is."""
    if isinstance(value, tuple | list):
        return (float(value[0]), float(value[1])) if len(value) == 2 else None
    return (float(value), 1.0) if isinstance(value, int | float | np.number | np.bool_) else None


def _answered(place: int, sample: Any, taken: Sequence[tuple[Metric, Sequence[Any], str, str]]) -> Answered:
    marks = {}
    for metric, samples, called, _ in taken:
        terms = _terms(samples[place][called])
        assert terms is not None
        marks[metric.name] = Mark(float(metric.total(np.array(terms))), terms)
    replied = sample["filtered_resps"]
    return Answered(
        number=sample["doc_id"],
        prompt=str(sample["arguments"][0][0]),
        reference=str(sample["target"]),
        answer=replied[0] if replied and isinstance(replied[0], str) else None,
        marks=marks,
    )
