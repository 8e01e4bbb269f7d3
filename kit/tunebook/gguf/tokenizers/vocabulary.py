"""A tokenizer as GGUF stores it: the record, read from a file's keys and written to them.

Two kinds are known: byte-level BPE (`gpt2` in GGUF) and the SentencePiece BPE of Llama 2 and Gemma (`llama`). How a
tokenizer.json becomes this record and back is `tokenizer_json.py`'s.
"""

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gguf
from gguf import TokenType

from ..container import shown
from ..typed import count_of, list_of, text_of, truth_of
from .pre_tokenizers import by_name

SPECIAL_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    # Further tokens that end a turn; in a model folder they are the rest of generation_config.json's eos_token_id.
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
# Tokens for filling in the middle and the like: nothing here uses them, and a file keeps those it came with.
_OTHER_KEY = re.compile(r"tokenizer\.ggml\.\w+_token_id")
_TEMPLATE, _NAMED_TEMPLATE = "tokenizer.chat_template", "tokenizer.chat_template."
# A name becomes a file's: no path, nothing hidden, none that Windows keeps for a device.
_TEMPLATE_NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))\w[\w .+-]{0,63}(?<![ .])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What `tokenizer.*` holds. `tokens` and `types` have one entry per row of the embedding."""

    model: str  # "gpt2" or "llama"
    pre: str  # gpt2: the pre-tokenizer's name; llama: "default"
    tokens: list[str]
    types: list[int]
    merges: list[str]  # gpt2 only: "left right", best first
    scores: list[float]  # llama only: higher merges first
    special_ids: dict[str, int]  # "bos", "eos", "unk", "pad", "eot", "eom", as far as there are
    adds_bos: bool
    adds_eos: bool
    adds_space_prefix: bool  # llama only: a space is put before the text
    chat_templates: dict[str, str]  # "default" and any named ones
    other_ids: dict[str, int] = field(default_factory=dict)  # GGUF key -> id, for tokens of no use here

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end a turn, the tokenizer's own eos first."""
        return list(dict.fromkeys(self.special_ids[name] for name in ("eos", "eot", "eom") if name in self.special_ids))


def vocabulary_of_gguf(keys: dict[str, Any]) -> Vocabulary:
    """The vocabulary in a .gguf's keys. Raises ValueError for a tokenizer of another kind, and for one that is torn."""
    model = text_of(keys, "tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise ValueError(f"tokenizer.ggml.model is {shown(model)}; the tokenizers that can be read are gpt2 and llama.")
    tokens = _tokens(keys)
    pre = text_of(keys, "tokenizer.ggml.pre", "default")
    adds_bos = model == "llama" or by_name(pre).adds_bos
    special_ids = {name: _id(keys, key, tokens) for name, key in SPECIAL_KEYS.items() if key in keys}
    others = [key for key in keys if _OTHER_KEY.fullmatch(key) and key not in SPECIAL_KEYS.values()]
    vocabulary = Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        types=list_of(
            keys, "tokenizer.ggml.token_type", int, [int(TokenType.NORMAL)] * len(tokens), length=len(tokens)
        ),
        merges=_merges(keys, set(tokens)) if model == "gpt2" else [],
        scores=_scores(keys, len(tokens)) if model == "llama" else [],
        special_ids=special_ids,
        adds_bos=truth_of(keys, "tokenizer.ggml.add_bos_token", adds_bos),
        adds_eos=truth_of(keys, "tokenizer.ggml.add_eos_token", False),
        adds_space_prefix=truth_of(keys, "tokenizer.ggml.add_space_prefix", model == "llama"),
        chat_templates=_chat_templates(keys),
        other_ids={key: _id(keys, key, tokens) for key in others},
    )
    for name, added in (("bos", vocabulary.adds_bos), ("eos", vocabulary.adds_eos)):
        if added and name not in special_ids:
            raise ValueError(f"This GGUF adds a {name} token to every text and names none ({SPECIAL_KEYS[name]}).")
    return vocabulary


def add_to_gguf(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Put the vocabulary into a file that has no tensors yet."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.adds_space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)
    for name, token_id in vocabulary.special_ids.items():
        writer.add_uint32(SPECIAL_KEYS[name], token_id)
    for key, token_id in vocabulary.other_ids.items():
        writer.add_uint32(key, token_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_templates:
        writer.add_chat_template([{"name": name, "template": text} for name, text in vocabulary.chat_templates.items()])


def _tokens(keys: dict[str, Any]) -> list[str]:
    tokens = [
        token or f"[EMPTY_{index}]"  # as llama.cpp calls them
        for index, token in enumerate(list_of(keys, "tokenizer.ggml.tokens", str, []))
    ]
    if not tokens:
        raise ValueError("This GGUF has no tokens in tokenizer.ggml.tokens.")
    if len(set(tokens)) < len(tokens):
        [(token, times)] = Counter(tokens).most_common(1)
        raise ValueError(f"The token {shown(token)} stands {times} times in tokenizer.ggml.tokens of this GGUF.")
    return tokens


def _id(keys: dict[str, Any], key: str, tokens: list[str]) -> int:
    index = count_of(keys, key, least=0)
    if index >= len(tokens):
        raise ValueError(f"{key} is {index} in this GGUF, which has {len(tokens)} tokens.")
    return index


def _merges(keys: dict[str, Any], known: set[str]) -> list[str]:
    """As stored. Raises ValueError for one whose two parts, or what they make, is no token."""
    merges = list_of(keys, "tokenizer.ggml.merges", str, [])
    for merge in merges:
        left, gap, right = merge.partition(" ")
        if not gap or not {left, right, left + right} <= known:
            raise ValueError(f"The merge {shown(merge)} of this GGUF does not make one of its tokens from two others.")
    return merges


def _scores(keys: dict[str, Any], count: int) -> list[float]:
    scores = [float(score) for score in list_of(keys, "tokenizer.ggml.scores", float, [0.0] * count, length=count)]
    if not all(map(math.isfinite, scores)):
        raise ValueError("tokenizer.ggml.scores of this GGUF holds numbers that are not finite.")
    return scores


def _chat_templates(keys: dict[str, Any]) -> dict[str, str]:
    """By name, "default" first. Raises ValueError for a name that is no plain file name, or two that are one."""
    templates = {"default": text_of(keys, _TEMPLATE)} if _TEMPLATE in keys else {}
    taken = {"default"}
    for key in keys:
        if key.startswith(_NAMED_TEMPLATE):
            name = key.removeprefix(_NAMED_TEMPLATE)
            spelling = unicodedata.normalize("NFKC", name).casefold()  # how a file system may take it
            if not _TEMPLATE_NAME.fullmatch(name) or spelling in taken:
                raise ValueError(
                    f"This GGUF holds a chat template called {shown(name)}, which cannot be the name of a file of its "
                    "own; remove it from the file, or load another."
                )
            taken.add(spelling)
            templates[name] = text_of(keys, key)
    return templates
