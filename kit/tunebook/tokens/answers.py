"""Answers -> token ids: both sides of a pair in one row, their prompt found in them, brought within the length.

As TRL 1.16 does it (trl/trainer/dpo_trainer.py and trl/trainer/kto_trainer.py, `tokenize_fn`): each side is tokenized
whole, so that tokens merge as the model will see them, and the answer begins where the tokens of the prompt by itself
and those of a side part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.answers import Answers
from ..data.encoded import Encoded
from ..data.examples import Example
from ..models.families.base import Family, NotEncodable
from .tally import Account


def encode_examples(examples: Sequence[Example | Answers], family: Family) -> list[Encoded]:
    """One row of each, at its full length; rows of one set are of one kind. Raises NotEncodable."""
    plain = [example for example in examples if isinstance(example, Example)]
    if plain:
        return family.encode(plain)
    return encode_answers([answers for answers in examples if isinstance(answers, Answers)], family)


def encode_answers(answers: Sequence[Answers], family: Family) -> list[Encoded]:
    """One row of each, at its full length: of two answers a pair, of one a row with its label. Raises NotEncodable."""
    encoded = iter(family.encode([example for one in answers for example in (one.prompt, *one.wholes)]))
    rows = []
    for one in answers:
        prompt = next(encoded)
        sides = [next(encoded) for _ in one.wholes]
        begins = min(_shared(prompt.tokens, side.tokens) for side in sides)
        if begins < prompt.images_end:
            raise NotEncodable(
                "its prompt is written otherwise before an answer than alone, and that from before an image on; take "
                "another chat template."
            )
        rows.append(
            Encoded(
                tokens=np.concatenate([side.tokens for side in sides]),
                loss_mask=np.concatenate([side.loss_mask & (np.arange(len(side.tokens)) >= begins) for side in sides]),
                images=prompt.images * len(sides),
                images_end=prompt.images_end,
                second=len(sides[0].tokens) if len(sides) > 1 else 0,
                label=one.label,
            )
        )
    return rows


def is_bare(example: Example | Answers, tokenizer: TokenizerWrapper) -> bool:
    """Whether these are answers behind a prompt that no chat template wrote, though the model has one."""
    return isinstance(example, Answers) and not example.prompt.rendered and tokenizer.has_chat_template


def fitted_answers(row: Encoded, account: Account) -> Iterator[Encoded]:
    """`row` with each side cut on the right to the length; left out, and counted, where an answer or image would be."""
    if row.images_end > account.max_seq_length:
        account.images_beyond.append(row.number)
        return
    kept = shortened(row, account.max_seq_length)
    if not all(side.supervised_tokens for side in kept.sequences):
        account.left_out.append(row.number)
        if not all(side.supervised_tokens for side in row.sequences):
            account.never_supervised.append(row.number)
            account.never_supervised_why = account.never_supervised_why or "one of its answers has no token of its own"
        else:
            account.longest_left_out = max(account.longest_left_out, row.longest)
        return
    account.cut += kept.cut > 0
    sides = kept.sequences
    if kept.second and kept.cut and np.array_equal(sides[0].tokens, sides[1].tokens):
        account.cut_alike.append(row.number)
    account.longest_cut = max(account.longest_cut, kept.cut)
    yield kept


def shortened(row: Encoded, longest: int) -> Encoded:
    """`row` with each of its sequences cut on the right to `longest` tokens, whatever is left of its answers."""
    sides = [(side.tokens[:longest], side.loss_mask[:longest]) for side in row.sequences]
    return replace(
        row,
        tokens=np.concatenate([tokens for tokens, _ in sides]),
        loss_mask=np.concatenate([mask for _, mask in sides]),
        second=len(sides[0][0]) if row.second else 0,
        cut=max(0, *(len(side.tokens) - longest for side in row.sequences)),
    )


def mismatched(rows: Sequence[Encoded], max_seq_length: int) -> list[Encoded]:
    """Each prompt with the answer of the row before it, the first with that of the last: what KTO's KL is taken of.

    As in trl/trainer/kto_trainer.py (1.16), but that an answer which was cut is cut here too. The images stay
    with their prompt.
    """
    return [with_answer_of(row, rows[index - 1], max_seq_length) for index, row in enumerate(rows)]


def with_answer_of(row: Encoded, other: Encoded, max_seq_length: int) -> Encoded:
    """The prompt of `row` with the answer of the other, no longer than that."""
    prompt, answer = row.tokens[: _answer_of(row)], other.tokens[_answer_of(other) :]
    tokens = np.concatenate([prompt, answer])[:max_seq_length]
    return replace(row, tokens=tokens, loss_mask=np.arange(len(tokens)) >= len(prompt))


def _answer_of(row: Encoded) -> int:
    """Where the answer begins that was judged."""
    return int(row.loss_mask.argmax())


def _shared(ids: np.ndarray, others: np.ndarray) -> int:
    """How many leading tokens both have in common."""
    shorter = min(len(ids), len(others))
    differ = np.flatnonzero(ids[:shorter] != others[:shorter])
    return int(differ[0]) if differ.size else shorter
