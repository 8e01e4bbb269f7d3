import numpy as np

from tunebook.data.encoded import Encoded
from tunebook.tokens.row_facts import columns_of

BOS, END, UNKNOWN = 1, 2, 0  # <|im_start|>, <|im_end|>, <|endoftext|> of the tiny tokenizer


def test_every_column_agrees_with_a_plain_loop_over_random_rows(model):
    tokenizer = model.loaded.tokenizer
    rows = random_rows(model, np.random.default_rng(0).integers(2, 12, 3000).tolist(), limit=8)
    columns = columns_of(rows, tokenizer)
    seen: dict[tuple, int] = {}
    for index, row in enumerate(rows):
        ids, mask = row.tokens.tolist(), [False, *row.loss_mask.tolist()[1:]]
        text = lambda ids: tokenizer.decode(ids, skip_special_tokens=True).strip()  # noqa: E731
        stretches, open_ = [], False
        for token, trained in zip(ids, mask, strict=True):
            if trained:
                stretches = [*stretches, [token]] if not open_ else [*stretches[:-1], [*stretches[-1], token]]
            open_ = trained
        whole = stretches[:-1] if row.cut and mask[-1] else stretches
        said = [token for stretch in stretches for token in stretch]
        after_end = said[len(said) - said[::-1].index(END) :] if END in said else None
        assert columns.trained[index] == sum(mask)
        assert columns.empty_answer[index] == any(not text(stretch) for stretch in whole)
        assert columns.no_end[index] == (not row.cut and (after_end is None or text(after_end) != ""))
        assert columns.double_bos[index] == (ids[:2] == [BOS, BOS])
        assert columns.unknown_token[index] == (UNKNOWN in ids)
        assert columns.first_alike[index] == seen.setdefault((*ids, None, *row.loss_mask.tolist()), index)
    kinds = ("empty_answer", "no_end", "double_bos", "unknown_token", "copies")
    assert all(0 < getattr(columns, kind).sum() < 3000 for kind in kinds)  # the loop had something to judge


def ids_of(model, text: str) -> list[int]:
    return model.loaded.tokenizer.encode(text, add_special_tokens=False)


def random_rows(model, sizes: list[int], *, limit: int) -> list[Encoded]:
    """Rows of a few kinds of token (special, blank, words), cut to `limit`."""
    rng = np.random.default_rng(1)
    vocabulary = np.array([UNKNOWN, BOS, BOS, END, END, *ids_of(model, "\n"), *range(200, 240)])
    rows = []
    for number, size in enumerate(sizes):
        tokens = rng.choice(vocabulary[: rng.integers(3, len(vocabulary))], size).astype(np.int32)
        mask = rng.random(size) < 0.6
        mask[min(size, limit) - 1] = True
        rows.append(Encoded(tokens[:limit], mask[:limit], cut=max(0, size - limit), number=number))
    return rows
