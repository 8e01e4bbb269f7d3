"""The gguf room, checked against mlx-lm and transformers on one side and llama.cpp itself on the other."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from tests.makers.tiny import ARCHITECTURES, CHAT_TEMPLATE, tiny_model_folder
from tunebook.export.readback import llama_cpp
from tunebook.gguf import QUANTIZATIONS, UnsupportedArchitecture, check_architecture, read_gguf, write_gguf
from tunebook.machine.atomic import DiskFull

TEXTS = (
    "Hello world, it's 2024 and she'll count 1234567 sheep!",
    "  leading, trailing  \n\n\tand   inner   spaces \r\n",
    "Straße, naïve café, piñata; Ελληνικά, Русский, עברית, العربية, हिन्दी",
    "日本語の文章と漢字、한국어 문장, 中文句子。ไทย",
    "emoji 🎵🎻 👩‍👩‍👧 flags 🇩🇪, math ∑∞≠ ½ ²³, ligature ﬁ, zero\u200bwidth",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\n    return x ** 2  # ok\n\n\n\nprint(f(3)) // don't",
)
YARN = {"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
PROBE = "The quick brown fox says: über 日本 1234, it's <|im_start|>user\nhi<|im_end|>\n and then sleeps."


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    """(T, V): the stored weights computed with in fp32, whatever type they are stored in."""
    model = mlx_lm.load(str(folder))[0]
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([ids]))[0])


def ids_of(folder: Path, text: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


def weights_of(folder: Path) -> dict[str, mx.array]:
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    return weights


def log_probs(folder: Path, ids: list[int]) -> np.ndarray:
    """Log p of ids[1:] under mlx-lm, in nats."""
    scores = logits(folder, ids)[:-1].astype(np.float64)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores[np.arange(len(ids) - 1), ids[1:]]


def fields(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensor_types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# Weights


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


# Rope scaling


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        YARN,
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_scaled_rope_is_the_same_in_llama_cpp_and_after_the_way_back(tmp_path, scaling):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", rope_scaling=scaling)
    plain = tiny_model_folder(tmp_path / "plain", "llama")
    ids = ids_of(folder, PROBE)
    assert np.abs(log_probs(folder, ids) - log_probs(plain, ids)).max() > 0.05  # the scaling can be seen at all
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    np.testing.assert_allclose(llama_cpp.target_log_probs(path, ids), log_probs(folder, ids), atol=1e-3)
    back = read_gguf(path, tmp_path / "back")
    np.testing.assert_allclose(logits(back, ids), logits(folder, ids), atol=1e-4)
    assert json.loads((back / "config.json").read_text())["rope_scaling"] == scaling


def test_settings_nested_as_transformers_5_writes_them_are_understood(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "qwen3", rope_theta=50_000.0)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (folder / "config.json").write_text(json.dumps(config))
    ids = ids_of(folder, PROBE)
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    np.testing.assert_allclose(llama_cpp.target_log_probs(path, ids), log_probs(folder, ids), atol=1e-3)


# Tokenizers


@pytest.mark.parametrize("style", ["smollm", "gpt2", "qwen2", "llama3"])
def test_transformers_llama_cpp_and_the_folder_read_back_cut_every_text_alike(tmp_path, style):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", style=style)
    path = write_gguf(folder, tmp_path / "model.gguf", "q8_0").path
    back = AutoTokenizer.from_pretrained(read_gguf(path, tmp_path / "back"))
    original = AutoTokenizer.from_pretrained(folder)
    expected = [original(text)["input_ids"] for text in TEXTS]
    assert llama_cpp.tokenize_all(path, TEXTS) == expected
    assert [back(text)["input_ids"] for text in TEXTS] == expected
    assert back.batch_decode(expected) == original.batch_decode(expected)


def sentencepiece_folder(folder: Path, *, prefix: bool) -> Path:
    """A llama model whose tokenizer has scores, byte tokens and ▁ for spaces, as Llama 2's (prefix) or Gemma's."""
    folder = tiny_model_folder(folder, "llama", vocab_size=600)
    learnt = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    words = dict.fromkeys(word.replace("Ġ", "▁") for pair in learnt if (word := "".join(pair)).isidentifier())
    letters = dict.fromkeys("".join(words))
    texts = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{value:02X}>" for value in range(256)), *letters, *words]
    vocabulary = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    # Earlier tokens score higher; as transformers converts such a model, every way to make a token is a merge.
    merges = [
        (word[:cut], word[cut:])
        for word in words
        for cut in sorted(range(1, len(word)), reverse=True)
        if word[:cut] in vocabulary and word[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<unk>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokenizers_are_cut_alike_on_all_three_sides(tmp_path, prefix):
    pytest.importorskip("xllamacpp")
    folder = sentencepiece_folder(tmp_path / "model", prefix=prefix)
    written = write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    assert written.notices == ()
    back = read_gguf(written.path, tmp_path / "back")
    expected = [ids_of(folder, text) for text in TEXTS]
    assert llama_cpp.tokenize_all(written.path, TEXTS) == expected
    assert [ids_of(back, text) for text in TEXTS] == expected


def test_special_tokens_the_end_list_and_the_chat_template_survive(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    path = write_gguf(folder, tmp_path / "model.gguf", "f16", name="A tune").path
    stored = fields(path)
    assert stored["general.name"] == "A tune"
    assert stored["tokenizer.ggml.token_type"][:4] == [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL]
    back = read_gguf(path, tmp_path / "back")
    assert json.loads((back / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": [2, 0],
    }
    one, other = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(back)
    assert other.chat_template == one.chat_template == CHAT_TEMPLATE
    assert other.special_tokens_map == one.special_tokens_map
    assert mlx_lm.load(str(back))[1].eos_token_ids == {0, 2}


def test_several_chat_templates_survive_by_name(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    back = read_gguf(write_gguf(folder, tmp_path / "model.gguf", "f16").path, tmp_path / "back")
    assert AutoTokenizer.from_pretrained(back).chat_template == {"default": CHAT_TEMPLATE, "tool_use": "{{ tools }}"}


def test_rows_beyond_the_tokenizer_are_padded_for_llama_cpp_and_gone_after_the_way_back(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", vocab_size=520)
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    stored = fields(path)
    assert stored["tokenizer.ggml.tokens"][-8:] == [f"[PAD{index}]" for index in range(512, 520)]
    assert stored["tokenizer.ggml.token_type"][-8:] == [gguf.TokenType.UNUSED] * 8
    ids = ids_of(folder, PROBE)
    np.testing.assert_allclose(llama_cpp.target_log_probs(path, ids), log_probs(folder, ids), atol=1e-3)
    assert len(AutoTokenizer.from_pretrained(read_gguf(path, tmp_path / "back"))) == 512


def test_an_added_token_that_is_not_special_is_found_in_text_by_llama_cpp(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", vocab_size=513)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool_call>"])
    tokenizer.save_pretrained(folder)
    path = write_gguf(folder, tmp_path / "model.gguf", "f16").path
    assert fields(path)["tokenizer.ggml.token_type"][512] == gguf.TokenType.USER_DEFINED
    text = "before <tool_call> after"
    assert llama_cpp.tokenize(path, text) == ids_of(folder, text) == ids_of(read_gguf(path, tmp_path / "back"), text)
    assert 512 in ids_of(folder, text)


def test_a_pre_tokenizer_without_a_name_in_gguf_is_refused_before_anything_is_written(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"has no name in GGUF.*gpt-2, smollm, qwen2, llama-bpe"):
        write_gguf(folder, tmp_path / "model.gguf", "f16")
    assert not (tmp_path / "model.gguf").exists()


def test_a_name_that_looks_like_phi_3_does_not_make_a_file_llama_cpp_cannot_open(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "my-phi3-tune", "llama")
    written = write_gguf(folder, tmp_path / "model.gguf", "f16")
    assert llama_cpp.tokenize(written.path, "the fox") == ids_of(folder, "the fox")
    assert fields(written.path)["general.name"] == "my-phi 3-tune"
    assert "names the model 'my-phi 3-tune'" in written.notices[0]


# Refusals


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


# All or nothing


def test_a_write_stopped_by_a_file_size_limit_leaves_the_old_file_and_no_litter(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "out" / "model.gguf", "q8_0").path
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))
    try:
        with pytest.raises(DiskFull, match="or your share of it"):
            write_gguf(folder, path, "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


FULL_DISK = """
import sys
from pathlib import Path
from tunebook.machine.atomic import DiskFull
from tunebook.gguf import read_gguf, write_gguf
folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
path = disk / "model.gguf"
write_gguf(folder, path, "q4_0")
before = path.read_bytes()
for attempt in (lambda: write_gguf(folder, path, "f32"), lambda: read_gguf(path, disk / "back")):
    try:
        attempt()
    except DiskFull as error:
        print("DiskFull:", error)
