"""train/datasets.py: what a Trainer makes of the data it is given."""

import json

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, train_on_responses_only
from tunebook.models.tensors import flat
from tunebook.objectives import DPO

MANY = [
    {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"It is {n}."}]}
    for n in range(100)
]


def decoded(trainer, rows):
    decode = trainer.loaded.tokenizer.decode
    return [decode(row.tokens.tolist()) for row in rows]


def trained(trainer, row):
    return trainer.loaded.tokenizer.decode(row.tokens[row.loss_mask].tolist())


def test_without_an_eval_dataset_some_rows_are_held_out_and_not_trained_on(model):
    trainer = Trainer(model, train_dataset=MANY)
    train, held_out = decoded(trainer, trainer.train_rows), decoded(trainer, trainer.eval_rows)
    assert (len(train), len(held_out)) == (95, 5)
    assert not set(train) & set(held_out)
    assert any("5 of the 100 rows are held out to measure with" in text for text in trainer.data.notices)
    again = Trainer(model, train_dataset=MANY)
    assert decoded(again, again.eval_rows) == held_out
    other = Trainer(model, train_dataset=MANY, args=TrainingConfig(seed=1))
    assert decoded(other, other.eval_rows) != held_out


def test_copies_of_a_held_out_row_are_not_trained_on_either(model):
    trainer = Trainer(model, train_dataset=MANY * 2, args=TrainingConfig(hold_out=0.1))
    assert len(trainer.eval_rows) == 20
    assert len(trainer.train_rows) == 160
    assert not set(decoded(trainer, trainer.train_rows)) & set(decoded(trainer, trainer.eval_rows))


@pytest.mark.parametrize(
    ("rows", "settings"),
    [(MANY, {"hold_out": 0}), (MANY[:12], {}), (MANY[:1] * 64, {})],
    ids=["switched off", "too few", "one row many times"],
)
def test_nothing_is_held_out_where_it_is_not_wanted_or_not_possible(model, rows, settings):
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**settings))
    assert len(trainer.train_rows) == len(rows)
    assert not trainer.eval_rows


def test_of_a_large_set_no_more_are_held_out_than_measure_well(model):
    trainer = Trainer(model, train_dataset=[{"text": f"the dog number {n}"} for n in range(2000)])
    assert len(trainer.eval_rows) == 64
    assert len(trainer.train_rows) == 1936


def test_held_out_rows_that_are_trained_on_as_well_are_counted(model):
    trainer = Trainer(model, train_dataset=MANY[:20], eval_dataset=MANY[17:25])
    assert any("3 of the 8 held-out rows are trained on as well" in text for text in trainer.data.notices)
    clean = Trainer(model, train_dataset=MANY[:20], eval_dataset=MANY[20:25])
    assert not any("trained on as well" in text for text in clean.data.notices)


def test_a_path_is_trained_on_like_the_rows_in_it(model, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in MANY))
    from_file, from_rows = Trainer(model, train_dataset=str(file)), Trainer(model, train_dataset=MANY)
    assert decoded(from_file, from_file.train_rows) == decoded(from_rows, from_rows.train_rows)


def test_what_a_formatting_func_returns_is_what_is_trained_on(model):
    facts = [{"city": "Paris", "country": "France"}, {"city": "Rome", "country": "Italy"}]
    trainer = Trainer(
        model,
        train_dataset=facts,
        formatting_func=lambda row: [
            {"role": "user", "content": f"What is the capital of {row['country']}?"},
            {"role": "assistant", "content": row["city"]},
        ],
    )
    assert [trained(trainer, row) for row in trainer.train_rows] == ["Paris<|im_end|>", "Rome<|im_end|>"]
    assert [prompt.shown.count("capital") for prompt in trainer.data.prompts] == [1, 1]


def test_whose_turns_are_trained_is_a_setting(model):
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "Second."},
    ]
    found = {}
    for who in ("assistant", "last_assistant", "everything"):
        trainer = Trainer(model, train_dataset=[{"messages": turns}], args=TrainingConfig(train_on=who))
        found[who] = trained(trainer, trainer.train_rows[0])
    assert found["assistant"] == "First.<|im_end|>Second.<|im_end|>"
    assert found["last_assistant"] == "Second.<|im_end|>"
    assert "One?" in found["everything"]


def test_response_markers_of_those_who_know_unsloth_give_what_the_template_gives(model, rows):
    told = Trainer(model, train_dataset=rows)
    marked = train_on_responses_only(
        Trainer(model, train_dataset=rows),
        instruction_part="<|im_start|>user\n",
        response_part="<|im_start|>assistant\n",
    )
    for ours, theirs in zip(told.train_rows, marked.train_rows, strict=True):
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert trained(told, ours) == trained(marked, theirs).rstrip("\n")


def test_markers_that_are_nowhere_are_refused(model, rows):
    trainer = Trainer(model, train_dataset=rows)
    with pytest.raises(ValueError, match=r"12 of 12 rows of .* cannot be trained on"):
        train_on_responses_only(trainer, instruction_part="[INST]", response_part="[/INST]")
    assert trainer.evaluate(rows[:2]).tokens > 0  # it reads rows as before


