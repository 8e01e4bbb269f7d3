"""runs/learning_rates.py: a resume has the rates that were asked for, or is refused, whatever became of their files."""

import shutil

import pytest

from tests.makers.small_runs import PLAIN, asking, make, same, weights
from tunebook.runs.learning_rates import RATES_FILE, LearningRatesLost
from tunebook.runs.log_lines import EVENTS_FILE
from tunebook.train.kept.checkpoint import checkpoint_folders


@pytest.fixture(scope="module")
def changed(tiny_folder, rows, tmp_path_factory):
    """(run folder, final weights) of a run whose learning rate was lowered during its fifth step."""
    trainer = asking(make(tiny_folder, rows, tmp_path_factory.mktemp("changed"), **PLAIN), 4, "learning_rate", 1e-3)
    return trainer.train().run_folder, weights(trainer)


@pytest.fixture
def folder(changed, tmp_path):
    """A copy of that run, as if it had been killed after its sixth step, before the checkpoint of it was written."""
    shutil.copytree(changed[0], tmp_path / "run-001")
    for newer in checkpoint_folders(tmp_path / "run-001")[1:]:
        shutil.rmtree(newer)
    return tmp_path / "run-001"


def end_is_cut(folder):
    log = folder / EVENTS_FILE
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 3])


def a_change_is_damaged(folder):
    log = folder / EVENTS_FILE
    log.write_bytes(log.read_bytes().replace(b"learning_rate_changed", b"learning_rate_chanced"))


def log_is_gone(folder):
    (folder / EVENTS_FILE).unlink()


def seal_is_broken(folder):
    file = folder / RATES_FILE
    file.write_text(file.read_text().replace("0.001", "0.002"))


def rates_are_empty(folder):
    (folder / RATES_FILE).write_bytes(b"")


OF_THE_LOG = [end_is_cut, a_change_is_damaged, log_is_gone]


def rates_are_gone(folder):
    (folder / RATES_FILE).unlink()


OF_THE_RATES = [seal_is_broken, rates_are_empty, rates_are_gone]


@pytest.mark.parametrize("damage", [lambda folder: None, *OF_THE_LOG, *OF_THE_RATES])
def test_with_one_of_the_two_files_the_run_is_the_same(tiny_folder, rows, changed, folder, damage):
    damage(folder)
    trainer = make(tiny_folder, rows, folder.parent, **PLAIN)
    trainer.train(resume_from_checkpoint=True)
    assert same(weights(trainer), changed[1])


@pytest.mark.parametrize("of_the_log", OF_THE_LOG)
@pytest.mark.parametrize("of_the_rates", OF_THE_RATES)
def test_without_both_it_is_refused_and_nothing_is_touched(tiny_folder, rows, folder, of_the_log, of_the_rates):
    of_the_log(folder)
    of_the_rates(folder)
    trainer = make(tiny_folder, rows, folder.parent, **PLAIN)
    before = weights(trainer), {path: path.read_bytes() for path in folder.glob("*.json*")}
    for place in (True, folder):
        with pytest.raises(LearningRatesLost) as refused:
            trainer.train(resume_from_checkpoint=place)
        assert "\n" not in str(refused.value)
        assert f"resume_from_checkpoint={str(checkpoint_folders(folder)[0])!r}" in str(refused.value)
    assert same(weights(trainer), before[0])
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == before[1]


def test_from_the_checkpoint_that_is_named_it_goes_on_and_takes_the_rate_again(tiny_folder, rows, changed, folder):
    end_is_cut(folder)
    rates_are_empty(folder)
    trainer = asking(make(tiny_folder, rows, folder.parent, **PLAIN), 4, "learning_rate", 1e-3)
    trainer.train(resume_from_checkpoint=checkpoint_folders(folder)[0])
    assert same(weights(trainer), changed[1])
    again = make(tiny_folder, rows, folder.parent, **PLAIN)
    again.train(resume_from_checkpoint=True)
    assert same(weights(again), changed[1])
