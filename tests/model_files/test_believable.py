"""Settings and weights that cannot be: refused in a sentence before a model is made of them, whatever they say."""

import json
import struct

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.model_files.believable import check_config
from tunebook.model_files.tensor_files import shapes_in

LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def folder(tmp_path):
    return tiny_model_folder(tmp_path / "model")


def change(file, **entries):
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def refusal(folder):
    with pytest.raises(ValueError, match=r"[.)]$") as caught:
        FastModel.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, which must be a whole number from 1 to"),
        ("num_hidden_layers", "2", "num_hidden_layers is '2'"),
        ("intermediate_size", 0.5, "intermediate_size is 0.5"),
        ("num_attention_heads", True, "num_attention_heads is True"),
        ("hidden_size", 2**31, "hidden_size is 2147483648"),
        ("rms_norm_eps", -1, "rms_norm_eps is -1, which must be a number from 0 to 1"),
        ("rope_theta", float("nan"), "rope_theta is nan, which must be a number above 0"),
        ("attention_dropout", float("inf"), "attention_dropout is inf, which is no finite number"),
        ("vision_config", 7, "vision_config is 7, which must be a section"),
        ("model_type", None, "model_type is None, which must be the name of a kind of model"),
        ("max_position_embeddings", -3, "max_position_embeddings is -3"),
        ("rope_scaling", {**LLAMA_3, "factor": 0}, "rope_scaling.factor is 0, which must be a number above 0"),
        ("rope_scaling", {**LLAMA_3, "low_freq_factor": -1}, "rope_scaling.low_freq_factor is -1"),
        ("rope_scaling", {"rope_type": "yarn", "factor": "4"}, "rope_scaling.factor is '4'"),
        ("rope_parameters", {"full_attention": {"rope_theta": 0}}, "rope_parameters.full_attention.rope_theta is 0"),
    ],
)
def test_settings_that_no_weights_have_are_refused_by_name(folder, name, value, said):
    change(folder / "config.json", **{name: value})
    assert said in refusal(folder)


def test_what_released_configs_hold_is_believed(tmp_path):
    shapes = [(64, 64), (512, 64), (64,)]
    config = {"model_type": "mamba2", "time_step_limit": [0.0, float("inf")], "head_dim": None, "num_hidden_layers": 2}
    config |= {"intermediate_size": [128, 256], "rope_theta": 10000, "num_local_experts": 0, "vision_config": None}
    config |= {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24], "factor": None, "mscale": 0}}
    check_config(config, shapes, tmp_path / "config.json")
    check_config({"model_type": "x", "text_config": {"num_hidden_layers": 3}}, shapes, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[]"),
        ("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("config.json", '{"vocab_size": ' + "9" * 5000 + "}"),
        ("tokenizer_config.json", '{"bos_token": false}'),
        ("tokenizer.json", '{"version": 3}'),
    ],
)
def test_files_of_settings_that_are_none_are_refused_in_a_sentence(folder, file, text):
    (folder / file).write_text(text)
    assert file in refusal(folder) or "could not be opened" in refusal(folder)


def altered(file, change):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    "lie",
    [
        lambda entry: entry.update(data_offsets=[0, 1 << 40]),
        lambda entry: entry.update(data_offsets=[-4, 4]),
        lambda entry: entry.update(shape=[1 << 62, 4]),
        lambda entry: entry.update(shape=["4"]),
        lambda entry: entry.update(dtype="X"),
    ],
)
def test_weights_whose_header_lies_are_refused(folder, lie):
    altered(folder / "model.safetensors", lambda header: lie(header["model.norm.weight"]))
    assert "is no whole .safetensors file" in refusal(folder)


def test_weights_that_are_missing_or_strange_are_one_sentence(folder):
    altered(folder / "model.safetensors", lambda header: header.pop("__metadata__", None))
    assert (64,) in shapes_in(folder / "model.safetensors").values()
    change(folder / "config.json", num_hidden_layers=3)
    assert "could not be opened (ValueError: Missing" in refusal(folder)


def test_a_header_longer_than_its_file_or_than_any_is_not_read(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for length in (1 << 31, len(data), (1 << 64) - 1):
        file.write_bytes(struct.pack("<Q", length) + data[8:])
        assert "is no whole .safetensors file" in refusal(folder)
    file.write_bytes(b"1234")
    assert "(4 bytes)" in refusal(folder)
