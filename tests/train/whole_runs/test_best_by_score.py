"""Best weights and early stopping that go by a score of the exam in place of the held-out loss."""

import re

import pytest

from tests.makers.small_runs import recorded, same, weights
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.events import EndReason, Notice, StepEvent

NOISE = [{"text": "zq " * (4 + number)} for number in range(8)]  # what is trained drives the model away from ASKED
ASKED = [{"prompt": f"Tell {word}?", "completion": f"the {word}"} for word in ("June", "Paris", "fox", "noon")]


def share_of_vowels(prompt, answer, row):
    return sum(letter in "aeiou" for letter in answer) / max(len(answer), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("best_by_score") / "llama")


@pytest.fixture(scope="module")
def exam():
    return scores.Exam(ASKED, metrics=[share_of_vowels, "perplexity"], max_tokens=6)


def trainer_of(folder, exam, output_dir=None, eval_dataset=None, **settings):
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=64)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
    chosen = {
        "max_steps": 12,
        "warmup_steps": 0,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "hold_out": 0,
        "score_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
    } | settings
    args = TrainingConfig(output_dir=None if output_dir is None else str(output_dir), **chosen)
    return Trainer(model, tokenizer, train_dataset=NOISE, eval_dataset=eval_dataset, args=args, exam=exam)


def told_of(event):
    return event.step, event.scores, event.since_start


def stopped_after(trainer, step):
    def stop(event):
        if isinstance(event, StepEvent) and event.step == step:
            trainer.stop()

    trainer.subscribe(stop)
    return trainer


def test_early_stopping_follows_a_score_that_is_better_the_lower_it_is(folder, exam):
    trainer = trainer_of(folder, exam, early_stopping_patience=2, metric_for_best_model="perplexity")
    result = trainer.train()
    found = [event.scores["perplexity"] for event in result.scores]
    assert result.reason is EndReason.EARLY_STOPPED
    assert min(found) == found[-3]
    assert "perplexity no longer falling" in result.message
    assert all(event.lower_is_better == ["perplexity"] for event in result.scores)


@pytest.mark.parametrize(("metric", "extreme"), [("share_of_vowels", max), ("perplexity", min)])
def test_the_weights_of_the_best_score_are_put_back_also_after_a_resume(folder, exam, tmp_path, metric, extreme):
    settings = {"load_best_model_at_end": True, "metric_for_best_model": metric, "save_steps": 5}
    whole = trainer_of(folder, exam, tmp_path / "a", **settings)
    told = recorded(whole)
    result = whole.train()
    found = [event.scores[metric] for event in result.scores]
    assert len(set(found)) > 1
    assert exam.take(whole._model).scores[metric] == extreme(found)
    step = result.scores[found.index(extreme(found))].step
    said = f"The weights of step {step}, with the {'highest' if extreme is max else 'lowest'} {metric} ("
    assert step == 12 or any(isinstance(event, Notice) and event.text.startswith(said) for event in told)

    stopped_after(trainer_of(folder, exam, tmp_path / "b", **settings), 7).train()
    second = trainer_of(folder, exam, tmp_path / "b", **settings)
    resumed = second.train(resume_from_checkpoint=True)
    assert [told_of(event) for event in resumed.scores] == [told_of(event) for event in result.scores]
    assert same(weights(second), weights(whole))


def test_a_run_that_is_resumed_by_another_yardstick_puts_no_weights_back_that_are_not_its_best(folder, exam, tmp_path):
    settings = {"load_best_model_at_end": True, "max_steps": 6}
    first = trainer_of(folder, exam, tmp_path, metric_for_best_model="perplexity", **settings)
    stopped_after(first, 5).train()
    second = trainer_of(folder, exam, tmp_path, metric_for_best_model="share_of_vowels", **settings)
    told = recorded(second)
    result = second.train(resume_from_checkpoint=True)
    found = {event.step: event.scores["share_of_vowels"] for event in result.scores}
    best = max(found, key=lambda step: (found[step], -step))
    now = exam.take(second._model).scores["share_of_vowels"]
    said = [event.text for event in told if isinstance(event, Notice) and f"step {best}" in event.text]
    assert now == found[best] or any("whose weights were not kept" in text for text in said)


def test_a_score_over_fewer_rows_than_the_best_is_told_and_does_not_count(folder):
    taken = []

    def raises_later(prompt, answer, row):
        taken.append(prompt)
        if len(taken) > len(ASKED) and "fox" in prompt:
            raise RuntimeError("no verdict on foxes")
        return len(taken) > len(ASKED)

    exam = scores.Exam(ASKED, metrics=[raises_later], max_tokens=2)
    trainer = trainer_of(
        folder, exam, max_steps=4, early_stopping_patience=2, metric_for_best_model="raises_later", score_steps=1
    )
    told = recorded(trainer)
    result = trainer.train()
    assert [event.scores["raises_later"] for event in result.scores] == [0.0, 1.0, 1.0]
    assert result.reason is EndReason.EARLY_STOPPED
    said = [event.text for event in told if isinstance(event, Notice) and "not the best" in event.text]
    assert said[0] == (
        "raises_later could not judge 1 rows at step 1 and 0 at step 0, so it is not the best; row 2: raises_later "
        "raised RuntimeError: no verdict on foxes"
    )


