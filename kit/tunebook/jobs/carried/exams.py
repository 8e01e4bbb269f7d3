"""An exam by its rows, its settings and the names of its metrics."""

import json
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from ...data.formats import formatted
from ...scores import METRICS, Exam, Metric, general
from ...train.plan import RunExam
from .refused import NotCarried

FIELDS = ("judge", "asks", "total", "concerns")  # those of a metric that may be functions
NOT_CARRIED = (
    "and a job carries no code: take that exam in the kernel when the run has ended, exam.take(model) behind "
    "run.result(), or train with trainer.train()."
)


def as_plain(exam: RunExam | None) -> dict[str, Any] | None:
    """Values that JSON keeps as they are. Raises NotCarried for metrics that no name stands for, and for pictures."""
    if exam is None:
        return None
    if not isinstance(exam, Exam):
        raise NotCarried(f"exam is a {type(exam).__name__}, no scores.Exam, {NOT_CARRIED}")
    if exam.general is not None:  # its rows and metrics follow from that
        return {"general": dict(exam.general), "digest": exam.digest}
    own = [metric.name for metric in exam.metrics if not _is_known(metric)]
    if own:
        raise NotCarried(
            f"The exam's {', '.join(own)} is a function of yours or has settings of its own, {NOT_CARRIED}"
        )
    options = exam.opened.options
    rows = [formatted(row, options.formatting_func) for row in exam.opened.rows]
    try:
        json.dumps(rows, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotCarried(f"The exam's rows hold what JSON has no word for ({error}), {NOT_CARRIED}") from error
    return {
        "rows": rows,
        "metrics": [metric.name for metric in exam.metrics],
        "max_tokens": exam.max_tokens,
        "format": options.format,
        "response_markers": options.response_markers,
        "thinking": options.thinking,
        "digest": exam.digest,
    }


def from_plain(plain: Mapping[str, Any] | None) -> Exam | None:
    """The exam that `as_plain` was given."""
    if plain is None:
        return None
    if "general" in plain:
        return general(**plain["general"])
    markers = plain["response_markers"]
    exam = Exam(
        plain["rows"],
        plain["metrics"],
        max_tokens=plain["max_tokens"],
        format=plain["format"],
        response_markers=None if markers is None else (markers[0], markers[1]),
        thinking=plain["thinking"],
    )
    exam.digest = plain["digest"]  # that of the rows as they came, which its marks are known by
    return exam


def _is_known(metric: Metric) -> bool:
    """Whether a metric is what its name alone gives."""
    if metric.name not in METRICS:
        return False
    known = METRICS[metric.name]()
    return metric.higher_is_better == known.higher_is_better and all(
        _same(getattr(metric, name), getattr(known, name)) for name in FIELDS
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, or functions of the same code that know equal values."""
    if not isinstance(one, FunctionType) or not isinstance(other, FunctionType):
        return bool(one == other)
    if one is other:
        return True
    if one.__code__ is not other.__code__:
        return False
    cells = [[cell.cell_contents for cell in function.__closure__ or ()] for function in (one, other)]
    return one.__defaults__ == other.__defaults__ and all(map(_same, *cells))
