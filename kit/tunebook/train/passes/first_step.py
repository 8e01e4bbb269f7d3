"""Before the first step of a run: the forms for its passes, from what is kept or from a self-test, and what is said."""

from collections.abc import Generator, Sequence
from dataclasses import asdict

from ...data.encoded import Encoded, sequences_of
from ...events import Notice, Working
from ...fast.forms import Forms
from ..looks.watched import watched
from ..plan import RunPlan
from ..progress import RunProgress
from ..step import Stepper
from .candidates import as_plain, from_plain, in_words
from .kept_choice import keep, kept, key_of
from .self_test import Settled, settle


def settled_forms(
    plan: RunPlan, stepper: Stepper, progress: RunProgress, rows: Sequence[Encoded]
) -> Generator[Working | Notice, None, None]:
    """Have `stepper` compute its passes in the best forms that are proven on `rows`, before a run has any."""
    if progress.forms is not None:
        return
    usual = stepper.forms
    rows = sequences_of(rows)  # the forms are the model's, whatever is made of what it says
    key = key_of(plan.loaded, usual, rows, recomputed=bool(plan.config.gradient_checkpointing))
    settled = kept(key, usual)
    if settled is None:
        testing = settle(plan.loaded, usual, rows, stepper.pass_in)
        settled = yield from watched(testing, "testing", progress.step + 1)
        if settled.is_proven:
            keep(key, settled)
    stepper.use(settled.forms)
    progress.forms = as_plain(settled.forms)
    for text in said_of(settled, usual):
        yield Notice(step=progress.step, text=text)


def take_up_forms(stepper: Stepper, progress: RunProgress) -> None:
    """Have a run that is resumed compute in the forms it began with."""
    if progress.forms is not None:
        stepper.use(from_plain(progress.forms, stepper.forms))


def said_of(settled: Settled, usual: Forms) -> list[str]:
    """A sentence where there was a choice. On the CPU there is none unless the usual forms are wrong."""
    if settled.why_untried:
        return [f"The pass was not tried on the first rows: {settled.why_untried}. It is computed as usual."]
    if not settled.tried:
        return []
    changed = [in_words(name, value) for name, value in asdict(settled.forms).items() if value != getattr(usual, name)]
    wrong = settled.tried[0].why_not
    if not settled.is_proven:
        return [
            f"No form of the pass gives what the plain one does on the first rows: {wrong}. Do not trust what this run "
            "learns before you compared its losses with those of another machine."
        ]
    if wrong:
        return [f"The pass as it usually is was wrong on the first rows: {wrong}. In its place: {', '.join(changed)}."]
    if not settled.timed_tokens:
        return []
    timed = [one for one in settled.tried if one.seconds is not None and not one.why_not]
    said = f"On {settled.timed_tokens:,} tokens of the first rows {len(timed)} forms of the pass were proven and timed"
    if not changed:
        return [f"{said}; the usual one is used."]
    return [f"{said}; used: {', '.join(changed)}."]
