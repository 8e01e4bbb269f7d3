"""Which of several ways each part of a model is computed in: one record, handed to everything that computes one.

The ways give the same numbers but for rounding. They differ in time and memory, so which is best is a question of the
machine; `FORMS` has what is taken where nothing else is asked for.
"""

from dataclasses import dataclass
from typing import Literal

from ..machine import runtime
from ..machine.runtime import Backend


@dataclass(frozen=True, kw_only=True)
class Forms:
    """How the parts of a forward and backward pass are computed."""

    # The losses of logits: one softmax in float32 for them and their gradient, or MLX's kernel for logits as they are.
    losses: Literal["written out", "fused"]
    logit_bytes: int  # of logits that are made at a time
    logit_rows: int  # the fewest states that are sent through the head together, whatever that takes
    # Attention: in blocks with a gradient written out; in blocks with MLX's own; or as the last, but in one by MLX
    # where a query sees all that comes before it, for a GPU's kernel of that keeps no scores for its gradient.
    attention: Literal["written out", "blocks", "whole"]
    attention_rows: int  # the fewest queries of a block
    # A gated MLP: its product is made again for its gradient from what the curve keeps; or all between its layers is,
    # a GPU's kernel at a time; or all of that is kept.
    mlp: Literal["lean", "remade", "plain"]
    # Of a chunk, where all of an MLP is made again for its gradient. On the CPU the peak of a layer is no lower with
    # fewer than 512: it is then where its attention is. On a GPU it is more than 4 rows of 1,024 or 2 of 2,048 have.
    mlp_tokens: int
    # Adapters: with their scale on the small matrix, in one operation with the layer where types allow; or upstream's.
    lora: Literal["small scale", "plain"]
    norms: Literal["written out", "fused"]  # or MLX's, with what is added to a weight that is not trained added before
    convolutions: Literal["shifted", "plain"]  # short ones of float32: as sums of shifted products, or MLX's own
    delta: Literal["chunks", "kernel"]  # the gated delta rule: a chunk of tokens at a time, or MLX's kernel
    compiled: bool  # the pass, where nothing stands against it and the configuration leaves it open


FORMS: dict[Backend, Forms] = {
    # MLX's CPU build (0.32) has no fused kernels, and is slow at exponentials and at element-wise work.
    "cpu": Forms(
        losses="written out",
        logit_bytes=8 * 2**20,
        logit_rows=16,
        attention="written out",
        attention_rows=64,
        mlp="lean",
        mlp_tokens=512,
        lora="small scale",
        norms="written out",
        convolutions="shifted",
        delta="chunks",
        compiled=False,
    ),
    # A GPU's products go by tiles of 32 to 64 rows (mlx/backend/metal/matmul.cpp, 0.32) and want many of them; every
    # launch takes time. Metal has kernels for causal attention and its gradient since 0.32.4, none with a mask.
    "metal": Forms(
        losses="fused",
        logit_bytes=256 * 2**20,
        logit_rows=512,
        attention="whole",
        attention_rows=1024,
        mlp="remade",
        mlp_tokens=6144,
        lora="plain",
        norms="fused",
        convolutions="plain",
        delta="kernel",
        compiled=True,
    ),
    # cuDNN's gradient of attention takes lengths that are multiples of 128 (mlx/backend/cuda, 0.32), others would keep
    # all scores.
    "cuda": Forms(
        losses="fused",
        logit_bytes=256 * 2**20,
        logit_rows=512,
        attention="blocks",
        attention_rows=256,
        mlp="remade",
        mlp_tokens=6144,
        lora="plain",
        norms="fused",
        convolutions="plain",
        delta="chunks",
        compiled=True,
    ),
}


def forms_for(backend: Backend | None = None) -> Forms:
    """The forms that suit a backend; None is where MLX computes by default."""
    return FORMS[backend or runtime.backend()]
