"""Continued pretraining on documents with images: whole runs, stored and streamed, killed and gone on with."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.makers.processes.program import run_program
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.data.encoded import Unreadable
from tunebook.data.images import refer
from tunebook.events import Notice
from tunebook.tokens.feed import Place

STEPS = 8

CHILD = """
import json, os, signal, sys
from pathlib import Path
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.models.families import image_rows
folder, rows, images, out, streaming, kill_at = json.loads(sys.argv[1])
seen = []
real = image_rows.opened
def opened(image):
    if isinstance(image.source, Path):  # none of those the check of the model makes
        seen.append(image.source.name)
    return real(image)
image_rows.opened = opened
model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
FastModel.get_peft_model(model, r=4, lora_dropout=0.1)
args = TrainingConfig(max_steps=8, per_device_train_batch_size=2, gradient_accumulation_steps=2, save_steps=1,
                      learning_rate=5e-3, output_dir=out, streaming=streaming, hold_out=0)
trainer = Trainer(model, processor, train_dataset=MultimodalPretrain(rows, image_base_dir=images), args=args)
told = []
def at(event):
    name = type(event).__name__
    if name == "StepEvent":
        told.append([event.loss, event.total_tokens, event.trainable_tokens])
    if name == "CheckpointSaved" or (name == "Working" and event.what == "training"):
        print(json.dumps([seen, told]), flush=True)
    if name == "Working" and event.what == "training" and [event.step, event.done] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.subscribe(at, shows_progress=True)
trainer.train(resume_from_checkpoint=os.path.isdir(out))
model.save_pretrained(out + "/lora")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vision_folder(tmp_path_factory.mktemp("continued") / "qwen2_vl", "qwen2_vl")


@pytest.fixture(scope="module")
def documents(folder, tmp_path_factory):
    """(rows, the folder their images are in): every other document has an image of its own, one has two."""
    place = tmp_path_factory.mktemp("images")
    placeholder = FastModel.from_pretrained(folder, max_seq_length=96)[0].loaded.family.placeholder
    rows = []
    for number, image in enumerate(noise_images(24, size=(56, 56))):
        image.save(place / f"{number}.png")
        named = [f"{number}.png"] if number % 2 else []
        rows.append({"text": f"number {number} the quick {placeholder * len(named)} fox", "images": named})
    rows[3] = {"text": f"{placeholder} and {placeholder} dogs", "images": ["3.png", "0.png"]}
    return rows, place


