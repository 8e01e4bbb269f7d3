"""`TokenView`: rows exactly as the model reads them, the tokens it is trained to write marked.

What comes in are a model and rows; what goes out is static HTML, with plain text beside it for places that show none.
The rows are encoded by the kit, as for training: the mask that is shown is the one the loss uses.
"""

import html
from collections.abc import Iterator, Sequence
from itertools import groupby

from tunebook.encoding import encode_rows
from tunebook.families.base import Encoded
from tunebook.sources import Row
from tunebook.trainer import HoldsModel

# Told apart by an underline too, so that it does not rest on colour; translucent, so that it suits either theme.
_TRAINED = "background-color: rgba(0, 150, 136, 0.22); border-bottom: 2px solid rgb(0, 150, 136)"
_BOX = "border: 1px solid rgba(128, 128, 128, 0.35); padding: 8px; margin: 4px 0px 12px 0px; white-space: pre-wrap"


class TokenView:
    """Show rows in a notebook: `TokenView(model, train_rows[:3])`. `format` is as for the Trainer."""

    def __init__(self, model: HoldsModel, rows: Sequence[Row], *, format: str | None = None):
        loaded = model.loaded
        encoded = encode_rows(rows, loaded, max_seq_length=loaded.max_seq_length, format=format)
        self.notices = encoded.notices
        self.rows = [(_caption(row), list(_stretches(row, loaded.tokenizer.decode))) for row in encoded.rows]

    def __repr__(self):
        texts = [
            f"{caption}\n" + "".join(f"⟦{text}⟧" if trained else text for text, trained in stretches)
            for caption, stretches in self.rows
        ]
        return "\n\n".join([*self.notices, *texts])

    def _repr_html_(self) -> str:
        legend = (
            f'The model is trained to write the <span style="{_TRAINED}">marked</span> tokens and only reads the rest.'
        )
        boxes = [
            f'<b>{caption}</b><pre style="{_BOX}">' + "".join(_span(*stretch) for stretch in stretches) + "</pre>"
            for caption, stretches in self.rows
        ]
        return "".join([f"<p>{legend}</p>", *(f"<p>{html.escape(notice)}</p>" for notice in self.notices), *boxes])


def _caption(row: Encoded) -> str:
    return f"{len(row.tokens)} tokens, {row.supervised_tokens} of them trained"


def _span(text: str, trained: bool) -> str:
    return f'<span style="{_TRAINED}">{html.escape(text)}</span>' if trained else html.escape(text)


def _stretches(row: Encoded, decode) -> Iterator[tuple[str, bool]]:
    """(text, trained) of each run of like tokens, decoded together: one character may be several tokens."""
    pairs = zip(row.tokens.tolist(), row.loss_mask.tolist(), strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1]):
        yield decode([token for token, _ in run]), trained
