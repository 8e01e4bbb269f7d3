"""Adapters that cross to PEFT and back: PEFT itself, under torch, opens what we write and gives the same logits."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.models.adapters import load_adapters, trained_whole
from tunebook.models.saved_adapters.peft_format import from_peft
from tunebook.models.tensors import flat

TOKENS = [[5, 17, 99, 4, 250, 301, 7]]

CHOICES = {
    "lora": {},
    "rslora": {"use_rslora": True, "lora_alpha": 3},
    "dora": {"use_dora": True},
    "some layers": {"target_modules": ["q_proj", "down_proj"], "finetune_last_n_layers": 1},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["v_proj", "embed_tokens"]},
    "whole modules": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("base") / "llama", tie_word_embeddings=False)


def tuned(base, **choice):
    model, _ = FastModel.from_pretrained(base, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.1, **choice)
    mx.random.seed(2)
    trained = model.module.trainable_parameters()
    model.module.update(tree_map(lambda array: array + 0.1 * mx.random.normal(array.shape, array.dtype), trained))
    return model, in_numpy(model.module(mx.array(TOKENS)))


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.filterwarnings("ignore:.*tie:UserWarning", "ignore:.*lm_head:UserWarning")
@pytest.mark.float32
def test_peft_gives_the_logits_of_the_live_model(base, tmp_path, kind):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model, expected = tuned(base, **CHOICES[kind])
    model.save_pretrained(tmp_path / "peft", format="peft")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        before = plain(torch.tensor(TOKENS)).logits.numpy()
        found = peft.PeftModel.from_pretrained(plain, tmp_path / "peft").eval()(torch.tensor(TOKENS)).logits.numpy()
    assert np.abs(before - expected).max() > 0.1
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("format", ["mlx", "peft"])
@pytest.mark.parametrize("kind", CHOICES)
def test_a_folder_of_adapters_is_gone_on_from_as_it_was_left(base, tmp_path, kind, format):
    model, expected = tuned(base, **CHOICES[kind])
    model.save_pretrained(tmp_path / "saved", format=format)
    again, tokenizer = FastModel.from_pretrained(tmp_path / "saved", max_seq_length=64)
    assert again.loaded.name == str(base)
    assert again.loaded.tokenizer is tokenizer
    assert np.array_equal(in_numpy(again.module(mx.array(TOKENS))), expected)
    ours, theirs = flat(model.module.trainable_parameters()), flat(again.module.trainable_parameters())
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)
    assert trained_whole(again.module) == trained_whole(model.module)


@pytest.mark.float32
def test_what_peft_saves_is_opened_here(base, tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    config = peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "up_proj"])
    theirs = peft.get_peft_model(plain, config)
    torch.manual_seed(0)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(TOKENS)).logits.numpy()
    model, _ = FastModel.from_pretrained(base)
    load_adapters(model.module, tmp_path / "theirs")
    assert np.abs(np.array(model.module(mx.array(TOKENS))) - expected).max() < 1e-3


def test_an_export_for_peft_is_verified_by_peft(base, tmp_path, rows):
    pytest.importorskip("peft")
    model, _ = tuned(base)
    export = model.save_pretrained(tmp_path / "peft", format="peft", verify_with=rows[:2])
    assert export.verification.passed, export
    assert export.verification.reader.startswith("PEFT ")


def test_adapters_of_a_wider_model_are_refused_with_names_and_shapes(base, tmp_path):
    model, _ = tuned(base)
    model.save_pretrained(tmp_path / "peft", format="peft")
    wider = tiny_model_folder(tmp_path / "wider", intermediate_size=192)
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(wider)
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"are not this model's: .*\[4, 128\] in the file.*\[4, 192\] in the model"):
        FastModel.from_pretrained(tmp_path / "peft")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is {'q_proj': 8}"),
    ],
)
def test_adapters_that_have_no_counterpart_are_refused(setting, said):
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "m", **setting}
    with pytest.raises(ValueError, match=said):
        from_peft(config, {})


def test_full_tuning_of_a_folder_of_adapters_is_refused(base, tmp_path):
    model, _ = tuned(base)
    model.save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="holds adapters; leave out full_finetuning"):
        FastModel.from_pretrained(tmp_path / "lora", full_finetuning=True)
