"""A fresh process that opens a model with transformers and PEFT under torch, and says what loss it gives some tokens.

`python -m tunebook.parity.references.torch_reader QUESTION.json`: the twin of `export/readback/mlx_lm_reader.py`, for
exports that are meant for the other framework. It needs the extra `parity`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ...export.readback.mlx_lm_reader import Question, main
from ...model_files.trusted import openable


def open_model(question: Question) -> tuple[Any, Any]:
    """(model, tokenizer), by transformers and PEFT."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trusts = question.trust_remote_code
    shown = openable(Path(question.model), trust_remote_code=trusts)
    module = AutoModelForCausalLM.from_pretrained(
        shown, dtype=torch.float32, attn_implementation="eager", use_safetensors=True, trust_remote_code=trusts
    ).eval()
    if question.adapter is not None:
        from peft import PeftModel

        adapter = openable(Path(question.adapter), trust_remote_code=trusts)
        module = PeftModel.from_pretrained(module, adapter, use_safetensors=True).eval()
    return module, AutoTokenizer.from_pretrained(shown, trust_remote_code=trusts)


def log_probs(module: Any, tokens: np.ndarray) -> np.ndarray:
    """(T-1,): the log probability of each of tokens[1:] after those before it, in nats."""
    import torch

    with torch.no_grad():
        logits = module(torch.tensor(tokens[None, :-1].astype(np.int64))).logits[0]  # (T-1, V)
    targets = torch.tensor(tokens[1:].astype(np.int64))
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()


if __name__ == "__main__":
    main(open_model, log_probs)
