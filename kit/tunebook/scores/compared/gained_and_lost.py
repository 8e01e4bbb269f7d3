"""What a training has gained and what it has cost: the exam of its task and those of other abilities in one table."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

from ...export.table import as_html, as_text
from ..statistics import LEVEL
from .comparison import Comparison
from .difference import Difference, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
class GainedAndLost:
    """What `gained_and_lost` gives."""

    def __init__(self, comparisons: Sequence[Comparison]):
        self.comparisons = tuple(comparisons)
        self.names = tuple(marks.name for marks in comparisons[0].marks)

    def of(self, name: str) -> dict[str, Difference]:
        """The differences of the model called `name` from the first, by metric, of all exams."""
        if name not in self.names[1:]:
            raise KeyError(
                f"There is no model {name!r} beside {self.names[0]!r}; there are {', '.join(self.names[1:])}."
            )
        place = self.names.index(name) - 1
        return {metric: one for each in self.comparisons for metric, one in each.differences[place].items()}

    def gained(self, name: str) -> list[str]:
        """The metrics in which that model is better than the first, and not by chance."""
        return self._told(name, "better")

    def lost(self, name: str) -> list[str]:
        """The metrics in which it is worse, and not by chance."""
        return self._told(name, "worse")

    @property
    def sentences(self) -> list[str]:
        """For each model what was gained and lost, and what can be concluded of each of these."""
        return [sentence for name in self.names[1:] for sentence in self._sentences(name)]

    def frame(self) -> Any:
        """A row for each model and metric, as of `Comparison.frame`, all exams in one."""
        frames = [comparison.frame() for comparison in self.comparisons]
        if isinstance(frames[0], list):
            return [row for frame in frames for row in frame]
        import pandas  # as `frame` has it

        return pandas.concat(frames, ignore_index=True)

    def picture(self, *, dark: bool = False) -> "Figure":
        """The differences with their intervals, a panel for each metric of all exams; to the right is better."""
        from .picture import picture  # brings matplotlib, half a second

        base, *others = self.names
        return picture(base, others, [self.of(name) for name in others], dark=dark)

    def __repr__(self):
        return as_text(self.comparisons[0].headings(), self._cells(), self._said())

    def _repr_html_(self) -> str:
        return as_html(self.comparisons[0].headings(), self._cells(), self._said())

    def _told(self, name: str, verdict: Verdict) -> list[str]:
        return [metric for metric, one in self.of(name).items() if one.verdict == verdict]

    def _sentences(self, name: str) -> Iterator[str]:
        found = self.of(name)
        gained, lost, open_ = (self._told(name, verdict) for verdict in ("better", "worse", "undecided"))
        parts = [f"gained {', '.join(gained) or 'nothing'}", f"lost {', '.join(lost) or 'nothing'}"]
        yield f"{name}: {'; '.join(parts)}" + (f"; not told from chance: {', '.join(open_)}." if open_ else ".")
        yield from (f"{name}: {found[metric].sentence}" for metric in (*gained, *lost))

    def _cells(self) -> list[list[str]]:
        return [row for comparison in self.comparisons for row in comparison.cells()]

    def _said(self) -> list[str]:
        notices = dict.fromkeys(said for comparison in self.comparisons for said in comparison.notices())
        lines = len(self._cells())
        chance = (
            f"Where nothing changed, chance alone would make one or more of {lines} lines better or worse in up to "
            f"{1 - LEVEL**lines:.0%} of such tables, so a single one that is only just told from it proves little."
        )
        return [*self.sentences, chance, *notices]


def gained_and_lost(*comparisons: Comparison) -> GainedAndLost:
    """Comparisons of the same models in several exams as one table, the exam of the task first.

        >>> task = scores.compare(exam.take(model, adapters=False), exam.take(model))
        >>> others = scores.general()
        >>> rest = scores.compare(others.take(model, adapters=False), others.take(model))
        >>> scores.gained_and_lost(task, rest)

    Raises ValueError where the models, by their names, are not the same or two have one, and for a metric that is in
    two exams.
    """
    if not comparisons:
        raise ValueError("No comparison is given; pass what scores.compare gives, one for each exam.")
    first = [marks.name for marks in comparisons[0].marks]
    if twice := [name for name in first if first.count(name) > 1]:
        raise ValueError(f"Two models are called {twice[0]!r}; give one another name: exam.take(model, name=...).")
    for other in comparisons[1:]:
        if (names := [marks.name for marks in other.marks]) != first:
            raise ValueError(f"The models are {', '.join(first)} in one exam and {', '.join(names)} in another.")
    metrics = [metric.name for comparison in comparisons for metric in comparison.marks[0].metrics]
    if twice := [name for name in metrics if metrics.count(name) > 1]:
        raise ValueError(f"The metric {twice[0]!r} is in two of the exams; give one of them another name.")
    return GainedAndLost(comparisons)
