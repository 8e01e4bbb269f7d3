"""The run that ships with the kit: whole, of the model it says, and nobody's paths in it."""

import re

from tunebook import load_run, samples
from tunebook.events import EndReason, EvalEvent, SampleEvent
from tunebook.runs.folder import read_events


def test_it_is_a_run_that_finished_and_learnt_something():
    run = load_run(samples.recorded_run())
    assert len(run.loss) == 24
    assert run.ended.reason is EndReason.FINISHED
    losses = [told.loss for told in read_events(samples.recorded_run()) if isinstance(told, EvalEvent)]
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5
    written = [event.text for event in read_events(samples.recorded_run()) if isinstance(event, SampleEvent)]
    assert len(set(written)) > 2


def test_it_holds_no_path_of_a_machine_and_is_small():
    files = list(samples.recorded_run().iterdir())
    assert sorted(file.name for file in files) == ["events.jsonl", "samples.jsonl"]
    assert sum(file.stat().st_size for file in files) < 100_000
    assert not [file for file in files if re.search(r"/(home|root|Users|work|tmp)/", file.read_text())]
