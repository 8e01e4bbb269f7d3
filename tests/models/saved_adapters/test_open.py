"""saved_adapters/open.py: which files are opened on which base, and what is refused leaves the model as it was."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.arrays import in_numpy
from tests.makers.other_adapters import FORMS, TOKENS, everything, of_mlx_lm, opened, rewritten
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.models.adapters import load_adapters
from tunebook.models.tensors import flat


@pytest.mark.float32
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["adapter", "whole"])
def test_values_that_are_not_finite_are_named_and_nothing_is_changed(bases, tmp_path, bad, where):
    model, _ = FastModel.from_pretrained(bases["untied"])
    FastModel.get_peft_model(model, r=4, target_modules=["q_proj"], modules_to_save=["norm"])
    model.save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapters.safetensors"
    tensors = dict(mx.load(str(path)))
    name = next(name for name in tensors if ("lora_b" in name) == (where == "adapter"))
    numbers = in_numpy(tensors[name]).copy()
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
