"""Eleven kinds of malformed preferences in a file given to a Trainer: one sentence, its line, and the next move."""

import json

import pytest

from tunebook import Trainer
from tunebook.objectives import DPO, KTO


def said(role, content):
    return {"role": role, "content": content}


PAIR = {"prompt": "What color is the sky?", "chosen": " Blue.", "rejected": " Green."}
ASKED, BLUE, GREEN = said("user", "What color?"), said("assistant", "Blue."), said("assistant", "Green.")
JUDGED = {"prompt": "What color is the sky?", "completion": " Blue.", "label": True}

# The third row of five, what is wrong with it and what to do.
ELEVEN = {
    "swapped columns": ({**PAIR, "score_chosen": 2, "score_rejected": 8}, "is the better one", "swap the columns"),
    "chosen equal to rejected": ({**PAIR, "rejected": " Blue."}, "are the same", "drop it"),
    "prompt repeated inside the answers": (
        {**PAIR, "chosen": PAIR["prompt"] + " Blue.", "rejected": PAIR["prompt"] + " Green."},
        "repeat the prompt",
        "drop the column 'prompt', or take it out of them",
    ),
    "multi-turn rejected with another history": (
        {"chosen": [ASKED, BLUE, ASKED, BLUE], "rejected": [ASKED, GREEN, ASKED, GREEN]},
        "turn 1 of its 'chosen' is the user's, not an answer",
        "both sides have to be the same up to the last question",
    ),
    "label as a string": ({**JUDGED, "label": "no"}, "is 'no', a str", "as row['label'] != 'no' is"),
    "missing side": ({**PAIR, "rejected": None}, "it has no 'rejected'", "fill it in, or drop the row"),
    "empty answer": ({**PAIR, "chosen": "  "}, "its answer 'chosen' is empty", "write one, or drop the row"),
    "prompts that differ": (
        {"chosen": [said("user", "A?"), BLUE], "rejected": [said("user", "B?"), GREEN]},
        "share no first turn",
        "give the rows a column 'prompt'",
    ),
    "several answers in one column": ({**PAIR, "chosen": ["a", "b"]}, "is a list of strings", "as row['chosen'][0] is"),
    "users alone": (
        {"prompt": [ASKED], "chosen": [said("user", "Blue.")], "rejected": [said("user", "Green.")]},
        "turn 0 of its 'chosen' is the user's, not an answer",
        "belongs into 'prompt'",
    ),
    "text for one side and turns for the other": (
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": "Green."},
        "is a string and 'prompt' a list of messages",
        "make all of them one or the other",
    ),
}


@pytest.mark.parametrize("kind", ELEVEN)
def test_each_of_eleven_kinds_gets_one_sentence_with_its_line_and_the_next_move(adapted, tmp_path, kind):
    bad, wrong, move = ELEVEN[kind]
    good, objective = (JUDGED, KTO()) if "label" in bad else (PAIR, DPO())
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in [good, good, bad, good, good]))
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is checked below
        Trainer(adapted, train_dataset=str(tmp_path / "rows.jsonl"), objective=objective)
    sentence = str(refused.value)
    assert sentence.startswith("1 of 5 rows of train_dataset (rows.jsonl) cannot be trained on (line 3): ")
    assert wrong in sentence
    assert move in sentence
    assert "\n" not in sentence
    assert "skip_bad_rows=True trains on the other 4." in sentence
