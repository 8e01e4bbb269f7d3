"""tokenizer.json and its companions <-> the `Vocabulary` that GGUF stores.

A tokenizer GGUF cannot express (WordPiece, Unigram, a normalizer that rewrites text, an unknown pre-tokenizer) is
refused, because llama.cpp would cut the same text differently and say nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ...model_files.trusted import openable
from .pre_tokenizers import by_definition, by_name, definition
from .scores import scores_of_merges, scores_of_source
from .sentencepiece import adds_space_prefix, mark_bytes_and_unknown, tokenizer_of_scores, unlisted_joins
from .source import SOURCE_FILE, TokenizerSource, source_file, source_of
from .vocabulary import Vocabulary

_have_scores: set[tuple[Path, bytes]] = set()  # folders, and digests of the models that scores were found for
_NAMED = ("bos", "eos", "unk", "pad")  # the special tokens tokenizer_config.json names, as `bos_token` and so on


def vocabulary_of_folder(folder: Path, *, rows: int, end_ids: list[int]) -> tuple[Vocabulary, list[str]]:
    """The tokenizer transformers opens in `folder`, for an embedding of `rows` rows, and what GGUF cannot say of it.

    `end_ids` are the tokens that config.json and generation_config.json end on. Raises ValueError for a tokenizer of
    another kind.
    """
    shown = openable(folder, trust_remote_code=False)
    tokenizer = _fast(AutoTokenizer.from_pretrained(shown, local_files_only=True, trust_remote_code=False))
    source, spec = source_of(folder), json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    _refuse_model(tokenizer)
    tokens, types = _tokens_and_types(spec, rows)
    special_ids = _special_ids(tokenizer, end_ids)
    adds_bos, adds_eos = _ends_added(tokenizer)
    templates = tokenizer.chat_template or {}
    is_byte_level = not model["byte_fallback"]
    if not is_byte_level:
        mark_bytes_and_unknown(tokens, types, model["unk_token"] or tokenizer.special_tokens_map.get("unk_token"))
    merges = _merges(spec)
    vocabulary = Vocabulary(
        model="gpt2" if is_byte_level else "llama",
        pre=_byte_level_name(spec, source) if is_byte_level else "default",
        tokens=tokens,
        types=[_type(token, kind, source) for token, kind in zip(tokens, types, strict=True)],
        merges=[" ".join(merge) for merge in merges] if is_byte_level else [],
        scores=[] if is_byte_level else _scores(tokens, merges, source, tokenizer),
        special_ids={name: index for name, index in special_ids.items() if index < rows},
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        adds_space_prefix=False if is_byte_level else adds_space_prefix(spec),
        chat_templates={"default": templates} if isinstance(templates, str) else templates,
        other_ids=_other_ids(tokens, source),
    )
    return vocabulary, [*_left_unsaid(spec, vocabulary, end_ids), *_split_words(tokenizer, vocabulary)]


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise ValueError, with the reason, where `vocabulary_of_folder` would for this tokenizer of that folder.

    It is transformers' own, or mlx-lm's that stands before it. Of 262,144 tokens with scores this takes about a
    second, some tenths where the same were looked at before, of byte-level ones some milliseconds.
    """
    tokenizer = _fast(tokenizer)
    _refuse_model(tokenizer)
    _ends_added(tokenizer)
    backend = tokenizer.backend_tokenizer
    steps = {
        name: None if step is None else json.loads(step.__getstate__())
        for name, step in (("normalizer", backend.normalizer), ("pre_tokenizer", backend.pre_tokenizer))
    }
    if not backend.model.byte_fallback:
        _byte_level_name(steps | {"model": {"ignore_merges": backend.model.ignore_merges}}, TokenizerSource())
        return
    adds_space_prefix(steps)
    state = backend.model.__getstate__()
    known_as = (folder, hashlib.sha256(state).digest())
    if known_as not in _have_scores:
        model = json.loads(state)
        _scores(list(model["vocab"]), _merges({"model": model}), source_of(folder), tokenizer)
        _have_scores.add(known_as)


