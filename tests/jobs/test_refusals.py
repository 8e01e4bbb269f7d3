"""written.py: what no other process can go by is named, all of it, with what to do instead, and nothing is written."""

import json
from dataclasses import dataclass

import pytest

from tests.makers.small_runs import make
from tunebook import Trainer, TrainingConfig
from tunebook.jobs.carried import exams
from tunebook.jobs.carried.refused import NotCarried
from tunebook.jobs.layout import NoJob, read_description
from tunebook.jobs.run import Run
from tunebook.objectives import DPO
from tunebook.scores import Exam, exact_match, general, numeric, program

EXAM = [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 3?", "answer": "6"}]


@dataclass(frozen=True, kw_only=True)
class Mine(DPO):
    """An objective of one's own."""


def test_an_objective_and_an_exam_of_ones_own_are_both_named(adapted, tmp_path):
    pairs = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(6)]
    own = program(lambda prompt, answer, row: True, "politeness")
    exam = Exam(EXAM, metrics=["exact_match", own])
    args = TrainingConfig(max_steps=1, output_dir=str(tmp_path / "runs"))
    trainer = Trainer(adapted, train_dataset=pairs, args=args, objective=Mine(), exam=exam)
    with pytest.raises(NotCarried, match=r"Mine(.|\n)*politeness") as refused:
        trainer.start()
    assert "exact_match" not in str(refused.value)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(NotCarried):
        trainer.save_job(tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_metric_with_settings_of_its_own_is_told_from_the_one_of_its_name():
    known = Exam(EXAM, metrics=["exact_match", numeric()], max_tokens=5)
    again = exams.from_plain(exams.as_plain(known))
    assert (again.digest, again.max_tokens, len(again)) == (known.digest, 5, 2)
    assert [metric.name for metric in again.metrics] == ["exact_match", "numeric"]
    with pytest.raises(NotCarried, match="exact_match"):
        exams.as_plain(Exam(EXAM, metrics=[exact_match(reference="answer")]))


def test_the_exam_of_general_abilities_is_made_again_by_what_it_was_asked_for():
    exam = general(seed=3, rows=2, abilities=["facts", "english"])
    again = exams.from_plain(json.loads(json.dumps(exams.as_plain(exam))))
    assert (again.digest, [one.name for one in again.metrics]) == (exam.digest, [one.name for one in exam.metrics])


def test_a_run_without_a_folder_and_a_stream_are_refused(tiny_folder, rows, tmp_path):
    with pytest.raises(ValueError, match="output_dir"):
        make(tiny_folder, rows, tmp_path, output_dir=None).start()
    streamed = make(tiny_folder, rows, tmp_path, streaming=True)
    with pytest.raises(NotCarried, match="streaming"):
        streamed.start()
    assert not (tmp_path / "run-001").exists()


def test_a_job_is_not_written_among_a_persons_files(tiny_folder, rows, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="empty"):
        make(tiny_folder, rows, tmp_path / "runs").save_job(tmp_path)


def test_what_is_no_job_is_said(tmp_path):
    with pytest.raises(NoJob, match="save_job"):
        read_description(tmp_path)
    with pytest.raises(NoJob, match=r"tunebook\.attach"):
        Run(tmp_path)
