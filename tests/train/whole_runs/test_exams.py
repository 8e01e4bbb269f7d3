"""An exam that is taken while a run trains: when, what is told of it, and that the run is what it would have been."""

import re

import mlx.core as mx
import pytest

from tests.makers.small_runs import asking, same, weights
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, load_run, scores
from tunebook.events import Command, Notice, RunEnded, ScoreEvent, StepEvent, Working, from_json, to_json
from tunebook.models.tensors import flat
from tunebook_widgets import FitCheck

LEARNT = [{"prompt": f"Say {word}.", "completion": f"{word} it is"} for word in ("tune", "fox", "dog", "sun")]
OTHERS = [{"prompt": f"Tell {word}?", "completion": f"never {word}"} for word in ("June", "Paris", "jumps", "noon")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("exams") / "llama")


@pytest.fixture(scope="module")
def exam():
    return scores.Exam(OTHERS, metrics=["exact_match", "perplexity"], max_tokens=4)


def trainer_of(folder, exam, *, rows=LEARNT, output_dir=None, **settings):
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=64)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
    settings = {"max_steps": 5, "warmup_steps": 0, "learning_rate": 1e-2, "hold_out": 0} | settings
    args = TrainingConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=1, output_dir=output_dir, **settings
    )
    return Trainer(model, tokenizer, train_dataset=rows, args=args, exam=exam)


def told_by(trainer):
    told = []
    trainer.subscribe(told.append)
    return told


@pytest.fixture(scope="module")
def whole(folder, exam, tmp_path_factory):
    """(trainer, what it told, its result) of a run that was scored every second step."""
    trainer = trainer_of(folder, exam, output_dir=tmp_path_factory.mktemp("runs"), score_steps=2, save_steps=None)
    told = told_by(trainer)
    return trainer, told, trainer.train()


def test_an_exam_is_taken_at_the_start_every_so_many_steps_and_at_the_end(whole, exam):
    trainer, told, result = whole
    assert [event.step for event in result.scores] == [0, 2, 4, 5]
    assert [event for event in told if isinstance(event, ScoreEvent)] == list(result.scores)
    assert dict(result.scores[-1].scores) == exam.take(trainer._model).scores
    assert {(event.rows, event.exam) for event in result.scores} == {(4, exam.digest)}
    scoring = [event for event in told if isinstance(event, Working) and event.what == "scoring"]
    assert [event.done for event in scoring] == [*range(1, 9)] * 4
    assert {event.total for event in scoring} == {8}


def test_scores_are_in_the_log_and_read_back(whole):
    _, _, result = whole
    assert load_run(result.run_folder).scores == result.scores
    assert all(from_json(to_json(event)) == event for event in result.scores)


def test_scores_taken_during_a_run_leave_its_losses_and_weights_bit_identical(whole, folder):
    trainer, _, result = whole
    plain = trainer_of(folder, None)
    assert [step.loss for step in plain.train().steps] == [step.loss for step in result.steps]
    ours, theirs = (flat(one.loaded.module.trainable_parameters()) for one in (trainer, plain))
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


def test_an_exam_that_is_asked_for_is_taken_once_and_the_losses_and_weights_after_it_are_bit_identical(whole, folder):
    trainer, _, _ = whole
    exam = scores.Exam(OTHERS, metrics=["exact_match", "perplexity"], max_tokens=4)
    asked = asking(asking(trainer_of(folder, exam, score_steps=4), 2, "exam"), 3, "exam")
    told = told_by(asked)
    result = asked.train()
    assert [(event.step, event.asked) for event in result.scores] == [(0, False), (3, True), (4, False), (5, False)]
    assert all(event.since_start.keys() == {"exact_match", "perplexity"} for event in result.scores[1:])
    said = [event.text for event in told if isinstance(event, Notice) and "Asked to" in event.text]
    assert said == ["Asked to take the exam, but the exam was taken after step 4 already."]
    plain = trainer_of(folder, None)
    assert [step.loss for step in plain.train().steps] == [step.loss for step in result.steps]
    assert same(weights(plain), weights(asked))
    assert same(weights(trainer), weights(asked))


def test_an_exam_that_is_asked_for_where_there_is_none_is_answered(folder):
    trainer = asking(trainer_of(folder, None, max_steps=2), 0, "exam")
    told = told_by(trainer)
    trainer.train()
    said = "Asked to take the exam, but there is no exam; give the Trainer one: exam=scores.Exam(rows, metrics=[...])."
    assert said in [event.text for event in told if isinstance(event, Notice)]