def tokenizer_files(vocabulary: Vocabulary, *, max_length: int) -> dict[str, str]:
    """The files transformers opens, by name: tokenizer.json, tokenizer_config.json and the chat templates."""
    tokens, special = vocabulary.tokens, vocabulary.special_ids
    named = {name: tokens[special[name]] for name in _NAMED if name in special}
    tokenizer = _byte_level(vocabulary) if vocabulary.model == "gpt2" else _sentencepiece(vocabulary)
    kinds = list(zip(tokens, vocabulary.types, strict=True))
    special_texts = [token for token, kind in kinds if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]
    plain_texts = [token for token, kind in kinds if kind == TokenType.USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_texts])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain_texts])
    before = [named["bos"]] if vocabulary.adds_bos else []
    after = [named["eos"]] if vocabulary.adds_eos else []
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=[*before, "$A", *after],
            pair=[
                *before,
                "$A",
                *after,
                *(f"{token}:1" for token in before),
                "$B:1",
                *(f"{token}:1" for token in after),
            ],
            special_tokens=[(token, tokens.index(token)) for token in (*before, *after)],
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    } | {f"{name}_token": token for name, token in named.items()}
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2),
        SOURCE_FILE: source_file(vocabulary),
    }
    for name, text in vocabulary.chat_templates.items():
        files["chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"] = text
    return files


def _fast(tokenizer: Any) -> PreTrainedTokenizerFast:
    if not tokenizer.is_fast:
        raise ValueError(f"The tokenizer ({tokenizer.name_or_path}) has no tokenizer.json, and no GGUF without one.")
    return tokenizer


def _refuse_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, models.BPE):
        raise ValueError(f"The tokenizer's model is {type(model).__name__}; only BPE can be written to GGUF.")


def _merges(spec: dict) -> list[list[str]]:
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]


def _scores(
    tokens: list[str], merges: list[list[str]], source: TokenizerSource, tokenizer: PreTrainedTokenizerFast
) -> list[float]:
    """The source's, or made from the merges where there is none or the tokenizer was changed since."""
    known = scores_of_source(tokens, merges, source.scores) if source.scores else None
    return scores_of_merges(tokens, merges, tokenizer.backend_tokenizer.model) if known is None else known


def _type(token: str, kind: int, source: TokenizerSource) -> int:
    """The source's type of a token, unless the token has become a special one since."""
    before = source.types.get(token, kind)
    added = (TokenType.CONTROL, TokenType.USER_DEFINED)
    return kind if kind in added and before in (TokenType.NORMAL, TokenType.UNUSED) else before


def _other_ids(tokens: list[str], source: TokenizerSource) -> dict[str, int]:
    wanted = set(source.other_ids.values())
    place = {token: index for index, token in enumerate(tokens) if token in wanted}
    return {key: place[token] for key, token in source.other_ids.items() if token in place}


def _split_words(tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> list[str]:
    """A sentence where whole words are tokens to one side and joined from pieces by the other."""
    if vocabulary.model != "gpt2":
        return []
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, models.BPE) or model.ignore_merges == by_name(vocabulary.pre).ignore_merges:
        return []
    plain = [token for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == TokenType.NORMAL]
    as_found, model.ignore_merges = model.ignore_merges, False
    try:
        torn = [token for token in plain if len(model.tokenize(token)) > 1]
    finally:
        model.ignore_merges = as_found
    if not torn:
        return []
    return [
        f"llama.cpp cuts {len(torn)} tokens that stand for whole words otherwise than this tokenizer ({torn[0]!r})."
    ]


def _tokens_and_types(spec: dict, rows: int) -> tuple[list[str], list[int]]:
    """One text and one type per row; a row without a token is `[PADn]`, unused, as llama.cpp's converter has it."""
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for token, index in spec["model"]["vocab"].items():
        if index < rows:
            tokens[index], types[index] = token, int(TokenType.NORMAL)
    for added in spec["added_tokens"]:
        if added["id"] < rows:
            tokens[added["id"]] = added["content"]
            types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    if len(set(tokens)) < rows:
        raise ValueError("Two rows of the vocabulary have the same text; llama.cpp refuses such a file.")
    return tokens, types


