"""work.py: a run that begins with what an earlier one taught its model says so, here and as a job."""

import json

from tests.makers.small_runs import make
from tunebook.events import Notice
from tunebook.jobs.layout import DESCRIPTION, JOB

SAID = "This model was trained since it was loaded, its last run for 2 steps, and this run begins with"


def said(trainer):
    return [event.text for event in trainer._model.run_events if isinstance(event, Notice)]


def test_a_second_run_says_what_it_begins_with(tiny_folder, rows, tmp_path):
    trainer = make(tiny_folder, rows, tmp_path, max_steps=2)
    trainer.train()
    assert not any("since it was loaded" in text for text in said(trainer))
    job = trainer.save_job(tmp_path / "job") / JOB / DESCRIPTION
    assert sum(text.startswith(SAID) for text in json.loads(job.read_text())["notices"]) == 1
    trainer.train()
    assert sum(text.startswith(SAID) for text in said(trainer)) == 1


def test_a_run_of_which_nothing_was_kept_leaves_nothing_to_say(tiny_folder, rows, tmp_path):
    trainer = make(tiny_folder, rows, tmp_path, max_steps=3)
    trainer.add_step_callback(lambda step, *_: trainer.send("discard") if step == 1 else None)
    trainer.train()
    trainer.train()
    assert not any("since it was loaded" in text for text in said(trainer))
