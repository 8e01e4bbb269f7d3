"""Token ids and supervised positions: the rows as our data path reads them, and as transformers' tokenizer does.

The reference renders a conversation with transformers alone and supervises what each assistant turn adds to the
conversation before it. Rows of other formats are rendered by the kit and tokenized by transformers.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from ...data.encoded import Encoded
from ...data.examples import Example, Tokens, texts
from ...data.formats import to_examples
from ...data.sources import Row
from ..case import Case
from ..finding import Finding

TokensAndMask = tuple[np.ndarray, np.ndarray]  # (T,) ids, (T,) bool


def tokens(case: Case) -> list[Finding]:
    """How many token ids differ, a row left out or cut short counting all that is missing."""
    different, at, total = 0, "", 0
    for row, (ids, _) in _pairs(case):
        total += len(ids)
        wrong = _differing(row.tokens, ids)
        if len(wrong) and not different:
            here, there = _id(row.tokens, wrong[0]), _id(ids, wrong[0])
            at = f"The first is {_named(case, row, wrong[0])}: {here} here, {there} there."
        different += len(wrong)
    return [
        Finding(
            stage="tokens",
            what="ids of the rendered rows, here and in transformers",
            measured=different,
            tolerance=0,
            unit="ids",
            evidence=at or f"All {total} ids of {len(case.encoded)} rows are the same.",
        )
    ]


def supervision(case: Case) -> list[Finding]:
    """How many positions are supervised on one side only, in the rows and again in the padded batch made of them."""
    different, at, total = 0, "", 0
    for row, (_, mask) in _pairs(case):
        length = min(len(row.loss_mask), len(mask))
        wrong = np.flatnonzero(row.loss_mask[1:length] != mask[1:length]) + 1
        if len(wrong) and not different:
            at = _one_sided(_named(case, row, wrong[0]), bool(row.loss_mask[wrong[0]]))
        different += len(wrong)
        total += int(mask[1:].sum())
    rows = case.sample
    width = case.procedure.width(max(len(row.tokens) for row in rows), case.max_seq_length)
    found = set(np.array(case.procedure.positions(case.bare.family.collate(rows, width))).tolist())
    expected = {
        index * (width - 1) + position - 1
        for index, row in enumerate(rows)
        for position in np.flatnonzero(row.loss_mask).tolist()
        if position
    }
    for place in sorted(found ^ expected):
        if not different:
            index, position = place // (width - 1), place % (width - 1) + 1
            at = _one_sided(_named(case, rows[index], position) + " in the padded batch", place in found)
        different += 1
    return [
        Finding(
            stage="supervision",
            what="supervised positions, here and by rendering prefixes with transformers",
            measured=different,
            tolerance=0,
            unit="positions",
            evidence=at or f"All {total} supervised positions of {len(case.encoded)} rows are the same.",
        )
    ]


def _pairs(case: Case) -> Iterator[tuple[Encoded, TokensAndMask]]:
    """(a row as we read it, as the reference does up to the same greatest length).

    One we left out is empty; none is, where nothing of its answer is within that length.
    """
    ours = {row.number: row for row in _stitched(case.encoded)}
    for number, row in enumerate(case.rows):
        ids, mask, is_raw = _reference(case, row)
        longest = len(ids) if is_raw else case.max_seq_length  # a raw text is cut into pieces, which are joined again
        if number in ours or mask[1:longest].any():
            yield ours.get(number, _nothing(number)), (ids[:longest], mask[:longest])


def _nothing(number: int) -> Encoded:
    return Encoded(tokens=np.zeros(0, np.int32), loss_mask=np.zeros(0, bool), number=number)


def _stitched(rows: Sequence[Encoded]) -> Iterator[Encoded]:
    """The pieces of a raw text as one row; each begins with the last token of the one before."""
    whole: dict[int, Encoded] = {}
    for row in rows:
        if row.number in whole:
            before = whole[row.number]
            joined = [
                np.concatenate([first, more[1:]])
                for first, more in ((before.tokens, row.tokens), (before.loss_mask, row.loss_mask))
            ]
            row = Encoded(tokens=joined[0], loss_mask=joined[1], number=row.number)
        whole[row.number] = row
    yield from whole.values()


def _reference(case: Case, row: Row) -> tuple[np.ndarray, np.ndarray, bool]:
    """(ids, supervised, whether it is raw text, all of it supervised) of a row at its full length."""
    tokenizer = cast(Any, case.tokenizer)
    if "messages" in row:
        text, spans = _conversation(tokenizer, list(row["messages"]))
        return *_tokenized(tokenizer, text, spans, adds=False), False
    [example] = to_examples([row], case.bare.tokenizer)
    if isinstance(example.parts[0], Tokens):
        return np.array(example.parts[0].ids), np.array(example.parts[0].supervised), False
    ids, mask = _tokenized(tokenizer, example.text, _spans(example), adds=not example.rendered)
    if not example.rendered and ids[-1] != tokenizer.eos_token_id:
        ids, mask = np.append(ids, tokenizer.eos_token_id), np.append(mask, texts(example)[-1].supervised)
    return ids, mask, not example.rendered and bool(mask.all())


def _conversation(tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
    """(the rendered text, the characters each assistant turn adds to what is there when it is its turn)."""
    whole, spans = tokenizer.apply_chat_template(messages, tokenize=False), []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            before = tokenizer.apply_chat_template(messages[:turn], tokenize=False, add_generation_prompt=True)
            until = tokenizer.apply_chat_template(messages[: turn + 1], tokenize=False)
            if not whole.startswith(before) or not whole.startswith(until):
                raise ValueError(
                    "The chat template renders a turn differently once the conversation goes on, so the lab cannot "
                    "tell its answers from outside; give it conversations of one turn."
                )
            spans.append((len(before), len(until.rstrip())))
    return whole, spans


def _spans(example: Example) -> list[tuple[int, int]]:
    ends = np.cumsum([len(part.text) for part in texts(example)]).tolist()
    return [(end - len(part.text), end) for part, end in zip(texts(example), ends, strict=True) if part.supervised]


def _tokenized(tokenizer: Any, text: str, spans: list[tuple[int, int]], *, adds: bool) -> TokensAndMask:
    """A token is supervised when its first character is in a span; `adds` says who brings the opening tokens."""
    adds = adds and not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
    made = tokenizer(text, add_special_tokens=adds, return_offsets_mapping=True)
    starts = [start for start, _ in made["offset_mapping"]]
    return np.array(made["input_ids"]), np.array([any(a <= start < b for a, b in spans) for start in starts])


def _differing(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Positions at which two rows of ids differ; those only one of them has are among them."""
    common = min(len(ours), len(theirs))
    longer = np.arange(common, max(len(ours), len(theirs)))
    return np.concatenate([np.flatnonzero(ours[:common] != theirs[:common]), longer])


def _named(case: Case, row: Encoded, position: int) -> str:
    return case.token(row, position) if position < len(row.tokens) else f"token {position} of row {row.number}"


def _id(ids: np.ndarray, position: int) -> str:
    return str(ids[position]) if position < len(ids) else "nothing"


def _one_sided(token: str, here: bool) -> str:
    return f"The first is {token}, supervised {'here' if here else 'there'} alone."
