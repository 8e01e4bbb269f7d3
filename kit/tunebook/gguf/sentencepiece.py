"""The SentencePiece kind of BPE (Llama 2, Mistral 7B, Gemma): scores in GGUF, ranked merges in tokenizer.json.

llama.cpp always joins the two neighbours whose joint token scores highest; tokenizers joins the pair that stands first
in its list. Both orders are turned into each other here; texts, special tokens and templates are not this file's.
"""

from itertools import pairwise

from gguf import TokenType
from tokenizers import Tokenizer, decoders, models, normalizers

_SPACE = "▁"  # SentencePiece's stand-in for a space

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_PREPEND = {"type": "Prepend", "prepend": _SPACE}
# Gemma's; it never fires, for its normalizer has replaced every space by then.
_SPLIT_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def adds_space_prefix(spec: dict) -> bool:
    """Whether the tokenizer of this tokenizer.json puts a space before a text. Raises ValueError if it does more."""
    normalizer, pre_tokenizer = spec["normalizer"], spec["pre_tokenizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    if pre_tokenizer in (None, _SPLIT_SPACES) and steps in ([_REPLACE], [_PREPEND, _REPLACE]):
        return _PREPEND in steps
    if steps == [None] and pre_tokenizer and pre_tokenizer["type"] == "Metaspace" and not pre_tokenizer["split"]:
        return pre_tokenizer["prepend_scheme"] != "never"
    raise ValueError(
        f"The tokenizer's normalizer {normalizer} with pre-tokenizer {pre_tokenizer} has no counterpart in GGUF."
    )


def mark_bytes_and_unknown(tokens: list[str], types: list[int], unk_token: str | None) -> None:
    """Change the types of the 256 byte tokens and of the unknown token, in place."""
    byte_tokens = {f"<0x{value:02X}>" for value in range(256)}
    for index, token in enumerate(tokens):
        if token == unk_token:
            types[index] = int(TokenType.UNKNOWN)
        elif token in byte_tokens:
            types[index] = int(TokenType.BYTE)


def scores_of_merges(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """One score per token: minus the rank of the first merge that makes it, and below all those for the rest.

    Raises ValueError where one token's merges stand apart with another's between them: scores cannot say that.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
        last[left + right] = rank
    torn = [token for token, after in pairwise(first) if last[token] > first[after]]
    if torn:
        raise ValueError(f"The tokenizer's merges for {torn[0]!r} stand apart; GGUF's scores cannot express that.")
    return [float(-first[token]) if token in first else float(-len(merges) - 1) for token in tokens]


def unlisted_joins(tokens: list[str], types: list[int], merges: list[list[str]]) -> int:
    """How many pairs of tokens llama.cpp may join into a third although the tokenizer has no merge for them."""
    known, listed = set(tokens), {(left, right) for left, right in merges}
    return sum(
        (token[:cut], token[cut:]) not in listed and token[:cut] in known and token[cut:] in known
        for token, kind in zip(tokens, types, strict=True)
        if kind == TokenType.NORMAL
        for cut in range(1, len(token))
    )


def tokenizer_of_scores(ids: dict[str, int], scores: list[float], unk_token: str | None, *, prefix: bool) -> Tokenizer:
    """The tokenizers object for a GGUF's tokens and scores, without special tokens."""
    merges = []
    for token, index in ids.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        merges += [(scores[index], len(left), left, right) for left, right in pairs if left in ids and right in ids]
    merges.sort(key=lambda merge: merge[:2], reverse=True)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=[(left, right) for _, _, left, right in merges],
            unk_token=unk_token,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    replace = normalizers.Replace(" ", _SPACE)
    start = [normalizers.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = (  # pyright: ignore[reportAttributeAccessIssue]
        normalizers.Sequence([*start, replace]) if prefix else replace
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer
