"""A fresh process that opens a model with transformers and PEFT under torch, and says what loss it gives some tokens.

`python -m tunebook.parity.reader QUESTION.json`: the twin of `tunebook.export.reader`, for exports that are meant for
the other framework. It needs the extra `parity`.
"""

from typing import Any

import numpy as np

from ..export.reader import Question, main


def _open(question: Question) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(
        question.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if question.adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, question.adapter).eval()
    return module, AutoTokenizer.from_pretrained(question.model)


def _log_probs(module: Any, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        logits = module(torch.tensor(tokens[None, :-1].astype(np.int64))).logits[0]  # (T-1, V)
    targets = torch.tensor(tokens[1:].astype(np.int64))
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()


if __name__ == "__main__":
    main(_open, _log_probs)
