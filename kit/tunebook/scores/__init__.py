"""What a model can do: rows it was not trained on are asked, its answers judged, and two models told apart.

    >>> exam = scores.Exam(held_out_rows, metrics=["exact_match", "perplexity"], max_tokens=8)
    >>> comparison = scores.compare(exam.take(model, adapters=False), exam.take(model))

A `Trainer(..., exam=exam)` takes it while it trains, and tells of rows of it that are trained on (`overlap.py`).

Rows become questions in `reading.py`, a model answers them in `sitting.py` (`likelihoods/` where it is only asked how
likely it finds a text) and is afterwards as it was (`undisturbed.py`); an export answers in the program it is for
(`exports.py`). What judges an answer is a `Metric`, and another is a file in `metrics/`. What comes out are `Marks`:
scores, rows, and a gate. Those of several models are held side by side in `compared/`, by the numbers of
`statistics.py`, which know no models. `abilities/` is an exam of what a model can do beside its task. lm-eval's tasks
are put to either by `harness.py` and `tasks/`, and give marks as well.

Doors: `gate`, `reports`.
"""

from ..machine.without_torch import torch_unseen

with torch_unseen():  # whoever imports from here has not imported the kit's own names before
    from .abilities.exam import general
    from .compared.comparison import Comparison, compare
    from .compared.difference import Difference
    from .compared.gained_and_lost import GainedAndLost, gained_and_lost
    from .exam import Exam
    from .harness import Harness, harness
    from .likelihoods.token_losses import TokenLosses
    from .marks import Marks, ScoreTooLow
    from .metrics import (
        METRICS,
        Metric,
        NotScored,
        bleu,
        byte_perplexity,
        chrf,
        exact_match,
        json_match,
        json_schema,
        matches,
        math_equal,
        multiple_choice,
        normalised_match,
        numeric,
        perplexity,
        program,
        tool_call,
        valid_json,
    )

__all__ = [
    "METRICS",
    "Comparison",
    "Difference",
    "Exam",
    "GainedAndLost",
    "Harness",
    "Marks",
    "Metric",
    "NotScored",
    "ScoreTooLow",
    "TokenLosses",
    "bleu",
    "byte_perplexity",
    "chrf",
    "compare",
    "exact_match",
    "gained_and_lost",
    "general",
    "harness",
    "json_match",
    "json_schema",
    "matches",
    "math_equal",
    "multiple_choice",
    "normalised_match",
    "numeric",
    "perplexity",
    "program",
    "tool_call",
    "valid_json",
]
