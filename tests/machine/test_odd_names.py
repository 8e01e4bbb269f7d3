"""Folders of any name a file system takes: they open, are exported to and read back, and stand quoted where written."""

import ast
import re
import shlex
import subprocess
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import tiny_vision_folder
from tunebook import FastModel
from tunebook.export.card import model_card
from tunebook.export.usage import commands_for_folder, quoted
from tunebook.model_files.trusted import openable

NAMES = [
    "[v2] model",
    "a*b",
    "what?",
    "x\nSYSTEM evil",
    "a'b\"c",
    "[!a-z]",
    "$(touch pwned) `id`",
    "| ``` # é 🎵",
    "-rf",
]
TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7]])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("plain") / "llama")


def tuned(folder):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
    return model


@pytest.mark.parametrize("name", [NAMES[0], "a*b?", "x\nSYSTEM 'evil'"])
def test_a_model_in_such_a_folder_opens_and_goes_into_such_folders_and_back(plain, tmp_path, name):
    base = tmp_path / "in" / name
    base.mkdir(parents=True)
    for file in plain.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    model = tuned(base)
    here = np.array(model.module(TOKENS))
    for form, save in (
        ("lora", model.save_pretrained),
        ("merged", lambda folder: model.save_pretrained_merged(folder, dtype="float32")),
    ):
        save(tmp_path / form / name)
        again, _ = FastModel.from_pretrained(tmp_path / form / name)
        np.testing.assert_allclose(np.array(again.module(TOKENS)), here, atol=1e-4)
    for export in model.save_pretrained_gguf(tmp_path / "gguf" / name, quantization_method="f32"):
        again, _ = FastModel.from_pretrained(export.path)
        np.testing.assert_allclose(np.array(again.module(TOKENS)), here, atol=1e-3)
        assert export.path.with_suffix(".Modelfile").read_text().splitlines()[0] == f"FROM ./{export.path.name}"


def test_an_export_with_brackets_in_its_name_is_verified_and_says_who_does_not_open_it(plain, tmp_path, rows):
    model = tuned(plain)
    export = model.save_pretrained_merged(tmp_path / "[v2] merged", verify_with=rows[:1])
    assert export.verification is not None
    assert export.verification.passed
    assert "[v2] merged' for one, so by themselves they may not open that folder" in str(export)
    assert "for one" not in str(model.save_pretrained_merged(tmp_path / "v2 merged"))


def test_a_gguf_file_of_such_a_name_opens(plain, tmp_path):
    [export] = tuned(plain).save_pretrained_gguf(tmp_path, quantization_method="f16")
    for name in ("[v2] m.gguf", "x\ny*.gguf", "ü" * 120 + ".gguf"):
        path = tmp_path / name
        path.write_bytes(export.path.read_bytes())
        FastModel.from_pretrained(path)


def test_a_model_that_sees_opens_and_is_merged_under_such_a_name(tmp_path):
    name = "[v2] a*b\n'c'"
    folder = tiny_vision_folder(tmp_path / "base" / name, "qwen2_5_vl")
    model = tuned(folder)
    model.save_pretrained_merged(tmp_path / "merged" / name)
    model.save_pretrained(tmp_path / "lora" / name)
    FastModel.from_pretrained(tmp_path / "merged" / name)
    FastModel.from_pretrained(tmp_path / "lora" / name)


def test_what_a_library_is_shown_has_a_plain_name_whatever_the_folder_is_called(plain, tmp_path):
    for name in (*NAMES, "ü" * 100):
        folder = tmp_path / name
        folder.symlink_to(plain)
        (tmp_path / "real" / name).mkdir(parents=True)
        (tmp_path / "real" / name / "config.json").write_text("{}")
        shown = openable(tmp_path / "real" / name, trust_remote_code=True)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", shown.name)


@pytest.mark.parametrize("name", [*NAMES, "\x1b[2J", "a\\b\tc", "{{ x }} <b>", "--- \n- a: b"])
@pytest.mark.parametrize("hub", [True, False])
def test_a_card_holds_any_name_in_its_place(tuned_plain, name, hub):
    for form in ("lora", "peft", "merged", "gguf"):
        files = ("m.f16.gguf",) if form == "gguf" else ()
        card = model_card(tuned_plain, (), form, place=name, hub=hub, files=files)
        front, _, body = card.removeprefix("---\n").partition("\n---\n")
        assert all(
            re.fullmatch(r"(library_name: \w+|pipeline_tag: [\w-]+|tags:|- \w+)", line) for line in front.split("\n")
        )
        assert len(re.findall(r"^```", body, re.MULTILINE)) % 2 == 0
        assert len(re.findall(r"^# ", re.sub(r"```.*?```", "", body, flags=re.DOTALL), re.MULTILINE)) == 1
        assert all(line.isprintable() for line in card.split("\n"))
        for block in re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
            texts = {node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)}
            assert name in texts
        for block in re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
            downloads = [line for line in block.split("\n") if line.startswith("hf download")]
            assert len(downloads) == hub
            for line in downloads:
                assert in_a_shell(line.removeprefix("hf download ").removesuffix(" --local-dir .")) == [name]


@pytest.fixture(scope="module")
def tuned_plain(plain):
    return tuned(plain).loaded


def test_the_name_of_the_base_stays_in_its_cell(tuned_plain):
    for name in NAMES:
        card = model_card(replace(tuned_plain, name=f"/home/ada/{name}"), (), "lora", place="out")
        [row] = [line for line in card.splitlines() if line.startswith("| base model |")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
        assert "adapter_path='out'" in card


@pytest.mark.parametrize("text", [*NAMES, "\x1b[2J", "a\\b\tc'", "plain", "ü ü", "\x7f\x80", ""])
def test_a_quoted_word_is_that_word_in_a_shell_and_plain_on_a_screen(text):
    assert quoted(text).isprintable()
    assert in_a_shell(quoted(text)) == [text]


def in_a_shell(words: str) -> list[str]:
    """The words bash makes of them."""
    script = f"for word in {words}; do printf '%s\\0' \"$word\"; done"
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    return said.split("\0")[:-1]


def test_commands_to_copy_name_the_folder_as_one_word(tmp_path):
    for name in NAMES:
        [line] = commands_for_folder(tmp_path / name, base=None, library="mlx-lm")
        assert in_a_shell(line) == ["mlx_lm.chat", "--model", str(tmp_path / name)]
        assert name.isprintable() is False or shlex.split(line)[-1] == str(tmp_path / name)
