"""Ranked merges (tokenizer.json) become scores (GGUF), such that llama.cpp cuts every text as the tokenizer does.

Where pieces share a score, as runs of newlines, tabs and spaces do in every Gemma, their merges stand between each
other's, and whether one score for them all, or one each, says the same is tried on texts made of those very pieces.
"""

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tokenizers import models

_TRIALS = 400  # texts of at most 64 pieces: some tenths of a second


def scores_of_merges(tokens: list[str], merges: Sequence[Sequence[str]], model: models.Model) -> list[float]:
    """One score per token: minus the rank of the first merge that makes it, and below all those for the rest.

    `model` is the tokenizer's own, which has these merges. Raises ValueError, with a text, where no scores can say
    what the merges do.
    """
    first, last = _ranks(merges)
    below = -float(len(merges) + 1)
    shared, crowds = _shared(first, last)
    candidates = [shared]
    if crowds:
        candidates += [first, last]
    failed = ""
    for ranks in candidates:
        scores = {token: -float(rank) for token, rank in ranks.items()}
        of_all = {token: scores.get(token, below) for token in tokens}
        odd = next((text for text in _trials(crowds, merges) if _cut(text, of_all) != _values(model, text)), None)
        if odd is None:
            return [of_all[token] for token in tokens]
        failed = failed or odd
    raise ValueError(
        f"The tokenizer's merges for {crowds[0][0]!r} stand between those for {crowds[0][1]!r} in an order that no "
        f"scores of GGUF express: llama.cpp would cut {failed!r} otherwise."
    )


def scores_of_source(
    tokens: list[str], merges: Sequence[Sequence[str]], known: Mapping[str, float]
) -> list[float] | None:
    """The scores the tokenizer was made from, if its merges still follow them; None where it was changed since."""
    made = ["".join(merge) for merge in merges]
    if not known.keys() >= set(made):
        return None
    along = [known[token] for token in made]
    if any(before < after for before, after in pairwise(along)):
        return None
    lowest = min(known.values(), default=0.0) - 1.0
    return [known.get(token, lowest) for token in tokens]


def _ranks(merges: Sequence[Sequence[str]]) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last rank of the merges that make each token."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        token = left + right
        first.setdefault(token, rank)
        last[token] = rank
    return first, last


def _shared(first: Mapping[str, int], last: Mapping[str, int]) -> tuple[dict[str, int], list[list[str]]]:
    """One rank for all tokens whose merges stand between each other's, and those crowds of two tokens and more."""
    ranks: dict[str, int] = {}
    crowds: list[list[str]] = []
    crowd: list[str] = []
    start = end = -1
    for token, rank in first.items():
        if rank > end:
            start, crowd = rank, []
        end = max(end, last[token])
        crowd.append(token)
        ranks[token] = start
        if len(crowd) == 2:
            crowds.append(crowd)
    return ranks, crowds


def _trials(crowds: list[list[str]], merges: Sequence[Sequence[str]]) -> Iterator[str]:
    """Texts in which the order within a crowd matters: its tokens in runs, side by side, halved, and among letters."""
    dice = random.Random(0)
    letters = [left for left, _ in merges[-4000:] if len(left) == 1][:20] or ["a"]
    for crowd in crowds[:20]:
        inside = set(crowd)
        halves = [piece for left, right in merges if left + right in inside for piece in (left, right)]
        halves = list(dict.fromkeys(halves))
        yield from (token * times for token in crowd[:40] for times in (1, 2, 3))
        yield from (piece * length for piece in halves if len(piece) == 1 for length in range(2, 80, 3))
        for _ in range(_TRIALS // min(len(crowds), 20)):
            pool = dice.choice((crowd, halves, [*halves, *letters]))
            yield "".join(dice.choices(pool, k=dice.randint(2, 8)))[:64]


def _values(model: models.Model, text: str) -> list[str]:
    return [token.value for token in model.tokenize(text)]


def _cut(text: str, scores: Mapping[str, float]) -> list[str]:
    """The pieces of a text as llama.cpp cuts it: always the best joint piece first, the leftmost of equals."""
    pieces: list[str] = list(text)  # "" where a piece was joined to one before it
    after = [*range(1, len(text)), -1]
    before = list(range(-1, len(text) - 1))
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and (joint := pieces[left] + pieces[right]) in scores:
            heapq.heappush(queue, (-scores[joint], left, right, joint))

    for index in range(len(text) - 1):
        offer(index, index + 1)
    while queue:
        _, left, right, joint = heapq.heappop(queue)
        if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != joint:
            continue
        pieces[left], pieces[right] = joint, ""
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [piece for piece in pieces if piece]
