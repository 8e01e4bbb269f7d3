"""The Modelfile: its Go template renders what the tokenizer's chat template renders, for many released models."""

import re
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.data.formats.test_chat_templates import FOLDER, NAMES
from tests.export.go_template import render
from tests.makers.tiny import tiny_tokenizer
from tunebook import FastModel
from tunebook.data.formats.templates import ChatTemplate
from tunebook.export.gguf.ollama import NoGoTemplate, turns_of, write_modelfile

DATED = ("gptoss", "llama3_2", "muse_glimmer")

TALK = [
    {"role": "system", "content": "Answer in verse.\nNever say {{ no }}."},
    {"role": "user", "content": 'What is "<tune>" & why? 🎵'},
    {"role": "assistant", "content": "It is\n\nwhat it is."},
    {"role": "user", "content": "And 2 + 2?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return folder


def tokenizer_with(folder, template):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    return TokenizerWrapper(tokenizer)


def as_ollama_calls_it(template, messages):
    """Ollama (0.12) joins the system messages into .System and leaves them among .Messages."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    named = [{"Role": message["role"], "Content": message["content"]} for message in messages]
    return render(template, {"System": system, "Messages": named})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DATED])
def test_the_go_template_renders_what_the_models_own_template_renders(folder, name):
    tokenizer = tokenizer_with(folder, (FOLDER / f"{name}.jinja").read_text())
    turns = turns_of(tokenizer)
    talks = [TALK[1:2], TALK[1:], *([TALK[:2], TALK] if turns.system else [])]
    for messages in talks:
        expected = ChatTemplate(tokenizer).render(messages, add_generation_prompt=True)
        assert as_ollama_calls_it(turns.as_go(), messages) == expected


@pytest.mark.parametrize("name", DATED)
def test_a_template_that_writes_the_date_is_left_to_the_gguf(folder, name):
    with pytest.raises(NoGoTemplate, match="today's date"):
        turns_of(tokenizer_with(folder, (FOLDER / f"{name}.jinja").read_text()))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content | upper }};{% endfor %}", "write each message once"),
        ("{% for m in messages %}{{ loop.index }}:{{ m.content }}{% endfor %}", "more than put fixed texts"),
        ("{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}", "more than put fixed texts"),
        ("{{ raise_exception('never') }}", "refuses a plain conversation"),
    ],
)
def test_a_template_that_does_more_than_surround_messages_is_left_to_the_gguf(folder, template, reason):
    with pytest.raises(NoGoTemplate, match=reason):
        turns_of(tokenizer_with(folder, template))


def test_an_answer_that_was_begun_is_gone_on_with(folder):
    template = turns_of(tokenizer_with(folder, tiny_template(folder))).as_go()
    begun = [TALK[1], {"role": "assistant", "content": "It is"}]
    assert as_ollama_calls_it(template, begun).endswith("<|im_start|>assistant\nIt is")


def test_the_bos_ollama_adds_by_itself_is_not_in_the_template_too(tmp_path):
    with_bos = "<|im_start|>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    tiny_tokenizer(tmp_path, style="llama3")
    tokenizer = tokenizer_with(tmp_path, with_bos)
    rendered = ChatTemplate(tokenizer).render(TALK)
    assert rendered.startswith("<|im_start|>[system]")
    assert "<|im_start|>" + as_ollama_calls_it(turns_of(tokenizer).as_go(), TALK) == rendered


def test_the_modelfile_has_the_file_the_template_the_stops_and_the_context(model, tmp_path):
    notes = write_modelfile(model.loaded, tmp_path / "tuned.q8_0.gguf")
    text = (tmp_path / "tuned.q8_0.Modelfile").read_text()
    assert text.startswith("FROM ./tuned.q8_0.gguf\n")
    assert re.findall(r"^PARAMETER (.*)$", text, re.MULTILINE) == ['stop "<|im_end|>"', "num_ctx 512"]
    [template] = re.findall(r'^TEMPLATE """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
    expected = ChatTemplate(model.loaded.tokenizer).render(TALK, add_generation_prompt=True)
    assert as_ollama_calls_it(template, TALK) == expected
    assert notes == []


def test_without_a_template_of_ours_the_modelfile_has_none_and_says_why(tiny_folder, tmp_path):
    model, _ = FastModel.from_pretrained(tiny_folder, chat_template="{{ messages | tojson }}")
    [note] = write_modelfile(model.loaded, tmp_path / "tuned.gguf")
    assert "TEMPLATE" not in (tmp_path / "tuned.Modelfile").read_text()
    assert "has no TEMPLATE" in note
    assert "Ollama goes by the chat template in the .gguf" in note


def test_every_gguf_has_its_modelfile_and_the_commands_to_open_it(tuned, tmp_path):
    exports = tuned.save_pretrained_gguf(tmp_path / "my files", quantization_method=["f16", "q8_0"])
    for export in exports:
        assert export.path.with_suffix(".Modelfile").read_text().startswith(f"FROM ./{export.path.name}\n")
        assert export.commands[0] == f"llama-cli -m '{export.path}'"
        assert [command.split()[0] for command in export.commands] == ["llama-cli", "ollama", "lms"]
    assert exports[0].commands[1] in str(exports[0])


def tiny_template(folder):
    return AutoTokenizer.from_pretrained(folder).chat_template
