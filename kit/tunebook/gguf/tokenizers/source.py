"""What a model folder still knows of the file its tokenizer was made from, and tokenizer.json does not: scores, types.

A .gguf that was read leaves `tokenizer.gguf.json` beside the tokenizer; other folders may hold SentencePiece's own
`tokenizer.model`. Both are asked token by token, for the tokenizer may have been changed since.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece

from .vocabulary import Vocabulary

SOURCE_FILE = "tokenizer.gguf.json"
_SENTENCEPIECE = "tokenizer.model"


@dataclass(frozen=True, kw_only=True)
class TokenizerSource:
    """By token, as far as it is known."""

    scores: dict[str, float] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    pre: str | None = None  # the name the .gguf gives its pre-tokenizer
    other_ids: dict[str, str] = field(default_factory=dict)  # further special tokens: GGUF key -> token


def source_file(vocabulary: Vocabulary) -> str:
    """The text of SOURCE_FILE for a vocabulary that was read from a .gguf."""
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True)) if vocabulary.scores else {}
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    other = {key: vocabulary.tokens[index] for key, index in vocabulary.other_ids.items()}
    return json.dumps({"pre": vocabulary.pre, "other_ids": other, "scores": scores, "types": types})


def source_of(folder: Path) -> TokenizerSource:
    """What is known in a model folder; an empty one where nothing is. Raises ValueError for a damaged SOURCE_FILE."""
    if (folder / SOURCE_FILE).is_file():
        try:
            return TokenizerSource(**json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{folder / SOURCE_FILE} is damaged ({error}); remove it, and the scores are made from the merges."
            ) from error
    if not (folder / _SENTENCEPIECE).is_file():
        return TokenizerSource()
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / _SENTENCEPIECE))
    except (RuntimeError, OSError):  # tiktoken's file has the same name
        return TokenizerSource()
    ids = range(pieces.get_piece_size())
    return TokenizerSource(scores={pieces.id_to_piece(index): pieces.get_score(index) for index in ids})
