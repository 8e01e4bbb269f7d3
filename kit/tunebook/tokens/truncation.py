"""Rows brought within the length a model is trained at, with every cut and every row left out counted.

A conversation is cut on the right, raw text into pieces, and what holds an image is never cut through it.
"""

from collections.abc import Iterator
from dataclasses import replace

from ..data.answers import Answers
from ..data.encoded import Encoded
from ..data.examples import Example, Text
from ..data.formats import BadRow
from ..data.formats.documents import BadImages
from ..data.row_kinds import RowKind, TooLong
from .answers import fitted_answers
from .tally import Account


def fitted(row: Encoded, example: Example | Answers, kind: RowKind, account: Account) -> Iterator[Encoded]:
    """`row`, which `example` was encoded to, within the length: as it is, cut, in pieces, or not at all."""
    if isinstance(example, Answers):
        return fitted_answers(row, account)
    if kind.too_long == "cut":
        return _cut(row, example, account)
    return _uncut(row, kind.too_long, account)


def is_left_out(number: int, error: BadRow, kind: RowKind, account: Account) -> bool:
    """Whether a bad row is to be left out rather than refused; then it is counted."""
    if kind.skips_bad_rows and not (kind.skips_bad_images and isinstance(error, BadImages)):
        account.note_bad(number, str(error))
        return True
    if not kind.skips_bad_images or not isinstance(error, BadImages):
        return False
    account.bad_images.append(number)
    account.bad_images_why = account.bad_images_why or str(error)
    return True


def _cut(row: Encoded, example: Example, account: Account) -> Iterator[Encoded]:
    longest, length = account.max_seq_length, len(row.tokens)
    is_raw = not example.rendered and all(isinstance(part, Text) and part.supervised for part in example.parts)
    if length > longest and is_raw and longest > 1:
        account.in_pieces += 1
        yield from _pieces(row, longest)
        return
    if row.images_end > longest:
        account.images_beyond.append(row.number)
        return
    cut = max(0, length - longest)
    kept = replace(row, tokens=row.tokens[:longest], loss_mask=row.loss_mask[:longest], cut=cut) if cut else row
    if not kept.supervised_tokens:
        _leave_out(row, account)
        return
    account.cut += cut > 0
    account.longest_cut = max(account.longest_cut, cut)
    yield kept


def _uncut(row: Encoded, too_long: TooLong, account: Account) -> Iterator[Encoded]:
    """`row` as it is where that is within the length; with images it is never cut, and text alone is in pieces."""
    longest, length = account.max_seq_length, len(row.tokens)
    if row.images and length > longest:
        if too_long == "raise":
            raise ValueError(
                f"{account.placed(row.number)} of {account.name} is {length} tokens with its images written out, and "
                f"max_seq_length is {longest}; raise that, or choose excess_length_strategy='drop'."
            )
        account.documents_beyond.append(row.number)
    elif not row.supervised_tokens or (length > longest and longest == 1):
        _leave_out(row, account)
    elif length > longest:
        account.in_pieces += 1
        yield from (piece for piece in _pieces(row, longest) if piece.supervised_tokens)
    else:
        yield row


def _leave_out(row: Encoded, account: Account) -> None:
    """Count a row of which nothing supervised is within the length, and why that is so where it is none of it."""
    account.left_out.append(row.number)
    if row.supervised_tokens:
        account.longest_left_out = max(account.longest_left_out, len(row.tokens))
        return
    if len(row.tokens) < 2:
        why = "it has a single token, and the first of a row is predicted from nothing"
    else:
        why = (
            f"of its {len(row.tokens)} tokens at most the first is to be trained on, and that is predicted from nothing"
        )
    account.never_supervised.append(row.number)
    account.never_supervised_why = account.never_supervised_why or why


def _pieces(row: Encoded, longest: int) -> Iterator[Encoded]:
    """`row` in pieces of `longest` tokens, at least 2, that predict every token once."""
    for start in range(0, len(row.tokens) - 1, longest - 1):  # the last token of one piece begins the next
        place = slice(start, start + longest)
        yield replace(row, tokens=row.tokens[place], loss_mask=row.loss_mask[place])
