"""tokens/packing.py: no document is lost, and each trains as it does alone; a model with which it would not is refused.

The judge of the losses and gradients is the plain one: every document by itself through the whole model, all logits.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map_with_path

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.data.encoded import Encoded
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.packing import documents, fullness, pack, packing_notice
from tunebook.train.compiled import CompiledPass, padded_count
from tunebook.train.packing_check import why_not_packed
from tunebook.train.step import Stepper

ROW = 64  # tokens
LENGTHS = (7, 25, 18, 40, 3, 12, 33, 50)  # some longer than gemma3's sliding window of 16

# Scales its logits, so that trunk and head are not apart, and mixes sliding attention with another.
COHERE2 = {"model_type": "cohere2", "num_hidden_layers": 4, "sliding_window": 16, "sliding_window_pattern": 2}
CARRY_STATE = {
    "lfm2": {
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1],
    },
    "mamba": {"state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4},
    "qwen3_5": {
        "text_config": {
            "model_type": "qwen3_5_text",
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 512,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "full_attention_interval": 2,
        }
    },
}
GPT2 = {"n_ctx": 512, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512, "layer_norm_epsilon": 1e-5}
# Scales its queries by their position in the row, from the 128th on.
MINISTRAL3 = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "llama_4_scaling_beta": 0.5,
        "original_max_position_embeddings": 128,
    }
}


def rows_of(lengths, seed=0):
    """Documents of random tokens, about two in three of them supervised."""
    random = np.random.default_rng(seed)
    return [
        Encoded(tokens=random.integers(1, 200, size, dtype=np.int32), loss_mask=random.random(size) < 0.67, cut=1)
        for size in lengths
    ]


def opened(folder, architecture="llama", *, load_in_4bit=False, adapters=True, **overrides):
    """A tiny model in training mode, with adapters that are not zero."""
    folder = tiny_model_folder(folder / "model", architecture, **overrides)
    model, _ = FastModel.from_pretrained(folder, load_in_4bit=load_in_4bit, full_finetuning=not adapters)
    if adapters:
        FastModel.get_peft_model(model, r=4, lora_alpha=8)
        mx.random.seed(1)
        model.module.update(
            tree_map_with_path(
                lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
                model.module.trainable_parameters(),
            )
        )
    model.module.train()
    return model


def plain_nats(module, rows):
    """Every row by itself; nothing is packed, padded or left out of the logits."""
    total = mx.array(0.0)
    for row in rows:
        logits = module(mx.array(row.tokens)[None, :-1])[0]
        nats = nn.losses.cross_entropy(logits, mx.array(row.tokens[1:]))
        total += (nats * mx.array(row.loss_mask[1:])).sum()
    return total


def means(module, loss, *inputs):
    """(loss, gradients by name), per supervised token of `rows_of(LENGTHS)`."""
    tokens = sum(row.supervised_tokens for row in rows_of(LENGTHS))
    nats, gradients = nn.value_and_grad(module, loss)(module, *inputs)
    mx.eval(nats, gradients)
    return nats.item() / tokens, {name: np.array(array) / tokens for name, array in flat(gradients).items()}


def packed_batch(model):
    """The documents in three rows of unequal length, one of which is a document alone."""
    lone, *others = rows_of(LENGTHS)
    packed = [*pack(others, ROW * 2, seed=0), lone]
    assert sorted(documents(row) for row in packed) == [1, 3, 4]
    batch = model.family.collate(packed, ROW * 2)
    return batch, supervised_positions(batch)


def agree(found, wanted):
    (loss, gradients), (true_loss, true_gradients) = found, wanted
    assert gradients.keys() == true_gradients.keys()
    return abs(loss - true_loss) < 1e-5 and all(
        np.allclose(gradients[name], true_gradients[name], rtol=0, atol=1e-5) for name in gradients
    )


@pytest.mark.parametrize(
    "settings",
    [
        *({"architecture": name} for name in ("llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3")),
        {"architecture": "llama", "adapters": False},
        {"architecture": "llama", "load_in_4bit": True},
        {"architecture": "gemma3", "load_in_4bit": True},
        COHERE2,
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_packed_documents_have_the_loss_and_gradients_they_have_alone(tmp_path, settings, recomputed):
    model = opened(tmp_path, **settings)
    alone = means(model.module, plain_nats, rows_of(LENGTHS))
    if recomputed:
        with recomputed_layers(model.module):
            packed = means(model.module, summed_loss(model.family), *packed_batch(model))
    else:
        packed = means(model.module, summed_loss(model.family), *packed_batch(model))
    assert agree(packed, alone)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_documents_put_together_without_segments_have_another_loss(tmp_path, architecture):
    model = opened(tmp_path, architecture)
    alone = means(model.module, plain_nats, rows_of(LENGTHS))
    batch, positions = packed_batch(model)
    del batch["segments"]
    together = means(model.module, summed_loss(model.family), batch, positions)
    assert abs(together[0] - alone[0]) > 1e-3
    assert not agree(together, alone)


def test_recomputing_layers_of_packed_rows_peaks_lower(tmp_path):
    model = opened(tmp_path, num_hidden_layers=12)
    batch = model.family.collate(pack(rows_of([50, 60, 70, 20, 56]), 128, seed=0), 128)

    def peak():
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        means(model.module, summed_loss(model.family), batch, supervised_positions(batch)[-8:])
        return mx.get_peak_memory() - before

    plain = peak()
    with recomputed_layers(model.module):
        assert peak() < 0.5 * plain


def test_a_compiled_pass_takes_packed_and_other_batches_in_turn(tmp_path):
    model = opened(tmp_path)
    batch, positions = packed_batch(model)
    plain = nn.value_and_grad(model.module, summed_loss(model.family))
    fast = CompiledPass(model.module, plain, {(*batch["tokens"].shape, padded_count(positions.size))})
    unpacked = {name: batch[name] for name in ("tokens", "loss_mask")}
    for some in (batch, unpacked, batch):
        (nats, gradients), (true_nats, true_gradients) = (run(model.module, some, positions) for run in (fast, plain))
        assert nats.item() == pytest.approx(true_nats.item(), rel=1e-5)
        wanted = flat(true_gradients)
        assert all(mx.allclose(array, wanted[name], atol=1e-4).item() for name, array in flat(gradients).items())
    assert len(fast.compiled) == 1


def test_steps_over_packed_rows_are_the_steps_over_the_documents(tmp_path):
    def outcomes(rows, folder):
        model = opened(tmp_path / folder)
        config = TrainingConfig(learning_rate=1e-2, warmup_steps=0)
        stepper = Stepper(model.loaded, config, rows, total_steps=4, max_seq_length=ROW)
        found = []
        for step in (1, 2, 3):
            stepper.begin(step)
            for start in range(0, len(rows), 2):
                stepper.add(rows[start : start + 2], alone=False)
            outcome = stepper.finish()
            found += [outcome.loss, outcome.grad_norm, outcome.tokens]
        return found

    packed = outcomes(pack(rows_of(LENGTHS), ROW, seed=0), "packed")
    assert packed == pytest.approx(outcomes(rows_of(LENGTHS), "alone"), rel=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(1, ROW), min_size=1, max_size=60), st.integers(0, 9))
def test_every_document_comes_back_whole_and_once_and_no_row_is_too_long(lengths, seed):
    rows = rows_of(lengths)
    packed = pack(rows, ROW, seed=seed)
    assert all(len(row.tokens) == len(row.loss_mask) <= ROW for row in packed)
    found = []
    for row in packed:
        segments = np.zeros(len(row.tokens), np.int32) if row.segments is None else row.segments
        assert segments.tolist() == sorted(segments)
        assert documents(row) == len(set(segments.tolist()))
        found += [
            (row.tokens[segments == number].tolist(), row.loss_mask[segments == number][1:].tolist())
            for number in range(documents(row))
        ]
    assert sorted(found) == sorted((row.tokens.tolist(), row.loss_mask[1:].tolist()) for row in rows)
    assert sum(row.supervised_tokens for row in packed) == sum(row.supervised_tokens for row in rows)
    assert sum(row.cut for row in packed) == len(rows)


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(1, ROW - 1), max_size=8), min_size=1, max_size=25), st.integers(0, 9))
def test_there_are_at_most_eleven_ninths_of_the_fewest_rows_and_four_more(cuts, seed):
    """The documents are full rows cut in pieces, so the fewest rows are known."""
    lengths = [int(length) for places in cuts for length in np.diff([0, *sorted(places), ROW])]
    assert len(cuts) <= len(pack(rows_of(lengths), ROW, seed=seed)) <= 11 / 9 * len(cuts) + 4


def test_rows_of_the_lengths_of_real_data_are_packed_to_within_a_hundredth_of_full():
    lengths = np.random.default_rng(0).lognormal(5, 1, 3000).astype(int).clip(2, 1024).tolist()
    packed = pack(rows_of(lengths), 1024, seed=0)
    assert fullness(packed, max_seq_length=1024) > 0.99


def test_a_documents_first_token_is_never_supervised():
    rows = [Encoded(tokens=np.arange(size, dtype=np.int32), loss_mask=np.ones(size, dtype=bool)) for size in (5, 3, 4)]
    [row] = pack(rows, 12, seed=0)
    assert row.loss_mask.tolist() == [False, *[True] * 4, False, *[True] * 2, False, *[True] * 3]
    assert row.segments is not None
    assert row.segments.tolist() == [0] * 5 + [1] * 3 + [2] * 4
    assert all(row.loss_mask.all() for row in rows)


def test_rows_come_in_the_order_of_the_documents():
    packed = pack(rows_of([30, 10, 20, 60, 34]), ROW, seed=0)
    assert [[len(row.tokens), documents(row)] for row in packed] == [[64, 2], [30, 2], [60, 1]]
    assert [row.tokens[0] for row in packed] == [rows_of([30, 10, 20, 60, 34])[index].tokens[0] for index in (0, 1, 3)]


def test_the_seed_alone_decides_which_rows_of_one_length_meet():
    def tokens(seed):
        return [row.tokens.tolist() for row in pack(rows_of([16] * 40), ROW, seed=seed)]

    assert tokens(3) == tokens(3)
    assert tokens(3) != tokens(4)


def test_rows_that_fit_in_no_row_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"2 of 3 rows have more than 64 tokens \(first: row 1, 65\)"):
        pack(rows_of([64, 65, 70]), ROW, seed=0)


def test_packed_rows_are_not_packed_again():
    with pytest.raises(ValueError, match=r"1 of 1 rows are packed already \(first: row 0\)"):
        pack(pack(rows_of([5, 6]), ROW, seed=0), ROW, seed=0)


def test_the_notice_counts_documents_and_rows_and_says_how_full_they_are():
    packed = pack(rows_of([48, 16, 32]), ROW, seed=0)
    assert fullness(packed, max_seq_length=ROW) == 0.75
    assert packing_notice(packed, max_seq_length=ROW) == "3 rows were packed into 2, which fill 75% of 64 tokens each."


def test_a_batch_without_packed_rows_has_no_segments_and_padding_has_one_of_its_own(model):
    assert "segments" not in model.family.collate(rows_of([5, 3]), 6)
    [pair] = pack(rows_of([2, 1]), 3, seed=0)
    batch = model.family.collate([pair, *rows_of([5])], 6)
    assert batch["segments"].dtype == mx.int32
    assert batch["segments"].tolist() == [[0, 0, 1, -1, -1, -1], [0, 0, 0, 0, 0, -1]]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3"])
def test_models_of_attention_alone_pass_the_proof_and_are_left_as_they_were(tmp_path, architecture):
    model = opened(tmp_path, architecture)
    before = {name: np.array(array) for name, array in flat(model.module.parameters()).items()}
    assert why_not_packed(model.family, model.module, max_seq_length=128) is None
    assert model.module.training
    assert all(np.array_equal(array, before[name]) for name, array in flat(model.module.parameters()).items())


def test_half_precision_passes_the_proof(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, num_hidden_layers=8), dtype="bfloat16")
    FastModel.get_peft_model(model, r=4)
    assert why_not_packed(model.family, model.module, max_seq_length=128) is None


@pytest.mark.parametrize("model_type", CARRY_STATE)
def test_a_model_that_carries_state_is_refused_and_told_why(tmp_path, model_type):
    folder = tiny_model_folder(tmp_path, model_type=model_type, **CARRY_STATE[model_type])
    model, _ = FastModel.from_pretrained(folder)
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "keep state of their own from token to token (ArraysCache)" in reason
    with pytest.raises(ValueError, match="keep state of their own"):
        model.family.hidden(model.module, model.family.collate(pack(rows_of([5, 6]), ROW, seed=0), ROW))


@pytest.mark.parametrize(("model_type", "overrides"), [("gpt2", GPT2), ("ministral3", MINISTRAL3)])
def test_a_model_that_counts_positions_from_the_start_of_the_row_is_refused(tmp_path, model_type, overrides):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, model_type=model_type, **overrides))
    reason = why_not_packed(model.family, model.module, max_seq_length=256)
    assert reason is not None
    assert "counts positions from the start of the row" in reason


def test_a_model_whose_documents_see_one_another_is_refused(model):
    trunk = model.module.model

    class Deaf(type(trunk)):
        def __call__(self, inputs, cache=None):
            return super().__call__(inputs)

    assert why_not_packed(model.family, model.module, max_seq_length=128) is None
    trunk.__class__ = Deaf
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "sees past the start of a document" in reason


def test_a_model_whose_gradients_alone_differ_is_refused(tuned):
    trunk = tuned.module.model

    class Doubling(type(trunk)):
        def __call__(self, inputs, cache=None):
            states = super().__call__(inputs, cache)
            return states if cache is None else 2 * states - mx.stop_gradient(states)

    trunk.__class__ = Doubling
    reason = why_not_packed(tuned.family, tuned.module, max_seq_length=128)
    assert reason == "the gradients of packed documents differ by 100.0%"


def test_a_model_that_takes_no_cache_is_refused_with_the_error(model):
    trunk = model.module.model

    class Bare(type(trunk)):
        def __call__(self, inputs):
            return super().__call__(inputs)

    trunk.__class__ = Bare
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "unexpected keyword argument 'cache'" in reason


def test_a_model_that_takes_no_mask_for_each_row_is_refused(tmp_path):
    """Gemma 2 of mlx-lm 0.32 groups its heads, and takes two rows of a mask for two groups without a complaint."""
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, model_type="gemma2"))
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "the states of a document change" in reason


def test_weights_that_are_not_finite_do_not_pass_for_a_proof(model):
    norm = model.module.model.norm
    norm.weight = norm.weight * mx.nan
    assert why_not_packed(model.family, model.module, max_seq_length=128) is not None
