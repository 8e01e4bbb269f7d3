"""An exam of a model in memory: what is asked, what it comes to by stock mlx-lm, and that it leaves no trace."""

import math

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import asked, noise_images
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.data.opened import ReadingOptions, opened
from tunebook.models.tensors import flat, random_key
from tunebook.scores.reading import questions
from tunebook.tokens.encoding import encode_rows
from tunebook.train.evaluation import score_now

LEARNT = [{"prompt": f"Say {word}.", "completion": f"{word} it is"} for word in ("tune", "fox", "dog", "sun")]
OTHERS = [
    {"prompt": f"Tell {word}?", "completion": f"never {word} again"} for word in ("June", "Paris", "jumps", "noon")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("exam") / "llama")


@pytest.fixture(scope="module")
def learnt(folder):
    """A model that knows LEARNT by heart, by its adapters."""
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=64)
    FastModel.get_peft_model(model, r=16, lora_alpha=32, lora_dropout=0.1)
    settings = TrainingConfig(
        max_steps=60, learning_rate=2e-2, warmup_steps=2, per_device_train_batch_size=4, hold_out=0, save_steps=None
    )
    Trainer(model, tokenizer, train_dataset=LEARNT, args=settings).train()
    return model


def test_rows_that_were_learnt_by_heart_are_all_right_and_others_all_wrong_and_the_base_model_knows_none(learnt):
    known, unknown = (scores.Exam(rows, metrics=["exact_match"], max_tokens=16) for rows in (LEARNT, OTHERS))
    assert known.take(learnt)["exact_match"] == 1
    assert unknown.take(learnt)["exact_match"] == 0
    assert known.take(learnt, adapters=False)["exact_match"] == 0


def test_the_base_model_is_the_one_that_was_loaded(learnt, folder):
    exam = scores.Exam(LEARNT, metrics=["exact_match", "perplexity"], max_tokens=8)
    base = exam.take(learnt, adapters=False)
    fresh = exam.take(FastModel.from_pretrained(folder)[0])
    assert (base.name, fresh.name, exam.take(learnt).name) == ("base", "base", "tuned")
    assert [row.answer for row in base.rows] == [row.answer for row in fresh.rows]
    assert base["perplexity"] == fresh["perplexity"]


def test_perplexity_is_exp_of_the_loss_on_the_same_rows_whatever_the_batches(learnt):
    loaded = learnt.loaded
    encoded = encode_rows(LEARNT + OTHERS, loaded, max_seq_length=64).rows
    loss = score_now(loaded.module, loaded.family, encoded, batch_size=3, max_seq_length=64).loss
    exam = scores.Exam(LEARNT + OTHERS, metrics=["perplexity"])
    for batch_size in (1, 3, 8):
        assert exam.take(learnt, batch_size=batch_size)["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_likelihoods_of_choices_are_those_of_stock_mlx_lm(folder):
    rows = [{"question": "What is it?", "choices": ["a fox", "the lazy dog", "noon"], "answer": "B"}]
    model, tokenizer = FastModel.from_pretrained(folder)
    stock, _ = mlx_lm.load(str(folder))[:2]
    seen = []
    metric = scores.multiple_choice()
    judged = scores.Metric(name="seen", asks=metric.asks, judge=lambda _, found: bool(seen.append(found)))
    scores.Exam(rows, metrics=[judged, metric]).take(model)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is it?"}], add_generation_prompt=True, tokenize=False
    )
    for choice, found in zip(rows[0]["choices"], seen[0], strict=True):
        ids, start = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt + choice, prompt))
        logits = np.array(stock(mx.array([ids]))[0, :-1].astype(mx.float32)).astype(np.float64)
        logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        own = [logps[place, ids[place + 1]] for place in range(len(start) - 1, len(ids) - 1)]
        assert found.nats == pytest.approx(sum(own), abs=1e-4)
        assert found.tokens == len(ids) - len(start)
        assert found.is_greedy == all(
            logits[place].argmax() == ids[place + 1] for place in range(len(start) - 1, len(ids) - 1)
        )


def test_answers_are_the_same_however_many_are_asked_at_a_time(learnt):
    exam = scores.Exam(LEARNT + OTHERS, metrics=["exact_match"], max_tokens=16)
    one, many = exam.take(learnt, batch_size=1), exam.take(learnt, batch_size=8)
    assert [row.answer for row in one.rows] == [row.answer for row in many.rows]


def test_a_look_leaves_weights_mode_and_random_state_as_they_were(learnt):
    exam = scores.Exam(LEARNT, metrics=["exact_match", "perplexity"], max_tokens=4)
    learnt.module.train()
    mx.random.seed(5)
    before, key = {name: np.array(array) for name, array in flat(learnt.module.parameters()).items()}, random_key()
    for adapters in (True, False):
        for _ in exam.taking(learnt.loaded, adapters=adapters):
            assert learnt.module.training
            assert mx.array_equal(random_key(), key)
            assert learnt.module["model"]["layers"][0]["self_attn"]["q_proj"].get("lora_a") is not None
    assert learnt.module.training
    assert mx.array_equal(random_key(), key)
    after = flat(learnt.module.parameters())
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], np.array(after[name])) for name in before)


def test_an_exam_in_the_middle_of_a_run_leaves_its_losses_as_they_would_have_been(folder):
    exam = scores.Exam(OTHERS, metrics=["exact_match", "perplexity"], max_tokens=4)

    def losses(listener=None):
        model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=64)
        FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
        settings = TrainingConfig(max_steps=4, warmup_steps=0, learning_rate=1e-2, hold_out=0)
        trainer = Trainer(model, tokenizer, train_dataset=LEARNT, args=settings)
        if listener is not None:
            trainer.add_step_callback(lambda *_: listener(model))
        return [step.loss for step in trainer.train().steps]

    assert losses(exam.take) == losses()


