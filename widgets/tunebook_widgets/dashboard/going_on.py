"""What to do where a run has lost its kernel: where it is kept, and the line that goes on with it.

A `Progress` comes in. The sentences are made while the kernel still can, and wait: for the page to show them, and in
the notebook that was saved in the middle of the run.
"""

import html

from tunebook.runs.resuming import resume_line, train_line

from .freeze import Bundle
from .progress import Progress

AGAIN = "Run the cells above once more, then this one, in which the line that trains is"


def lost_kernel(run: Progress) -> list[str]:
    """[a sentence, the line to type]; a trainer that told of its steps alone has no line."""
    started = run.started
    if started is None:
        return ["Run the cells of this notebook once more.", ""]
    if run.attached_to is not None:
        return [
            "The run is trained in a process of its own. To see and steer it again, run this in a kernel",
            f"Dashboard({run.attached_to!r})",
        ]
    anew = train_line(awaited=started.awaited, trainer=run.trainer)
    if started.folder is None:
        return [f"Nothing of it is on the disk, because output_dir is None. {AGAIN}", anew]
    saved = run.checkpoints[-1].step if run.checkpoints else started.step
    if not saved:
        return [f"It had written no checkpoint yet, so it begins anew. {AGAIN}", anew]
    return [f"It is kept in {started.folder}, up to step {saved:,} at least. {AGAIN}", _resuming(run)]


def stop_means(run: Progress) -> str:
    """What the Stop button does, said before it is pressed."""
    started = run.started
    if run.attached_to is not None:
        return f"End the run after the step in progress. Its weights are kept in {run.attached_to}."
    if started is None or started.folder is None:
        return "End the run after the step in progress. Its weights stay in this kernel; nothing is on the disk."
    return (
        f"End the run after the step in progress. Its weights stay in the model and are kept in {started.folder}; "
        f"{_resuming(run)} goes on."
    )


def without_page(run: Progress) -> str:
    """What stands for a live view where there is no kernel to draw it."""
    started = run.started
    if started is None:
        return "A training run was shown here live."
    if run.attached_to is not None:
        folder = run.attached_to
        return f"A training run in another process was shown here live: Dashboard({folder!r}) shows it again."
    if started.folder is None:
        return "A training run was shown here live. Nothing of it is on the disk, because output_dir is None."
    return (
        f"A training run was shown here live. It is kept in {started.folder}: Dashboard({started.folder!r}) shows it, "
        f"and {_resuming(run)} goes on from its last checkpoint where it broke off."
    )


def note_below(run: Progress) -> Bundle:
    """`without_page` as an output; the style sheet of a live view hides it while the view stands above it."""
    sentence = without_page(run)
    return {
        "text/html": f'<p class="tunebook-without-page"><small>{html.escape(sentence)}</small></p>',
        "text/plain": sentence,
    }


def _resuming(run: Progress) -> str:
    started = run.started
    assert started is not None
    assert started.folder is not None
    output_dir = started.config.get("output_dir")
    return resume_line(started.folder, output_dir, awaited=started.awaited, trainer=run.trainer)
