"""How surprised the model is by the rows' own answers: nothing is written, and less is better."""

import math
from collections.abc import Sequence

import numpy as np

from ..question import Likelihood, Question
from .metric import Metric, Terms


def perplexity() -> Metric:
    """exp of the nats per token of the rows' own answers, all tokens together: exp of the held-out loss.

    What a token is differs between tokenizers; models with different ones are compared by `byte_perplexity`.
    """

    def judge(_: Question, likelihoods: Sequence[Likelihood]) -> Terms:
        (own,) = likelihoods
        return Terms(math.exp(-own.nats / own.tokens), (-own.nats, own.tokens))

    return Metric(name="perplexity", judge=judge, asks="reference", total=_of_ratio, higher_is_better=False)


def byte_perplexity() -> Metric:
    """exp of the nats per byte of UTF-8 of the rows' own answers; the tokens that end them are counted in the nats."""

    def judge(_: Question, likelihoods: Sequence[Likelihood]) -> Terms:
        (own,) = likelihoods
        count = len(own.text.encode())
        return Terms(math.exp(-own.nats / count), (-own.nats, count))

    return Metric(name="byte_perplexity", judge=judge, asks="reference", total=_of_ratio, higher_is_better=False)


def _of_ratio(sums: np.ndarray) -> np.ndarray:
    return np.exp(sums[..., 0] / sums[..., 1])
