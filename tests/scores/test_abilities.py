"""The exam of general abilities: the same rows everywhere, right answers by other programs, and a model that forgot."""

import json
import re
from collections import Counter

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.scores.abilities.exam import ABILITIES, CHOICES
from tunebook.scores.abilities.instructions import FORMS, has_its_form


def rows_of(ability, rows, seed=0):
    return scores.general(seed=seed, rows=rows, abilities=[ability]).opened.rows


def right(row):
    return row["choices"][row["answer"]]


def wrong(row):
    return [choice for place, choice in enumerate(row["choices"]) if place != row["answer"]]


def test_the_rows_are_the_same_everywhere_and_others_for_another_seed():
    assert scores.general().digest == "9f64f65ebdaf48a8eb4e6ad8d7caae76"
    assert scores.general(seed=1).digest == "7d5bb92e92153c352a1a37aee48f7062"


def test_there_are_as_many_rows_of_each_ability_as_were_asked_for_and_a_metric_for_each():
    exam = scores.general(rows=5)
    assert Counter(row["ability"] for row in exam.opened.rows) == dict.fromkeys(ABILITIES, 5)
    assert [metric.name for metric in exam.metrics] == ["general", *ABILITIES]
    assert [metric.name for metric in scores.general(rows=5, abilities=["english"]).metrics] == ["english"]


@pytest.mark.parametrize("ability", ABILITIES)
def test_no_row_is_asked_twice_and_no_choice_stands_twice_in_a_row(ability):
    rows = rows_of(ability, 24, seed=3)
    assert len({json.dumps([row["question"], sorted(row.get("choices", []))]) for row in rows}) == 24
    assert all(len(set(row["choices"])) == len(row["choices"]) for row in rows if "choices" in row)


@pytest.mark.parametrize("ability", CHOICES)
def test_the_right_choice_is_in_any_place(ability):
    places = Counter(row["answer"] for row in rows_of(ability, 40))
    assert len(places) == len(rows_of(ability, 1)[0]["choices"])
    assert max(places.values()) < 30


def test_sums_are_right():
    for row in rows_of("arithmetic", 300):
        question = re.fullmatch(r"What is ([\d+x -]+)\?", row["question"])[1].replace("x", "*")
        assert int(right(row)) == eval(question)
        assert all(int(other) >= 0 for other in row["choices"])


def test_just_one_list_is_the_one_to_copy_and_the_others_are_nearly():
    for row in rows_of("copying", 100):
        asked = row["question"].partition(": ")[2]
        assert right(row) == asked
        for other in wrong(row):
            differ = sum(a != b for a, b in zip(other.split(", "), asked.split(", "), strict=True))
            assert differ in (1, 2)


def test_just_one_word_is_spelled_right():
    rows = rows_of("spelling", 150)
    words = {right(row) for row in rows}
    assert len(words) == 150
    for row in rows:
        assert not words & set(wrong(row))
        assert all(abs(len(other) - len(right(row))) <= 1 and other[0] == right(row)[0] for other in wrong(row))


def is_grammatical(sentence):
    """By rules of its own: what has to agree in the patterns there are."""
    words = sentence.rstrip(".").split()
    men = {"man", "boy", "king", "father", "uncle"}
    if "near" in words:
        many = words[1].endswith("s") or words[1] in ("children", "women")
        verb = next(word for word in words[3:] if re.fullmatch(r"(sleep|stand|move|wait|look)s?", word))
        return many != verb.endswith("s")
    if {"himself", "herself"} & set(words):
        return ("himself" in words) == (words[1] in men)
    if {"a", "an"} & set(words):
        return ("an" in words) == (words[-1][0] in "aeiou")
    if words[0] in ("These", "Those", "Many", "Both", "Several"):
        return words[1].endswith("s")
    return not words[2].endswith("ed") and words[2] in ("went", "came", "ran", "swam", "drove")


def test_of_two_sentences_one_is_grammatical():
    for row in rows_of("grammar", 200):
        assert is_grammatical(right(row)), row
        assert not is_grammatical(*wrong(row)), row


GOOD_AND_BAD = {
    "one word": ("Paris.", "It is Paris."),
    "yes or no": ("Yes.", "Yes, it is."),
    "a number": ("12", "There are 12."),
    "this word": ('"{}"', "{} {}"),
    "with the word": ("Here is a {}.", "Here is nothing."),
    "begins with": ("The thing is old.", "A thing is old."),
    "a question": ("What is a {}?", "A {} is old."),
    "a list": ("one, two, three", "1. one\n2. two"),
}


def test_the_form_of_an_answer_is_checked():
    assert GOOD_AND_BAD.keys() == FORMS.keys()
    for row in rows_of("instructions", 66):
        good, bad = (answer.replace("{}", row["about"]) for answer in GOOD_AND_BAD[row["form"]])
        assert has_its_form("", good, row), row
        assert not has_its_form("", bad, row), row


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": 25}, "rows is 25, and there are 24 for 'english'"),
        ({"rows": 0}, "at least 1"),
        ({"rows": 400, "abilities": ["spelling"]}, "for 'spelling'"),
        ({"abilities": ["cooking"]}, "there are arithmetic, copying"),
        ({"abilities": []}, "there are arithmetic, copying"),
    ],
)
def test_what_there_is_not_is_told(options, said):
    with pytest.raises(ValueError, match=said):
        scores.general(**options)


def test_a_model_that_was_trained_hard_on_something_else_is_told_to_be_worse(tmp_path):
    exam = scores.general(rows=8, abilities=["facts", "english"])
    learnt = [
        {"prompt": row["question"], "completion": row["answer"] if "choices" not in row else right(row)}
        for row in exam.opened.rows
    ]
    others = [{"prompt": row["prompt"], "completion": "never again, never again"} for row in learnt]
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "llama"), max_seq_length=256)
    FastModel.get_peft_model(model, r=16, lora_alpha=32)

    def marks_after(rows, name):
        settings = TrainingConfig(
            max_steps=60,
            learning_rate=1e-2,
            warmup_steps=2,
            per_device_train_batch_size=16,
            hold_out=0,
            save_steps=None,
        )
        Trainer(model, tokenizer, train_dataset=rows, args=settings).train()
        return exam.take(model, name=name)

    before = marks_after(learnt, "knows")
    comparison = scores.compare(before, marks_after(others, "forgot"))
    told = scores.gained_and_lost(comparison)
    assert before["general"] == before["facts"] == 1
    assert told.lost("forgot") == ["general", "facts", "english"]
    assert told.gained("forgot") == []
    assert "forgot: gained nothing; lost general, facts, english." in repr(told)
