"""How a run is put into words: numbers, durations, the headline while it runs and the verdict when it has ended."""

import math
from collections.abc import Mapping

from tunebook.events import EndReason, RunStarted
from tunebook.machine.inert import one_line

from .progress import Progress

# What an objective reports, in words, by the names that TRL has for it.
_REPORTED = {
    "rewards/accuracies": "{:.0%} of pairs preferred",
    "rewards/margins": "margin {:.3g}",
    "rewards/chosen": "chosen {:.3g}",
    "rewards/rejected": "rejected {:.3g}",
    "kl": "KL {:.3g}",
}
_SHORT = {"rewards/accuracies": "{:.0%} preferred", "rewards/margins": "margin {:.3g}", "kl": "KL {:.3g}"}
_MOST_FIGURES = 3  # of metrics that are not known here


def headline(run: Progress) -> str:
    """One sentence on where the run stands: 'Step 12 of 40 · loss 1.820 · about 3 min left'."""
    if run.ended is not None:
        return verdict(run)
    if run.stop_heard_at is not None:
        return f"Stop heard after step {run.stop_heard_at} · finishing the step in progress"
    if run.paused:
        where = f"after step {run.last.step:,} of {run.total_steps:,}" if run.last else "before the first step"
        return f"Paused {where}" if run.waiting else f"Pause heard {where} · finishing what is in progress"
    if run.last is None:
        if run.working is not None and run.working.what == "evaluating":
            return f"Measuring the held-out loss before training · batch {run.working.done} of {run.working.total}"
        if run.working is not None and run.working.what == "scoring":
            return f"Taking the exam before training · reply {run.working.done} of {run.working.total}"
        if run.working is not None and run.working.what == "precomputing":
            return f"Asking the reference once for all steps · batch {run.working.done} of {run.working.total}"
        if run.working is not None and run.working.what == "testing":
            return "Trying on the first rows whether the pass is computed right"
        if run.evals:
            return f"Held-out loss before training: {loss(run.evals[-1].loss)} · the first step is being computed"
        return (
            f"The first of {run.total_steps:,} steps is being computed" if run.started else "Waiting for a run to start"
        )
    parts = [f"Step {run.last.step:,} of {run.total_steps:,}", f"loss {loss(run.last.loss)}"]
    if run.seconds_left is not None:
        parts.append(f"{about(run.seconds_left)} left")
    if run.best_eval is not None:
        parts.append(f"best held-out {loss(run.best_eval.loss)} at {run.best_eval.step:,}")
    if (best := _best_score(run)) is not None:
        parts.append(best)
    return " · ".join(parts)


def verdict(run: Progress) -> str:
    """One sentence on a run that has ended. Raises ValueError for one that has not."""
    if run.ended is None:
        raise ValueError("The run has not ended; there is no verdict yet.")
    end = run.ended
    how = {
        EndReason.FINISHED: "Finished its one step"
        if end.total_steps == 1
        else f"Finished all {end.total_steps:,} steps",
        EndReason.STOPPED: f"Stopped after step {end.step:,} of {end.total_steps:,}",
        EndReason.DISCARDED: f"Discarded after step {end.step:,} of {end.total_steps:,}",
        EndReason.EARLY_STOPPED: f"Stopped early, after step {end.step:,} of {end.total_steps:,},",
        EndReason.INTERRUPTED: f"Interrupted after step {end.step:,} of {end.total_steps:,}",
        EndReason.NOT_FINITE: f"Not finite any more after step {end.step:,} of {end.total_steps:,}",
        EndReason.FAILED: f"Failed after step {end.step:,} of {end.total_steps:,}",
    }[end.reason]
    parts = [f"{how} in {duration(end.elapsed)}"]
    if run.last is not None:
        parts.append(f"loss {loss(run.column('loss')[0])} → {loss(run.last.loss)}")
    if run.best_eval is not None:
        parts.append(f"best held-out loss {loss(run.best_eval.loss)} at step {run.best_eval.step:,}")
    if (best := _best_score(run)) is not None:
        parts.append(best)
    beyond = f" {one_line(said)}." if (said := run.past_the_best) is not None else ""
    return f"{' · '.join(parts)}.{beyond}"


