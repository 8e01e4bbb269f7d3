"""gguf/tokenizers/: transformers, llama.cpp and the folder read back cut every text alike."""

import json
from pathlib import Path

import gguf
import mlx_lm
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.makers.gguf_facts import PROBE, fields, ids_of, log_probs
from tests.makers.tiny import CHAT_TEMPLATE, tiny_model_folder
from tunebook.export.readback import llama_cpp
from tunebook.gguf import read_gguf, write_gguf

TEXTS = (
    "Hello world, it's 2024 and she'll count 1234567 sheep!",
    "  leading, trailing  \n\n\tand   inner   spaces \r\n",
    "Straße, naïve café, piñata; Ελληνικά, Русский, עברית, العربية, हिन्दी",
    "日本語の文章と漢字、한국어 문장, 中文句子。ไทย",
    "emoji 🎵🎻 👩‍👩‍👧 flags 🇩🇪, math ∑∞≠ ½ ²³, ligature ﬁ, zero\u200bwidth",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\n    return x ** 2  # ok\n\n\n\nprint(f(3)) // don't",
)


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
