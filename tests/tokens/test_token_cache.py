"""What a row was encoded into is kept on the disk: damaged in any way it is made anew, and nobody else can read it."""

import json
import os
import random
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.data.formats import RefusedRows
from tunebook.machine.sealed import Damaged
from tunebook.models.families.base import Family
from tunebook.tokens import encoding, token_cache
from tunebook.tokens.encoding import encode_rows

FILES = ("tokens.int32", "masks.bool", "index.npz", "facts.json", "seal.json")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tiny_model_folder(tmp_path_factory.mktemp("tiny") / "llama")
    return FastModel.from_pretrained(folder, max_seq_length=64)[0].loaded


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "CACHED_ROWS", 5)
    return tmp_path / "cache" / token_cache.FOLDER


def encoded(rows, loaded):
    return encode_rows(rows, loaded, max_seq_length=64)


def as_lists(made):
    return [(row.tokens.tolist(), row.loss_mask.tolist(), row.cut, row.number) for row in made.rows]


DAMAGES = {
    "a bit": lambda file, content: file.write_bytes(content[:-5] + bytes([content[-5] ^ 64]) + content[-4:]),
    "cut": lambda file, content: file.write_bytes(content[: len(content) // 2]),
    "zeros": lambda file, content: file.write_bytes(bytes(len(content))),
    "empty": lambda file, content: file.write_bytes(b""),
    "gone": lambda file, content: file.unlink(),
    "a list": lambda file, content: file.write_text("[]"),
    "too deep": lambda file, content: file.write_text("[" * 100_000),
    "more": lambda file, content: file.write_bytes(content + content),
    "a folder": lambda file, content: (file.unlink(), file.mkdir(), (file / "x").touch()),
    "a pipe": lambda file, content: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew_without_a_word(loaded, rows, cache, name, damage):
    first = encoded(rows, loaded)
    truth = as_lists(first)  # read now: it reads the very files that are damaged
    [entry] = cache.iterdir()
    DAMAGES[damage](entry / name, (entry / name).read_bytes())
    second = encoded(rows, loaded)
    assert as_lists(second) == truth
    assert second.notices == first.notices
    assert as_lists(encoded(rows, loaded)) == truth


def test_no_flipped_bit_is_read_as_another_row(loaded, rows, cache):
    truth, generator = as_lists(encoded(rows, loaded)), random.Random(0)
    [entry] = cache.iterdir()
    for name in FILES:
        for _ in range(12):
            file = entry / name
            content = bytearray(file.read_bytes())
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            file.write_bytes(content)
            assert as_lists(encoded(rows, loaded)) == truth


@pytest.mark.parametrize("place", ["a file", "a folder of others", "a link to itself"])
def test_what_stands_in_the_place_of_an_entry_is_replaced(loaded, rows, cache, place):
    truth = as_lists(encoded(rows, loaded))
    [entry] = cache.iterdir()
    shutil.rmtree(entry)
    match place:
        case "a file":
            entry.write_text("x")
        case "a folder of others":
            (entry / "deep" / "er").mkdir(parents=True)
        case _:
            entry.symlink_to(entry.name)
    assert as_lists(encoded(rows, loaded)) == truth
    assert as_lists(encoded(rows, loaded)) == truth


def test_where_no_entry_can_be_written_the_rows_stay_in_memory_and_it_is_said_once(loaded, rows, cache):
    truth = as_lists(encoded(rows, loaded))
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    made = encoded(rows, loaded)
    assert as_lists(made) == truth
    [notice] = made.notices
    assert "could not be kept in the cache folder" in notice
    assert made.account.rows == len(rows)


def test_a_cache_folder_that_cannot_be_used_is_said_and_not_an_error(loaded, rows, cache, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", "/dev/null/cache")
    [notice] = encoded(rows, loaded).notices
    assert "could not be kept in the cache folder" in notice


def test_what_is_counted_is_counted_once_where_the_disk_is_full_at_the_end(loaded, rows, cache, monkeypatch):
    long = {"messages": [{"role": "user", "content": "the " * 200}, {"role": "assistant", "content": "dog"}]}

    def full(folder):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(encoding.stored_rows, "seal", full)
    made = encoded([*rows, long, long], loaded)
    assert made.account.left_out == [len(rows), len(rows) + 1]
    assert any("could not be kept in the cache folder" in notice for notice in made.notices)


def test_a_row_that_changes_on_the_disk_while_it_is_in_use_is_never_a_row(loaded, rows, cache):
    made = encoded(rows, loaded)
    truth = as_lists(made)
    [entry] = cache.iterdir()
    ids = np.fromfile(entry / "tokens.int32", dtype="<i4")
    with (entry / "tokens.int32").open("r+b") as file:  # the very file that is open
        file.write((ids[:1] ^ 2**30).tobytes())
    with pytest.raises(Damaged, match=r"Row 0 changed on the disk.*make the Trainer again"):
        _ = made.rows[0]
    os.truncate(entry / "tokens.int32", 40)
    with pytest.raises(Damaged, match="cut short"):
        _ = made.rows[len(rows) - 1]
    assert as_lists(encoded(rows, loaded)) == truth


def test_an_id_beyond_the_vocabulary_in_the_cache_is_not_trained_on(tiny_folder, rows, cache, tmp_path):
    def trained():
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=64)
        FastModel.get_peft_model(model, r=2)
        args = TrainingConfig(max_steps=2, hold_out=0, output_dir=str(tmp_path / "out"))
        trainer = Trainer(model, train_dataset=rows, args=args)
        trainer.subscribe(lambda event: None, shows_progress=True)
        return [step.loss for step in trainer.train().steps]

    losses = trained()
    [entry] = cache.iterdir()
    for bit in (9, 20, 30, 31):
        ids = np.fromfile(entry / "tokens.int32", dtype="<i4")
        ids.view(np.uint32)[5] ^= 1 << bit
        ids.tofile(entry / "tokens.int32")
        assert trained() == losses


def test_an_entry_of_version_0_1_without_a_seal_is_made_anew(loaded, rows, cache):
    truth = as_lists(encoded(rows, loaded))
    [entry] = cache.iterdir()
    facts = json.loads((entry / "facts.json").read_text())
    (entry / "facts.json").write_text(json.dumps({**facts, "cut": 3}))
    (entry / "seal.json").unlink()
    assert as_lists(encoded(rows, loaded)) == truth


def test_the_cache_is_its_owners_alone_whatever_the_umask(loaded, rows, cache):
    before = os.umask(0)
    try:
        encoded(rows, loaded)
    finally:
        os.umask(before)
    [entry] = cache.iterdir()
    for folder in (cache.parent, cache, entry):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert {stat.S_IMODE(file.stat().st_mode) for file in entry.iterdir()} == {0o600}


class Prefixed(Family):
    """A text family whose rows all begin with `prefix`; nothing but encoding is asked of it here."""

    measure = check = collate = hidden = read = head = head_layer = generate = answers = why_alone = why_apart = None

    def __init__(self, text, prefix):
        self.text, self.prefix, self.tables = text, prefix, text.tables

    def encode(self, examples):
        return [
            replace(row, tokens=np.append(np.int32(self.prefix), row.tokens), loss_mask=np.append(False, row.loss_mask))
            for row in self.text.encode(examples)
        ]

    def encoding_settings(self):
        return self.prefix


def test_rows_kept_for_one_kind_of_model_are_not_taken_for_another_with_the_same_tokenizer(loaded, rows, cache):
    plain = encoded(rows, loaded)
    for prefix in (7, 9, 7):
        made = encoded(rows, replace(loaded, family=Prefixed(loaded.family, prefix)))
        assert [row.tokens.tolist() for row in made.rows] == [[prefix, *row.tokens.tolist()] for row in plain.rows]
    assert as_lists(encoded(rows, loaded)) == as_lists(plain)
    assert len([*cache.iterdir()]) == 3


# What may run while rows are encoded and is no part of the key: it decides nothing of what a row becomes.
NOT_SHAPING = ("machine/", "models/loaded.py", "models/tensors.py", "config.py", "events/")


@pytest.mark.parametrize("kind", ["text", "documents"])
def test_all_code_that_runs_while_rows_are_encoded_is_in_the_key(kind, loaded, rows, tmp_path):
    if kind == "documents":
        loaded = FastModel.from_pretrained(tiny_vision_folder(tmp_path / "smol", "smolvlm"))[0].loaded
        noise_images(1)[0].save(tmp_path / "0.png")
        rows = [{"text": "a <image> dog", "images": ["0.png"]}]
    documents = MultimodalPretrain(rows, image_base_dir=tmp_path) if kind == "documents" else None
    kit, ran = Path(token_cache.__file__).parents[1], set()
    sys.setprofile(lambda frame, event, _: ran.add(frame.f_code.co_filename))
    try:
        encode_rows(rows, loaded, max_seq_length=64, documents=documents)
    finally:
        sys.setprofile(None)
    ours = {str(Path(name).relative_to(kit)) for name in ran if name.startswith(f"{kit}/")}
    keyed = {str(file.relative_to(kit)) for wing in token_cache._CODE for file in (kit / wing).rglob("*.py")}
    assert len(ours & keyed) > 10
    assert not [name for name in ours - keyed if not name.startswith(NOT_SHAPING)]


def test_rows_that_were_kept_without_the_bad_ones_are_not_taken_where_those_are_refused(loaded, rows, cache):
    bad = [*rows, {"messages": [{"role": "user", "content": "Why?"}]}]
    kept = encode_rows(bad, loaded, max_seq_length=64, skip_bad_rows=True)
    assert len(kept.rows) == len(rows)
    with pytest.raises(RefusedRows, match=f"1 of {len(bad)} rows"):
        encoded(bad, loaded)