def test_a_row_is_called_by_its_number_in_the_data_set_however_it_was_split(model):
    trainer = Trainer(model, train_dataset=MANY)
    numbers = [row.number for row in trainer.train_rows] + [row.number for row in trainer.eval_rows]
    assert sorted(numbers) == list(range(100))
    for row in (*trainer.train_rows, *trainer.eval_rows):
        assert f"It is {row.number}." in trained(trainer, row)
    with pytest.raises(ValueError, match=r"\(rows? 77\b"):
        Trainer(model, train_dataset=[*MANY[:77], {"messages": [MANY[0]["messages"][0]]}, *MANY[78:]])


@pytest.mark.float32
def test_packed_rows_are_fewer_and_take_the_steps_of_the_rows_alone(tiny_folder):
    """One step over all documents: packed into a few rows, or each in its own, the weights come out the same."""

    def trained_with(**settings):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4)
        args = TrainingConfig(
            **{"max_steps": 1, "warmup_steps": 0, "hold_out": 0, "per_device_train_batch_size": 2, **settings}
        )
        trainer = Trainer(model, train_dataset=MANY[:24], args=args)
        loss = trainer.train().steps[0].loss
        return (
            trainer,
            loss,
            {name: np.array(value) for name, value in flat(model.module.trainable_parameters()).items()},
        )

    alone, loss_alone, expected = trained_with(gradient_accumulation_steps=12)
    packed, loss_packed, found = trained_with(gradient_accumulation_steps=12, packing=True)
    assert len(packed.train_rows) < len(alone.train_rows) / 2
    assert loss_packed == pytest.approx(loss_alone, rel=1e-5)
    assert all(np.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    assert any("24 rows were packed into" in text for text in packed.data.notices)


def test_a_model_that_would_mix_the_documents_is_refused_with_the_reason(tmp_path):
    folder = tiny_model_folder(tmp_path, max_position_embeddings=512)
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    norm = model.module["model"]["norm"]
    model.module["model"]["norm"] = lambda states: norm(states + states.mean(axis=1, keepdims=True))  # sees them all
    with pytest.raises(ValueError, match=r"packing is on, but .* cannot be packed: .*Set it off"):
        Trainer(model, train_dataset=MANY, args=TrainingConfig(packing=True))


def test_what_is_said_of_long_rows_is_said_of_the_whole_set_however_much_is_held_out(model):
    turn = lambda role, content: {"role": role, "content": content}  # noqa: E731
    rows = [
        {"messages": [turn("user", f"{n} why?"), turn("assistant", "so " * (90 if n % 4 == 0 else 1))], "id": n}
        for n in range(40)
    ]
    rows[5]["messages"][0]["content"] = "why " * 90
    notices = [
        sorted(text for text in Trainer(model, train_dataset=rows, args=config).data.notices if "train_dataset" in text)
        for config in (TrainingConfig(hold_out=share, max_seq_length=64) for share in (0, 0.05, 0.5))
    ]
    assert notices[0] == notices[1] == notices[2]
    told = " ".join(notices[0])
    assert "10 of 40 rows of train_dataset are longer than 64 tokens" in told
    assert "1 of 40 rows of train_dataset were left out, the first row 5" in told
    assert (
        "Of the 40 rows of train_dataset this is not read, and changes nothing: column 'id' (40, first row 0)" in told
    )


def test_a_bad_pair_is_told_of_as_one_of_the_whole_set_wherever_a_split_would_put_it(model):
    pairs = [{"prompt": f"Number {n} is", "chosen": f" {n}.", "rejected": " a fox."} for n in range(20)]
    good = Trainer(model, train_dataset=pairs, objective=DPO())
    (place,) = (row.number for row in good.eval_rows)
    del pairs[place]["rejected"]
    for broken in (pairs, [*pairs[place:], *pairs[:place]]):
        with pytest.raises(ValueError, match="1 of 20 rows of train_dataset"):
            Trainer(model, train_dataset=broken, objective=DPO())
    assert len(Trainer(model, train_dataset=pairs, objective=DPO(), skip_bad_rows=True).train_rows) == 19


def test_a_formatting_func_that_fails_on_a_pair_is_told_of_with_the_row_as_for_texts(model):
    rows = [{"asked": f"Number {n} is", "better": f" {n}.", "worse": " a fox."} for n in range(6)]
    del rows[4]["worse"]

    def pair(row):
        return {"prompt": row["asked"], "chosen": row["better"], "rejected": row["worse"]}

    given = {"train_dataset": rows, "formatting_func": pair, "objective": DPO(), "args": TrainingConfig(hold_out=0)}
    with pytest.raises(ValueError, match=r"1 of 6 rows of train_dataset .*(?s:.)*formatting_func fails"):
        Trainer(model, **given)
    assert len(Trainer(model, **given, skip_bad_rows=True).train_rows) == 5
