import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.models.adapters import adapter_paths, load_adapters, trained_whole

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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["embed_tokens"], {"model.embed_tokens.weight"}),
        (["norm", "model.layers.1.input_layernorm"], {"model.norm.weight", "model.layers.1.input_layernorm.weight"}),
        (["input_layernorm"], {f"model.layers.{layer}.input_layernorm.weight" for layer in (0, 1)}),
    ],
)
def test_modules_to_save_are_trained_whole_beside_the_adapters(model, names, expected):
    FastModel.get_peft_model(model, r=4, target_modules=["q_proj"], modules_to_save=names)
    assert set(trained_whole(model.module)) == expected
    assert leaves(model) == {"q_proj"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lm_head"], "'lm_head' is not in this model.*Its output head is its embedding: embed_tokens is both"),
        (["wte"], "'wte' is not in this model, whose modules are called .*embed_tokens"),
        (["down_proj"], "model.layers.0.mlp.down_proj is to get an adapter too; leave it out of target_modules"),
        (["mlp"], "is to get an adapter too"),
    ],
)
def test_modules_that_cannot_be_trained_whole_are_refused_and_nothing_is_changed(model, names, said):
    with pytest.raises(ValueError, match=said):
        FastModel.get_peft_model(model, modules_to_save=names)
    assert not adapter_paths(model.module)
    assert not tree_flatten(model.module.trainable_parameters())


def test_a_quantized_module_cannot_be_trained_whole(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, load_in_4bit=True)
    with pytest.raises(ValueError, match="embed_tokens is quantized and cannot be trained whole"):
        FastModel.get_peft_model(model, modules_to_save=["embed_tokens"])
    FastModel.get_peft_model(model, modules_to_save=["norm"])  # norms are never quantized
    assert trained_whole(model.module) == ["model.norm.weight"]


def test_a_model_loaded_for_full_tuning_is_not_cut_down_to_adapters(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, full_finetuning=True)
    with pytest.raises(ValueError, match="full_finetuning"):
        FastModel.get_peft_model(model)


@pytest.mark.parametrize("choice", [{}, {"use_dora": True}, {"modules_to_save": ["embed_tokens", "norm"]}])
def test_saved_adapters_are_put_on_a_bare_model_as_they_were(model, tiny_folder, tmp_path, choice):
    FastModel.get_peft_model(model, r=4, lora_dropout=0.1, **choice)
    mx.random.seed(5)
    trained = model.module.trainable_parameters()
    model.module.update(tree_map(lambda array: array + 0.1 * mx.random.normal(array.shape, array.dtype), trained))
    expected = model.module(mx.array([[5, 17, 99]]))
    model.save_pretrained(tmp_path / "lora")
    bare, _ = FastModel.from_pretrained(tiny_folder)
    load_adapters(bare.module, tmp_path / "lora")
    assert mx.array_equal(bare.module(mx.array([[5, 17, 99]])), expected)


def test_adapters_of_another_model_are_refused_with_names_and_shapes(model, tmp_path):
    FastModel.get_peft_model(model, r=4)
    model.save_pretrained(tmp_path / "lora")
    wider, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "wider", intermediate_size=192))
    with pytest.raises(
        ValueError, match=r"model.layers.0.mlp.down_proj.lora_a \[128, 4\] in the file, \[192, 4\] in the model"
    ):
        load_adapters(wider.module, tmp_path / "lora")
