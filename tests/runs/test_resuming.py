"""runs/resuming.py: the line that goes on with a run, and where it is kept in the words of whoever configured it."""

from pathlib import Path

from tunebook.runs.resuming import as_typed, resume_line, train_line


def test_a_folder_below_output_dir_is_named_as_it_was_typed_and_found_without_being_named():
    folder = as_typed(Path("out/runs/run-003").absolute(), "out/runs")
    assert folder == "out/runs/run-003"
    assert resume_line(folder, "out/runs", awaited=True) == "await trainer.train_async(resume_from_checkpoint=True)"


def test_a_folder_that_lies_elsewhere_is_named_in_the_line():
    folder = as_typed(Path("/elsewhere/run-003"), "runs")
    line = resume_line(folder, "runs", awaited=False, trainer="tuner")
    assert line == "tuner.train(resume_from_checkpoint='/elsewhere/run-003')"


def test_where_there_is_nothing_to_go_on_from_the_line_is_the_one_that_trains():
    assert train_line(awaited=True) == "await trainer.train_async()"
    assert train_line(awaited=False, trainer="tuner") == "tuner.train()"
