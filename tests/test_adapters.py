import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from tunebook import FastModel
from tunebook.adapters import adapter_paths

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def leaves(model):
    return {path.split(".")[-1] for path in adapter_paths(model.module)}


def test_by_default_every_projection_of_every_layer_is_adapted(model):
    FastModel.get_peft_model(model)
    assert leaves(model) == set(SEVEN)
    assert len(adapter_paths(model.module)) == 2 * len(SEVEN)


def test_only_the_adapters_are_trainable(model):
    FastModel.get_peft_model(model)
    names = [name for name, _ in tree_flatten(model.module.trainable_parameters())]
    assert names
    assert all(name.endswith(("lora_a", "lora_b")) for name in names)


def test_a_fresh_adapter_changes_nothing(model):
    tokens = mx.array([[5, 6, 7, 8]])
    before = model.module(tokens)
    FastModel.get_peft_model(model)
    assert mx.array_equal(model.module(tokens), before)


def test_the_same_seed_gives_the_adapters_of_mlx_lm_bit_for_bit(model, tiny_folder):
    mx.random.normal((100,))  # whatever was drawn before must not matter
    FastModel.get_peft_model(model, r=4, lora_alpha=8, random_state=7)
    stock, _ = mlx_lm.load(str(tiny_folder))
    stock.freeze()
    mx.random.seed(7)
    keys = [f"self_attn.{name}" for name in SEVEN[:4]] + [f"mlp.{name}" for name in SEVEN[4:]]
    linear_to_lora_layers(stock, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys})
    ours = dict(tree_flatten(model.module.trainable_parameters()))
    theirs = dict(tree_flatten(stock.trainable_parameters()))
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


def test_dropout_waits_for_training(model):
    FastModel.get_peft_model(model, lora_dropout=0.9)
    mx.random.seed(0)
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape)
    tokens = mx.array([[5, 6, 7, 8]])
    assert mx.array_equal(model.module(tokens), model.module(tokens))
    FastModel.for_training(model)
    assert not mx.array_equal(model.module(tokens), model.module(tokens))
    FastModel.for_inference(model)
    assert mx.array_equal(model.module(tokens), model.module(tokens))


def test_the_last_n_layers_are_counted_from_the_end(model):
    FastModel.get_peft_model(model, finetune_last_n_layers=1)
    assert {path.split(".")[2] for path in adapter_paths(model.module)} == {"1"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, {"q_proj", "v_proj"}),
        ({"target_modules": ["mlp.up_proj"]}, {"up_proj"}),
        ({"target_modules": "all-linear"}, set(SEVEN)),
        ({"finetune_mlp_modules": False}, set(SEVEN[:4])),
        ({"finetune_attention_modules": False}, set(SEVEN[4:])),
        ({"target_modules": ["q_proj", "embed_tokens"]}, {"q_proj", "embed_tokens"}),
    ],
)
def test_targets_are_found_by_their_names(model, choice, expected):
    FastModel.get_peft_model(model, **choice)
    assert leaves(model) == expected


def test_an_unknown_target_is_refused_with_the_names_there_are_and_nothing_is_changed(model):
    before = str(model.module)
    with pytest.raises(ValueError, match=r"names query_proj.*q_proj, k_proj"):
        FastModel.get_peft_model(model, target_modules=["q_proj", "query_proj"])
    assert str(model.module) == before


def test_a_second_set_of_adapters_is_refused(model):
    FastModel.get_peft_model(model)
    with pytest.raises(ValueError, match="already"):
        FastModel.get_peft_model(model)


def test_rslora_scales_by_the_root_of_the_rank(model):
    FastModel.get_peft_model(model, r=16, lora_alpha=8, use_rslora=True)
    assert model.module.layers[0].self_attn.q_proj.scale == 2.0
