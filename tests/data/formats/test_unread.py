"""What a row says besides its turns: followed where that is exact, else named in one notice a set."""

import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.tokens.data_report import inspect

Q, A = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Rome."}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(text read, text learnt, notices) of a set that is one row several times, or of several rows."""
    from tests.makers.tiny import tiny_model_folder

    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("m") / "tiny"))

    def read(*rows, **config):
        args = TrainingConfig(max_steps=1, hold_out=0, **config)
        trainer = Trainer(model, tokenizer, train_dataset=list(rows), args=args)
        row = trainer.train_rows[0]
        learnt = [token for token, counts in zip(row.tokens, row.loss_mask, strict=True) if counts]
        return tokenizer.decode(row.tokens.tolist()), tokenizer.decode(learnt), trainer.data.notices

    return read


def two_answers(first, second):
    draft = {"role": "assistant", "content": "A wrong draft.", **first}
    return {"messages": [Q, draft, Q, {"role": "assistant", "content": "A good answer.", **second}]}


@pytest.mark.parametrize(
    ("key", "no", "yes"),
    [
        ("weight", 0, 1),
        ("weight", 0.0, 1.0),
        ("train", False, True),
        ("trainable", False, None),
        ("masked", True, False),
    ],
)
def test_answers_that_are_not_to_be_learnt_are_read_and_not_learnt(trained, key, no, yes):
    text, learnt, notices = trained(two_answers({key: no}, {key: yes}))
    assert "A wrong draft." in text
    assert learnt == "A good answer.<|im_end|>"
    assert not any("not read" in notice for notice in notices)
    _, learnt, _ = trained(two_answers({key: yes}, {key: no}))
    assert learnt == "A wrong draft.<|im_end|>"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (two_answers({"weight": 0.5}, {}), "turn 1 has weight 0.5, and only 0 and 1"),
        (two_answers({"train": "no"}, {}), "turn 1 has train 'no'"),
        (two_answers({"weight": 0}, {"weight": 0}), "each of its answers says that it is not to be learnt"),
        (
            {"system": "Be brief.", "messages": [{"role": "system", "content": "Be long."}, Q, A]},
            "say different things",
        ),
        ({"system": ["Be brief."], "messages": [Q, A]}, "its column 'system' is a list"),
        ({"instruction": "Where?", "output": "In Rome.", "history": [["Who?"]]}, "its column 'history' is not a list"),
    ],
)
def test_what_cannot_be_followed_exactly_is_refused(trained, row, said):
    with pytest.raises(ValueError, match=said):
        trained(row)


def test_weights_that_train_on_everything_overrules_are_named(trained):
    _, learnt, notices = trained(two_answers({"weight": 0}, {}), train_on="everything")
    assert "A wrong draft." in learnt
    assert any("'weight' of messages (1, first row 0)" in notice for notice in notices)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [Q, A]},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "In Rome."}]},
        {"prompt": "Where?", "completion": "In Rome."},
        {"prompt": [Q], "completion": [A]},
        {"instruction": "Where?", "output": "In Rome."},
    ],
)
def test_a_column_of_the_system_is_the_system_turn(trained, row):
    expected, learnt, _ = trained({"messages": [{"role": "system", "content": "Be brief."}, Q, A]})
    assert trained({"system": "Be brief.", **row})[:2] == (expected, learnt)


def test_the_history_of_an_instruction_is_the_turns_before_it(trained):
    row = {"instruction": "Where?", "output": "In Rome.", "history": [["Who?", "Marcus."]], "system": "Be brief."}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    turns += [{"role": "assistant", "content": "Marcus."}, Q, A]
    assert trained(row)[:2] == trained({"messages": turns})[:2]


