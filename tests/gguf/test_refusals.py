"""gguf/: what a file cannot carry is refused by name, with what is supported, before anything is written."""

import json

import gguf
import mlx.core as mx
import numpy as np
import pytest

from tests.makers.gguf_facts import YARN, weights_of
from tests.makers.tiny import tiny_model_folder
from tunebook.gguf import UnsupportedArchitecture, check_architecture, read_gguf, write_gguf


def test_an_unsupported_model_type_is_refused_with_the_supported_ones(tmp_path):
    with pytest.raises(UnsupportedArchitecture, match="'mamba2' yet; supported are llama, mistral, qwen2, qwen3"):
        check_architecture({"model_type": "mamba2"})
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedArchitecture, match="'mamba2' cannot be read yet; supported are llama, qwen2, qwen3"):
        read_gguf(tmp_path / "other.gguf", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("architecture", "override", "reason"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope scaling 'dynamic'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "original_max_position_embeddings is missing",
        ),
        ("llama", {"rope_scaling": YARN | {"beta_fast": 16}}, "beta_fast is 16"),
        ("phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 8}}, "rope scaling 'longrope'"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is False"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
        ("gemma2", {"query_pre_attn_scalar": 20}, "llama.cpp assumes 16"),
        ("gemma2", {"layer_types": ["full_attention"] * 2}, "one full layer in 2"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("gemma3", {"sliding_window_pattern": 2}, "sliding_window_pattern is 2"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "every fourth layer"),
        ("phi3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ],
)
def test_a_setting_gguf_cannot_carry_is_refused_by_name(tmp_path, architecture, override, reason):
    folder = tiny_model_folder(tmp_path / "model", architecture)
    config = json.loads((folder / "config.json").read_text())
    check_architecture(config)
    with pytest.raises(UnsupportedArchitecture, match=reason):
        check_architecture(config | override)


def test_an_unsupported_quantization_is_refused_with_the_supported_ones(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    with pytest.raises(ValueError, match="Cannot write GGUF type iq2_xs; choose from f32, f16, bf16, q8_0"):
        write_gguf(folder, tmp_path / "model.gguf", "iq2_xs")


def test_a_folder_of_weights_that_are_quantized_already_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama", quantization={"bits": 4, "group_size": 64})
    with pytest.raises(ValueError, match="already quantized; save them in 16 bits first"):
        write_gguf(folder, tmp_path / "model.gguf", "f16")


def test_the_experts_of_a_mixture_may_be_stored_one_by_one_and_must_be_complete(tmp_path):
    stacked = tiny_model_folder(tmp_path / "stacked", "qwen3_moe")
    path = write_gguf(stacked, tmp_path / "stacked.gguf", "f32", name="tiny").path
    single = read_gguf(path, tmp_path / "single")
    names = set(weights_of(single))
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in names
    assert not [name for name in names if "switch_mlp" in name]
    assert write_gguf(single, tmp_path / "single.gguf", "f32", name="tiny").path.read_bytes() == path.read_bytes()
    weights = weights_of(single)
    del weights["model.layers.1.mlp.experts.2.down_proj.weight"]
    mx.save_safetensors(str(single / "model.safetensors"), weights)
    with pytest.raises(ValueError, match=r"lacks model.layers.1.mlp.experts.down_proj.weight of experts \[2\]"):
        write_gguf(single, tmp_path / "again.gguf", "f32")


def test_a_tensor_without_a_rule_is_refused_and_named_on_both_ways(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    weights = weights_of(folder) | {"model.layers.0.self_attn.q_norm.weight": mx.ones(16)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    with pytest.raises(UnsupportedArchitecture, match=r"would be lost: model\.layers\.0\.self_attn\.q_norm\.weight"):
        write_gguf(folder, tmp_path / "again.gguf", "f32")
    path.write_bytes(path.read_bytes().replace(b"blk.0.attn_norm.weight", b"blk.0.attn_mist.weight"))
    with pytest.raises(UnsupportedArchitecture, match=r"would be lost: blk\.0\.attn_mist\.weight"):
        read_gguf(path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_tensor_type_that_cannot_be_dequantized_is_named(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = tmp_path / "counts.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="tensors of type I32, which the gguf package cannot dequantize"):
        read_gguf(path, tmp_path / "back")
    assert folder.exists()


def test_a_truncated_file_and_a_folder_in_the_way_are_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    with pytest.raises(FileExistsError, match="not an empty folder"):
        read_gguf(path, folder)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="not a whole GGUF file"):
        read_gguf(path, tmp_path / "back")
