"""Each metric against the program it stands for, or against what a person would say of the answer."""

import math
import string

import numpy as np
import pytest
import sacrebleu

from tunebook.data.examples import Example, Text
from tunebook.scores import metrics
from tunebook.scores.metrics.numbers import last_number
from tunebook.scores.metrics.tool_calls import calls_in
from tunebook.scores.question import Likelihood, Question

ASKED = Example((Text("?"),), rendered=True)


def question(reference: str | None = None, **row) -> Question:
    return Question(number=3, prompt="What?", reference=reference, row=row, asked=ASKED)


def value(metric, asked: Question, answer) -> float | None:
    mark = metrics.marked(metric, asked, answer)
    assert (mark.value is None) == bool(mark.reason)
    return mark.value


def test_an_exact_match_is_one_letter_for_letter_and_spaces_around_do_not_count():
    assert value(metrics.exact_match(), question("Paris"), " Paris\n") == 1
    assert value(metrics.exact_match(), question("Paris"), "paris") == 0


def test_a_normalised_match_is_that_of_squads_evaluation_on_its_own_punctuation():
    def squad(text):  # the steps of its script, in one line each
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(word for word in text.split() if word not in ("a", "an", "the"))

    for answer, reference in (("The Eiffel Tower!", "eiffel tower"), ("An  apple.", "apple"), ("apples", "apple")):
        asked = question(reference)
        assert value(metrics.normalised_match(), asked, answer) == (squad(answer) == squad(reference))
    assert value(metrics.normalised_match(), question("«Ça va»"), "ça va") == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7.", 7),
        ("#### 1,234,567", 1234567),
        ("it costs $1,234.50 in all", 1234.5),
        ("minus −5 degrees", -5),
        ("from 10-3", 3),
        ("about .5", 0.5),
        ("6.02e23 of them", 6.02e23),
        ("one, two, 1,2,3", 3),
        ("version v2.5", None),
        ("none at all", None),
    ],
)
def test_the_last_number_of_a_text_is_read_as_a_person_would(text, number):
    assert last_number(text) == number


def test_numbers_may_be_off_by_a_tolerance_or_by_a_share():
    assert value(metrics.numeric(0.01), question("3.14"), "It is 3.1416") == 1
    assert value(metrics.numeric(), question("3.14"), "It is 3.1416") == 0
    assert value(metrics.numeric(relative=0.05), question("100"), "104") == 1
    assert value(metrics.numeric(reference="result"), question(result=72), "#### 72") == 1
    assert value(metrics.numeric(), question("none"), "72") is None


def test_a_pattern_is_found_or_what_its_group_holds_is_compared():
    assert value(metrics.matches(r"\bParis\b"), question(), "It is Paris.") == 1
    extract = metrics.matches(r"#### (-?\d+)")
    assert value(extract, question("5"), "#### 4 no, #### 5") == 1
    assert value(extract, question("5"), "it is 5") == 0


def test_json_is_what_pythons_strict_reader_takes():
    assert value(metrics.valid_json(), question(), '{"a": [1, null]}') == 1
    for answer in ("{'a': 1}", '{"a": 1} I hope this helps', '{"a": NaN}', "```json\n{}\n```"):
        assert value(metrics.valid_json(), question(), answer) == 0
    assert value(metrics.valid_json(fenced=True), question(), "```json\n{}\n```") == 1
    assert value(metrics.json_match(), question('{"a": 1, "b": 2}'), '{"b": 2, "a": 1}') == 1
    assert value(metrics.json_match(), question("no json"), "{}") is None


def test_a_schema_is_one_for_all_rows_or_each_rows_own():
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    assert value(metrics.json_schema(schema), question(), '{"age": 3}') == 1
    assert value(metrics.json_schema(schema), question(), '{"age": "3"}') == 0
    assert value(metrics.json_schema("schema"), question(schema='{"type": "array"}'), "[]") == 1
    assert value(metrics.json_schema("schema"), question(), "[]") is None
    with pytest.raises(ValueError, match="no JSON schema"):
        metrics.json_schema({"type": "objekt"})


@pytest.mark.parametrize(
    "answer",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"days": 2, "city": "Oslo"}}]',
        '{"name": "weather", "parameters": {"city": "Oslo", "days": 2}}',
        '{"function": {"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\", \\"days\\": 2}"}}',
    ],
)
def test_a_tool_call_is_read_in_whatever_form_the_model_writes_it(answer):
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}}
    asked = question("", messages=[{"role": "user"}, {"role": "assistant", "tool_calls": [call]}])
    assert calls_in(answer) == [("weather", {"city": "Oslo", "days": 2})]
    assert value(metrics.tool_call(), asked, answer) == 1
    other = answer.replace("Oslo", "Bergen")
    assert value(metrics.tool_call(), asked, other) == 0
    assert value(metrics.tool_call(arguments=False), asked, other) == 1
    assert value(metrics.tool_call(), asked, answer + answer) == 0
    assert value(metrics.tool_call(), question(answer), answer) == 1


