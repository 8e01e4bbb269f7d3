"""Adapters that other programs saved: opened as the model those programs make of them, or refused in a sentence.

PEFT under torch and stock mlx-lm are the judges; what is refused must leave the model as it was.
"""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.tuner.utils import load_adapters as stock_load_adapters
from mlx_lm.utils import load_model

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.models.adapters import load_adapters
from tunebook.models.saved_adapters.peft_settings import NO_EFFECT, UNDERSTOOD
from tunebook.models.tensors import flat

TOKENS = [[5, 17, 99, 4, 250, 301, 7]]
Q_AND_UP = ["q_proj", "up_proj"]
LORA = {"rank": 4, "scale": 10.0, "dropout": 0.0}
Q_AND_V = {**LORA, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}

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


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "tied": tiny_model_folder(folder / "tied"),
        "untied": tiny_model_folder(folder / "untied", tie_word_embeddings=False),
    }


def of_peft(base, folder, *, longer=0, **settings):
    """(folder, logits) of adapters that PEFT made, moved by random numbers, saved and read back."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    def plain():
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")

    model = plain()
    if longer:
        model.resize_token_embeddings(model.config.vocab_size + longer, mean_resizing=False)
    config = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": Q_AND_UP, **settings}
    model = peft.get_peft_model(model, peft.LoraConfig(**config))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    if longer or settings.get("init_lora_weights") == "pissa_niter_4":
        return folder, None
    with torch.no_grad():
        again = peft.PeftModel.from_pretrained(plain(), folder).eval()
        return folder, again(torch.tensor(TOKENS)).logits.numpy()


def of_mlx_lm(base, folder, settings, *, layers=2, file="adapters.safetensors", kind="lora"):
    """(folder, logits) of adapters as mlx-lm makes them, with these words in their settings."""
    module, _ = load_model(base)
    folder.mkdir()
    if kind == "full":
        tensors = {name: array for name, array in flat(module.parameters()).items() if "layers.1." in name}
    else:
        module.freeze()
        linear_to_lora_layers(module, layers, Q_AND_V, use_dora=kind == "dora")
        tensors = flat(module.trainable_parameters())
    mx.random.seed(4)
    tensors = {name: array + 0.1 * mx.random.normal(array.shape) for name, array in tensors.items()}
    module.load_weights(list(tensors.items()), strict=False)
    mx.save_safetensors(str(folder / file), tensors)
    (folder / "adapter_config.json").write_text(json.dumps({"model": str(base), **settings}))
    return folder, np.array(module.eval()(mx.array(TOKENS)))


def opened(folder):
    return np.array(FastModel.from_pretrained(folder)[0].module(mx.array(TOKENS)))


def rewritten(folder, **settings):
    """The folder, with settings of its adapter_config.json changed; those that are ... are taken out."""
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not ...}))
    return folder


def everything(module):
    """What must not change when adapters are refused: classes, numbers, what is trained, and who is in training."""
    parts = [(path, type(part), part.training) for path, part in module.named_modules()]
    arrays = {name: np.array(array).tobytes() for name, array in flat(module.parameters()).items()}
    return parts, arrays, sorted(flat(module.trainable_parameters()))


@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.filterwarnings("ignore::UserWarning")
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


@pytest.fixture
def peft_folder(bases, tmp_path):
    """Adapters in PEFT's form on the untied base, small and made here."""
    model, _ = FastModel.from_pretrained(bases["untied"])
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=Q_AND_UP)
    model.save_pretrained(tmp_path / "peft", format="peft")
    return rewritten(tmp_path / "peft", target_modules=Q_AND_UP)


