"""LoRA as a .gguf: llama.cpp puts it on the base model and gives each token the tuned model's probability."""

import gguf
import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook import FastModel
from tunebook.export.gguf.adapter import verify_gguf_adapter
from tunebook.export.readback import llama_cpp
from tunebook.gguf import UnsupportedArchitecture, write_gguf

IDS = [5, 17, 99, 4, 250, 301, 7, 60, 61, 62]


def tune(model, **choice):
    """Adapters whose B matrices are not zero."""
    FastModel.get_peft_model(model, r=4, lora_alpha=8, **choice)
    mx.random.seed(3)
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1


def log_probs(model):
    scores = np.array(model.module(mx.array([IDS]))[0, :-1]).astype(np.float64)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores[np.arange(len(IDS) - 1), IDS[1:]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_with_the_adapter_is_the_tuned_model(tmp_path, architecture):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "base", architecture)
    model, _ = FastModel.from_pretrained(folder)
    before = log_probs(model)
    tune(model)
    after = log_probs(model)
    assert np.abs(after - before).max() > 0.3  # the adapter can be seen at all
    adapter = model.save_pretrained(tmp_path / "lora", format="gguf").path
    base = write_gguf(folder, tmp_path / "base.gguf", "f32").path
    np.testing.assert_allclose(llama_cpp.target_log_probs(base, IDS, adapter=adapter), after, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        ({"tie_word_embeddings": False}, {"target_modules": ["v_proj", "embed_tokens", "lm_head"]}),
        ({}, {"use_rslora": True, "finetune_last_n_layers": 1, "target_modules": ["k_proj"]}),
    ],
)
def test_embeddings_heads_and_scales_of_rslora_arrive(tmp_path, settings, choice):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "base", **settings)
    model, _ = FastModel.from_pretrained(folder)
    tune(model, **choice)
    adapter = model.save_pretrained(tmp_path / "lora", format="gguf").path
    base = write_gguf(folder, tmp_path / "base.gguf", "f32").path
    got = llama_cpp.target_log_probs(base, IDS, adapter=adapter)
    np.testing.assert_allclose(got, log_probs(model), atol=1e-3)


def test_the_file_says_what_it_is_and_what_it_is_for(tuned, tmp_path):
    export = tuned.save_pretrained(tmp_path / "lora", format="gguf")
    assert (export.kind, export.path) == ("lora", tmp_path / "lora" / "llama.lora.gguf")
    fields = {name: field.contents() for name, field in gguf.GGUFReader(export.path).fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 8.0
    assert fields["general.base_model.0.name"] == tuned.loaded.name


def test_the_adapter_is_read_back_on_a_gguf_of_its_base_and_a_wrong_one_fails(tuned, tmp_path, rows):
    pytest.importorskip("xllamacpp")
    export = tuned.save_pretrained(tmp_path / "lora", format="gguf", verify_with=rows[:2])
    assert export.verification is not None
    assert export.verification.passed
    for _, layer in tuned.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = layer.lora_b * -1
    assert not verify_gguf_adapter(export.path, tuned.loaded, rows[:2]).passed


def test_a_base_that_is_quantized_here_is_nothing_to_compare_with(tiny_folder, tmp_path, rows):
    model, _ = FastModel.from_pretrained(tiny_folder, load_in_4bit=True)
    tune(model)
    with pytest.raises(ValueError, match="quantized here"):
        model.save_pretrained(tmp_path / "lora", format="gguf", verify_with=rows[:1])


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"use_dora": True}, "no place for the magnitudes of DoRA"),
        ({"modules_to_save": ["norm"]}, r"trained 1 tensors whole \(model.norm.weight\)"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "on a tied embedding changes the head too"),
    ],
)
def test_what_such_a_file_cannot_hold_is_refused_with_the_reason(model, tmp_path, choice, reason):
    FastModel.get_peft_model(model, r=4, **choice)
    with pytest.raises(ValueError, match=reason):
        model.save_pretrained(tmp_path / "lora", format="gguf")
    assert not (tmp_path / "lora").exists()


def test_a_model_without_adapters_and_one_without_a_rule_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no adapters to save"):
        model.save_pretrained(tmp_path / "lora", format="gguf")
    model.loaded.config["model_type"] = "mamba2"
    with pytest.raises(UnsupportedArchitecture, match="'mamba2' yet; supported are llama"):
        model.save_pretrained(tmp_path / "lora", format="gguf")
