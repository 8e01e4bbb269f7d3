"""Best weights and early stopping that go by a score of the exam in place of the held-out loss."""

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


def trainer_of(folder, exam, output_dir=None, **settings):
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
    return Trainer(model, tokenizer, train_dataset=NOISE, args=args, exam=exam)


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
    assert [event.scores for event in resumed.scores] == [event.scores for event in result.scores]
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
        "raises_later judged 3 of 4 rows at step 1 and 4 at step 0, so it is not the best; row 2: raises_later raised "
        "RuntimeError: no verdict on foxes"
    )


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
