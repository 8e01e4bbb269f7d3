"""A tokenizer as it stands: nothing left on cuts or pads a row, what a person changed is seen and saved."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.makers.tiny import CHAT_TEMPLATE, tiny_model_folder, tiny_tokenizer
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.model_files.chat_templates import read_templates, save_templates

OTHER = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
ASK = [{"role": "user", "content": "Why?"}]
ROWS = [{"messages": [*ASK, {"role": "assistant", "content": "the quick brown fox " * n}]} for n in (1, 3, 30)]
STEPS = TrainingConfig(max_steps=1, hold_out=0)


def lengths(model, rows=ROWS):
    rows = Trainer(model, train_dataset=rows, args=STEPS).train_rows
    return [(len(row.tokens), int(row.loss_mask.sum())) for row in rows]


def left_on(tokenizer, how):
    if how == "truncation":
        tokenizer.enable_truncation(max_length=16)
    elif how == "truncation to the left":
        tokenizer.enable_truncation(max_length=16, direction="left", stride=2)
    else:
        tokenizer.enable_padding(length=256, direction="left" if how == "padding to the left" else "right")


@pytest.mark.parametrize("how", ["truncation", "truncation to the left", "padding", "padding to the left"])
def test_what_is_left_on_in_a_file_or_by_a_call_is_not_in_force(tmp_path, how):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    texts = [{"text": row["messages"][1]["content"]} for row in ROWS]
    expected = lengths(model), lengths(model, texts)
    left_on(tokenizer.backend_tokenizer, how)
    assert (lengths(model), lengths(model, texts)) == expected
    saved = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    left_on(saved, how)
    saved.save(str(tmp_path / "m" / "tokenizer.json"))
    again, _ = FastModel.from_pretrained(tmp_path / "m")
    assert (lengths(again), lengths(again, texts)) == expected
    again.save_pretrained_merged(tmp_path / "merged")
    exported = json.loads((tmp_path / "merged" / "tokenizer.json").read_text())
    assert exported["truncation"] is None
    assert exported["padding"] is None


def test_a_prompt_is_read_whole_after_a_call_that_cut(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    prompt = "the quick brown fox jumps over the lazy dog"
    before = model.generate(prompt, max_tokens=4)
    tokenizer._tokenizer(["a", "b c d"], truncation=True, max_length=2, padding="max_length")
    assert model.generate(prompt, max_tokens=4) == before


def test_a_template_and_an_end_given_after_loading_are_in_force(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m", chat_template=None))
    tokenizer.chat_template = OTHER
    tokenizer.eos_token = "<|endoftext|>"
    row = Trainer(model, train_dataset=ROWS[:1], args=STEPS).train_rows[0]
    assert tokenizer.decode(row.tokens.tolist()).startswith("[user] Why?")
    assert tokenizer.eos_token_id in tokenizer.eos_token_ids
    model.save_pretrained_merged(tmp_path / "merged")
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.chat_template == OTHER
    assert merged.eos_token == "<|endoftext|>"
    ends = json.loads((tmp_path / "merged" / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.eos_token_id in ends


@pytest.mark.parametrize("format", ["mlx", "peft"])
def test_adapters_are_opened_with_the_tokenizer_and_template_they_were_tuned_with(tmp_path, format):
    folder = tiny_model_folder(tmp_path / "m")
    model, tokenizer = FastModel.from_pretrained(folder, chat_template=OTHER)
    tokenizer.bos_token = "<|im_end|>"
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])
    model.save_pretrained(tmp_path / "lora", format=format)
    _, again = FastModel.from_pretrained(tmp_path / "lora")
    assert again.chat_template == OTHER
    assert again.bos_token == "<|im_end|>"
    _, chosen = FastModel.from_pretrained(tmp_path / "lora", chat_template=CHAT_TEMPLATE)
    assert chosen.chat_template == CHAT_TEMPLATE


def test_adapters_of_others_bring_their_tokenizer(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m", chat_template=None))
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])
    model.save_pretrained(tmp_path / "lora", format="peft")
    tiny_tokenizer(tmp_path / "lora", chat_template=OTHER)
    again, tokenizer = FastModel.from_pretrained(tmp_path / "lora")
    assert tokenizer.chat_template == OTHER
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").exists()


def test_named_templates_are_kept_by_every_export(tmp_path):
    named = {"default": CHAT_TEMPLATE, "tool_use": "{% if tools %}TOOLS {% endif %}" + CHAT_TEMPLATE}
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m", chat_template=None))
    tokenizer.chat_template = named
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    row = Trainer(model, train_dataset=[{**ROWS[0], "tools": tools}], args=STEPS).train_rows[0]
    assert tokenizer.decode(row.tokens.tolist()).startswith("TOOLS")
    model.save_pretrained(tmp_path / "lora")
    model.save_pretrained_merged(tmp_path / "merged")
    (gguf,) = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f16")
    for place in (tmp_path / "lora", tmp_path / "merged", gguf.path):
        _, again = FastModel.from_pretrained(place)
        assert again.chat_template == named
    _, one = FastModel.from_pretrained(tmp_path / "merged", chat_template="tool_use")
    assert one.chat_template == named["tool_use"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\nb"])
def test_a_template_with_no_name_of_a_file_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="no name of a file"):
        save_templates({"default": "a", name: "b"}, tmp_path)
    assert read_templates(tmp_path) is None
