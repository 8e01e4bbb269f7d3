"""Merged weights in every type: what stock mlx-lm opens, what the merge takes and costs, what it leaves alone."""

import json
from functools import partial

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_map
from mlx_lm.utils import load_model, quantize_model

from tests.makers.arrays import in_numpy
from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.export.merged import save_merged
from tunebook.export.quantize import QUANTIZATIONS, adapters_lost
from tunebook.models.tensors import flat

TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7]])
METHODS = ["merged_16bit", *QUANTIZATIONS]
MOE = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}


def stirred(model):
    """`model` with noise on everything trained, so that nothing lost goes unseen."""
    mx.random.seed(2)
    trained = model.module.trainable_parameters()
    model.module.update(tree_map(lambda array: array + 0.1 * mx.random.normal(array.shape, array.dtype), trained))
    mx.eval(model.module.parameters())
    return model


def adapted(folder, load=None, **choice):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, **(load or {}))
    return stirred(FastModel.get_peft_model(model, r=4, **choice))


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("untied") / "llama", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("experts") / "moe", "qwen3", **MOE)


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """About 50 MB in float32, so that a shard and a layer are far less than the whole."""
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "head_dim": 64}
    return tiny_model_folder(tmp_path_factory.mktemp("larger") / "llama", num_hidden_layers=4, **sizes)


def difference(folder, model, **options):
    module = mlx_lm.load(str(folder), **options)[0]
    module.set_dtype(mx.float32)
    return np.abs(in_numpy(module(TOKENS)) - in_numpy(model.module(TOKENS))).max()


@pytest.mark.parametrize("method", QUANTIZATIONS)
def test_quantized_weights_are_bit_for_bit_those_of_mlx_lms_own_converter(tuned, tmp_path, method):
    tuned.save_pretrained_merged(tmp_path / "whole", dtype="bfloat16")
    tuned.save_pretrained_merged(tmp_path / "few", save_method=method, dtype="bfloat16")
    whole, config = load_model(tmp_path / "whole")
    how = QUANTIZATIONS[method]
    theirs, config = quantize_model(whole, config, how.group_size, how.bits, how.mode)
    ours, written = load_model(tmp_path / "few")
    assert written["quantization"] == config["quantization"] == written["quantization_config"]
    expected, found = flat(theirs.parameters()), flat(ours.parameters())
    assert expected.keys() == found.keys()
    assert all(mx.array_equal(expected[name], found[name]) for name in expected)