def test_a_choice_is_the_likeliest_by_the_whole_the_token_or_the_letter():
    replies = [
        Likelihood(text="no", nats=-2.0, tokens=1, is_greedy=True),
        Likelihood(text="certainly", nats=-3.0, tokens=3, is_greedy=False),
    ]
    asked = question(choices=["no", "certainly"], answer=1)
    assert value(metrics.multiple_choice(), asked, replies) == 0
    assert value(metrics.multiple_choice(per="token"), asked, replies) == 1
    assert value(metrics.multiple_choice(per="character"), asked, replies) == 1
    arc = question(choices={"text": ["no", "certainly"], "label": ["1", "2"]}, answer="1")
    assert value(metrics.multiple_choice(), arc, replies) == 1
    assert value(metrics.multiple_choice(), question(choices=["a", "b"], answer="E"), replies) is None
    assert value(metrics.multiple_choice(), question(choices=["x", "y"], answer="A"), replies) == 1


def test_bleu_of_all_rows_is_sacrebleus_and_so_is_each_row_of_chrf():
    answers = ["the cat sat on the mat", "a dog barks at night", "it rains"]
    references = ["the cat sat on a mat", "the dog barked all night", "it rains today"]
    bleu, chrf = metrics.bleu(), metrics.chrf()
    marks = [
        metrics.marked(bleu, question(reference), answer) for answer, reference in zip(answers, references, strict=True)
    ]
    sums = np.array([mark.terms for mark in marks]).sum(axis=0)
    assert float(bleu.total(sums)) == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert bleu.total(np.stack([sums, sums])).shape == (2,)
    for answer, reference in zip(answers, references, strict=True):
        assert value(chrf, question(reference), answer) == sacrebleu.sentence_chrf(answer, [reference]).score


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [("$\\frac{1}{2}$", "0.5", 1), ("$x^2+2x+1$", "$(x+1)^2$", 1), ("The answer is 7", "8", 0), ("no idea", "8", 0)],
)
def test_formulas_are_equal_as_mathematics(answer, reference, same):
    assert value(metrics.math_equal(), question(reference), answer) == same


def test_perplexities_are_of_all_tokens_and_bytes_together():
    one = Likelihood(text="ab", nats=-1.0, tokens=1, is_greedy=True)
    other = Likelihood(text="é", nats=-5.0, tokens=3, is_greedy=True)
    for metric, expected in ((metrics.perplexity(), 6 / 4), (metrics.byte_perplexity(), 6 / 4)):
        marks = [metrics.marked(metric, question(), [reply]) for reply in (one, other)]
        sums = np.array([mark.terms for mark in marks]).sum(axis=0)
        assert float(metric.total(sums)) == pytest.approx(math.exp(expected))


def test_a_program_of_mine_is_given_the_prompt_the_answer_and_the_row():
    def starts_with(prompt, answer, row):
        return prompt == "What?" and answer.startswith(row["letter"])

    (metric,) = metrics.as_metrics([starts_with])
    assert metric.name == "starts_with"
    assert value(metric, question(letter="P"), "Paris") == 1


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda *_: {}["missing"], "mine raised KeyError: 'missing'"),
        (lambda *_: "yes", "mine gave 'yes', which is no number."),
        (lambda *_: math.nan, "mine gave nan, which is not finite."),
        (lambda *_: None, "mine gave None, which is no number."),
        (lambda *_: 10**400, f"mine gave 1{'0' * 59}, which is no number."),
    ],
)
def test_a_program_that_fails_on_a_row_leaves_it_unscored_with_the_reason_and_never_wrong(fn, said):
    mark = metrics.marked(metrics.program(fn, "mine"), question(), "answer")
    assert (mark.value, mark.reason) == (None, said)


def test_a_text_that_a_broken_model_has_no_number_for_is_no_choice_taken():
    replies = [Likelihood(text, math.nan, 1, is_greedy=False) for text in "ab"]
    mark = metrics.marked(metrics.multiple_choice(), question(choices=["a", "b"], answer="a"), replies)
    assert mark.value is None
    assert "its weights may be broken" in mark.reason


def test_a_row_without_a_reference_is_not_scored():
    assert value(metrics.exact_match(), question(), "anything") is None
    assert "its columns are city" in metrics.marked(metrics.exact_match("name"), question(city=1), "x").reason


def test_every_metric_by_name_can_be_had_and_a_name_that_is_none_is_answered_with_those_there_are():
    assert [metric.name for metric in metrics.as_metrics([*metrics.METRICS])] == [*metrics.METRICS]
    with pytest.raises(ValueError, match="no metric 'accuracy'; there are exact_match"):
        metrics.as_metrics(["accuracy"])
    with pytest.raises(ValueError, match="called 'chrf'"):
        metrics.as_metrics(["chrf", "chrf"])
    with pytest.raises(ValueError, match="pass a list"):
        metrics.as_metrics("chrf")  # type: ignore[arg-type]


def test_a_library_that_is_not_there_is_named_with_how_to_have_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"chrf needs sacrebleu.*pip install sacrebleu"):
        metrics.chrf()
