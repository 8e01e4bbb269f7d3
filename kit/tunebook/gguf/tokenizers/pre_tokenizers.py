"""Which `tokenizer.ggml.pre` stands for which pre-tokenizer of tokenizer.json; read both ways.

llama.cpp knows its pre-tokenizers by name (src/llama-vocab.cpp), tokenizer.json spells them out. The name is found from
the spelling; what has no name here is refused, because a wrong name splits some texts differently and says nothing.
"""

from dataclasses import dataclass

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_BY_CASE = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ENDING"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*ENDING"
    r"|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _BY_CASE.replace("ENDING", "").replace("DIGITS", "")
_GPT4O = _BY_CASE.replace("ENDING", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("DIGITS", "{1,3}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)


@dataclass(frozen=True)
class PreTokenizer:
    """One of llama.cpp's byte-level pre-tokenizers."""

    name: str  # tokenizer.ggml.pre
    steps: tuple[dict, ...]  # as in tokenizer.json, before the final byte-level step
    splits_words: bool  # the byte-level step applies GPT-2's own split as well
    ignore_merges: bool = False  # a piece that is a whole token is taken as it is
    adds_bos: bool = False  # what llama.cpp does when the file does not say
    normalizer: dict | None = None  # of the models that use this name; llama.cpp itself normalizes nothing
    aliases: tuple[str, ...] = ()  # other names llama.cpp treats alike
    caveat: str | None = None  # where llama.cpp's rule of this name is not quite the tokenizer's, in a sentence


def _split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


# llama.cpp's regular expressions know no cases beyond a-z and take no marks for letters (src/llama-vocab.cpp, v0.5.0).
_NO_CASES = (
    "llama.cpp cuts words with accented letters or combining marks (as in Hindi, Thai or Arabic) otherwise than this "
    "tokenizer."
)
_DIGITS = {"type": "Digits", "individual_digits": True}

PRE_TOKENIZERS = (
    PreTokenizer("gpt-2", (), splits_words=True, aliases=("phi-2", "exaone4")),
    PreTokenizer("smollm", (_DIGITS,), splits_words=True, aliases=("starcoder", "refact", "command-r", "codeshell")),
    PreTokenizer(
        "qwen2",
        (_split(_QWEN2),),
        splits_words=False,
        normalizer={"type": "NFC"},
        caveat="llama.cpp leaves letters with separate accents as they are, this tokenizer joins the two (NFC) first.",
    ),
    PreTokenizer(
        "llama-bpe",
        (_split(_LLAMA3),),
        splits_words=False,
        ignore_merges=True,
        adds_bos=True,
        aliases=("llama3", "llama-v3", "falcon3"),
    ),
    PreTokenizer("smaug-bpe", (_split(_LLAMA3),), splits_words=False, aliases=("dbrx",)),
    PreTokenizer("tekken", (_split(_TEKKEN),), splits_words=False, ignore_merges=True, adds_bos=True, caveat=_NO_CASES),
    PreTokenizer("gpt-4o", (_split(_GPT4O),), splits_words=False, aliases=("llama4",), caveat=_NO_CASES),
    PreTokenizer(
        "deepseek-v3", tuple(map(_split, _DEEPSEEK3)), splits_words=False, aliases=("hunyuan-dense", "joyai-llm")
    ),
)


def by_name(name: str) -> PreTokenizer:
    """The pre-tokenizer a GGUF names. Raises ValueError with the known names."""
    for known in PRE_TOKENIZERS:
        if name == known.name or name in known.aliases:
            return known
    names = ", ".join(known.name for known in PRE_TOKENIZERS)
    raise ValueError(f"tokenizer.ggml.pre is {name!r}; the pre-tokenizers that can be read are {names}.")


def by_definition(pre_tokenizer: dict | None, *, ignore_merges: bool) -> PreTokenizer:
    """The pre-tokenizer a tokenizer.json spells out; one with `ignore_merges` otherwise only where there is no better.

    Raises ValueError, with the spelling, if it has no name here.
    """
    steps, splits_words = _steps(pre_tokenizer)
    alike = [known for known in PRE_TOKENIZERS if (known.steps, known.splits_words) == (steps, splits_words)]
    if alike:
        return next((known for known in alike if known.ignore_merges == ignore_merges), alike[0])
    names = ", ".join(known.name for known in PRE_TOKENIZERS)
    raise ValueError(
        f"The tokenizer's way of splitting text has no name in GGUF ({pre_tokenizer}, ignore_merges={ignore_merges}); "
        f"those that can be written are {names}."
    )


def definition(known: PreTokenizer) -> dict:
    """The `pre_tokenizer` entry of tokenizer.json."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": known.splits_words,
    }
    return {"type": "Sequence", "pretokenizers": [*known.steps, byte_level]}


def _steps(pre_tokenizer: dict | None) -> tuple[tuple[dict, ...] | None, bool]:
    """The steps before a final byte-level one, and whether that one splits; None where there is no such last step."""
    if pre_tokenizer is None:
        return None, False
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *before, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None, False
    return tuple(before), last["use_regex"]