NUMBERED = "0000100_adapters.safetensors"
FORMS = {
    "now": {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": Q_AND_V},
    "before 0.19": {"lora_layers": 2, "lora_parameters": {**Q_AND_V, "alpha": 16.0}, "use_dora": False},
    "no fine_tune_type": {"num_layers": 2, "lora_parameters": Q_AND_V},
    "more layers than there are": {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": Q_AND_V},
    "all layers": {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": Q_AND_V},
    "keys that name nothing": {"num_layers": 2, "lora_parameters": {**LORA, "keys": ["auto"]}},
    "its command line": {
        "num_layers": 2,
        "lora_parameters": Q_AND_V,
        "iters": 600,
        "optimizer": "adamw",
        "train": True,
    },
    "dora": {"fine_tune_type": "dora", "num_layers": 2, "lora_parameters": Q_AND_V},
    "dora of old": {"use_dora": True, "lora_layers": 2, "lora_parameters": Q_AND_V},
    "full": {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": LORA},
    "full, null": {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": None},
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_mlx_lm_is_opened_as_it_was_made(bases, tmp_path, kind):
    made = kind.split()[0].strip(",") if kind.split()[0].strip(",") in ("full", "dora") else "lora"
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS[kind], kind=made)
    assert np.abs(opened(folder) - expected).max() < 1e-5
    if kind in ("now", "more layers than there are", "all layers", "dora", "full", "its command line"):
        stock, _ = load_model(bases["tied"])
        theirs = stock_load_adapters(stock, str(folder)).eval()(mx.array(TOKENS))
        assert np.abs(opened(folder) - np.array(theirs)).max() < 1e-5


def test_of_numbered_checkpoints_alone_the_newest_is_taken(bases, tmp_path):
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"], file=NUMBERED)
    older = {name: array * 2 for name, array in mx.load(str(folder / NUMBERED)).items()}
    mx.save_safetensors(str(folder / "0000020_adapters.safetensors"), older)
    assert np.abs(opened(folder) - expected).max() < 1e-5
    model, _ = FastModel.from_pretrained(folder)
    assert f"(from {NUMBERED}, of 2 numbered ones)" in model.source


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 4, "alpha": 40.0, "dropout": 0.0}, r"older ones multiply with it.*40.0 \(alpha\) or 10.0"),
        ({"lora_parameters": {"rank": 4, "alpha": 8, "keys": None}}, "an alpha of 8 and no scale"),
        ({"lora_parameters": {**Q_AND_V, "use_rslora": True}}, "use_rslora is True, which is not known here"),
        ({"lora_parameters": Q_AND_V, "rank_pattern": {"q": 3}}, "rank_pattern is {'q': 3}, which is not known here"),
        ({"lora_parameters": None}, "lora_parameters is None"),
        ({"lora_parameters": {**Q_AND_V, "rank": -1}}, "rank is -1"),
        ({"lora_parameters": {**Q_AND_V, "scale": "10"}}, "scale is '10'"),
        ({"lora_parameters": {**Q_AND_V, "keys": "q_proj"}}, "keys is 'q_proj'"),
        ({"lora_parameters": Q_AND_V, "num_layers": "all"}, "num_layers is 'all'"),
        ({"lora_parameters": Q_AND_V, "fine_tune_type": "ia3"}, "fine_tune_type is 'ia3'"),
        ({"lora_parameters": {**LORA, "keys": ["mlp.up_proj", *Q_AND_V["keys"]]}}, "up_proj.lora_a not in the file"),
    ],
)
def test_settings_of_mlx_programs_that_are_not_understood_are_refused(bases, tmp_path, settings, said):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", settings)
    with pytest.raises(ValueError, match=said):
        FastModel.from_pretrained(folder)


def test_adapters_of_mlx_vlm_with_its_old_names_are_opened_once_their_scale_is_written(bases, tmp_path):
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    path, leaves = folder / "adapters.safetensors", {"lora_a": "A", "lora_b": "B"}
    named = {f"{name[:-6]}{leaves[name[-6:]]}": array for name, array in mx.load(str(path)).items()}
    mx.save_safetensors(str(path), named)
    assert np.abs(opened(folder) - expected).max() < 1e-5


def test_adapters_beside_a_whole_model_or_its_config_are_those_on_the_base_they_name(bases, tmp_path):
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    shutil.copy(bases["tied"] / "config.json", folder)
    assert np.abs(opened(folder) - expected).max() < 1e-5
    other = tiny_model_folder(tmp_path / "other", seed=9)  # a whole model that is not their base
    for file in other.glob("*"):
        shutil.copy(file, folder)
    model, _ = FastModel.from_pretrained(folder)
    assert np.abs(np.array(model.module(mx.array(TOKENS))) - expected).max() < 1e-5
    assert "the whole model beside them was not read" in model.source
    rewritten(folder, model=...)
    for file in bases["tied"].glob("*"):
        shutil.copy(file, folder)
    model, _ = FastModel.from_pretrained(folder)
    assert np.abs(np.array(model.module(mx.array(TOKENS))) - expected).max() < 1e-5
    assert "so it is the one beside them" in model.source


def test_a_whole_model_with_settings_of_adapters_and_no_adapters_is_the_whole_model(bases, tmp_path):
    folder = shutil.copytree(bases["tied"], tmp_path / "merged")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "gone"}))
    assert np.array_equal(opened(folder), opened(bases["tied"]))


