"""The tokenizer and chat template in a .gguf: llama.cpp cuts and renders as transformers does, or we say where not.

Each kind of tokenizer is trained on the spot, on text in many scripts, with the pre-tokenizer of the released models.
"""

import json
import unicodedata
from datetime import datetime
from importlib.metadata import distribution
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.gguf.texts import texts
from tests.makers.tiny import tiny_model_folder, tiny_tokenizer
from tunebook import FastModel
from tunebook.export.readback import llama_cpp
from tunebook.gguf import read_gguf, write_gguf

TEXTS = texts(220, seed=0)


def folder_with(folder: Path, style: str) -> Path:
    """A model whose tokenizer was trained on texts like the test's, so that many words are one token."""
    tiny_model_folder(folder, style=style, vocab_size=2000)
    tiny_tokenizer(folder, style=style, vocab_size=2000, corpus=texts(400, seed=1))
    return folder


def differing(folder: Path, path: Path, asked: list[str]) -> list[str]:
    """The texts llama.cpp cuts otherwise than transformers does."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        text
        for text, ids in zip(asked, llama_cpp.tokenize_all(path, asked), strict=True)
        if tokenizer(text)["input_ids"] != ids
    ]


@pytest.mark.parametrize("style", ["smollm", "gpt2", "llama3"])
def test_llama_cpp_makes_the_same_ids_of_220_texts_in_many_scripts(tmp_path, style):
    pytest.importorskip("xllamacpp")
    folder = folder_with(tmp_path / "model", style)
    written = write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    assert differing(folder, written.path, TEXTS) == []
    assert written.notices == ()


def test_of_a_qwen_tokenizer_only_text_with_separate_accents_is_cut_otherwise_and_that_is_said(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = folder_with(tmp_path / "model", "qwen2")
    written = write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    assert differing(folder, written.path, [unicodedata.normalize("NFC", text) for text in TEXTS]) == []
    assert "e\u0301le\u0300ve n\u0303 decomposed" in differing(folder, written.path, TEXTS)
    assert "separate accents" in written.notices[0]


@pytest.mark.parametrize("style", ["tekken", "gpt-4o"])
def test_tokenizers_llama_cpp_only_approximates_are_exact_in_plain_letters_and_the_rest_is_said(tmp_path, style):
    pytest.importorskip("xllamacpp")
    folder = folder_with(tmp_path / "model", style)
    written = write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    assert differing(folder, written.path, [text for text in TEXTS if text.isascii()]) == []
    assert differing(folder, written.path, TEXTS)
    assert "accented letters or combining marks" in written.notices[0]
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    assert AutoTokenizer.from_pretrained(read_gguf(written.path, tmp_path / "back"))(TEXTS)["input_ids"] == ids


TEMPLATES = Path(str(distribution("trl").locate_file("trl/chat_templates")))
CONVERSATIONS = (
    [{"role": "user", "content": "Hi  there, ünï <b>&amp;</b> \"quoted\" 'x'\n\n```py\n1\n```"}],
    [
        {"role": "system", "content": "Be brief.\nAnd kind."},
        {"role": "user", "content": "  What?  "},
        {"role": "assistant", "content": " This.\n"},
        {"role": "user", "content": "日本語 🎵"},
    ],
)


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "qwen3", "gemma3", "phi3"])
def test_llama_cpp_writes_conversations_as_transformers_does(tmp_path, name):
    pytest.importorskip("xllamacpp")
    template = (TEMPLATES / f"{name}.jinja").read_text()
    folder = tiny_model_folder(tmp_path / "model", chat_template=template)
    path = write_gguf(folder, tmp_path / "model.gguf", "q8_0").path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    today = datetime.now().strftime("%d %b %Y")  # llama.cpp hands it to the template, transformers does not
    expected = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, date_string=today)
        for messages in CONVERSATIONS
    ]
    assert llama_cpp.render_all(path, CONVERSATIONS) == expected


def test_a_tokenizer_without_a_place_in_gguf_is_refused_before_anything_is_merged(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    model, _ = FastModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="has no name in GGUF"):
        model.save_pretrained_gguf(tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()