def test_each_score_says_what_changed_since_the_first_as_a_comparison_of_the_models_does(folder, exam):
    trainer = trainer_of(folder, exam, max_steps=4)
    base = exam.take(trainer._model)
    result = trainer.train()
    tuned = exam.take(trainer._model)
    assert result.scores[0].since_start == {}
    assert result.scores[-1].since_start == {name: found.sentence for name, found in tuned.against(base).items()}


def test_a_run_that_went_beyond_its_best_score_says_so_and_how_sure_that_is(folder, exam):
    settings = {"metric_for_best_model": "perplexity", "eval_steps": 2, "load_best_model_at_end": True}
    held_out = [{"text": "zq " * 13}]  # like what is trained: its loss falls all the way
    trainer = trainer_of(folder, exam, max_steps=6, eval_dataset=held_out, **settings)
    told = recorded(trainer)
    result = trainer.train()
    found = [event.scores["perplexity"] for event in result.scores]
    best = found.index(min(found))
    assert best < 3
    assert result.evals[-1].loss < result.evals[best].loss
    (said,) = [event.text for event in told if isinstance(event, Notice) and "still fell" in event.text]
    beginning = (
        f"perplexity was {found[best]:.4g} at step {2 * best} and is {found[-1]:.4g} at step 6, though the held-out "
        f"loss still fell ({result.evals[best].loss:.3f} → {result.evals[-1].loss:.3f}). Since step {2 * best}, "
        "perplexity: "
    )
    assert said.startswith(beginning)
    assert re.match(r"\d of 4 rows are better, \d worse: cannot be told from chance; ", said[len(beginning) :])


def test_a_run_that_is_resumed_with_another_exam_says_so_and_compares_no_scores_of_the_two(folder, exam, tmp_path):
    settings = {"load_best_model_at_end": True, "metric_for_best_model": "perplexity", "max_steps": 8}
    stopped_after(trainer_of(folder, exam, tmp_path, **settings), 5).train()
    other = scores.Exam(ASKED[:2], metrics=["perplexity"])
    trainer = trainer_of(folder, other, tmp_path, **settings)
    told = recorded(trainer)
    result = trainer.train(resume_from_checkpoint=True)
    said = [event.text for event in told if isinstance(event, Notice) and "another one" in event.text]
    assert said == [
        "The exam is another one than that of the scores up to step 4, in its rows, its metrics or its max_tokens: "
        "they are not compared with those to come. Best weights and patience count anew from here."
    ]
    assert [(event.step, event.exam) for event in result.scores[3:]] == [(at, other.digest) for at in (5, 6, 8)]
    assert result.scores[3].since_start == {}
    assert result.scores[4].since_start.keys() == {"perplexity"}
    found = {event.step: event.scores["perplexity"] for event in result.scores[3:]}
    assert other.take(trainer._model).scores["perplexity"] == min(found.values())


def test_a_run_that_is_resumed_without_its_exam_says_so(folder, exam, tmp_path):
    stopped_after(trainer_of(folder, exam, tmp_path, max_steps=4), 3).train()
    trainer = trainer_of(folder, None, tmp_path, max_steps=4, score_steps=None)
    told = recorded(trainer)
    trainer.train(resume_from_checkpoint=True)
    said = "Up to step 2 this run was scored by an exam; it has none now, so no score is taken."
    assert said in [event.text for event in told if isinstance(event, Notice)]


REFUSED = [
    (
        {"metric_for_best_model": "bleu"},
        "metric_for_best_model is 'bleu'; the exam's metrics are share_of_vowels",
    ),
    (
        {"metric_for_best_model": "perplexity", "score_steps": None, "load_best_model_at_end": True},
        "load_best_model_at_end needs score_steps, so that perplexity is measured during the run",
    ),
    ({"load_best_model_at_end": True}, "held-out rows;.* To go by the exam: metric_for_best_model='share_of_vowels'"),
    ({"metric_for_best_model": "perplexity", "eval_steps": 2}, "eval_steps needs held-out rows"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=["unknown", "never scored", "no loss", "eval_steps"])
def test_what_cannot_be_followed_is_refused_before_the_run(folder, exam, settings, said):
    with pytest.raises(ValueError, match=said):
        trainer_of(folder, exam, **settings)


def test_a_metric_without_an_exam_is_refused(folder):
    said = r"metric_for_best_model needs an exam; pass Trainer\(..., exam=scores.Exam\(rows, metrics=\['perplexity'\]"
    with pytest.raises(ValueError, match=said):
        trainer_of(folder, None, metric_for_best_model="perplexity", score_steps=None)
