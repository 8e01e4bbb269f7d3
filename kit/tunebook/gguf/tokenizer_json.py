"""tokenizer.json and its companions <-> the `Vocabulary` that GGUF stores.

A tokenizer GGUF cannot express (WordPiece, Unigram, a normalizer that rewrites text, an unknown pre-tokenizer) is
refused, because llama.cpp would cut the same text differently and say nothing.
"""

import json
from pathlib import Path

from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..trusted import openable
from .pre_tokenizers import by_definition, by_name, definition
from .sentencepiece import (
    adds_space_prefix,
    mark_bytes_and_unknown,
    scores_of_merges,
    tokenizer_of_scores,
    unlisted_joins,
)
from .vocabulary import Vocabulary

_NAMED = ("bos", "eos", "unk", "pad")  # the special tokens tokenizer_config.json names, as `bos_token` and so on


def vocabulary_of_folder(folder: Path, *, rows: int, end_ids: list[int]) -> tuple[Vocabulary, list[str]]:
    """The tokenizer transformers opens in `folder`, for an embedding of `rows` rows, and what GGUF cannot say of it.

    `end_ids` are the tokens that config.json and generation_config.json end on. Raises ValueError for a tokenizer of
    another kind.
    """
    shown = openable(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(shown, local_files_only=True, trust_remote_code=False)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    if model["type"] != "BPE":
        raise ValueError(f"The tokenizer's model is {model['type']}; only BPE can be written to GGUF.")
    tokens, types = _tokens_and_types(spec, rows)
    special_ids = _special_ids(tokenizer, end_ids)
    adds_bos, adds_eos = _ends_added(tokenizer)
    templates = tokenizer.chat_template or {}
    is_byte_level = not model["byte_fallback"]
    if not is_byte_level:
        mark_bytes_and_unknown(tokens, types, model["unk_token"])
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    vocabulary = Vocabulary(
        model="gpt2" if is_byte_level else "llama",
        pre=_byte_level_name(spec) if is_byte_level else "default",
        tokens=tokens,
        types=types,
        merges=[" ".join(merge) for merge in merges] if is_byte_level else [],
        scores=[] if is_byte_level else scores_of_merges(tokens, merges),
        special_ids={name: index for name, index in special_ids.items() if index < rows},
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        adds_space_prefix=False if is_byte_level else adds_space_prefix(spec),
        chat_templates={"default": templates} if isinstance(templates, str) else templates,
    )
    return vocabulary, _left_unsaid(spec, vocabulary, end_ids)


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
    files = {"tokenizer.json": tokenizer.to_str(pretty=True), "tokenizer_config.json": json.dumps(config, indent=2)}
    for name, text in vocabulary.chat_templates.items():
        files["chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"] = text
    return files


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
    if vocabulary.model == "llama":
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]
        if joins := unlisted_joins(vocabulary.tokens, vocabulary.types, merges):
            notices.append(f"llama.cpp may join {joins} pairs of tokens this tokenizer leaves apart.")
    if vocabulary.model == "gpt2" and (caveat := by_name(vocabulary.pre).caveat):
        notices.append(caveat)
    if vocabulary.model == "llama" and (spec["pre_tokenizer"] or {}).get("prepend_scheme") == "first":
        notices.append("llama.cpp puts a space after every special token, this tokenizer only before the first word.")
    return notices


def _ends_added(tokenizer: PreTrainedTokenizerFast) -> tuple[bool, bool]:
    """Whether it puts bos before and eos after a text. Raises ValueError if it adds anything else."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for bos in ([], [tokenizer.bos_token_id]):
        for eos in ([], [tokenizer.eos_token_id]):
            if full == [*bos, *bare, *eos]:
                return bool(bos), bool(eos)
    raise ValueError(f"The tokenizer turns the ids {bare} into {full}; GGUF can only add bos before and eos after.")


def _byte_level_name(spec: dict) -> str:
    """llama.cpp normalizes nothing; NFC is let pass, with a notice, because the Qwen models use it."""
    normalizer = spec["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC":
        raise ValueError(f"The tokenizer's normalizer {normalizer} has no counterpart in GGUF.")
    return by_definition(spec["pre_tokenizer"], ignore_merges=spec["model"]["ignore_merges"]).name


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
            "merges": [line.split(" ") for line in vocabulary.merges],
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
