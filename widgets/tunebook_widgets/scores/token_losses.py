"""What a model in memory makes of the texts of a row, token by token, and the pictures the row holds.

A model and an exam come in; a row is asked when it is looked at, and what comes out are plain values for a browser. The
model is left as it was. Nothing is kept: a model that has been trained further finds other losses.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pictures

from tunebook.data.examples import Image
from tunebook.data.formats.templates import marks_of_thoughts
from tunebook.data.images import ImageReference, opened
from tunebook.models.base_model import why_no_base
from tunebook.models.loaded import HoldsLoaded, loaded_in
from tunebook.scores import Exam, NotScored, TokenLosses

from ..tokens.token_pieces import pieces
from .score_texts import reason

LONGEST = 4096  # tokens of a row, with its prompt, that are asked; a longer one says so
HEAD, TAIL = 500, 200  # tokens that are shown of a longer text
NAMED = 3  # tokens that are told in words, those that surprise the most
PICTURES, SIDE = 4, 160  # that are shown of a row, and how many pixels wide or high

Nats = list[float | None]  # of each model; None: the token is only read


@dataclass(frozen=True)
class Pieces:
    """A text as tokens, with what each model makes of them."""

    shown: list[tuple[str, bool, Nats]]  # (text, whether it is a special token, nats)
    hidden: int  # tokens between the first and the last that are shown
    at: int  # where in `shown` they are hidden


class Losses:
    """A model, with its adapters and without, before the rows of an exam."""

    def __init__(self, model: HoldsLoaded, exam: Exam):
        """Raises ValueError for rows that cannot be asked."""
        self._loaded = loaded_in(model, "ScoreView")
        has_base = why_no_base(self._loaded.module) is None
        self._sittings = {"base": exam.sitting(model, adapters=False)} if has_base else {}
        self._sittings["tuned" if has_base else "the model"] = exam.sitting(model)
        self.names = [*self._sittings]
        self.thoughts = marks_of_thoughts(self._loaded.tokenizer)
        self._questions = self._sittings[self.names[-1]].questions

    def has_answer(self, number: int) -> bool:
        """Whether the row has an answer of its own, or a text, to find likely or not."""
        return self._questions[number].whole is not None

    def of(self, texts: Sequence[tuple[int, str | None]]) -> list[dict[str, Any]]:
        """The losses of each (number of a row, text behind its prompt); None: the row's own answer."""
        found = [dict(one.token_losses(texts, longest=LONGEST)) for one in self._sittings.values()]
        return [self._told([of_model[text] for of_model in found]) for text in texts]

    def pictures(self, number: int) -> tuple[list[str], str]:
        """(data addresses of small copies of the row's pictures, what is to be said of them)."""
        references = [part.image for part in self._questions[number].asked.parts if isinstance(part, Image)]
        made, said = [], []
        for reference in references[:PICTURES]:
            try:
                made.append(_small(reference))
            except (ValueError, OSError) as error:
                said.append(reason(str(error)))
        if len(references) > PICTURES:
            said.append(f"{len(references) - PICTURES} more pictures are not shown.")
        return made, " ".join(said)

    def _told(self, found: Sequence[TokenLosses | NotScored]) -> dict[str, Any]:
        """What the models make of one text, as JSON."""
        measured = [one for one in found if isinstance(one, TokenLosses)]
        if len(measured) < len(found):
            why = next(str(one) for one in found if isinstance(one, NotScored))
            return {"why_not": reason(why), "models": [], "pieces": [], "hidden": "", "at": 0}
        cut = self._pieces(measured)
        return {
            "why_not": "",
            "models": [
                {"name": name, "said": _said(one, [(text, nats[place]) for text, _, nats in cut.shown])}
                for place, (name, one) in enumerate(zip(self.names, measured, strict=True))
            ],
            "pieces": [[text, special, nats] for text, special, nats in cut.shown],
            "hidden": f"… {cut.hidden:,} tokens are not shown …" if cut.hidden else "",
            "at": cut.at,
        }

    def _pieces(self, measured: Sequence[TokenLosses]) -> Pieces:
        """The tokens that have a loss, and those between them."""
        tokenizer, first = self._loaded.tokenizer, measured[0]
        places = np.flatnonzero(np.isfinite(first.losses))
        start, end = int(places[0]), int(places[-1]) + 1
        start -= start == 1 and len(places) == len(first.tokens) - 1  # a text by itself: its first token is only read
        whole = end - start
        stretches = [(start, end)] if whole <= HEAD + TAIL else [(start, start + HEAD), (end - TAIL, end)]
        special = set(tokenizer.all_special_ids) | set(tokenizer.eos_token_ids)
        shown: list[tuple[str, bool, Nats]] = []
        at = 0
        for begin, stop in stretches:
            at = len(shown)
            before = max(0, begin - 1)  # a token's text depends on the one before it
            ids = first.tokens[before:stop].tolist()
            marked = [place >= begin for place in range(before, stop)]
            place = before
            for piece in pieces(ids, marked, decode=tokenizer.decode, special=special):
                part = slice(place, place + len(piece.ids))
                place += len(piece.ids)
                if piece.trained:
                    shown.append((piece.text, piece.special, [_nats(one.losses[part]) for one in measured]))
        return Pieces(shown, max(0, whole - HEAD - TAIL), at)


def _nats(losses: np.ndarray) -> float | None:
    """Of the tokens of one piece together."""
    return None if np.isnan(losses).any() else round(float(losses.sum()), 4)


def _said(found: TokenLosses, told: Sequence[tuple[str, float | None]]) -> str:
    """The losses of one model in words."""
    mean = found.nats / found.count
    worst = sorted(((nats, text) for text, nats in told if nats is not None), key=lambda pair: -pair[0])[:NAMED]
    named = ", ".join(f"{_quoted(text)} {nats:.2f}" for nats, text in worst)
    tokens = f"{found.count:,} {'token' if found.count == 1 else 'tokens'}"
    return f"{mean:.3f} nats per token over {tokens}; least expected: {named}"


def _quoted(text: str) -> str:
    return f"‘{text}’".replace("\n", "↵")


def _small(reference: ImageReference) -> str:
    picture = opened(reference)
    picture.thumbnail((SIDE, SIDE), Pictures.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
