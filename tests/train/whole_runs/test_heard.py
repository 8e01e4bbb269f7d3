"""A run of `Trainer.train` is heard from elsewhere by its folder, and leaves nothing more there than always."""

import time

import pytest

from tests.makers.small_runs import make, same, weights
from tunebook import attach
from tunebook.events import Command, EndReason, Request, Working
from tunebook.runs.attached import AttachedRun
from tunebook.runs.mailbox import ASKED_FOLDER, post

SECONDS = 30  # for a file to be taken up that is looked for five times a second


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, rows, tmp_path_factory):
    trainer = make(tiny_folder, rows, tmp_path_factory.mktemp("undisturbed"), max_steps=6)
    trainer.train()
    return trainer


def test_a_stop_left_in_the_folder_is_heard_in_the_middle_of_a_step_and_done_with_it(tiny_folder, rows, tmp_path):
    trainer, run_folder, seen = make(tiny_folder, rows, tmp_path), tmp_path / "run-001", []

    def ask_in_step_3(event):
        if isinstance(event, Working) and (event.step, event.what, event.done) == (3, "training", 1):
            post(run_folder, Request(Command.STOP))
            deadline = time.monotonic() + SECONDS
            while any((run_folder / ASKED_FOLDER).iterdir()) and time.monotonic() < deadline:
                time.sleep(0.02)
            seen.append(any((run_folder / ASKED_FOLDER).iterdir()))

    trainer.subscribe(ask_in_step_3)
    result = trainer.train()
    assert seen == [False]
    assert (result.reason, len(result.steps)) == (EndReason.STOPPED, 3)
    left = {path.name for path in run_folder.iterdir()}
    assert left == {"checkpoints", "config.json", "events.jsonl", "held.lock", "learning_rates.json"}


def test_being_watched_and_paused_from_elsewhere_changes_no_weight(tiny_folder, rows, tmp_path, undisturbed):
    trainer, viewers = make(tiny_folder, rows, tmp_path, max_steps=6), []

    def pause_and_resume(event):
        if not viewers and isinstance(event, Working) and event.what == "training":
            viewers.append(AttachedRun(tmp_path / "run-001"))
            viewers[0].send("pause")
        elif viewers and isinstance(event, Working) and event.what == "paused" and len(viewers) == 1:
            viewers.append(attach(tmp_path / "run-001"))
            viewers[1].send("resume")

    trainer.subscribe(pause_and_resume)
    told = []
    trainer.subscribe(told.append)
    trainer.train()
    assert len(viewers) == 2
    assert same(weights(trainer), weights(undisturbed))
    for run in viewers:
        run.poll()
        assert run.events == [event for event in told if not isinstance(event, Working)]
        assert run.state == "finished"
