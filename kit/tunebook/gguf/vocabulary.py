"""A tokenizer as GGUF stores it: the record, read from a file's keys and written to them.

Two kinds are known: byte-level BPE (`gpt2` in GGUF) and the SentencePiece BPE of Llama 2 and Gemma (`llama`). How a
tokenizer.json becomes this record and back is `tokenizer_json.py`'s.
"""

from dataclasses import dataclass

import gguf
from gguf import TokenType

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

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end a turn, the tokenizer's own eos first."""
        return list(dict.fromkeys(self.special_ids[name] for name in ("eos", "eot", "eom") if name in self.special_ids))


def vocabulary_of_gguf(keys: dict) -> Vocabulary:
    """The vocabulary in a .gguf's keys. Raises ValueError for a tokenizer of another kind."""
    model = keys.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise ValueError(f"tokenizer.ggml.model is {model!r}; the tokenizers that can be read are gpt2 and llama.")
    tokens = keys["tokenizer.ggml.tokens"]
    pre = keys.get("tokenizer.ggml.pre", "default")
    adds_bos = model == "llama" or by_name(pre).adds_bos
    templates = {"default": keys["tokenizer.chat_template"]} if "tokenizer.chat_template" in keys else {}
    named = "tokenizer.chat_template."
    templates |= {key.removeprefix(named): text for key, text in keys.items() if key.startswith(named)}
    return Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        types=keys.get("tokenizer.ggml.token_type", [int(TokenType.NORMAL)] * len(tokens)),
        merges=keys.get("tokenizer.ggml.merges", []),
        scores=keys.get("tokenizer.ggml.scores", []),
        special_ids={name: int(keys[key]) for name, key in SPECIAL_KEYS.items() if key in keys},
        adds_bos=keys.get("tokenizer.ggml.add_bos_token", adds_bos),
        adds_eos=keys.get("tokenizer.ggml.add_eos_token", False),
        adds_space_prefix=keys.get("tokenizer.ggml.add_space_prefix", model == "llama"),
        chat_templates=templates,
    )


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
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_templates:
        writer.add_chat_template([{"name": name, "template": text} for name, text in vocabulary.chat_templates.items()])