def test_a_quantized_model_written_in_shards_is_indexed_whole(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("tunebook.export.merged.SHARD_BYTES", 20_000)
    tuned.save_pretrained_merged(tmp_path / "few", save_method="merged_8bit")
    index = json.loads((tmp_path / "few" / "model.safetensors.index.json").read_text())["weight_map"]
    files = sorted(path.name for path in (tmp_path / "few").glob("model*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index.values())) == files
    assert difference(tmp_path / "few", tuned) < 0.3


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.float32
def test_a_merge_takes_no_more_memory_than_one_layer_and_one_shard(larger, tmp_path, monkeypatch, method, bits):
    shard = 8_000_000
    monkeypatch.setattr("tunebook.export.merged.SHARD_BYTES", shard)
    model = adapted(larger, {"load_in_4bit": True} if bits else None, target_modules=["all-linear"])
    layer = 4 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1536)  # bytes of one decoder layer, merged, in float32
    before = mx.get_active_memory()
    quantization = QUANTIZATIONS.get(method)
    saved = partial(save_merged, model.loaded, tmp_path / "merged", mx.bfloat16, quantization=quantization)
    peak = peak_bytes(saved, times=1)
    assert peak <= layer + shard
    assert mx.get_active_memory() - before < 100_000


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_float_type_of_merged_weights_is_the_one_asked_for(tuned, tmp_path, dtype):
    tuned.save_pretrained_merged(tmp_path / "merged", dtype=dtype)
    stored = mx.load(str(tmp_path / "merged" / "model.safetensors"))
    assert {str(array.dtype) for array in stored.values()} == {f"mlx.core.{dtype}"}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["torch_dtype"] == dtype


@pytest.mark.parametrize("load", [{}, {"load_in_4bit": True}], ids=["floats", "4 bits"])
def test_a_float32_merge_of_a_bfloat16_model_has_the_sum_unrounded(tiny_folder, tmp_path, load):
    model = adapted(tiny_folder, {"dtype": "bfloat16", **load})
    model.save_pretrained_merged(tmp_path / "merged", dtype="float32")
    stored = mx.load(str(tmp_path / "merged" / "model.safetensors"))
    layers = [(path, layer) for path, layer in model.module.named_modules() if "lora_a" in layer]
    assert layers
    for path, layer in layers:
        base = layer.linear
        weight = np.array(stored[f"{path}.weight"], np.float64)
        delta = layer.scale * (np.array(layer.lora_a, np.float64) @ np.array(layer.lora_b, np.float64)).T
        if load:
            scales, biases = (in_numpy(base[name]).repeat(base.group_size, axis=1) for name in ("scales", "biases"))
            numbers = np.array(base.weight).view(np.uint8)
            codes = np.stack([numbers & 15, numbers >> 4], axis=-1).reshape(scales.shape)  # the low half comes first
            expected = codes * scales + biases + delta
        else:
            expected = in_numpy(base.weight) + delta
        assert np.abs(weight - expected).max() < 1e-6 * np.abs(expected).max()


def test_weights_that_float16_cannot_hold_are_refused_by_name_and_nothing_is_written(tuned, tmp_path):
    norm = tuned.module.model.norm
    norm.weight = norm.weight * 1e5
    with pytest.raises(ValueError, match=r"model.norm.weight holds values that float16.*dtype='bfloat16'"):
        tuned.save_pretrained_merged(tmp_path / "merged", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_an_unknown_method_or_type_is_refused_with_those_there_are(tuned, tmp_path):
    with pytest.raises(ValueError, match=r"'merged_3bit'; choose one of merged_16bit, .*merged_mxfp4"):
        tuned.save_pretrained_merged(tmp_path / "merged", save_method="merged_3bit")
    with pytest.raises(ValueError, match=r"dtype is 'int8'; choose one of float32"):
        tuned.save_pretrained_merged(tmp_path / "merged", dtype="int8")


def test_a_model_whose_rows_fit_no_group_is_not_called_quantized(tmp_path):
    folder = tiny_model_folder(tmp_path / "odd", hidden_size=48, head_dim=12, intermediate_size=96)
    model, _ = FastModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="divide into groups of 64"):
        model.save_pretrained_merged(tmp_path / "few", save_method="merged_4bit")
    assert not (tmp_path / "few").exists()


def test_requantizing_a_4_bit_base_says_what_it_costs_the_adapters(tiny_folder, tmp_path):
    model = adapted(tiny_folder, {"load_in_4bit": True})
    error = change = 0.0
    for _, layer in model.module.named_modules():
        if "lora_a" in layer:
            base = layer.linear
            weight = in_numpy(mx.dequantize(base.weight, base.scales, base.biases, 64, 4))
            delta = layer.scale * np.array(layer.lora_b).T @ np.array(layer.lora_a).T
            packed = mx.quantize(mx.array(weight + delta), group_size=64, bits=4)
            error += np.square(np.array(mx.dequantize(*packed, group_size=64, bits=4)) - weight - delta).sum()
            change += np.square(delta).sum()
    lost = np.sqrt(error / change)
    assert adapters_lost(model.module, QUANTIZATIONS["merged_4bit"]) == pytest.approx(lost, rel=1e-3)
    assert adapters_lost(model.module, QUANTIZATIONS["merged_8bit"]) < lost / 8
    [note] = model.save_pretrained_merged(tmp_path / "few", save_method="merged_4bit").notes
    assert f"costs {lost:.0%} of the change the adapters make" in note
    assert not model.save_pretrained_merged(tmp_path / "whole").notes
    assert difference(tmp_path / "whole", model) < (0.1 if model.loaded.dtype == mx.float32 else 0.4)


def test_a_base_in_floats_is_not_told_of_a_requantization(tuned, tmp_path):
    assert not tuned.save_pretrained_merged(tmp_path / "few", save_method="merged_4bit").notes


def test_exporting_in_the_middle_of_a_run_leaves_its_remaining_losses_bit_identical(tiny_folder, tmp_path, rows):
    def losses(export):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128, load_in_4bit=True)
        FastModel.get_peft_model(model, r=4, lora_dropout=0.3)
        args = TrainingConfig(max_steps=4, gradient_accumulation_steps=2, learning_rate=1e-2, hold_out=0)
        trainer = Trainer(model, train_dataset=rows, args=args)

        def at_step(step, *_):
            if step == 2 and export:
                model.save_pretrained(tmp_path / "lora", verify_with=rows[:1])
                model.save_pretrained(tmp_path / "peft", format="peft")
                for method in METHODS:
                    model.save_pretrained_merged(tmp_path / method, save_method=method)
                model.generate("Say 3 words.", max_tokens=2)

        trainer.subscribe(lambda event: None, shows_progress=True)
        trainer.add_step_callback(at_step)
        return [step.loss for step in trainer.train().steps]

    assert losses(export=True) == losses(export=False)
    assert (tmp_path / "merged_mxfp4" / "config.json").exists()


def test_an_export_draws_no_random_numbers(tuned, tmp_path):
    def next_after(export):
        mx.random.seed(7)
        export()
        return mx.random.uniform(shape=(4,)).tolist()

    plain = next_after(lambda: None)
    for method in METHODS:
        save = partial(tuned.save_pretrained_merged, tmp_path / method, save_method=method)
        assert next_after(save) == plain
    assert next_after(lambda: tuned.save_pretrained(tmp_path / "lora")) == plain


ODD = {
    "rsLoRA": ("untied", {"use_rslora": True}),
    "DoRA": ("untied", {"use_dora": True}),
    "an untied head": ("untied", {"target_modules": ["q_proj", "lm_head"]}),
    "an embedding": ("untied", {"target_modules": ["v_proj", "embed_tokens"]}),
    "a tied embedding": ("tied", {"target_modules": ["v_proj", "embed_tokens"]}),
    "DoRA on an embedding": ("untied", {"use_dora": True, "target_modules": ["v_proj", "embed_tokens"]}),
    "a tied embedding trained whole": ("tied", {"modules_to_save": ["embed_tokens"]}),
    "experts": ("experts", {}),
    "attention beside experts": ("experts", {"finetune_mlp_modules": False}),
}
NOT_FOR_PEFT = {
    "a tied embedding": "also the output head, and PEFT would change the embedding alone",
    "DoRA on an embedding": "neither DoRA on an embedding",
    "a tied embedding trained whole": "also the output head",
    "experts": "adapters on the experts of a mixture",
}


@pytest.fixture
def bases(tiny_folder, untied, experts):
    return {"tied": tiny_folder, "untied": untied, "experts": experts}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.float32
def test_each_kind_of_adapter_is_exported_to_mlx_lm_as_it_is(bases, tmp_path, kind):
    base, choice = ODD[kind]
    model = adapted(bases[base], **choice)
    model.save_pretrained(tmp_path / "lora")
    if "modules_to_save" not in choice:
        assert difference(bases[base], model, adapter_path=str(tmp_path / "lora")) < 1e-5
    model.save_pretrained_merged(tmp_path / "merged", dtype="float32")
    assert difference(tmp_path / "merged", model) < 1e-4
    model.save_pretrained_merged(tmp_path / "few", save_method="merged_8bit")
    assert difference(tmp_path / "few", model) < 0.5


@pytest.mark.parametrize("kind", NOT_FOR_PEFT)
@pytest.mark.float32
def test_adapters_peft_would_make_another_model_of_are_refused_with_the_reason(bases, tmp_path, kind):
    base, choice = ODD[kind]
    with pytest.raises(ValueError, match=NOT_FOR_PEFT[kind]):
        adapted(bases[base], **choice).save_pretrained(tmp_path / "peft", format="peft")
    assert not list(tmp_path.iterdir())


def test_adapters_on_a_checkpoint_in_mlx_s_own_bits_are_refused_for_peft(tuned, tmp_path):
    tuned.save_pretrained_merged(tmp_path / "few", save_method="merged_4bit")
    with pytest.raises(ValueError, match="quantized by MLX, and transformers does not open it"):
        adapted(tmp_path / "few").save_pretrained(tmp_path / "peft", format="peft")


@pytest.mark.float32
def test_dora_on_experts_is_refused_before_training(experts):
    with pytest.raises(ValueError, match="SwitchLinear doesn't support DoRA"):
        adapted(experts, use_dora=True)


@pytest.mark.float32
def test_a_folder_transformers_cannot_open_says_so_and_its_card_does_not_offer_it(experts, tmp_path):
    export = adapted(experts).save_pretrained_merged(tmp_path / "merged")
    assert "mlx-lm opens the folder and transformers does not" in export.notes[0]
    assert "AutoModel" not in (tmp_path / "merged" / "README.md").read_text()


def test_adapters_of_a_model_loaded_in_4_bits_are_verified_on_a_base_in_4_bits(tiny_folder, tmp_path, rows):
    model = adapted(tiny_folder, {"load_in_4bit": True})
    check = model.save_pretrained(tmp_path / "lora", verify_with=rows[:2])
    assert abs(check.verification.difference) < (1e-4 if model.loaded.dtype == mx.float32 else 1e-3)