def _best_score(run: Progress) -> str | None:
    """'best exact_match 0.65 at step 30', where the run goes by it."""
    best, by = run.best_score, run.yardstick
    if best is None or by.metric is None:
        return None
    return f"best {one_line(by.metric)} {by.number(best.scores[by.metric])} at step {best.step:,}"


def rows_to_train(started: RunStarted) -> str:
    """'400 rows', or 'a stream of rows' where nobody knows how many there are."""
    return "a stream of rows" if started.train_rows is None else f"{started.train_rows:,} rows"


def loss(value: float) -> str:
    """Nats to three decimals, fewer above 100; 'not finite' for NaN and infinities."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def rate(value: float) -> str:
    """A learning rate: '2.00e-04'."""
    return f"{value:.2e}"


def reported(metrics: Mapping[str, float]) -> str:
    """All that an objective reports, in words; empty where that is nothing."""
    known = [text.format(metrics[name]) for name, text in _REPORTED.items() if name in metrics]
    return ", ".join([*known, *(f"{name} {value:.3g}" for name, value in metrics.items() if name not in _REPORTED)])


def exam_scores(run: Progress) -> str:
    """'exact_match 0.1 → 0.65, over 40 rows': each metric of the exam, first and last; empty without one."""
    if not run.scores:
        return ""
    first, last = run.comparable[0], run.scores[-1]
    parts = []
    for name, score in last.scores.items():
        before = f"{first.scores[name]:.4g} → " if last is not first and name in first.scores else ""
        missing = f" ({last.not_scored[name]} rows not scored)" if name in last.not_scored else ""
        parts.append(f"{one_line(name)} {before}{score:.4g}{missing}")
    return f"{', '.join(parts)}, over {last.rows:,} rows"


def exam_changes(run: Progress) -> str:
    """What became better or worse since the first exam, and how sure that is; empty where there is nothing to say.

    It is said of the best score where the run goes by one, else of the last.
    """
    if len(run.scores) < 2:
        return ""
    about, first = run.best_score or run.scores[-1], run.comparable[0]
    if about is first:
        return f"No score was better than that of step {first.step:,}, the first." if run.best_score else ""
    if not about.since_start:
        return ""
    said = [f"Step {about.step:,} against step {first.step:,}:", *map(one_line, about.since_start.values())]
    if run.best_score is not None and len(run.comparable) > 2:
        said.append(f"It is the best of {len(run.comparable)} scores, which flatters it a little.")
    return " ".join(said)


def figures(metrics: Mapping[str, float]) -> str:
    """'88% preferred  margin 0.312': the few that a line has room for, two blanks before each."""
    shown = [name for name in _SHORT if name in metrics] or list(metrics)[:_MOST_FIGURES]
    return "".join(f"  {_SHORT.get(name, f'{name} {{:.3g}}').format(metrics[name])}" for name in shown)


def tokens_sec(run: Progress) -> str:
    """'1,203 of 2,310': the last step's trained tokens per second, and all of them where the trainer says."""
    if run.last is None:
        return "–"
    every = run.column("all_tokens_sec")[-1]
    trained = f"{run.last.tokens_sec:,.0f}"
    return f"{trained} of {every:,.0f}" if math.isfinite(every) else trained


def duration(seconds: float) -> str:
    """'8.2 s', '3 min 12 s', '2 h 05 min'."""
    if not 0 <= seconds < 1e12:
        return "no time that is known"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def about(seconds: float) -> str:
    """A duration as one would say it: 'about 3 min'. Never more precise than the estimate it comes from."""
    if not seconds < 1e12:
        return "no time that is known"
    if seconds < 7.5:
        return "a few seconds"
    if seconds < 55:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 5400:
        return f"about {max(round(seconds / 60), 1)} min"
    hours, half = divmod(round(seconds / 1800), 2)
    return f"about {hours}{'½' if half else ''} h"
