"""gguf/: the weights of a model, there and back; mlx-lm and transformers judge one side, llama.cpp the other."""

import json

import mlx.core as mx
import numpy as np
import pytest
from transformers import AutoConfig

from tests.makers.gguf_facts import PROBE, ids_of, log_probs, logits, tensor_types, weights_of
from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook.export.readback import llama_cpp
from tunebook.gguf import QUANTIZATIONS, read_gguf, write_gguf


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_written_and_read_back_gives_the_same_logits(tmp_path, architecture):
    folder = tiny_model_folder(tmp_path / "model", architecture)
    back = read_gguf(write_gguf(folder, tmp_path / "model.gguf", "f32").path, tmp_path / "back")
    ids = ids_of(folder, PROBE)
    np.testing.assert_allclose(logits(back, ids), logits(folder, ids), atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_understands_the_folder_read_back_as_it_did_the_original(tmp_path, architecture):
    folder = tiny_model_folder(tmp_path / "model", architecture)
    back = read_gguf(write_gguf(folder, tmp_path / "model.gguf", "f32").path, tmp_path / "back")
    before, after = (AutoConfig.from_pretrained(place).to_dict() for place in (folder, back))
    known = AutoConfig.for_model(before["model_type"]).to_dict().keys() - {"_name_or_path"}
    assert {key: after[key] for key in known} == {key: before[key] for key in known}


@pytest.mark.parametrize("quantization", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_gives_each_token_the_probability_mlx_gives_it(tmp_path, architecture, quantization):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", architecture)
    ids = ids_of(folder, PROBE)
    written = write_gguf(folder, tmp_path / "model.gguf", quantization)
    error = llama_cpp.target_log_probs(written.path, ids) - log_probs(folder, ids)
    # Of rows of 64 random numbers 8 bits lose more than of a trained model's; single tokens say little.
    assert (np.abs(error).mean() < 0.1) if quantization == "q8_0" else (np.abs(error).max() < 0.02)


def test_untied_heads_and_attention_biases_survive_for_llama_cpp(tmp_path):
    pytest.importorskip("xllamacpp")
    settings: dict = {"tie_word_embeddings": False, "attention_bias": True}
    folder = tiny_model_folder(tmp_path / "model", "llama", **settings)
    ids = ids_of(folder, PROBE)
    written = write_gguf(folder, tmp_path / "model.gguf", "f32")
    np.testing.assert_allclose(llama_cpp.target_log_probs(written.path, ids), log_probs(folder, ids), atol=1e-3)
    config = json.loads((read_gguf(written.path, tmp_path / "back") / "config.json").read_text())
    assert {key: config[key] for key in settings} == settings


@pytest.mark.parametrize(("quantization", "nats"), [("bf16", 0.05), ("q8_0", 0.1), ("q5_1", 0.5), ("q4_0", 0.5)])
def test_quantizing_moves_the_loss_llama_cpp_measures_only_a_little(tmp_path, quantization, nats):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", hidden_size=128, head_dim=32, intermediate_size=256)
    ids = ids_of(folder, PROBE)
    written = write_gguf(folder, tmp_path / "model.gguf", quantization)
    error = llama_cpp.target_log_probs(written.path, ids) - log_probs(folder, ids)
    assert abs(error.mean()) < nats / 5
    assert np.abs(error).mean() < nats


@pytest.mark.parametrize("quantization", [kind for kind in QUANTIZATIONS if "_k" not in kind])
def test_llama_cpp_and_our_reader_agree_on_what_a_quantized_file_holds(tmp_path, quantization):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "qwen3")
    ids = ids_of(folder, PROBE)
    path = write_gguf(folder, tmp_path / "model.gguf", quantization).path
    # llama.cpp rounds the other factor of such a product as well: to bf16, or to 8 bits beside quantized weights.
    error = llama_cpp.target_log_probs(path, ids) - log_probs(read_gguf(path, tmp_path / "back"), ids)
    assert np.abs(error).max() < {"f32": 1e-3, "f16": 0.02, "bf16": 0.05}.get(quantization, 0.2)


def test_vectors_stay_fp32_and_the_head_of_a_four_bit_file_has_eight_bits(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "qwen2", tie_word_embeddings=False)
    types = tensor_types(write_gguf(folder, tmp_path / "model.gguf", "q4_1").path)
    assert {types[name] for name in types if "norm" in name or name.endswith(".bias")} == {"F32"}
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q8_0", "Q4_1")
    assert types["blk.0.ffn_up.weight"] == "Q4_1"


def test_rows_that_do_not_divide_into_blocks_become_f16_and_are_named(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama", intermediate_size=72)
    written = write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    assert written.fallbacks == {"blk.0.ffn_down.weight": "f16", "blk.1.ffn_down.weight": "f16"}
    types = tensor_types(written.path)
    assert {name for name in types if types[name] == "F16"} == set(written.fallbacks)


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("f32", "float32"), ("f16", "float16"), ("bf16", "bfloat16"), ("q4_0", "float16")]
)
def test_a_file_read_keeps_its_own_dtype_and_a_quantized_one_becomes_float16(tmp_path, quantization, dtype):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    back = read_gguf(write_gguf(folder, tmp_path / "model.gguf", quantization).path, tmp_path / "back")
    config = json.loads((back / "config.json").read_text())
    assert config["torch_dtype"] == config["dtype"] == dtype
    weights = weights_of(back)
    assert {str(array.dtype) for array in weights.values()} == {f"mlx.core.{dtype}"}


def test_bf16_weights_survive_both_ways_bit_for_bit(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    weights = {name: array.astype(mx.bfloat16) for name, array in weights_of(folder).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    path = write_gguf(folder, tmp_path / "model.gguf", "bf16").path
    back = weights_of(read_gguf(path, tmp_path / "back"))
    assert set(back) == set(weights)
    assert all(mx.array_equal(back[name], weights[name]) for name in weights)


def test_a_large_model_is_read_into_shards_that_mlx_lm_opens_as_one(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32", name="tiny").path
    back = read_gguf(path, tmp_path / "back", shard_bytes=150_000)
    assert write_gguf(back, tmp_path / "again.gguf", "f32", name="tiny").path.read_bytes() == path.read_bytes()
    index = json.loads((back / "model.safetensors.index.json").read_text())
    files = {file.name for file in back.glob("model-*.safetensors")}
    assert len(files) == 3
    assert set(index["weight_map"].values()) == files
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in weights_of(folder).values())
    ids = ids_of(folder, PROBE)
    np.testing.assert_allclose(logits(back, ids), logits(folder, ids), atol=1e-4)
