"""A fresh process that opens a model with transformers and PEFT under torch, and says what loss it gives some tokens.

`python -m tunebook.parity.reader MODEL ROWS.npz [--adapter FOLDER]`: the twin of `tunebook.export.reader`, for exports
that are meant for the other framework. It needs the extra `parity`.
"""

import numpy as np

from ..export.reader import answer


def measure(model: str, adapter: str | None, rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """(nats per supervised token, supervised tokens) of rows of (T,) token ids and (T,) loss masks, one at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    if adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, adapter).eval()
    nats, count = 0.0, 0
    with torch.no_grad():
        for tokens, mask in rows:
            logits = module(torch.tensor(tokens[None, :-1].astype(np.int64))).logits[0]  # (T-1, V)
            targets = torch.tensor(tokens[1:].astype(np.int64))
            each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")  # (T-1,)
            nats += float((each * torch.tensor(mask[1:])).sum())
            count += int(mask[1:].sum())
    return nats / count, count


if __name__ == "__main__":
    answer(measure)