def child(*given):
    """(images opened while training, [loss, total, trainable] of each step, whether it was killed)."""
    found = run_program(CHILD, json.dumps(given))
    assert found.returncode in (0, -9), found.stderr
    opened, told = json.loads(found.stdout.strip().splitlines()[-1])
    return opened, told, found.returncode == -9


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streamed"])
def test_a_killed_run_ends_as_the_undisturbed_one_and_opens_no_image_of_a_finished_step_again(
    streaming, folder, documents, tmp_path
):
    rows, place = documents
    where = random.Random(streaming)
    kill_at = [where.randrange(2, STEPS + 1), where.randrange(1, 3)]
    if streaming:  # a file, of which nobody counts the rows
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = str(tmp_path / "rows.jsonl")
    setting = [str(folder), rows, str(place)]
    straight, whole, _ = child(*setting, str(tmp_path / "straight"), streaming, None)
    before, first, killed = child(*setting, str(tmp_path / "killed"), streaming, kill_at)
    assert killed
    after, rest, _ = child(*setting, str(tmp_path / "killed"), streaming, None)
    assert first + rest == whole  # losses, and the accounts of tokens
    ours, theirs = (load_file(tmp_path / name / "lora" / "adapters.safetensors") for name in ("straight", "killed"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    # The step that was killed is done again; the images of those before it are not touched.
    finished = len(straight) - len(after)
    assert straight[finished:] == after
    assert before[:finished] == straight[:finished]


def test_the_length_of_a_run_follows_from_its_epochs_and_no_batch_spans_two(folder, documents):
    """Five rows in batches of four, twice, are four steps; axolotl's count (1.9 of its collator) is three."""
    rows, place = documents
    model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
    args = TrainingConfig(num_train_epochs=2, per_device_train_batch_size=4, gradient_accumulation_steps=1, hold_out=0)
    trainer = Trainer(model, processor, train_dataset=MultimodalPretrain(rows[:5], image_base_dir=place), args=args)
    assert trainer.total_steps == 4
    portions = trainer.data.feed.portions(Place())
    assert [len(next(portions).batches[0]) for _ in range(4)] == [4, 1, 4, 1]


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streamed"])
def test_an_image_that_breaks_during_the_run_is_left_out_and_said_or_ends_it(streaming, folder, documents, tmp_path):
    rows, place = documents
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in place.iterdir():
        (copies / path.name).write_bytes(path.read_bytes())

    def trainer(**given):
        model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
        FastModel.get_peft_model(model, r=2)
        args = TrainingConfig(
            max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=1, streaming=streaming, hold_out=0
        )
        source = MultimodalPretrain(rows, image_base_dir=copies, **given)
        return Trainer(model, processor, train_dataset=source, args=args)

    strict, lenient = trainer(), trainer(skip_bad_images=True)
    whole = (copies / "5.png").read_bytes()
    (copies / "5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Row 5.*'5\.png'") as caught:
        strict.train()
    assert str(tmp_path) not in str(caught.value)
    said = []
    lenient.subscribe(lambda event: said.append(event.text) if isinstance(event, Notice) else None)
    assert len(lenient.train().steps) == 6
    assert Counter("5.png" in text for text in said)[True] == 1


def test_a_set_of_rows_holds_no_file_open_and_no_pixels(folder, documents):
    rows, place = documents
    model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
    args = TrainingConfig(max_steps=2, per_device_train_batch_size=4, hold_out=0)
    before = len(os.listdir("/dev/fd"))
    trainer = Trainer(model, processor, train_dataset=MultimodalPretrain(rows, image_base_dir=place), args=args)
    assert all(isinstance(image.source, Path) for row in trainer.train_rows for image in row.images)
    FastModel.get_peft_model(model, r=2)
    trainer.train()
    assert len(os.listdir("/dev/fd")) <= before


def test_a_row_whose_images_the_processor_refuses_is_the_one_that_is_named(folder, documents):
    rows, place = documents
    model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
    args = TrainingConfig(per_device_train_batch_size=4, hold_out=0)
    trainer = Trainer(model, processor, train_dataset=MultimodalPretrain(rows, image_base_dir=place), args=args)
    family, some = model.loaded.family, [row for row in trainer.train_rows if row.images][:4]
    thin = Image.new("RGB", (4000, 3))  # Qwen takes no side 200 times as long as the other
    thin.save(place / "thin.png")
    bad = replace(some[2], images=(refer(place / "thin.png"),))
    with pytest.raises(Unreadable, match=f"Row {bad.number}: .* refuses the images") as caught:
        family.collate([*some[:2], bad, some[3]], 96)
    assert caught.value.number == bad.number


@pytest.mark.parametrize("many", [3, 80])
def test_rows_that_are_skipped_are_never_trained_on_and_the_others_keep_their_numbers(many, folder, documents):
    rows, place = documents
    model, processor = FastModel.from_pretrained(folder, max_seq_length=96)
    args = TrainingConfig(max_steps=9, per_device_train_batch_size=4, gradient_accumulation_steps=1, streaming=True)
    source = MultimodalPretrain([*[rows[0]] * many, *rows[:10]], image_base_dir=place, skip=many)
    trainer = Trainer(model, processor, train_dataset=source, args=args)
    seen = [row.number for portion in islice(trainer.data.feed.portions(Place()), 3) for row in portion.batches[0]]
    assert sorted(seen) == list(range(many, many + 10))
    with pytest.raises(ValueError, match=f"skip is {many + 10}, and train_dataset has {many + 10} rows"):
        Trainer(model, processor, train_dataset=replace(source, skip=many + 10), args=args)
