"""gated_delta_layers.py: a hybrid model trains as with upstream's loop, without it, and upstream stays as it was."""

import re
import sys
from contextlib import nullcontext

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
from mlx_lm.models import gated_delta, qwen3_5
from mlx_lm.models.cache import make_prompt_cache

from tests.makers.packed_rows import CARRY_STATE, rows_of
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.fast.gated_delta_layers import chunkwise_layers, gated_delta_layers, why_not_chunkwise
from tunebook.memory.probes import layer_costs
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.train.evaluation import score_now
from tunebook.train.packing_check import why_not_packed
from tunebook.train.step import Stepper

pytestmark = pytest.mark.float32

LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
HYBRIDS = {
    "qwen3_5": CARRY_STATE["qwen3_5"],
    "qwen3_next": {
        **LINEAR,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [],
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.25,
        "full_attention_interval": 2,
    },
    "olmo_hybrid": {
        **LINEAR,
        "linear_num_key_heads": 4,
        "linear_allow_neg_eigval": True,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
PER_CHANNEL = {
    "hidden_dim": 64,
    "num_experts": 0,
    "moe_intermediate_size": 32,
    "kv_lora_rank": 16,
    "linear_attn_config": {
        "kda_layers": [1],
        "full_attn_layers": [2],
        "num_heads": 4,
        "head_dim": 16,
        "short_conv_kernel_size": 4,
    },
    "model_max_length": 512,
    "num_experts_per_token": 1,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "mla_use_nope": True,
}
ROWS = rows_of((100, 30, 70))  # one chunk and a part of another, after padding


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each kind of hybrid model."""
    folder = tmp_path_factory.mktemp("hybrid")
    kinds = {**HYBRIDS, "kimi_linear": PER_CHANNEL}
    return {kind: tiny_model_folder(folder / kind, model_type=kind, **own) for kind, own in kinds.items()}


def opened(folder):
    """A model all of whose weights are trained, in training mode."""
    model, _ = FastModel.from_pretrained(folder, full_finetuning=True, max_seq_length=128)
    model.module.train()
    return model


def stepper(model, **options):
    config = TrainingConfig(
        warmup_steps=0, max_steps=2, per_device_train_batch_size=3, gradient_accumulation_steps=1, **options
    )
    return Stepper(model.loaded, config, ROWS, total_steps=2, max_seq_length=128)


@pytest.fixture
def looped(monkeypatch):
    """The number of tokens of each loop that upstream has run."""
    tokens, plain = [], gated_delta.gated_delta_ops

    def loop(q, *rest):
        tokens.append(q.shape[1])
        return plain(q, *rest)

    monkeypatch.setattr(gated_delta, "gated_delta_ops", loop)
    return tokens


def two_steps(model, form):
    """(nats, gradients by name) of each of two steps of plain descent."""
    batch = model.family.collate(ROWS, 128)
    value_and_grad = nn.value_and_grad(model.module, summed_loss(model.family))
    optimizer, found = mlx.optimizers.SGD(1e-3), []
    for _ in range(2):
        with form(model.module):
            nats, gradients = value_and_grad(model.module, batch, supervised_positions(batch))
        optimizer.update(model.module, gradients)
        found.append((nats.item(), {name: np.array(array) for name, array in flat(gradients).items()}))
    return found


@pytest.mark.parametrize("kind", HYBRIDS)
def test_two_steps_have_the_losses_and_gradients_of_upstreams_loop(folders, kind):
    chunks = two_steps(opened(folders[kind]), chunkwise_layers)
    loop = two_steps(opened(folders[kind]), lambda _: nullcontext())
    assert loop[0][0] != pytest.approx(loop[1][0], rel=1e-3)  # a step changed something
    for (nats, gradients), (true_nats, true_gradients) in zip(chunks, loop, strict=True):
        assert nats == pytest.approx(true_nats, rel=1e-5)
        assert any("A_log" in name for name in gradients)
        for name, wanted in true_gradients.items():
            assert np.abs(gradients[name] - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max()), name


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"compile": True}])
def test_a_run_takes_its_steps_without_the_loop(folders, looped, options):
    model, other = (opened(folders["qwen3_5"]) for _ in "ab")
    looped.clear()
    nats, gradients = two_steps(other, lambda _: nullcontext())[0]
    assert looped == [127, 127]
    looped.clear()
    run = stepper(model, **options)
    run.begin(1)
    run.add(ROWS, alone=True)
    outcome = run.finish()
    assert run.notices == []
    assert looped == []
    assert outcome.loss == pytest.approx(nats / outcome.tokens, rel=1e-5)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values())) / outcome.tokens
    assert outcome.grad_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.cpu
def test_held_out_rows_are_measured_without_the_loop(folders, looped):
    model = opened(folders["qwen3_5"])
    looped.clear()
    model.module.eval()
    batch = model.family.collate(ROWS, 128)
    nats = summed_loss(model.family)(model.module, batch, supervised_positions(batch)).item()
    assert looped == [127]
    found = score_now(model.module, model.family, ROWS, batch_size=2, max_seq_length=128)
    assert looped == [127]
    assert found.loss == pytest.approx(nats / found.tokens, rel=1e-5)


def test_what_a_run_will_need_is_probed_without_the_loop(folders, looped):
    model = opened(folders["qwen3_5"])
    looped.clear()
    assert layer_costs(model.family, model.module, 128, recomputed=False)
    assert looped == []


def test_with_a_cache_upstream_answers_bit_for_bit(folders):
    module = opened(folders["qwen3_5"]).module
    tokens = mx.array(ROWS[0].tokens)[None]

    def prompt_and_a_token():
        cache = make_prompt_cache(module)
        logits = module(tokens, cache=cache), module(tokens[:, :1], cache=cache)
        return [np.array(x) for x in logits]

    plain = prompt_and_a_token()
    with chunkwise_layers(module):
        within = prompt_and_a_token()
    assert all(np.array_equal(x, y) for x, y in zip(within, plain, strict=True))


def test_other_models_and_upstreams_modules_stay_as_they_are(folders):
    names, call = dict(vars(qwen3_5)), qwen3_5.GatedDeltaNet.__call__
    ours, other = (opened(folders["qwen3_5"]).module for _ in "ab")
    [layer], [another] = gated_delta_layers(ours), gated_delta_layers(other)
    with chunkwise_layers(ours):
        assert type(layer) is not qwen3_5.GatedDeltaNet
        assert type(another) is qwen3_5.GatedDeltaNet
        assert dict(vars(qwen3_5)) == names
        assert qwen3_5.GatedDeltaNet.__call__ is call
    assert type(layer) is qwen3_5.GatedDeltaNet


def test_packing_is_refused_in_this_form_too(folders):
    model = opened(folders["qwen3_5"])
    with chunkwise_layers(model.module):
        assert "keep state of their own" in (why_not_packed(model.family, model.module, max_seq_length=128) or "")


def test_layers_that_decay_channel_by_channel_keep_the_loop_and_the_run_says_so(folders, looped):
    run = stepper(opened(folders["kimi_linear"]))
    assert run.notices == [
        "The gated delta layers are trained with a loop over tokens, slowly: their decay is not one number for each "
        "head, and no other is known here."
    ]
    looped.clear()
    run.begin(1)
    run.add(ROWS, alone=True)
    assert looped == [127]


class Layer(nn.Module):
    """Calls whatever this module knows as `gated_delta_update`, as mlx-lm's layers do in theirs."""

    def __init__(self):
        super().__init__()
        self.A_log, self.dt_bias = mx.zeros(2), mx.ones(2)

    def __call__(self, x, mask=None, cache=None):
        qk, v, ab = x[:, :, :1, :8], x[:, :, :2, 8:], x[:, :, :2, 0]
        update = gated_delta_update  # noqa: F821 - every test below puts its own there
        return update(qk, qk, v, ab, ab, self.A_log, self.dt_bias, None, mask, use_kernel=not self.training)[0]


def another_rule(q, k, v, a, b, A_log, dt_bias, state=None, mask=None, *, use_kernel=True):
    """As if a release of mlx-lm wrote twice as much."""
    y, state = gated_delta.gated_delta_update(q, k, 2 * v, a, b, A_log, dt_bias, state, mask, use_kernel=use_kernel)
    return y, state


def other_arguments(q, k, v, gates, A_log, dt_bias, use_kernel=True):
    """As if a release of mlx-lm took both gates in one array."""
    return gated_delta.gated_delta_update(q, k, v, gates, gates, A_log, dt_bias, use_kernel=use_kernel)


def one_option_more(q, k, v, a, b, A_log, dt_bias, state=None, mask=None, use_kernel=True, cache=None, steps=1):
    """As in mlx-vlm."""
    assert cache is None
    return gated_delta.gated_delta_update(q, k, v, a, b, A_log, dt_bias, state, mask, use_kernel=use_kernel)


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (gated_delta.gated_delta_update, None),
        (one_option_more, None),
        (another_rule, "differ from their loop on this machine"),
        (other_arguments, r"takes \(q, k, v, gates, A_log, dt_bias, use_kernel\)"),
    ],
)
def test_the_form_is_used_where_it_was_proven_the_same_and_else_the_loop(monkeypatch, update, reason):
    monkeypatch.setattr(sys.modules[__name__], "gated_delta_update", update, raising=False)
    layer = Layer()
    found = why_not_chunkwise(layer)
    with chunkwise_layers(layer):
        is_varied = type(layer) is not Layer
    if reason is None:
        assert (found, is_varied) == (None, True)
    else:
        assert re.search(reason, found or "")
        assert not is_varied


def test_a_mask_leaves_a_row_to_the_loop(monkeypatch, looped):
    monkeypatch.setattr(sys.modules[__name__], "gated_delta_update", gated_delta.gated_delta_update, raising=False)
    layer, x = Layer(), mx.random.normal((2, 9, 2, 16), key=mx.random.key(0)) / 3
    mask = mx.arange(9)[None] < mx.array([[9], [5]])
    plain = layer(x, mask)
    looped.clear()
    with chunkwise_layers(layer):
        assert mx.array_equal(layer(x, mask), plain)
    assert looped == [9]
