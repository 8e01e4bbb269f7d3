"""The same model under torch: transformers opens the folder, PEFT adds the adapters, autograd finds the gradients.

Rows go through one at a time and unpadded, so nothing here can be wrong about padding. Arrays come and go as NumPy, by
our names and in our layout. Needs the extra `parity`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ...config import LoraConfig, TrainingConfig
from ...data.encoded import Encoded
from ...model_files.trusted import openable
from ...tokens.batch_order import total_steps, windows
from .torch_optim import Arrays, Reference, clip, rates

SMALL = 20_000_000  # parameters

NAMES = {
    "lora_A.default.weight": "lora_a",
    "lora_B.default.weight": "lora_b",
    "lora_magnitude_vector.default.weight": "m",
}


def open_with_adapters(folder: Path, lora: LoraConfig, *, trust_remote_code: bool = False) -> peft.PeftModel:
    """The model in float32, with the adapters PEFT makes of the same settings; `disable_adapter()` takes them off."""
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(
            openable(folder, trust_remote_code=trust_remote_code),
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    layers = base.config.get_text_config().num_hidden_layers
    last = min(lora.finetune_last_n_layers or layers, layers)
    fewer = last < layers
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=cast(int, lora.lora_alpha),  # PEFT only multiplies by it
        lora_dropout=0.0,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        target_modules=list(lora.target_modules) if lora.target_modules else _linear(base) if fewer else "all-linear",
        layers_to_transform=list(range(layers - last, layers)) if fewer else None,
    )
    with quiet():
        return cast(peft.PeftModel, peft.get_peft_model(base, config)).eval()


def adapters(module: peft.PeftModel) -> dict[str, torch.nn.Parameter]:
    """The trainable parameters by our names; A and B are the transposes of ours."""
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            ours = name.removeprefix("base_model.model.")
            for theirs, leaf in NAMES.items():
                ours = ours.replace(theirs, leaf)
            found[ours] = parameter
    return found


def put(module: peft.PeftModel, arrays: Arrays) -> None:
    """Set every adapter to the one of ours of its name."""
    for name, parameter in adapters(module).items():
        array = arrays[name].T.copy() if name.endswith((".lora_a", ".lora_b")) else arrays[name]
        parameter.data = torch.tensor(array)


def logits(module: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """(T, V) of tokens (T,)."""
    with torch.no_grad():
        return module(_ids(tokens)).logits[0].float().numpy()


def layer_states(module: peft.PeftModel, tokens: np.ndarray) -> list[np.ndarray]:
    """(T, D) of tokens (T,), behind each decoder layer."""
    states: list[np.ndarray] = []

    def record(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        states.append(state.reshape(-1, state.shape[-1]).numpy())

    layers = cast(Any, module.get_base_model()).get_decoder().layers
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        logits(module, tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return states


def loss_of(module: torch.nn.Module, rows: Sequence[Encoded]) -> torch.Tensor:
    """Nats per supervised token over all of `rows` together, as transformers' Trainer has it since 4.46."""
    nats, tokens = torch.zeros(()), 0
    for row in rows:
        supervised = torch.tensor(np.flatnonzero(row.loss_mask[1:]))
        predicted = module(_ids(row.tokens)).logits[0, supervised].float()
        nats = nats + torch.nn.functional.cross_entropy(predicted, _ids(row.tokens)[0, 1:][supervised], reduction="sum")
        tokens += row.supervised_tokens
    return nats / tokens


def gradients(module: peft.PeftModel, rows: Sequence[Encoded]) -> tuple[float, Arrays]:
    """(loss, its gradient for every adapter, in our layout)."""
    module.zero_grad()
    loss = loss_of(module, rows)
    loss.backward()
    found = gradients_held(module)
    module.zero_grad()
    return loss.item(), found


def gradients_held(module: peft.PeftModel) -> Arrays:
    """What a backward pass left for every adapter, in our layout."""
    found = {}
    for name, parameter in adapters(module).items():
        assert parameter.grad is not None
        array = parameter.grad.numpy()
        found[name] = array.T.copy() if name.endswith((".lora_a", ".lora_b")) else array.copy()
    return found


def losses(
    module: peft.PeftModel, rows: Sequence[Encoded], config: TrainingConfig, *, steps: int | None = None
) -> Iterator[float]:
    """The loss of each step, or of the first `steps`, of a run of `config` over `rows`; trains in place."""
    named = adapters(module)
    reference, total = Reference(named, config), total_steps(len(rows), config)
    order = windows([len(row.tokens) for row in rows], config)
    for window, rate in islice(zip(order, rates(config, total), strict=False), steps):
        loss = loss_of(module, [rows[index] for batch in window for index in batch])
        loss.backward()
        clip(list(named.values()), config)
        reference.step(rate)
        module.zero_grad()
        yield loss.item()


@contextmanager
def threads_for(parameters: int) -> Iterator[None]:
    """One thread until the block ends, for a model of so few `parameters` that torch's would wait for one another."""
    threads = torch.get_num_threads()
    if parameters < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def in_dtype(module: peft.PeftModel, dtype: torch.dtype) -> Iterator[None]:
    """The module in another float type until the block ends; its own numbers come back as they were."""
    kept = {name: parameter.data for name, parameter in module.named_parameters()}
    try:
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
        yield
    finally:
        for name, parameter in module.named_parameters():
            parameter.data = kept[name]


@contextmanager
def with_weights(module: peft.PeftModel, change: Callable[[str, np.ndarray], np.ndarray | None]) -> Iterator[None]:
    """The base weights as `change(name, array)` has them until the block ends; None leaves one alone."""
    kept = {}
    try:
        for name, parameter in module.named_parameters():
            changed = change(_base_name(name), parameter.detach().numpy())
            if changed is not None:
                kept[name] = parameter.data
                parameter.data = torch.tensor(changed)
        yield
    finally:
        for name, parameter in module.named_parameters():
            if name in kept:
                parameter.data = kept[name]


@contextmanager
def quiet() -> Iterator[None]:
    """No bar of transformers' while a model is opened, and no warning that is between PEFT and transformers."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 by an old name.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
            yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _linear(base: torch.nn.Module) -> list[str]:
    """What PEFT's "all-linear" stands for, which it does not take together with a choice of layers."""
    names = [name for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear) and ".layers." in name]
    return sorted({name.rpartition(".")[2] for name in names})


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _ids(tokens: np.ndarray) -> torch.Tensor:
    return torch.tensor(tokens[None].astype(np.int64))
