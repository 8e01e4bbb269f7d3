"""What is not a whole set of weights is named in a sentence, by its name on the disk, and nothing on the disk changes.

Damage is made byte by byte in the files of tiny models, of text and of vision; the judge of what was changed is the
file's own content and time.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import tiny_vision_folder
from tunebook import FastModel
from tunebook.model_files.weight_files import INDEX, weight_files

KINDS = ("llama", "qwen3_moe", "smolvlm", "gemma3_vision")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": tiny_model_folder(root / "llama"),
        "qwen3_moe": tiny_model_folder(root / "qwen3_moe", "qwen3_moe"),
        "smolvlm": tiny_vision_folder(root / "smolvlm", "smolvlm"),
        "gemma3_vision": tiny_vision_folder(root / "gemma3_vision", "gemma3"),
    }


@pytest.fixture(params=KINDS)
def folder(models, tmp_path, request):
    return shutil.copytree(models[request.param], tmp_path / "a model")


def arrays_of(file: Path) -> dict[str, mx.array]:
    return cast("dict[str, mx.array]", mx.load(str(file)))


def with_header(file: Path, change) -> None:
    """Write `file` again with what `change` makes of its header, and the same numbers."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def in_two(folder: Path) -> list[Path]:
    """Store the weights of a folder in two files with an index."""
    arrays = arrays_of(folder / "model.safetensors")
    names, places = sorted(arrays), {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        mx.save_safetensors(str(folder / file), {name: arrays[name] for name in half}, metadata={"format": "mlx"})
        places |= dict.fromkeys(half, file)
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sorted(folder.glob("model-*.safetensors"))


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def refused(folder: Path) -> str:
    """The sentence a folder is refused in; its files are what they were, and it is called by its own name."""
    before = state_of(folder)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the sentence is checked by the callers
        FastModel.from_pretrained(folder, max_seq_length=64)
    said = str(refusal.value)
    assert state_of(folder) == before
    assert "\n" not in said
    assert str(folder) in said
    assert "opened.partial-" not in said
    return said


def first_weight(header: dict) -> dict:
    return next(entry for name, entry in header.items() if name.endswith("layers.0.input_layernorm.weight"))


@pytest.mark.parametrize("kind", ["F64", "F8_E5M2", "F4", "F8_E8M0", "F8_E4M3", "I32", "F8_E8M0X"])
def test_a_type_that_makes_no_weight_is_named_and_the_file_is_left_alone(folder, kind):
    def change(header):
        entry = first_weight(header)
        bits = {"F64": 64, "I32": 32, "F4": 4}.get(kind, 8)
        entry |= {"dtype": kind, "shape": [32 * entry["shape"][0] // bits]}

    with_header(folder / "model.safetensors", change)
    assert "model.safetensors" in refused(folder) or kind in ("F8_E8M0", "F8_E4M3", "I32")


def test_a_type_that_mlx_refuses_is_not_rewritten_where_another_is_one_mlx_vlm_would_rewrite(folder):
    def change(header):
        names = [name for name in header if name.endswith("norm.weight")][:2]
        size = header[names[0]]["shape"][0]
        header[names[0]] |= {"dtype": "F8_E8M0", "shape": [4 * size]}
        header[names[1]] |= {"dtype": "F8_E5M2", "shape": [4 * header[names[1]]["shape"][0]]}

    with_header(folder / "model.safetensors", change)
    named = folder.rename(folder.parent / "of F8_E8M0")  # mlx-vlm looks for the type in what MLX says of the file
    assert "F8_E5M2" in refused(named)


DAMAGES = {
    "cut short": lambda raw: raw[: len(raw) // 2],
    "cut in its header": lambda raw: raw[:100],
    "empty": lambda raw: b"",
    "one byte too few": lambda raw: raw[:-1],
    "one byte too many": lambda raw: raw + b"\0",
    "a header of no end": lambda raw: b"\xff" * 8 + raw[8:],
    "no JSON": lambda raw: raw[:8] + b"x" + raw[9:],
    "a pointer": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_whole_is_named(folder, damage):
    file = folder / "model.safetensors"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert f"{file} is no whole .safetensors file" in refused(folder)


LIES = {
    "an offset beyond the end": lambda entry: entry.update(data_offsets=[0, 10**9]),
    "offsets in the wrong order": lambda entry: entry.update(data_offsets=entry["data_offsets"][::-1]),
    "a shape of more numbers": lambda entry: entry.update(shape=[10**6]),
    "a negative shape": lambda entry: entry.update(shape=[-64]),
    "no shape": lambda entry: entry.pop("shape"),
    "a shape of words": lambda entry: entry.update(shape="64"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_named(folder, lie):
    with_header(folder / "model.safetensors", lambda header: LIES[lie](first_weight(header)))
    assert f"{folder / 'model.safetensors'} is no whole .safetensors file" in refused(folder)


def test_a_model_in_several_files_loads_and_each_is_asked_for(folder):
    whole = weight_files(folder)
    assert whole == [folder / "model.safetensors"]
    first, second = in_two(folder)
    FastModel.from_pretrained(folder, max_seq_length=64)
    assert weight_files(folder) == [first, second]
    index = json.loads((folder / INDEX).read_text())
    there = second.read_bytes()
    second.unlink()
    assert f"{second} is not there" in refused(folder)
    second.write_bytes(there[:-9])
    assert f"{second} is no whole" in refused(folder)
    second.write_bytes(there)
    for places, said in (
        ({**index["weight_map"], "nobody": first.name}, f"{first} does not hold nobody"),
        ({**index["weight_map"], "nobody": "../model.safetensors"}, "'../model.safetensors', which is no file"),
        ({**index["weight_map"], "nobody": 7}, "names 7"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ):
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))
        assert said in refused(folder)
    (folder / INDEX).write_text("{")
    assert "is no JSON" in refused(folder)


def test_weights_left_by_another_model_are_not_mixed_in(tmp_path):
    """As in transformers: a whole file before an index, and what an index names before what lies beside it."""
    folder = tiny_model_folder(tmp_path / "model")
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    expected = np.array(model.module(mx.array([[5, 6, 7]])))
    other = tiny_model_folder(tmp_path / "other", seed=9)
    files = in_two(other)
    for file in [*files, other / INDEX]:
        shutil.copyfile(file, folder / file.name)
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    assert np.array_equal(np.array(model.module(mx.array([[5, 6, 7]]))), expected)


@pytest.mark.parametrize("change", ["a shape", "one missing", "one too many", "another kind"])
def test_weights_that_do_not_fit_are_named(folder, change):
    arrays, config = arrays_of(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    arrays = {name: mx.array(np.array(array)) for name, array in arrays.items()}
    name = next(name for name in arrays if name.endswith("layers.1.self_attn.q_proj.weight"))
    if change == "a shape":
        arrays[name] = arrays[name][:-4]
    elif change == "one missing":
        del arrays[name]
    elif change == "one too many":
        arrays[name.replace("q_proj", "nobody")] = arrays[name]
    else:
        config["model_type"] = "nobody_knows_it"
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    named = "nobody_knows_it" if change == "another kind" else "could not be opened"
    assert named in refused(folder)


def test_a_mixture_without_one_of_its_experts_is_named(tmp_path, models):
    folder = shutil.copytree(models["qwen3_moe"], tmp_path / "model")
    named = {}
    for name, array in arrays_of(folder / "model.safetensors").items():
        head, joined, leaf = name.partition("switch_mlp.")
        named |= {f"{head}experts.{n}.{leaf}": array[n] for n in range(len(array))} if joined else {name: array}
    del named["model.layers.1.mlp.experts.2.up_proj.weight"]
    mx.save_safetensors(str(folder / "model.safetensors"), named)
    assert "experts.2.up_proj.weight" in refused(folder)


def test_code_that_is_trusted_leaves_the_folder_as_it_was(tmp_path, models, monkeypatch):
    """Python keeps what it compiled beside a file it imports."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = shutil.copytree(models["llama"], tmp_path / "model")
    (folder / "mine.py").write_text("from mlx_lm.models.llama import Model, ModelArgs\n")
    (tmp_path / "outside.py").write_text("from mlx_lm.models.llama import Model, ModelArgs\n")
    for code in ("mine.py", "../outside.py"):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_file": code}))
        before = state_of(tmp_path)
        FastModel.from_pretrained(folder, max_seq_length=64, trust_remote_code=True)
        assert state_of(tmp_path) == before
