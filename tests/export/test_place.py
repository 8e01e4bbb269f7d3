"""Exports add their files to a folder: their own kind is replaced as one, everything else stays byte for byte."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.export.target.own_files import LIST
from tunebook.machine.runtime import cache_folder

TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7]])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("base") / "llama"))
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])
    return model


EXPORTS = {
    "lora": lambda model, folder: model.save_pretrained(folder),
    "peft": lambda model, folder: model.save_pretrained(folder, format="peft"),
    "adapter": lambda model, folder: model.save_pretrained(folder, format="gguf"),
    "merged": lambda model, folder: model.save_pretrained_merged(folder),
    "gguf": lambda model, folder: model.save_pretrained_gguf(folder, quantization_method=["f16", "q8_0"]),
}
WHOLE = ("lora", "peft", "merged")


def state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


@pytest.mark.parametrize("form", EXPORTS)
def test_everything_of_a_persons_stays_beside_an_export_and_a_second_one(tuned, tmp_path, form):
    folder = tmp_path / "project"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in (
        "notes.md",
        ".hidden",
        "data/deep/train.jsonl",
        "adapters.npz",
        "other.gguf",
        "model.partial-01234567",
    ):
        (folder / name).write_text(f"mine: {name}")
    (folder / "link").symlink_to("data")
    before = state(folder)
    for _ in range(2):
        EXPORTS[form](tuned, folder)
        after = state(folder)
        assert {name: after.get(name) for name in before} == before
        assert (folder / "empty").is_dir()
        assert [path.name for path in tmp_path.iterdir()] == ["project"]
    assert len(after) > len(before) + 1


def test_shards_of_an_older_export_do_not_stay_beside_new_ones(tuned, tmp_path, monkeypatch):
    (tmp_path / "notes.md").write_text("mine")
    for size in (40_000, 2_000_000_000, 60_000):
        monkeypatch.setattr("tunebook.export.merged.SHARD_BYTES", size)
        tuned.save_pretrained_merged(tmp_path)
        index = tmp_path / "model.safetensors.index.json"
        named = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
        assert {path.name for path in tmp_path.glob("*.safetensors")} == named
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("lora", "adapters.safetensors"),
        ("lora", "adapter_model.safetensors"),
        ("peft", "adapter_config.json"),
        ("merged", "config.json"),
        ("merged", "model-00001-of-00002.safetensors"),
        ("merged", "consolidated.safetensors"),
        ("merged", "tokenizer.json"),
        ("merged", "Adapter_Config.json"),
        ("gguf", "llama.q8_0.gguf"),
        ("gguf", "llama.f16.Modelfile"),
        ("adapter", "llama.lora.gguf"),
        ("lora", LIST),
    ],
)
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_not_ours_and_in_the_way_is_named_and_stays(tuned, tmp_path, form, name, kind):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    place = folder / name
    if kind == "link":
        place.symlink_to(elsewhere)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_text("mine")
    before = state(tmp_path)
    with pytest.raises(FileExistsError, match=f"{name.split('.')[0]}.*Choose another folder"):
        EXPORTS[form](tuned, folder)
    assert state(tmp_path) == before
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_of_ours_that_was_changed_since_is_the_persons(tuned, tmp_path):
    tuned.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("my own card")
    assert "left as it was" in str(tuned.save_pretrained(tmp_path))
    assert (tmp_path / "README.md").read_text() == "my own card"
    settings = tmp_path / "adapter_config.json"
    settings.write_text(settings.read_text().replace("{", "{ ", 1))
    before = state(tmp_path)
    with pytest.raises(FileExistsError, match=r"adapter_config.json.*changed since"):
        tuned.save_pretrained(tmp_path)
    assert state(tmp_path) == before


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in WHOLE for b in WHOLE if a != b])
def test_adapters_and_a_model_do_not_share_a_folder(tuned, tmp_path, first, second):
    EXPORTS[first](tuned, tmp_path / "out")
    before = state(tmp_path)
    with pytest.raises(FileExistsError, match=rf"an export of another form \({first}\).*out-{second}"):
        EXPORTS[second](tuned, tmp_path / "out")
    assert state(tmp_path) == before


def test_gguf_files_stand_beside_each_other_and_beside_a_model(tuned, tmp_path):
    tuned.save_pretrained_merged(tmp_path)
    tuned.save_pretrained(tmp_path, format="gguf")
    tuned.save_pretrained_gguf(tmp_path, quantization_method="q8_0")
    kept = sha256((tmp_path / "llama.q8_0.gguf").read_bytes()).hexdigest()
    tuned.save_pretrained_gguf(tmp_path, quantization_method="f16")
    assert {path.name for path in tmp_path.glob("*.gguf")} == {"llama.lora.gguf", "llama.q8_0.gguf", "llama.f16.gguf"}
    assert state(tmp_path)["llama.q8_0.gguf"] == kept
    mlx_lm.load(str(tmp_path))
    tuned.save_pretrained_merged(tmp_path)  # and is replaced as one


def test_a_tokenizer_saved_to_the_folder_is_no_hindrance_before_or_after(tuned, tmp_path):
    for form in ("lora", "merged"):
        folder = tmp_path / form
        for _ in range(2):
            tuned.loaded.tokenizer.save_pretrained(str(folder))
            EXPORTS[form](tuned, folder)
    mlx_lm.load(str(tmp_path / "merged"))


def test_places_that_are_in_use_are_refused_by_name(tuned, tmp_path, monkeypatch):
    run = tmp_path / "outputs" / "run-001"
    (run / "checkpoints" / "step-00010").mkdir(parents=True)
    (run / "events.jsonl").write_text("")
    (tmp_path / "link").symlink_to(tuned.loaded.folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    places = {
        tuned.loaded.folder: "base model",
        tmp_path / "link": "base model",
        run: "training run",
        run / "checkpoints": "training run",
        run / "checkpoints" / "step-00010": "training run",
        cache_folder() / "from-gguf" / "x": "tunebook's cache",
        tmp_path / "hub" / "models--a--b": "Hugging Face cache",
    }
    before = state(tmp_path), state(tuned.loaded.folder)
    for place, said in places.items():
        for export in EXPORTS.values():
            with pytest.raises(ValueError, match=f"{said}.*choose another folder"):
                export(tuned, place)
    assert (state(tmp_path), state(tuned.loaded.folder)) == before
    tuned.save_pretrained(run.parent)  # beside the runs there is room
    assert (run.parent / "adapters.safetensors").exists()


def test_a_file_is_no_folder_and_stays_a_file(tuned, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for place in (file, file / "below"):
        for export in EXPORTS.values():
            with pytest.raises(NotADirectoryError, match=r"notes.txt is no folder.*choose another"):
                export(tuned, place)
    (tmp_path / "ring").symlink_to("ring")
    with pytest.raises(OSError, match="ring"):
        tuned.save_pretrained(tmp_path / "ring")
    assert file.read_text() == "mine"


def test_a_folder_is_found_however_it_is_written(tuned, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "nb").mkdir(parents=True)
    (home / "nb" / "data.csv").write_text("mine")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "nb")
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    (home / "dangling").symlink_to("not-yet")
    for written, place in (
        (".", "nb"),
        ("..", ""),
        ("~/tilde", "tilde"),
        ("../link", "real"),
        ("../dangling", "not-yet"),
    ):
        for _ in range(2):
            tuned.save_pretrained(written)
        assert (home / place / "adapters.safetensors").is_file()
        assert os.path.samefile(".", home / "nb")
    assert (home / "link").is_symlink()
    assert (home / "dangling").is_symlink()
    assert (home / "nb" / "data.csv").read_text() == "mine"
    assert not (home / "nb" / "~").exists()


def test_an_export_that_was_copied_elsewhere_is_still_known_as_ours(tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert not tuned.save_pretrained(tmp_path / "other").notes
    assert state(tmp_path / "one").keys() == state(tmp_path / "other").keys()


def test_adapters_can_be_saved_again_where_they_were_loaded_from(tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "lora")
    model, _ = FastModel.from_pretrained(tmp_path / "lora")
    before = in_numpy(model.module(TOKENS))
    model.save_pretrained(tmp_path / "lora")
    again, _ = FastModel.from_pretrained(tmp_path / "lora")
    assert np.array_equal(before, in_numpy(again.module(TOKENS)))


def test_the_size_of_an_export_is_that_of_its_own_files(tuned, tmp_path):
    (tmp_path / "large").write_bytes(b"0" * 5_000_000)
    assert tuned.save_pretrained(tmp_path).bytes < 1_000_000
