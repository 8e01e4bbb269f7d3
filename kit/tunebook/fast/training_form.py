"""The forms a model is run in: every change to its layers that a pass takes, put together once and entered often.

A module goes in; a context comes out within which its layers give the same numbers in less time or memory, and the
sentences about what could not be had so. Generation is left to the module as it stands.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.nn as nn

from ..models.layer_calls import Form
from ..models.neftune import noisy_embeddings
from .activations import lean_activations
from .attention import block_attention
from .forms import Forms, forms_for
from .gated_delta_layers import chunkwise_layers, why_not_chunkwise
from .gradient_checkpointing import recomputed_layers

Change = Callable[[], AbstractContextManager[Any]]


def training_form(
    module: nn.Module,
    forms: Forms | None = None,
    *,
    recomputed: bool,
    noise: float | None = None,
    whole_layers: bool = True,
) -> Form:
    """What a forward and backward pass is taken in; no `forms` are those for this machine.

    `recomputed` is gradient checkpointing: attention's scores and the inside of MLPs are made again and, unless
    `whole_layers` is off, all of a layer is. `noise` is NEFTune's alpha. Raises ValueError for noise on a model whose
    token embedding is not found.
    """
    changes = _changes(module, forms or forms_for(), recomputed=recomputed)
    if recomputed and whole_layers:
        changes.append(partial(recomputed_layers, module))
    if noise:
        changes.append(partial(noisy_embeddings, module, noise))
    return Form(module, changes)


def inference_form(module: nn.Module, forms: Forms | None = None) -> Form:
    """What a loss without a gradient is measured in: with `forms` as one that has a gradient is, and in its time.

    With none, all that upstream can compute stays as upstream has it, for whom no form is proven yet.
    """
    if forms is None:
        return Form(module, [partial(chunkwise_layers, module)])
    # What is made again is made for a gradient; without one, upstream's MLP is fewer of a GPU's kernels.
    return Form(module, _changes(module, replace(forms, mlp="plain") if forms.mlp == "remade" else forms))


def _changes(module: nn.Module, forms: Forms, *, recomputed: bool = False) -> list[Change]:
    return [
        partial(block_attention, module, forms, recomputed=recomputed),
        partial(lean_activations, module, forms, recomputed=recomputed),
        partial(chunkwise_layers, module, forms),
    ]


def form_notices(module: nn.Module) -> list[str]:
    """What of `module` stays as upstream has it, slower than it could be."""
    reason = why_not_chunkwise(module)
    return [] if reason is None else [f"The gated delta layers are trained with a loop over tokens, slowly: {reason}."]
