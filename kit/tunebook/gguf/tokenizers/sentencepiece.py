"""The SentencePiece kind of BPE (Llama 2, Mistral 7B, Gemma): scores in GGUF, ranked merges in tokenizer.json.

llama.cpp always joins the two neighbours whose joint token scores highest; tokenizers joins the pair that stands first
in its list. How scores become merges is here, and how spaces are marked; the other way is `scores.py`.
"""

from collections.abc import Iterable, Iterator

from gguf import TokenType
from tokenizers import Tokenizer, decoders, models, normalizers

_MOST_LETTERS = 64_000_000  # in all merges together; Gemma 3's have 4 million

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


def unlisted_joins(tokens: list[str], types: list[int], merges: list[list[str]]) -> int:
    """How many pairs of tokens llama.cpp may join into a third although the tokenizer has no merge for them."""
    known, listed = {token: token for token in tokens}, {(left, right) for left, right in merges}
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.NORMAL]
    lengths = _lengths(tokens)
    return sum(pair not in listed for token in plain for pair in _pairs(token, known, lengths))


def tokenizer_of_scores(ids: dict[str, int], scores: list[float], unk_token: str | None, *, prefix: bool) -> Tokenizer:
    """The tokenizers object for a GGUF's tokens and scores, without special tokens."""
    known, lengths, merges, size = {token: token for token in ids}, _lengths(ids), [], 0
    for token, index in ids.items():
        made = [(scores[index], left, right) for left, right in _pairs(token, known, lengths)]
        merges += made
        size += len(made) * len(token)
        if size > _MOST_LETTERS:
            raise ValueError(
                f"The tokens of this GGUF can be joined in too many ways: over {len(merges)} merges make "
                f"{len(ids)} tokens."
            )
    # transformers' order for pieces that share a score: the longest left half first, then the longest right one.
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=[(left, right) for _, left, right in merges],
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


def _lengths(tokens: Iterable[str]) -> list[int]:
    return sorted({len(token) for token in tokens})


def _pairs(token: str, known: dict[str, str], lengths: list[int]) -> Iterator[tuple[str, str]]:
    """The ways to cut a token into two others. Only lengths that occur are tried: a token may be a megabyte long."""
    for cut in lengths:
        if cut >= len(token):
            return
        left, right = known.get(token[:cut]), known.get(token[cut:])
        if left is not None and right is not None:
            yield left, right
