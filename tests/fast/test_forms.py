"""forms.py: in every machine's forms a pass has the loss and gradients of the plain one, through MLX's own gradients.

The forms of GPUs are computed on the CPU here, in sizes that have each of them cut into several pieces.
"""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map_with_path

from tests.fast.test_gated_mlp import KINDS, kept_by_an_mlp, tuned_model
from tests.makers.arrays import in_numpy
from tests.makers.packed_rows import CARRY_STATE, LENGTHS, opened, packed_batch, rows_of
from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tunebook import FastModel
from tunebook.fast import gated_delta_layers
from tunebook.fast.forms import FORMS
from tunebook.fast.training_form import training_form
from tunebook.machine import runtime
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows
from tunebook.train.passes.compiled import CompiledPass, padded_count

WIDTH = 128
SMALL = {"logit_bytes": 1, "logit_rows": 32, "attention_rows": 24, "mlp_tokens": 200}


def small(backend):
    return replace(FORMS[backend], **SMALL)


def adapted(model, **adapters):
    """With adapters whose B matrices are not zero, in training mode."""
    FastModel.get_peft_model(model, r=4, **adapters)
    mx.random.seed(1)
    model.module.update(
        tree_map_with_path(
            lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
            model.module.trainable_parameters(),
        )
    )
    model.module.train()
    return model


def made(kind, folder):
    """(model, batch) of a kind."""
    if kind in KINDS:
        model = tuned_model(folder, kind)
        model.module.train()
    elif kind == "packed":
        model = opened(folder)
        return model, packed_batch(model)[0]
    elif kind in ("windows", "packed windows"):
        model = opened(folder, "gemma3", sliding_window=12)
        if kind == "packed windows":
            return model, packed_batch(model)[0]
    elif kind == "hybrid":
        folder = tiny_model_folder(folder, model_type="qwen3_5", **CARRY_STATE["qwen3_5"])
        model = adapted(FastModel.from_pretrained(folder)[0])
    else:
        model = adapted(FastModel.from_pretrained(tiny_vision_folder(folder, kind.split()[0]))[0])
        rows = [asked("What is it?", noise_images(1), "a dog"), asked("And this?", noise_images(1), "a brown fox")]
        return model, model.family.collate(encode_rows(rows, model.loaded, max_seq_length=WIDTH).rows, WIDTH + 1)
    return model, model.family.collate(rows_of(LENGTHS), WIDTH)


def taken(model, batch, forms, *, recomputed=False, compiles=False):
    """(nats, gradients by name) of a pass; no `forms`: as MLX and the model's library have it."""
    positions = supervised_positions(batch)
    if forms is None:
        plain = replace(FORMS["metal"], logit_bytes=2**40)  # the kernel for losses alone, of all logits at once
        nats, found = nn.value_and_grad(model.module, summed_loss(model.family, plain))(model.module, batch, positions)
    else:
        step = nn.value_and_grad(model.module, summed_loss(model.family, forms))
        if compiles:
            shape = (*batch["tokens"].shape, padded_count(positions.size))
            step = CompiledPass(model.module, step, {shape})
        with training_form(model.module, forms, recomputed=recomputed):
            nats, found = step(model.module, batch, positions)
    mx.eval(nats, found)
    return nats.item(), {name: in_numpy(array) for name, array in flat(found).items()}


def assert_same(found, wanted):
    enough = 1e-5 if runtime.default_dtype(mx.float32) == mx.float32 else 0.03
    (nats, gradients), (true_nats, true_gradients) = found, wanted
    assert nats == pytest.approx(true_nats, rel=enough)
    assert gradients.keys() == true_gradients.keys()
    whole = np.sqrt(sum((gradient**2).sum() for gradient in true_gradients.values()))
    for name, gradient in gradients.items():
        assert np.linalg.norm(gradient - true_gradients[name]) < enough * whole, name


ALL = [*KINDS, "packed", "windows", "packed windows", "hybrid", "qwen3_vl", "gemma3 with images"]


@pytest.mark.parametrize(
    ("kind", "backend"), [*((kind, "metal") for kind in ALL), ("llama", "cuda"), ("windows", "cuda")]
)
def test_a_pass_in_a_machines_forms_has_the_loss_and_gradients_of_the_plain_one(kind, backend, tmp_path, monkeypatch):
    model, batch = made(kind, tmp_path)
    plain = taken(model, batch, None)
    monkeypatch.setattr(runtime, "backend", lambda: backend)
    for recomputed in (False, True):
        assert_same(taken(model, batch, small(backend), recomputed=recomputed), plain)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("kind", ["llama", "4-bit", "windows", "packed windows", "hybrid"])
def test_compiled_they_have_it_too(kind, recomputed, tmp_path, monkeypatch):
    model, batch = made(kind, tmp_path)
    plain = taken(model, batch, None)
    monkeypatch.setattr(runtime, "backend", lambda: "metal")
    assert_same(taken(model, batch, small("metal"), recomputed=recomputed, compiles=True), plain)


def test_metals_kernel_for_the_delta_rule_is_asked_where_that_is_the_form(tmp_path, monkeypatch):
    model, batch = made("hybrid", tmp_path)
    own, tokens = mx.fast.gated_delta_update, []
    monkeypatch.setattr(mx.fast, "gated_delta_update", lambda q, *rest: tokens.append(q.shape[1]) or own(q, *rest))
    taken(model, batch, small("cpu"))
    assert WIDTH - 1 not in tokens
    taken(model, batch, small("metal"))
    assert tokens.count(WIDTH - 1) == 1  # of two layers one is of this kind


def test_a_kernel_that_answers_otherwise_or_not_at_all_is_left_for_chunks(tmp_path, monkeypatch):
    def failing(*_):
        raise RuntimeError("no such kernel")

    model, batch = made("hybrid", tmp_path)
    plain = taken(model, batch, None)
    own = mx.fast.gated_delta_update
    for kernel in (lambda q, *rest: own(2 * q, *rest), failing):
        monkeypatch.setattr(mx.fast, "gated_delta_update", kernel)
        gated_delta_layers._differs.cache_clear()
        assert_same(taken(model, batch, small("metal")), plain)
    gated_delta_layers._differs.cache_clear()


def test_of_arrays_of_a_remade_mlps_width_two_are_kept():
    wide = 4 * 256 * 4096  # bytes of one: float32, tokens, width
    forms = replace(FORMS["cpu"], mlp="remade")
    assert 1 < kept_by_an_mlp(forms) / wide < 2.4  # MLX frees an array a few operations sooner or later
