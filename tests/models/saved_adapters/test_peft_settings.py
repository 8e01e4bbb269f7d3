"""saved_adapters/peft_settings.py: opened with the logits of PEFT, or refused and the model left as it was."""

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.other_adapters import WITH_NEW, everything, of_peft, opened, rewritten
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.models.adapters import load_adapters
from tunebook.models.saved_adapters.peft_settings import NO_EFFECT, UNDERSTOOD

# Settings of PEFT's, on a base with a head of its own (untied) or without (tied), that are opened as PEFT opens them.
OPENED = {
    "all-linear": ("untied", {"target_modules": "all-linear"}),
    "a regular expression": ("untied", {"target_modules": r".*layers\.1\.self_attn\.[qk]_proj"}),
    "one layer of two": ("untied", {"layers_to_transform": [1]}),
    "one excluded": ("untied", {"exclude_modules": ["model.layers.0.self_attn.q_proj"]}),
    "patterns that change nothing": ("untied", {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"up_proj": 8}}),
    "orthogonal": ("untied", {"init_lora_weights": "orthogonal"}),
    "mica": ("untied", {"init_lora_weights": "mica"}),
    "a random B": ("untied", {"init_lora_weights": False}),
    "dora": ("untied", {"use_dora": True}),
    "rslora": ("untied", {"use_rslora": True}),
    "on the head": ("untied", {"target_modules": ["q_proj", "lm_head"]}),
    "on the embedding": ("untied", {"target_modules": ["q_proj", "embed_tokens"]}),
    "on both": ("untied", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "both whole": ("untied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "the embedding whole": ("untied", {"modules_to_save": ["embed_tokens"]}),
    "a norm whole": ("tied", {"modules_to_save": ["norm"]}),
    "on the embedding, tied": ("tied", {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}),
    "the embedding whole, tied": ("tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "both whole, tied": ("tied", {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}),
}
REFUSED = {
    "pissa": ("untied", {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'.*path_initial_model"),
    "pissa_niter": ("untied", {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    "olora": ("untied", {"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
    "alora": ("untied", {"alora_invocation_tokens": [250, 301]}, "alora_invocation_tokens is .*use them with PEFT"),
    "ranks": ("untied", {"rank_pattern": {"q_proj": 8}}, "rank_pattern is {'q_proj': 8}.*merge_and_unload"),
    "alphas": ("untied", {"alpha_pattern": {"q_proj": 3}}, "alpha_pattern is {'q_proj': 3}"),
    "lora_bias": ("untied", {"lora_bias": True}, "lora_bias is True"),
    "tokens": ("untied", {"trainable_token_indices": [5, 17]}, "trainable_token_indices is"),
    "replicated": ("untied", {"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is"),
    "parameters": ("untied", {"target_parameters": ["k_proj.weight"]}, "target_parameters is"),
    "on the embedding, tied": (
        "tied",
        {"target_modules": ["embed_tokens"]},
        "embed_tokens is also this model's output",
    ),
    "on the head, tied": ("tied", {"target_modules": ["q_proj", "lm_head"]}, "its output head is its embedding"),
    "the embedding whole, tied": ("tied", {"modules_to_save": ["embed_tokens"]}, "is also this model's output head"),
    "two that were one": ("tied", {"modules_to_save": ["embed_tokens", "lm_head"]}, "its output head is its embedding"),
    "dora on the embedding": ("untied", {"target_modules": ["embed_tokens"], "use_dora": True}, "is an embedding"),
}


@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.float32
def test_what_peft_saves_is_opened_with_the_logits_of_peft(bases, tmp_path, kind):
    base, settings = OPENED[kind]
    folder, expected = of_peft(bases[base], tmp_path / "peft", **settings)
    assert np.abs(opened(folder) - expected).max() < 1e-3
    assert np.abs(opened(bases[base]) - expected).max() > 1e-2


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_what_would_be_another_model_here_is_refused_and_the_model_left_as_it_was(bases, tmp_path, kind):
    base, settings, said = REFUSED[kind]
    folder, _ = of_peft(bases[base], tmp_path / "peft", **settings)
    model, _ = FastModel.from_pretrained(bases[base])
    before = everything(model.module)
    with pytest.raises(ValueError, match=said):
        load_adapters(model.module, folder)
    assert everything(model.module) == before


def test_every_setting_of_peft_is_looked_at():
    """Each of LoraConfig's has no effect, is understood, or is refused unless it is off; a new one shows here."""
    peft = pytest.importorskip("peft")
    refused_unless_off = {
        *("layer_replication", "trainable_token_indices", "lora_bias", "target_parameters", "megatron_config"),
        *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "monteclora_config"),
        *("kasa_config", "velora_config"),
    }
    known = NO_EFFECT | UNDERSTOOD | refused_unless_off
    written = set(peft.LoraConfig().to_dict())
    assert written <= known, written - known


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_something_new": True}, "use_something_new is True"),
        ({"lora_dropout_of_tomorrow": 0.5}, "lora_dropout_of_tomorrow is 0.5"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"megatron_config": {"tensor_model_parallel_size": 2}}, "megatron_config is"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora is"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config is"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"r": 8}, r"lora_a \[64, 4\] in the file, and rank 8 in its settings"),
        ({"r": 0}, "r is 0, which must be a whole number of at least 1"),
        ({"r": 2**31}, "rank 2147483648 in its settings"),
        ({"r": "4"}, "r is '4'"),
        ({"r": ...}, "r is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, which must be a finite number"),
        ({"lora_alpha": 10**300}, "lora_alpha is 1000.*which must be a finite number"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
        ({"use_dora": True}, "lora_magnitude_vector|q_proj.m not in the file"),
        ({"target_modules": ["q_proj", "k_proj"]}, "model.layers.0.self_attn.k_proj.lora_a not in the file"),
    ],
)
def test_settings_that_are_not_understood_are_refused_by_name_and_value(bases, peft_folder, settings, said):
    with pytest.raises(ValueError, match=said) as caught:
        FastModel.from_pretrained(rewritten(peft_folder, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"use_something_new": False}, {"new_list": []}, {"new_one": None}, {"fan_in_fan_out": True}]
)
def test_settings_of_a_version_to_come_that_are_off_do_no_harm(bases, peft_folder, settings):
    expected = opened(peft_folder)
    assert np.array_equal(opened(rewritten(peft_folder, **settings)), expected)


LONGER = {
    "neither": {},
    "both whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "the embedding whole": {"modules_to_save": ["embed_tokens"]},
    "on both": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


def with_its_tokenizer(folder, base):
    """`folder`, with the base's tokenizer and two tokens more beside the adapters."""
    _, tokenizer = FastModel.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|stop|>"]})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", LONGER)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.float32
def test_adapters_with_more_tokens_than_the_base_are_opened_with_their_tokenizer_alone(bases, tmp_path, kind):
    folder, expected = of_peft(bases["untied"], tmp_path / "peft", longer=2, **LONGER[kind])
    with pytest.raises(
        ValueError, match=r"\[514, 64\] in the file, \[512, 64\] in the model.*2 more tokens"
    ) as refused:
        FastModel.from_pretrained(folder)
    assert str(refused.value).count("as resize_embeddings does") == 1
    model, _ = FastModel.from_pretrained(with_its_tokenizer(folder, bases["untied"]))
    assert np.abs(np.array(model.module(mx.array(WITH_NEW))) - expected).max() < 1e-4


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rows_for_new_tokens_that_a_quantized_table_cannot_take_are_refused(bases, tmp_path):
    folder, _ = of_peft(bases["untied"], tmp_path / "peft", longer=2, **LONGER["on both"])
    with pytest.raises(ValueError, match=r"lm_head.weight has 2 rows for new tokens in the file, which a quantized"):
        FastModel.from_pretrained(with_its_tokenizer(folder, bases["untied"]), load_in_4bit=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rows_for_new_tokens_that_peft_left_out_of_the_file_are_missed(bases, tmp_path):
    folder, _ = of_peft(bases["untied"], tmp_path / "peft", longer=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(
        ValueError, match=r"embed_tokens.weight has 2 rows for new tokens, and none of them in the file"
    ):
        FastModel.from_pretrained(with_its_tokenizer(folder, bases["untied"]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_with_more_tokens_of_another_base_are_refused_by_the_rows_it_had(bases, tmp_path):
    folder, _ = of_peft(bases["untied"], tmp_path / "peft", longer=2, target_modules=["q_proj", "lm_head"])
    other = tiny_model_folder(tmp_path / "other", tie_word_embeddings=False, seed=1)
    rewritten(with_its_tokenizer(folder, bases["untied"]), base_model_name_or_path=str(other))
    with pytest.raises(ValueError, match=r"lm_head.weight in the file is another than the model's"):
        FastModel.from_pretrained(folder)
