"""Rows of preferences that people bring, well made and malformed: each kind of fault gets one sentence."""

import re

import numpy as np
import pytest

from tunebook.data.formats import BadRow
from tunebook.data.formats.preferences import preference_reader, told_kind


def said(role, content):
    return {"role": role, "content": content}


def reader_of(rows, tokenizer, kind, **options):
    """The reader of a set that is one of `kind`."""
    told_kind(rows, kind, options.get("formatting_func"))
    return preference_reader(tokenizer, kind, **options)


ASKED, BLUE, GREEN = said("user", "What color is the sky?"), said("assistant", "Blue."), said("assistant", "Green.")
PAIR = {"prompt": "What color is the sky?", "chosen": " Blue.", "rejected": " Green."}
TALK = {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]}
JUDGED = {"prompt": "What color is the sky?", "completion": " Blue.", "label": True}

MALFORMED = {
    "swapped, by their scores": (
        {**PAIR, "score_chosen": 3, "score_rejected": 7.5},
        "its 'score_chosen' is 3 and its 'score_rejected' 7.5, so the rejected answer is the better one; swap the "
        "columns, or drop the row.",
    ),
    "swapped with the prompt": (
        {"prompt": [ASKED, BLUE], "chosen": [ASKED], "rejected": [GREEN]},
        "its prompt ends in an answer and its 'chosen' in a question; are the columns swapped?",
    ),
    "a prompt that is answered": (
        {"prompt": [ASKED, BLUE], "chosen": [BLUE], "rejected": [GREEN]},
        "its prompt ends in an answer, so there is no question to answer; end it with the user's turn.",
    ),
    "equal answers": (
        {**TALK, "rejected": [BLUE]},
        "its chosen and rejected answers are the same, so neither is preferred; drop it.",
    ),
    "answers that an end token alone tells apart": (
        {**PAIR, "rejected": " Blue.<|im_end|>"},
        "its chosen and rejected answers are the same once they are written out; drop it.",
    ),
    "a prompt that the answers repeat": (
        {**PAIR, "chosen": PAIR["prompt"] + " Blue.", "rejected": PAIR["prompt"] + " Green."},
        "both of its answers repeat the prompt; drop the column 'prompt', or take it out of them.",
    ),
    "a prompt that the turns repeat": (
        {"prompt": [ASKED], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        "both of its answers repeat the prompt; drop the column 'prompt', or take it out of them.",
    ),
    "a prompt of text that the turns repeat": (
        {"prompt": ASKED["content"], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        "its answers repeat the prompt as their first turn; drop the column 'prompt', and what 'chosen' and 'rejected' "
        "share is taken for it.",
    ),
    "another history": (
        {"chosen": [ASKED, BLUE, said("user", "Why?"), BLUE], "rejected": [ASKED, GREEN, said("user", "Why?"), GREEN]},
        "turn 1 of its 'chosen' is the user's, not an answer; both sides have to be the same up to the last question.",
    ),
    "a question among the answers": (
        {**TALK, "rejected": [GREEN, said("user", "Sure?"), GREEN]},
        "turn 1 of its 'rejected' is the user's, not an answer; what comes before the last question belongs into "
        "'prompt', once for both.",
    ),
    "nothing shared": (
        {"chosen": [said("user", "A?"), BLUE], "rejected": [said("user", "B?"), GREEN]},
        "its answers share no first turn, so no prompt is implied; give the rows a column 'prompt'.",
    ),
    "no text shared": (
        {"chosen": "Blue.", "rejected": "Green."},
        "its answers share no beginning, so no prompt is implied; give the rows a column 'prompt'.",
    ),
    "a side that is not there": (
        {**PAIR, "rejected": None},
        "it has no 'rejected' beside 'prompt' and 'chosen'; fill it in, or drop the row.",
    ),
    "a side that pandas left empty": (
        {**PAIR, "chosen": float("nan")},
        "it has no 'chosen' beside 'prompt' and 'rejected'; fill it in, or drop the row.",
    ),
    "an empty column": ({**TALK, "prompt": []}, "its column 'prompt' is empty; fill it in, or drop the row."),
    "an empty answer": ({**PAIR, "chosen": " \n"}, "its answer 'chosen' is empty; write one, or drop the row."),
    "an empty turn": (
        {**TALK, "rejected": [said("assistant", "")]},
        "its answer 'rejected' is empty; write one, or drop the row.",
    ),
    "text and turns": (
        {**TALK, "rejected": "Green."},
        "its column 'rejected' is a string and 'prompt' a list of messages; make all of them one or the other.",
    ),
    "one turn in no list": (
        {**TALK, "chosen": BLUE},
        "its column 'chosen' is a dict, not a string or a list of messages; put it into a list.",
    ),
    "several answers": (
        {**PAIR, "chosen": [" Blue.", " Light blue."]},
        "its column 'chosen' is a list of strings; take one of several answers, as row['chosen'][0] is.",
    ),
    "a number for an answer": (
        {**PAIR, "rejected": 3},
        "its column 'rejected' is 3, not a string or a list of messages; put it in quotes.",
    ),
    "an answer in a dict": (
        {**PAIR, "rejected": {"text": "Green.", "score": 1}},
        "is a dict, not a string or a list of messages; take its text, as row['rejected']['text'] is.",
    ),
    "users alone": (
        {**TALK, "chosen": [said("user", "Blue.")], "rejected": [said("user", "Green.")]},
        "turn 0 of its 'chosen' is the user's, not an answer; what comes before the last question belongs into",
    ),
    "turns as text": (
        {**TALK, "chosen": '[{"role": "assistant", "content": "Blue."}]'},
        "its column 'chosen' is JSON text, not a list of messages; read it with json.loads.",
    ),
    "an answer of a tool's": (
        {**TALK, "chosen": [said("tool", "12"), BLUE]},
        "its 'chosen' does not begin with the assistant's turn; an answer does.",
    ),
    "half a character": ({**PAIR, "chosen": "\ud800"}, "its text holds half of a character"),
    "a label of text": (
        {**JUDGED, "label": "True"},
        "its column 'label' is 'True', a str; it must be True or False, as row['label'] == 'True' is.",
    ),
    "a label of a word nobody knows": (
        {**JUDGED, "label": "B+"},
        "'B+', a str; it must be True or False; write which values are good ones, or drop the row.",
    ),
    "a label that is a score": (
        {**JUDGED, "label": 0.7},
        "its column 'label' is 0.7, a float; it must be True or False, as row['label'] > 0.5 is.",
    ),
    "a label below zero": (
        {**JUDGED, "label": -1},
        "its column 'label' is -1, an int; it must be True or False, as row['label'] > 0 is.",
    ),
    "a label that is not there": ({**JUDGED, "label": None}, "it has no 'label' beside 'completion'; say True or"),
    "an answer that repeats its prompt": (
        {**JUDGED, "completion": JUDGED["prompt"] + " Blue."},
        "its answer repeats the prompt; take it out of the answer.",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_each_kind_of_malformed_row_gets_its_sentence(tokenizer, kind):
    row, sentence = MALFORMED[kind]
    form, good = ("labelled", JUDGED) if "label" in row else ("pairs", PAIR)
    read = reader_of([good, good, good, row], tokenizer, form)
    assert read(good).wholes
    with pytest.raises(BadRow, match=re.escape(sentence)):
        read(row)


def test_answers_that_the_template_makes_the_same_are_refused(tokenizer, monkeypatch):
    row = {**TALK, "rejected": [said("assistant", "Blue. ")]}
    assert len(set(reader_of([row], tokenizer, "pairs")(row).wholes)) == 2
    trims = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", trims)
    with pytest.raises(BadRow, match="the same once they are written out"):
        reader_of([row], tokenizer, "pairs")(row)


FINE = {
    "a short prompt that an answer begins with": {"prompt": "Hi", "chosen": "Hi there.", "rejected": "High time."},
    "one side that repeats": {**PAIR, "chosen": PAIR["prompt"] + " Blue."},
    "scores that agree": {**PAIR, "score_chosen": 7, "score_rejected": 7},
    "arrays of turns": {name: np.array(turns, dtype=object) for name, turns in TALK.items()},
    "a system turn implied": {
        "chosen": [said("system", "Be brief."), ASKED, BLUE],
        "rejected": [said("system", "Be brief."), ASKED, GREEN],
    },
}


@pytest.mark.parametrize("kind", FINE)
def test_what_only_looks_malformed_is_read(tokenizer, kind):
    assert len(reader_of([FINE[kind]], tokenizer, "pairs")(FINE[kind]).wholes) == 2


@pytest.mark.parametrize("label", [True, False, 1, 0, np.bool_(True), np.int64(0)])
def test_a_label_may_be_any_kind_of_truth(tokenizer, label):
    assert reader_of([JUDGED], tokenizer, "labelled")({**JUDGED, "label": label}).label is bool(label)


def test_what_both_sides_begin_with_is_their_prompt(tokenizer):
    implied = {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]}
    text = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    read = reader_of([implied, text], tokenizer, "pairs")
    assert read(implied) == read(TALK)
    assert read(text) == read({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."})


def test_the_column_system_is_the_conversations_first_turn(tokenizer):
    read = reader_of([TALK], tokenizer, "pairs")
    spoken = {**TALK, "prompt": [said("system", "Be brief."), ASKED]}
    assert read({**TALK, "system": "Be brief."}) == read(spoken)


def test_a_template_without_tools_does_not_leave_them_out_in_silence(tokenizer):
    row = {**TALK, "tools": [{"type": "function", "function": {"name": "f"}}]}
    with pytest.raises(BadRow, match="leaves its tools out"):
        reader_of([row], tokenizer, "pairs")(row)


SETS = {
    "judged for pairs": ("pairs", [JUDGED], "They are judged answers, which objectives.KTO reads."),
    "pairs for judged": ("labelled", [PAIR], "They are pairs, which objectives.DPO reads; for KTO make two rows"),
    "no rejected": ("pairs", [{"prompt": "a", "chosen": "b"}], "No row has 'rejected'."),
    "no label": ("labelled", [{"prompt": "a", "completion": "b"}], "No row has 'label'."),
    "texts": ("pairs", [{"messages": [ASKED, BLUE]}], "They are texts to learn from, which is done without an"),
    "others": ("pairs", [{"frage": "a", "besser": "b"}], "Write formatting_func=lambda row: ..."),
}


@pytest.mark.parametrize("kind", SETS)
def test_a_set_of_other_rows_is_refused_with_what_it_is(tokenizer, kind):
    form, rows, sentence = SETS[kind]
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        reader_of(rows, tokenizer, form)
    assert f"0 of {len(rows)} have them" in str(refused.value)


ONES, TWOS = [said("user", "a"), said("assistant", "b")], [said("user", "a"), said("assistant", "c")]
OURS = {"prompt": "a", "chosen": "b", "rejected": "c"}
GOOD_ONE, BAD_ONE = ({"prompt": "a", "completion": "b", "label": label} for label in (True, False))
# Rows of sets people bring, under their names for things, and what they are.
OTHER_COLUMNS = {
    "accepted": ([{"prompt": "a", "accepted": "b", "rejected": "c"}], [OURS]),
    "a longer name": ([{"question": "a", "chosen_response": "b", "rejected_response": "c"}], [OURS]),
    "better and worse": ([{"instruction": "a", "better": "b", "worse": "c"}], [OURS]),
    "j and k": ([{"question": "a", "response_j": "b", "response_k": "c"}], [OURS]),
    "the number of the better one": (
        [
            {"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 0},
            {"prompt": "a", "response_0": "c", "response_1": "b", "better_response_id": 1},
        ],
        [OURS, OURS],
    ),
    "the name of the winner": (
        [
            {"prompt": "a", "response_a": "c", "response_b": "b", "winner": "response_b"},
            {"prompt": "a", "response_a": "b", "response_b": "c", "winner": "response_a"},
        ],
        [OURS, OURS],
    ),
    "an arena": (
        [{"conversation_a": ONES, "conversation_b": TWOS, "winner": "model_a"}],
        [{"chosen": ONES, "rejected": TWOS}],
    ),
    "scores": ([{"prompt": "a", "responses": ["c", "b"], "scores": [0.1, 2]}], [OURS]),
    "ranks": ([{"prompt": "a", "responses": ["c", "b"], "ranks": [2, 1]}], [OURS]),
    "scores within": (
        [{"instruction": "a", "completions": [{"response": t, "overall_score": s} for t, s in (("b", 7), ("c", 2))]}],
        [OURS],
    ),
    "thumbs": ([{"prompt": "a", "response": "b", "thumbs_up": up} for up in (True, False)], [GOOD_ONE, BAD_ONE]),
    "words": ([{"prompt": "a", "completion": "b", "feedback": f} for f in ("good", "bad")], [GOOD_ONE, BAD_ONE]),
    "stars": ([{"instruction": "a", "output": "b", "rating": stars} for stars in (5, 2)], [GOOD_ONE, BAD_ONE]),
}


@pytest.mark.parametrize("kind", OTHER_COLUMNS)
def test_the_line_that_is_proposed_for_columns_of_other_names_runs_as_it_stands(tokenizer, kind):
    rows, ours = OTHER_COLUMNS[kind]
    with pytest.raises(ValueError, match="If that is what they mean, pass formatting_func=") as refused:
        reader_of(rows, tokenizer, "labelled" if "label" in ours[0] else "pairs")
    made = eval(re.search(r"formatting_func=(lambda row: .*)\.$", str(refused.value))[1])
    assert [made(row) for row in rows] == ours


def test_a_tie_is_no_preference_and_told_of_by_its_row(tokenizer):
    rows = [{"prompt": "Who?", "response_a": "b", "response_b": "c", "winner": said} for said in ("tie", "b", "a")]
    with pytest.raises(ValueError, match="formatting_func=") as refused:
        reader_of(rows, tokenizer, "pairs")
    made = eval(re.search(r"formatting_func=(lambda row: .*)\.$", str(refused.value))[1])
    read = reader_of(rows, tokenizer, "pairs", formatting_func=made)
    assert [len(read(row).wholes) for row in rows[1:]] == [2, 2]
    with pytest.raises(BadRow, match="tie"):
        read(rows[0])


def test_the_line_that_makes_judged_rows_of_pairs_runs_as_it_stands(tokenizer):
    rows = [PAIR, TALK]
    with pytest.raises(ValueError, match="for KTO") as refused:
        reader_of(rows, tokenizer, "labelled")
    line = re.search(r"(\[\{.*\])\.", str(refused.value))[1]
    made = eval(line, {"rows": rows})
    read = reader_of(made, tokenizer, "labelled")
    assert [read(row).label for row in made] == [True, False] * 2
    assert read(made[0]).wholes == reader_of(rows, tokenizer, "pairs")(PAIR).wholes[:1]


def test_a_formatting_func_makes_the_rows(tokenizer):
    rows = [{"q": PAIR["prompt"], "good": PAIR["chosen"], "bad": PAIR["rejected"]}]

    def made(row):
        return {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}

    read = reader_of(rows, tokenizer, "pairs", formatting_func=made)
    assert read(rows[0]) == reader_of([PAIR], tokenizer, "pairs")(PAIR)