def test_what_is_not_read_is_one_notice_with_counts_and_the_first_row(trained):
    rows = [{"messages": [Q, A]}, {"messages": [Q, A], "functions": [{"name": "f"}], "id": 7}]
    rows += [{"messages": [Q, {**A, "reasoning_content": "The Forum."}], "id": 8, "documents": []}]
    _, _, notices = trained(*rows)
    (said,) = [notice for notice in notices if "not read" in notice]
    assert said == (
        "Of the 3 rows of train_dataset this is not read, and changes nothing: column 'functions' (1, first row 1), "
        "column 'id' (2, first row 1), 'reasoning_content' of messages (1, first row 2)."
    )


def test_a_weight_on_a_question_is_named(trained):
    rows = [{"messages": [{**Q, "weight": 1}, A]}]
    rows += [
        {"conversations": [{"from": "human", "value": "Where?", "train": True}, {"from": "gpt", "value": "Rome."}]}
    ]
    for row in rows:
        _, learnt, notices = trained(row)
        assert "Rome." in learnt
        assert "Where?" not in learnt
        assert any("of turns that are no answers (1, first row 0)" in notice for notice in notices)
    _, _, notices = trained(two_answers({"weight": 0}, {"weight": 1}))
    assert not any("no answers" in notice for notice in notices)


def test_a_weight_between_0_and_1_says_its_row(trained):
    good, bad = two_answers({}, {}), two_answers({"weight": 0.5}, {})
    with pytest.raises(ValueError, match=r"\(row 2\): turn 1 has weight 0.5"):
        trained(good, good, bad)
    other = {"messages": [Q, {"role": "assistant", "content": ""}]}
    with pytest.raises(ValueError, match=r"(?s)- row 1: .*- row 3: turn 1 has weight 0.5"):
        trained(good, other, good, bad)


def test_a_function_call_without_content_says_what_to_write(trained):
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    with pytest.raises(ValueError, match="turn 1 has a function_call and no content; write it as tool_calls"):
        trained({"messages": [Q, call]})


def test_answers_of_weight_0_stay_unlearnt_in_a_stream(trained):
    row = two_answers({"weight": 0}, {})
    _, learnt, _ = trained(row, row, streaming=True)
    assert learnt == "A good answer.<|im_end|>"


def test_packing_keeps_every_answer_as_it_was_learnt(tmp_path):
    from tests.makers.tiny import tiny_model_folder

    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "tiny"))
    rows = [two_answers({"weight": 0}, {}), two_answers({}, {"weight": 0})]
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0, packing=True))
    (packed,) = trainer.data.feed.known
    learnt = tokenizer.decode(packed.tokens[packed.loss_mask].tolist())
    assert learnt == "A good answer.<|im_end|>A wrong draft.<|im_end|>"


def test_what_later_rows_of_a_stream_say_and_nobody_reads_is_told_when_it_comes(tmp_path):
    from tests.makers.tiny import tiny_model_folder

    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "tiny"))
    rows = [{"messages": [Q, A], **({"id": number} if number >= 70 else {})} for number in range(75)]
    rows += [{"messages": [Q, A], "source": "x"}]
    args = TrainingConfig(max_steps=10, streaming=True, dataset_order="sequential", output_dir=None)
    told = [text for portion in _first(Trainer(model, tokenizer, train_dataset=rows, args=args)) for text in portion]
    assert any("column 'id' (" in text and "first row 70" in text for text in told)
    assert any("column 'source' (1, first row 75)" in text for text in told)


def _first(trainer):
    from tunebook.tokens.feed import Place

    for portion, _ in zip(trainer.data.feed.portions(Place()), range(10), strict=False):
        yield portion.notices


def test_what_is_not_read_is_a_finding_of_the_report(tmp_path):
    from tests.makers.tiny import tiny_model_folder

    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "tiny"))
    rows = [{"messages": [Q, A]}, {"messages": [Q, A], "topic": "Rome"}]
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0))
    (finding,) = [each for each in inspect(trainer.data.train, tokenizer).findings if each.kind == "unread"]
    assert str(finding).startswith("1 row with column 'topic', which is not read and changes nothing. (row 1)")
