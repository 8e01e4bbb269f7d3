"""Answers that share words or letters with a reference, such as translations: BLEU and chrF, by sacrebleu."""

import numpy as np

from ..question import Question
from .metric import Metric, Terms, reference_of
from .optional import optional


def bleu(reference: str | None = None) -> Metric:
    """BLEU of all answers together, 0 to 100, as sacrebleu's `corpus_bleu` has it; a row's own is its `sentence_bleu`.

    `reference` is the column to compare with; None: the row's own answer. Raises ImportError without sacrebleu.
    """
    sacrebleu = optional("sacrebleu", "bleu")
    of_row = sacrebleu.BLEU(effective_order=True)  # a row may be shorter than four words

    def judge(question: Question, answer: str) -> Terms:
        found = of_row.sentence_score(answer, [reference_of(question, reference)])
        return Terms(found.score, (*found.counts, *found.totals, found.sys_len, found.ref_len))

    def score(sums: np.ndarray) -> float:
        correct, total, lengths = np.split(sums, [4, 8])
        return sacrebleu.BLEU.compute_bleu(list(correct), list(total), *lengths, smooth_method="exp").score

    return Metric(name="bleu", judge=judge, total=lambda sums: np.apply_along_axis(score, -1, sums))


def chrf(reference: str | None = None) -> Metric:
    """chrF, 0 to 100: the mean over rows of what sacrebleu's `sentence_chrf` has for each.

    `reference` is the column to compare with; None: the row's own answer. Raises ImportError without sacrebleu.
    """
    of_row = optional("sacrebleu", "chrf").CHRF()

    def judge(question: Question, answer: str) -> float:
        return of_row.sentence_score(answer, [reference_of(question, reference)]).score

    return Metric(name="chrf", judge=judge)