def test_of_a_conversation_the_last_answer_is_asked_for_with_all_that_came_before(learnt):
    rows = [
        {
            "messages": [
                {"role": "user", "content": "One?"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": "Two?"},
                {"role": "assistant", "content": "2"},
            ]
        }
    ]
    (asked,) = questions(opened(rows, ReadingOptions()), learnt.loaded)
    assert (asked.prompt, asked.reference) == ("Two?", "2")
    assert asked.asked.text.endswith("Two?<|im_end|>\n<|im_start|>assistant\n")
    assert "1<|im_end|>" in asked.asked.text
    assert [part.text for part in asked.whole.parts if part.supervised] == ["2<|im_end|>"]


def test_a_question_alone_is_asked_and_its_answer_is_where_its_column_says(learnt):
    rows = [{"question": "How many?", "answer": 42}, {"question": "Who?", "solution": "me"}]
    many, who = questions(opened(rows, ReadingOptions()), learnt.loaded)
    assert (many.prompt, many.reference, who.reference, who.whole) == ("How many?", "42", None, None)
    assert many.asked == who.asked.__class__(many.asked.parts, True)
    marks = scores.Exam(rows, metrics=[scores.exact_match("solution")], max_tokens=2).take(learnt)
    assert list(marks.not_scored("exact_match")) == [0]


def test_a_text_without_a_question_can_be_asked_how_likely_it_is_and_nothing_else(learnt):
    rows = [{"text": "the quick brown fox"}, {"text": "the lazy dog sleeps"}]
    marks = scores.Exam(rows, metrics=["exact_match", "perplexity"]).take(learnt)
    assert len(marks.not_scored("exact_match")) == 2
    assert math.isnan(marks["exact_match"])
    assert marks["perplexity"] > 1
    assert "exact_match: 2 rows are not scored; row 0: the row is a text without a question" in repr(marks)


def test_rows_that_are_no_questions_are_all_named(learnt):
    rows = [*LEARNT, {"prompt": "What?", "completion": ""}, {"prompt": "Who?", "completion": None}]
    with pytest.raises(ValueError, match=r"2 of 6 rows of the exam cannot be asked\. Row 4: its column 'completion'"):
        scores.Exam(rows, metrics=["exact_match"]).take(learnt)


def test_answers_that_were_cut_are_told_of(learnt):
    marks = scores.Exam(LEARNT, metrics=["exact_match"], max_tokens=2).take(learnt)
    assert marks.notices == ("4 of 4 answers were cut at max_tokens=2; raise it for the rest.",)


@pytest.mark.parametrize("wrong", [{"answer": "z"}, {"choices": ["a"]}, {"choices": []}, {"answer": 1.0}])
def test_a_row_whose_answer_is_no_choice_is_left_out_with_its_reason_and_the_others_are_asked(learnt, wrong):
    row = {"question": "Which?", "choices": ["a", "b"], "answer": "a"}
    marks = scores.Exam([row, {**row, **wrong}], metrics=["multiple_choice"]).take(learnt)
    assert marks.scored("multiple_choice") == [0]
    assert list(marks.not_scored("multiple_choice")) == [1]


def test_rows_that_are_there_twice_are_told_of(learnt):
    def right(prompt, answer, row):
        return True

    marks = scores.Exam([*LEARNT, *LEARNT[:3]], metrics=[right], max_tokens=16).take(learnt)
    assert marks.notices == (
        "3 of 7 rows are the same as another, and intervals and p take each for one more question; take them out.",
    )


def test_a_program_that_raises_names_the_row_and_is_not_counted(learnt):
    def strict(prompt, answer, row):
        if "fox" in prompt:
            raise RuntimeError("no foxes")
        return True

    marks = scores.Exam(LEARNT, metrics=[strict], max_tokens=2).take(learnt)
    assert marks["strict"] == 1
    assert marks.not_scored("strict") == {1: "strict raised RuntimeError: no foxes"}
    with pytest.raises(scores.ScoreTooLow, match=r"strict: 1 of 4 rows are not scored \(row 1: strict raised"):
        marks.require(at_least=0.5)


def test_thoughts_are_no_part_of_the_answer_that_is_judged(learnt, monkeypatch):
    from tunebook.models.families.base import Written

    thinking = "<think>\nLet me see.\n</think>\n\ntune it is"
    monkeypatch.setattr(
        type(learnt.family), "answers", lambda *_args, **_options: iter([(0, Written((1,), thinking, True))])
    )
    marks = scores.Exam(LEARNT[:1], metrics=["exact_match"]).take(learnt)
    assert marks["exact_match"] == 1
    assert marks.rows[0].answer == thinking


def test_a_model_whose_weights_were_trained_themselves_has_no_base_to_ask(folder):
    model, _ = FastModel.from_pretrained(folder, full_finetuning=True)
    exam = scores.Exam(LEARNT, metrics=["perplexity"])
    with pytest.raises(ValueError, match="trained whole"):
        exam.take(model, adapters=False)


def test_exams_of_the_same_words_and_other_pictures_are_other_exams():
    one, other = noise_images(2)
    rows = [[asked("What is it?", [image], "a dog")] for image in (one, one.copy(), other)]
    first, same, different = (scores.Exam(some, metrics=["exact_match"]).digest for some in rows)
    assert first == same != different