def test_a_run_that_is_resumed_takes_no_exam_twice(whole, folder, exam, tmp_path):
    _, _, result = whole
    first = trainer_of(folder, exam, output_dir=tmp_path, score_steps=2, save_steps=2)

    def stop(event):
        if isinstance(event, StepEvent) and event.step == 4:
            first.stop()

    first.subscribe(stop)
    assert [event.step for event in first.train().scores] == [0, 2]  # the stop came before that of step 4
    second = trainer_of(folder, exam, output_dir=tmp_path, score_steps=2, save_steps=2)
    told = told_by(second)
    resumed = second.train(resume_from_checkpoint=True)
    assert [event.step for event in told if isinstance(event, ScoreEvent)] == [4, 5]
    assert [(event.step, event.scores) for event in resumed.scores] == [
        (event.step, event.scores) for event in result.scores
    ]
    third = trainer_of(folder, exam, output_dir=tmp_path, score_steps=2, save_steps=2)
    told = told_by(third)
    third.train(resume_from_checkpoint=True)
    assert not [event for event in told if isinstance(event, ScoreEvent)]


def test_an_exam_that_a_stop_breaks_off_gives_no_score(folder, exam):
    trainer = trainer_of(folder, exam, score_steps=2)

    def stop(event):
        if isinstance(event, Working) and event.what == "scoring" and (event.step, event.done) == (2, 3):
            trainer.send(Command.STOP)

    trainer.subscribe(stop)
    told = told_by(trainer)
    result = trainer.train()
    assert [event.step for event in result.scores] == [0]
    assert isinstance(told[-1], RunEnded)
    assert told[-1].step == 2


def test_what_the_marks_say_of_rows_is_told_once_and_rows_that_are_not_scored_each_time(folder):
    rows = [{"question": "Who jumps?", "answer": "the fox"}, {"question": "Who?"}]
    exam = scores.Exam(rows, metrics=["exact_match"], max_tokens=2)
    trainer = trainer_of(folder, exam, max_steps=2)
    told = told_by(trainer)
    trainer.train()
    said = [(event.step, event.text) for event in told if isinstance(event, Notice) and "exam" in event.text]
    assert [step for step, _ in said] == [0, 0]
    assert "answers were cut at max_tokens=2" in said[0][1]
    assert "exact_match: 1 rows are not scored; row 1:" in said[1][1]
    assert [event.not_scored for event in told if isinstance(event, ScoreEvent)] == [{"exact_match": 1}] * 2


def test_rows_of_the_exam_that_are_trained_on_are_told_of_before_the_first_step(folder, exam):
    trainer = trainer_of(folder, exam, rows=[*LEARNT, OTHERS[2], OTHERS[1]], max_steps=1, dataset_order="sequential")
    told = told_by(trainer)
    trainer.train()
    first = next(place for place, event in enumerate(told) if isinstance(event, ScoreEvent))
    (said,) = [event.text for event in told[:first] if isinstance(event, Notice) and "training rows" in event.text]
    assert said.startswith("Of 4 rows of the exam 2 are training rows (row 1 is like row 5, row 2 is like row 4).")


def test_score_steps_without_an_exam_is_refused_and_so_is_an_exam_that_cannot_be_asked(folder):
    with pytest.raises(ValueError, match=re.escape("score_steps needs an exam; pass Trainer(..., exam=")):
        trainer_of(folder, None, score_steps=2)
    bad = scores.Exam([{"prompt": "What?", "completion": None}, *OTHERS], metrics=["exact_match"])
    with pytest.raises(ValueError, match="1 of 5 rows of the exam cannot be asked"):
        trainer_of(folder, bad)


def test_the_forecast_of_memory_and_its_panel_say_that_an_exam_is_not_counted(folder, exam):
    said = "Not counted: the exam between steps"
    trainer = trainer_of(folder, exam, score_steps=2)
    assert str(trainer.memory()).splitlines()[-1].startswith(said)
    assert said in FitCheck(trainer)._repr_html_()
    assert "Not counted" not in str(trainer_of(folder, None).memory())


def test_the_bar_says_each_score_in_a_line(folder, exam, capsys):
    trainer_of(folder, exam, max_steps=1).train()
    shown = capsys.readouterr().out
    assert re.search(r"step 0: exam of 4 rows: exact_match 0, perplexity [\d.]+\n", shown)
    assert re.search(r"step 1: exam of 4 rows: exact_match", shown)
