"""The token that opens a text, for programs that put it there themselves when the tokenizer does: llama.cpp, Ollama."""

from mlx_lm.tokenizer_utils import TokenizerWrapper


def without_bos(text: str, tokenizer: TokenizerWrapper) -> str:
    """`text` without the BOS it begins with, where such a program would put one before it."""
    bos = tokenizer.bos_token
    adds_it = bos and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(bos) if adds_it else text
