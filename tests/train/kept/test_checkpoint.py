"""checkpoint.py: a damaged checkpoint is passed over for the one before it, whatever was done to which of its files."""

import json
import os
import random
import shutil

import mlx.core as mx
import pytest

from tunebook.train.kept.checkpoint import (
    STATE,
    Checkpoint,
    TornCheckpoint,
    checkpoint_folders,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

PROGRESS = {"step": 0, "num_tokens": 9, "not_finite": 0, "elapsed": 1.5, "evals": [], "learning_rates": [[1, 0.5]]}


def checkpoint(step):
    arrays = {"layer.lora_a": mx.full((4, 3), step), "layer.lora_b": mx.arange(6)}
    return Checkpoint(arrays, {"step": mx.array(step)}, None, {"model": "m"}, {**PROGRESS, "step": step})


@pytest.fixture
def run_folder(tmp_path):
    for step in (2, 4):
        save_checkpoint(tmp_path / "run-001", step, checkpoint(step), keep=None)
    return tmp_path / "run-001"


def found_step(run_folder):
    _, found, skipped = find_checkpoint(run_folder)
    assert found.weights["layer.lora_a"].tolist() == [[found.progress["step"]] * 3] * 4
    assert {**found.progress, "step": 0} == PROGRESS
    return found.progress["step"], skipped


FILES = ("state.json", "weights.safetensors", "optimizer.safetensors")
DAMAGES = {
    "cut": lambda file, content: file.write_bytes(content[: len(content) // 2]),
    "empty": lambda file, content: file.write_bytes(b""),
    "gone": lambda file, content: file.unlink(),
    "a list": lambda file, content: file.write_text("[]"),
    "of nothing": lambda file, content: file.write_text("null"),
    "in another encoding": lambda file, content: file.write_bytes(b"\xff\xfe" + content),
    "nested": lambda file, content: file.write_text("[" * 100_000),
    "a folder": lambda file, content: (file.unlink(), file.mkdir()),
    "a pipe": lambda file, content: (file.unlink(), os.mkfifo(file)),
    "of the other checkpoint": lambda file, content: shutil.copy(file.parents[1] / "step-00002" / file.name, file),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_checkpoint_is_used_and_it_is_said(run_folder, name, damage):
    file = run_folder / "checkpoints" / "step-00004" / name
    DAMAGES[damage](file, file.read_bytes())
    step, skipped = found_step(run_folder)
    assert step == 2
    assert len(skipped) == 1
    assert "step-00004" in skipped[0]
    assert "\n" not in skipped[0]
    with pytest.raises(TornCheckpoint, match="step-00004"):
        find_checkpoint(file.parent)


def test_no_flipped_bit_of_any_file_is_taken_for_another_checkpoint(run_folder):
    generator = random.Random(1)
    for name in FILES:
        file = run_folder / "checkpoints" / "step-00004" / name
        whole = file.read_bytes()
        for _ in range(60):
            place, bit = generator.randrange(len(whole)), generator.randrange(8)
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            step, skipped = found_step(run_folder)
            assert (step, len(skipped)) in ((4, 0), (2, 1))
        file.write_bytes(whole)


CHANGES = {
    "another step": lambda document: document["progress"].update(step=3),
    "a setting more": lambda document: document["identity"].update(later=1),
    "a key more": lambda document: document.update(later=1),
    "a digest less": lambda document: document["sha256"].popitem(),
    "a number as a text": lambda document: document["progress"].update(num_tokens="9"),
    "a list for an object": lambda document: document.update(identity=[]),
    "files elsewhere": lambda document: document["sha256"].update({"../../../x": "0"}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("with_seal", [True, False])
def test_a_state_that_was_edited_is_not_taken(run_folder, change, with_seal):
    """One without a seal is of version 0.1: only its form tells."""
    file = run_folder / "checkpoints" / "step-00004" / STATE
    document = json.loads(file.read_text())
    if not with_seal:
        document = {name: document[name] for name in ("identity", "progress", "sha256")}
    CHANGES[change](document)
    file.write_text(json.dumps(document))
    is_told = with_seal or change not in ("another step", "a setting more")
    assert find_checkpoint(run_folder)[1].progress["step"] == (2 if is_told else document["progress"]["step"])


def test_a_checkpoint_of_version_0_1_is_read_as_ever(run_folder):
    file = run_folder / "checkpoints" / "step-00004" / STATE
    document = json.loads(file.read_text())
    old = {"identity": document["identity"], "progress": document["progress"], "sha256": document["sha256"]}
    file.write_text(json.dumps(old, indent=2) + "\n")
    assert found_step(run_folder) == (4, [])


def test_where_every_checkpoint_is_damaged_one_sentence_says_so(run_folder):
    for folder in checkpoint_folders(run_folder):
        (folder / STATE).write_text("{")
    with pytest.raises(FileNotFoundError, match=r"All 2 of them are damaged, the newest so: .*step-00004") as refused:
        find_checkpoint(run_folder)
    assert "\n" not in str(refused.value)


def test_a_file_called_like_a_checkpoint_is_none(run_folder):
    (run_folder / "checkpoints" / "step-00009").touch()
    (run_folder / "checkpoints" / "step-x").mkdir()
    assert found_step(run_folder) == (4, [])


def test_what_was_just_written_is_kept_also_where_later_ones_are(run_folder):
    save_checkpoint(run_folder, 3, checkpoint(3), keep=1)
    assert [folder.name for folder in checkpoint_folders(run_folder)] == ["step-00003", "step-00004"]
    assert read_checkpoint(checkpoint_folders(run_folder)[0]).progress["step"] == 3
