"""What a reference said of rows is in the cache for other runs: found by what it follows from, or asked again."""

import shutil

import pytest

from tests.makers.small_runs import recorded, same, weights
from tests.makers.tiny import tiny_model_folder
from tests.train.whole_runs.test_precomputed import EPOCH, HELD_OUT, beforehand, tuned
from tests.train.whole_runs.test_preferences import PAIRS, trainer_of
from tunebook.events import Notice, Working
from tunebook.objectives import DPO
from tunebook.train.kept.reference_cache import FOLDER


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("precomputed") / "llama")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


def said(result):
    return [event.text for event in result if isinstance(event, Notice) and "reference" in event.text]


def run_and_said(folder, objective, **settings):
    trainer = trainer_of(folder, None, objective, held_out=PAIRS[:HELD_OUT], **{**EPOCH, **settings})
    events = recorded(trainer)
    trainer.train()
    asked = sum(isinstance(event, Working) and event.what == "precomputing" for event in events)
    return weights(trainer), asked, said(events)


def entries(tmp_path):
    return sorted((tmp_path / "cache" / FOLDER).iterdir())


def test_another_run_of_the_same_model_and_rows_takes_them_from_the_disk_and_says_so(folder, tmp_path):
    first, asked, nothing = run_and_said(folder, beforehand(DPO()))
    assert asked
    assert not nothing
    second, asked, notices = run_and_said(folder, beforehand(DPO()))
    assert same(first, second)
    assert not asked
    assert [text.partition(" rows was on the disk")[0][-8:] for text in notices] == ["held-out", "training"]
    assert run_and_said(folder, beforehand(DPO(beta=0.5, loss_type="ipo")), learning_rate=1e-4)[1] == 0
    for path in entries(tmp_path):
        assert path.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}


OTHERS = {
    "other sums": (DPO(ld_alpha=0.5), {}, 9),
    "another order": (DPO(), {"seed": 4}, 6),  # the held-out rows are measured in the same batches
    "another length": (DPO(), {"max_seq_length": 64}, 9),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_would_be_said_otherwise_is_asked(folder, kind):
    objective, settings, expected = OTHERS[kind]
    run_and_said(folder, beforehand(DPO()))
    assert run_and_said(folder, beforehand(objective), **settings)[1] == expected


def test_batches_of_a_size_of_their_own_are_those_of_any_order(folder):
    assert run_and_said(folder, beforehand(DPO(), 4), max_steps=3)[1] == 2 + 3
    assert run_and_said(folder, beforehand(DPO(), 4), seed=4, per_device_train_batch_size=3, max_steps=2)[1] == 0


def test_another_model_is_asked_though_it_lies_in_the_same_place(folder, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    run_and_said(place, beforehand(DPO()))
    shutil.rmtree(place)
    tiny_model_folder(place, seed=5)
    assert run_and_said(place, beforehand(DPO()))[1] == 9


def test_adapters_that_were_tuned_otherwise_are_asked(folder):
    asked = []
    for times in (1, 1, 2):
        trainer = tuned(folder, "adapters tuned before", beforehand(DPO()), times=times)
        events = recorded(trainer)
        trainer.train()
        asked.append(sum(isinstance(event, Working) and event.what == "precomputing" for event in events))
    assert asked == [9, 0, 9]


DAMAGES = {
    "a bit": lambda path: flip(path / "own.float32"),
    "cut": lambda path: (path / "own.float32").write_bytes((path / "own.float32").read_bytes()[:-4]),
    "no seal": lambda path: (path / "seal.json").unlink(),
    "another's file beside it": lambda path: (path / "notes.txt").write_text("mine"),
    "a file in its place": lambda path: (shutil.rmtree(path), path.write_text("mine")),
}


def flip(file):
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 64]) + content[1:])


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_asked_again_and_told_of(folder, tmp_path, damage):
    first, _, _ = run_and_said(folder, beforehand(DPO()))
    for path in entries(tmp_path):
        DAMAGES[damage](path)
    second, asked, notices = run_and_said(folder, beforehand(DPO()))
    assert same(first, second)
    assert asked == 9
    assert len(notices) == 2
    assert all("it is asked again" in text for text in notices)
    assert run_and_said(folder, beforehand(DPO()))[1] == 0


def test_a_disk_that_takes_nothing_ends_no_run(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FOLDER).write_text("no folder")
    _, asked, notices = run_and_said(folder, beforehand(DPO()))
    assert asked == 9
    assert len(notices) == 2
    assert all("is not kept on the disk" in text for text in notices)
