"""What opens a text where a program puts it there itself: a token (llama.cpp, Ollama), and in llama.cpp a space."""

import json
import re

from mlx_lm.tokenizer_utils import TokenizerWrapper


def without_bos(text: str, tokenizer: TokenizerWrapper) -> str:
    """`text` without the BOS it begins with, where such a program would put one before it."""
    bos = tokenizer.bos_token
    adds_it = bos and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(bos) if adds_it else text


def without_opening_spaces(text: str, tokenizer: TokenizerWrapper) -> str:
    """`text` without a space at its beginning and after each special token, where llama.cpp always puts one.

    transformers' Metaspace puts one only where there is none yet; of such a text llama.cpp then makes the same ids.
    """
    step = tokenizer.backend_tokenizer.pre_tokenizer
    if step is None or json.loads(step.__getstate__()).get("prepend_scheme") not in ("always", "first"):
        return text
    special = "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
    return re.sub(f"(^|{special}) (?=.)", r"\1", text, flags=re.DOTALL)