assert path.read_bytes() == before and list(disk.iterdir()) == [path]
"""


def test_a_full_disk_is_reported_as_such_and_leaves_the_old_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk of one's own needs Linux with user namespaces")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    done = subprocess.run(
        [*inside, f"{mount} && {sys.executable} {tmp_path / 'full_disk.py'} {folder} {disk}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DiskFull:") == 2, done.stdout


# llama.cpp


def test_a_token_beyond_the_first_candidates_gets_its_true_probability(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    prefix = ids_of(folder, "the fox")
    # Rare tokens are far outside the first candidates asked for.
    tokens = range(0, 512, 101)
    expected = [log_probs(folder, [*prefix, token])[-1] for token in tokens]
    got = [llama_cpp.target_log_probs(path, [*prefix, token], [len(prefix)])[0] for token in tokens]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_a_file_llama_cpp_cannot_load_is_named(tmp_path):
    pytest.importorskip("xllamacpp")
    (tmp_path / "no.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(RuntimeError, match=r"llama\.cpp does not read .*no\.gguf"):
        llama_cpp.tokenize(tmp_path / "no.gguf", "the fox")


def test_llama_cpp_is_asked_about_positions_that_exist(tmp_path):
    with pytest.raises(ValueError, match="they must be 1 to 2"):
        llama_cpp.target_log_probs(tmp_path / "none.gguf", [1, 2, 3], [0, 3])


def test_llama_cpp_prints_nothing(tmp_path, capfd):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    capfd.readouterr()
    llama_cpp.target_log_probs(path, [1, 5, 9])
    assert capfd.readouterr() == ("", "")