def test_a_base_that_is_not_where_the_settings_say_is_named_with_them(bases, tmp_path):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    with pytest.raises(
        FileNotFoundError, match=r"no file or folder /nowhere/base.*adapter_config.json of .*mlx names it as their base"
    ):
        FastModel.from_pretrained(rewritten(folder, model="/nowhere/base"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_with_more_tokens_than_the_base_are_refused_with_the_number(bases, tmp_path):
    whole = ["embed_tokens", "lm_head"]
    folder, _ = of_peft(bases["untied"], tmp_path / "peft", longer=2, modules_to_save=whole)
    with pytest.raises(ValueError, match=r"\[514, 64\] in the file, \[512, 64\] in the model.*2 more tokens"):
        FastModel.from_pretrained(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["adapter", "whole"])
def test_values_that_are_not_finite_are_named_and_nothing_is_changed(bases, tmp_path, bad, where):
    model, _ = FastModel.from_pretrained(bases["untied"])
    FastModel.get_peft_model(model, r=4, target_modules=["q_proj"], modules_to_save=["norm"])
    model.save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapters.safetensors"
    tensors = dict(mx.load(str(path)))
    name = next(name for name in tensors if ("lora_b" in name) == (where == "adapter"))
    numbers = np.array(tensors[name])
    numbers.flat[:3] = bad
    mx.save_safetensors(str(path), tensors | {name: mx.array(numbers)})
    bare, _ = FastModel.from_pretrained(bases["untied"])
    before = everything(bare.module)
    with pytest.raises(ValueError, match=rf"hold 3 values that are NaN or infinite, in 1 of 5 tensors: {name} \(3\)"):
        load_adapters(bare.module, tmp_path / "lora")
    assert everything(bare.module) == before
    with pytest.raises(ValueError, match="NaN or infinite"):
        FastModel.from_pretrained(tmp_path / "lora")


@pytest.mark.parametrize("fault", ["stranger", "lone", "wrong shape", "empty", "integers", "whole of an adapted layer"])
def test_tensors_that_have_no_place_are_named_and_the_model_left_as_it_was(bases, tmp_path, fault):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    path = folder / "adapters.safetensors"
    tensors = dict(mx.load(str(path)))
    q = "model.layers.0.self_attn.q_proj"
    changed, said = {
        "stranger": (
            tensors | {"model.layers.7.self_attn.q_proj.lora_a": mx.zeros((64, 4))},
            r"layers.7.*not in the model",
        ),
        "lone": (
            {name: array for name, array in tensors.items() if name != f"{q}.lora_b"},
            r"q_proj.lora_b not in the",
        ),
        "wrong shape": (tensors | {f"{q}.lora_b": mx.zeros((4, 65))}, r"\[4, 65\] in the file, \[4, 64\] in the model"),
        "empty": ({}, "holds no tensors"),
        "integers": (tensors | {f"{q}.lora_b": mx.zeros((4, 64), mx.int32)}, "q_proj.lora_b is I32"),
        "whole of an adapted layer": (
            tensors | {f"{q}.weight": mx.zeros((64, 64))},
            "q_proj.weight .* not in the model",
        ),
    }[fault]
    mx.save_safetensors(str(path), changed)
    model, _ = FastModel.from_pretrained(bases["tied"])
    before = everything(model.module)
    with pytest.raises(ValueError, match=said):
        load_adapters(model.module, folder)
    assert everything(model.module) == before


def test_a_second_set_of_adapters_is_refused_and_the_first_stays(bases, tmp_path):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    model, _ = FastModel.from_pretrained(folder)
    before = everything(model.module)
    with pytest.raises(ValueError, match="has adapters already"):
        load_adapters(model.module, folder)
    assert everything(model.module) == before


def test_adapters_saved_in_half_precision_go_on_in_float32(bases, tmp_path):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    path = folder / "adapters.safetensors"
    halves = {name: array.astype(mx.bfloat16) for name, array in mx.load(str(path)).items()}
    mx.save_safetensors(str(path), halves)
    model, _ = FastModel.from_pretrained(folder)
    trained = flat(model.module.trainable_parameters())
    assert trained.keys() == halves.keys()
    assert all(array.dtype == mx.float32 and mx.array_equal(array, halves[name]) for name, array in trained.items())


def with_header(header, size=100):
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("adapters.safetensors", b"", "no whole .safetensors file .0 bytes"),
        ("adapters.safetensors", (2**40).to_bytes(8, "little") + b"{}", "no whole .safetensors file"),
        ("adapters.safetensors", with_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,9]}}'), "no whole"),
        ("adapters.safetensors", with_header(b'{"a":{"dtype":"F99","shape":[25],"data_offsets":[0,100]}}'), "no whole"),
        ("adapters.safetensors", with_header(b"[" * 100_000), "no whole .safetensors file"),
        ("adapter_config.json", b"[" * 100_000, "nested too deep|cannot be read as JSON"),
        ("adapter_config.json", b'{"a":' * 50 + b"1" + b"}" * 50, "nested deeper than settings are"),
        ("adapter_config.json", b'{"num_layers": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        ("adapter_config.json", b"\xff\xfe{}", "cannot be read as JSON"),
        ("adapter_config.json", b"[1, 2]", "holds a list where settings"),
        ("adapter_config.json", b'{"model": 7}', "does not say what model"),
    ],
)
def test_files_that_are_broken_are_refused_in_a_sentence(bases, tmp_path, file, content, said):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        FastModel.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "left", "said"),
    [
        (
            "adapters.safetensors",
            None,
            "no adapter_model.safetensors and no adapters.safetensors .it holds adapter_config",
        ),
        ("adapters.safetensors", "adapter_model.bin", "a pickle, which can run code.*torch.load.*weights_only=True"),
        ("adapter_config.json", None, "holds adapters.safetensors, but no adapter_config.json"),
    ],
)
def test_files_that_are_missing_are_named_with_what_to_do(bases, tmp_path, gone, left, said):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    (folder / gone).rename(folder / left) if left else (folder / gone).unlink()
    with pytest.raises(FileNotFoundError, match=said):
        FastModel.from_pretrained(folder)
