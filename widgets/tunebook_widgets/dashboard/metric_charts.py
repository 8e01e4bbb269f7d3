"""Which charts show what a run reports beside its loss: names of metrics in, charts and their curves out.

The page, the frozen picture and a comparison all draw these. Names that TRL's objectives over answers use have charts
of their own; of all others those with the same word before a slash share a plain one, so an objective that nobody knows
here is shown too. Each metric of an exam has a chart to itself, as two of them are seldom on one scale.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_CHARTS = 12  # of one run; how many more there are is said below them, and the event log has all

EXAM = "exam/"  # in front of the name of a metric of the run's exam
CHOSEN, REJECTED, MARGINS = "rewards/chosen", "rewards/rejected", "rewards/margins"


@dataclass(frozen=True)
class MetricChart:
    """One chart: its curves, in the order they are drawn, and what stands around them."""

    name: str
    title: str
    curves: tuple[str, ...]  # names of metrics
    labels: tuple[str, ...]  # of the curves
    unit: str = ""
    margin: str | None = None  # the metric that is the distance of the first two curves, which is shaded
    limits: tuple[float, float] | None = None  # of the values; None: as they come
    points: str = "held-out"  # what the points are called, which are of no step of training

    @property
    def leading(self) -> str:
        """The one metric that stands for the chart where there is room for one."""
        return self.margin or self.curves[0]

    def as_plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Known:
    title: str
    unit: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)  # name -> label; of others a label is made
    limits: tuple[float, float] | None = None


# By the name of the chart: the word before a slash, or what the metrics below it are put together under.
_KNOWN = {
    "rewards": _Known("Rewards", "", {CHOSEN: "chosen", REJECTED: "rejected", MARGINS: "margin"}),
    "accuracy": _Known("Accuracy", "of pairs", {"rewards/accuracies": "accuracy"}, limits=(0.0, 1.0)),
    "kl": _Known("KL", "nats", {"kl": "KL"}),
    "logps": _Known("Log-probabilities", "", {"logps/chosen": "chosen", "logps/rejected": "rejected"}),
    "log_odds": _Known("Log odds", "", {"log_odds_chosen": "log odds", "log_odds_ratio": "log sigmoid"}),
    "nll_loss": _Known("NLL", "nats per token", {"nll_loss": "NLL"}),
}
_CHART_OF = {metric: name for name, known in _KNOWN.items() for metric in known.metrics}


def metric_charts(metrics: Iterable[str]) -> list[MetricChart]:
    """The charts of a run that reports `metrics`, those that are known first; there may be more than MOST_CHARTS."""
    grouped: dict[str, list[str]] = {}
    for metric in metrics:
        grouped.setdefault(_chart_of(metric), []).append(metric)
    order = [*(name for name in _KNOWN if name in grouped), *(name for name in grouped if name not in _KNOWN)]
    return [_chart(name, grouped[name]) for name in order]


def rows_of_charts(charts: Sequence[MetricChart]) -> list[tuple[MetricChart, ...]]:
    """The first MOST_CHARTS, two a row; of an odd number the first has a row of its own."""
    shown = charts[:MOST_CHARTS]
    alone = len(shown) % 2
    return [(one,) for one in shown[:alone]] + [tuple(shown[at : at + 2]) for at in range(alone, len(shown), 2)]


def _chart_of(metric: str) -> str:
    return metric if metric.startswith(EXAM) else _CHART_OF.get(metric, metric.partition("/")[0])


def _chart(name: str, metrics: list[str]) -> MetricChart:
    is_exam = name.startswith(EXAM)
    known = _Known(name.removeprefix(EXAM)) if is_exam else _KNOWN.get(name, _Known(name))
    ordered = [*(one for one in known.metrics if one in metrics), *(one for one in metrics if one not in known.metrics)]
    shades = {CHOSEN, REJECTED, MARGINS} <= {*metrics}
    curves = tuple(one for one in ordered if not (shades and one == MARGINS))
    return MetricChart(
        name=name,
        title=known.title,
        curves=curves,
        labels=tuple(known.metrics.get(one, one.partition("/")[2] or one) for one in curves),
        unit=known.unit,
        margin=MARGINS if shades else None,
        limits=known.limits,
        points="exam" if is_exam else "held-out",
    )