def _special_ids(tokenizer: PreTrainedTokenizerFast, end_ids: list[int]) -> dict[str, int]:
    text_of = {"bos": tokenizer.bos_token, "unk": tokenizer.unk_token, "pad": tokenizer.pad_token}
    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[str(text)] for name, text in text_of.items() if text is not None}
    own_end = [] if tokenizer.eos_token is None else [vocabulary[str(tokenizer.eos_token)]]
    return ids | dict(zip(("eos", "eot", "eom"), dict.fromkeys([*own_end, *end_ids]), strict=False))


def _left_unsaid(spec: dict, vocabulary: Vocabulary, end_ids: list[int]) -> list[str]:
    """Sentences about what the tokenizer does and a GGUF has no place for."""
    rows = len(vocabulary.tokens)
    notices = []
    beyond = [added["content"] for added in spec["added_tokens"] if added["id"] >= rows]
    beyond += [token for token, index in spec["model"]["vocab"].items() if index >= rows and token not in beyond]
    if beyond:
        notices.append(
            f"{len(beyond)} tokens have no row among the embedding's {rows} (first: {beyond[0]!r}): left out."
        )
    stripping = [added["content"] for added in spec["added_tokens"] if added["lstrip"] or added["rstrip"]]
    if stripping:
        notices.append(f"The tokenizer swallows spaces beside {', '.join(stripping)}; llama.cpp keeps them.")
    unlisted = [index for index in end_ids if index not in vocabulary.end_ids]
    if unlisted:
        notices.append(f"GGUF names three end tokens at most; {unlisted} are left to llama.cpp's own list.")
    is_scored = vocabulary.model == "llama"
    if is_scored and (joins := unlisted_joins(vocabulary.tokens, vocabulary.types, _merges(spec))):
        notices.append(f"llama.cpp may join {joins} pairs of tokens this tokenizer leaves apart.")
    if vocabulary.model == "gpt2" and (caveat := by_name(vocabulary.pre).caveat):
        notices.append(caveat)
    scheme = (spec["pre_tokenizer"] or {}).get("prepend_scheme")
    if vocabulary.model == "llama" and scheme == "first":
        notices.append("llama.cpp puts a space after every special token, this tokenizer only before the first word.")
    if vocabulary.model == "llama" and scheme in ("first", "always"):
        notices.append("llama.cpp puts a space before a text that begins with one, too; this tokenizer does not.")
    return notices


def _ends_added(tokenizer: PreTrainedTokenizerFast) -> tuple[bool, bool]:
    """Whether it puts bos before and eos after a text. Raises ValueError if it adds anything else."""
    bare, full = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    for bos in ([], [tokenizer.bos_token_id]):
        for eos in ([], [tokenizer.eos_token_id]):
            if full == [*bos, *bare, *eos]:
                return bool(bos), bool(eos)
    raise ValueError(f"The tokenizer turns the ids {bare} into {full}; GGUF can only add bos before and eos after.")


def _byte_level_name(spec: dict, source: TokenizerSource) -> str:
    """llama.cpp normalizes nothing; NFC is let pass, with a notice, because the Qwen models use it.

    Of several names that are one the source's is kept.
    """
    normalizer = spec["normalizer"]
    if normalizer not in (None, {"type": "Sequence", "normalizers": []}) and normalizer["type"] != "NFC":
        raise ValueError(f"The tokenizer's normalizer {normalizer} has no counterpart in GGUF.")
    known = by_definition(spec["pre_tokenizer"], ignore_merges=spec["model"]["ignore_merges"])
    return source.pre if source.pre in known.aliases else known.name


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    pre = by_name(vocabulary.pre)
    spec = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": pre.normalizer,
        "pre_tokenizer": definition(pre),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": _ids_without_padding(vocabulary),
            "merges": [line.partition(" ")[::2] for line in vocabulary.merges],
            "ignore_merges": pre.ignore_merges,
        },
    }
    return Tokenizer.from_str(json.dumps(spec))


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    unknown = vocabulary.special_ids.get("unk")
    return tokenizer_of_scores(
        _ids_without_padding(vocabulary),
        vocabulary.scores,
        None if unknown is None else vocabulary.tokens[unknown],
        prefix=vocabulary.adds_space_prefix,
    )


def _ids_without_padding(vocabulary: Vocabulary) -> dict[str, int]:
    """Token -> id, without the rows that only fill up the embedding."""
    return {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if not (kind == TokenType.UNUSED and token == f"[PAD{index}]")
    }
