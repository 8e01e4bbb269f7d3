"""What the declared type of a setting takes is read, and all else is refused in a sentence that says what it takes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import pytest

from tunebook import FastModel, LoraConfig, Trainer, TrainingConfig
from tunebook.objectives import Objective
from tunebook.settings.values import Count, Folder, NotNegative, Positive, Share, SomeNames, Unfit, complaint, read


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        (int, np.int64(3), 3),
        (float, np.float32(0.5), 0.5),
        (bool, np.bool_(True), True),
        (bool, 1, True),
        (NotNegative, False, 0.0),
        (Count | None, None, None),
        (SomeNames, "q_proj", ("q_proj",)),
        (SomeNames, ["v", "q"], ("v", "q")),
        (SomeNames, {"v", "q"}, ("q", "v")),
        (Folder, Path("a") / "b", str(Path("a") / "b")),
        (bool | Literal["auto"], np.bool_(False), False),
        (Sequence[str | Sequence[Mapping[str, Any]]], "hello", ("hello",)),
        (Sequence[str | Sequence[Mapping[str, Any]]], [[{"role": "user"}]], (({"role": "user"},),)),
    ],
)
def test_a_value_that_means_what_the_type_has_is_read_as_it(kind, value, taken):
    assert read(value, kind) == taken
    assert type(read(value, kind)) is type(taken)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 1.0),
        (int, True),
        (int, "1"),
        (float, "2e-4"),
        (float, True),
        (float, float("nan")),
        (float, float("inf")),
        (Positive, 0.0),
        (Share, 1.0),
        (bool, "yes"),
        (bool, 2),
        (bool, None),
        (Count, 0),
        (SomeNames, []),
        (SomeNames, [5]),
        (SomeNames, 5),
        (SomeNames, {"q": 1}),
        (Folder, ""),
        (Folder, 5),
        (Literal["auto"], True),
        (Literal[True, "auto"], "True"),
        (Mapping[str, Any], [1]),
        (np.ndarray, 1),
    ],
)
def test_a_value_of_another_kind_is_refused(kind, value):
    with pytest.raises(Unfit):
        read(value, kind)
    assert complaint("it", value, kind).startswith(f"it is {value!r}; ")


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Count | None, 0, "it is 0; it must be a whole number, at least 1, or None."),
        (Positive, "2e-4", "it is '2e-4'; it must be a finite number above 0; write it=0.0002."),
        (bool, "yes", "it is 'yes'; it must be True or False; write it=True."),
        (bool | Literal["auto"], "off", "it is 'off'; choose one of True, False, auto; write it=False."),
        (Literal["a", "b"] | None, "c", "it is 'c'; choose one of a, b, or None."),
        (SomeNames, 5, "it is 5; it must be a list of texts, at least one."),
        (tuple[str, str], "a", "it is 'a'; it must be a list of 2 texts."),
        (tuple[str, str] | None, ("a", "b", "c"), "it is ('a', 'b', 'c'); it must be a list of 2 texts or None."),
        (Path | None, PurePath, f"it is {PurePath!r}; it must be a Path or None."),
        (PurePath | None, Path, f"it is {Path!r}; it must be a PurePath or None; write it=Path()."),
        (Objective | None, "dpo", "it is 'dpo'; it must be an Objective or None; write it=DPO()."),
        (Objective | None, "better", "it is 'better'; it must be an Objective or None."),
    ],
)
def test_the_sentence_says_what_is_taken_and_what_a_text_reads_like(kind, value, said):
    assert complaint("it", value, kind) == said


WRONG: list[Any] = ["x", "2e-4", "", b"x", 5, -1, 2.5, [], {}, object(), float("nan"), np.zeros(2), ["x", 5], print]


@pytest.mark.parametrize("record", [TrainingConfig, LoraConfig])
def test_whatever_a_setting_is_given_it_is_taken_or_refused_in_one_sentence(record):
    for name in record.__dataclass_fields__:
        for value in WRONG:
            try:
                record(**{name: value})
            except ValueError as refused:
                said = str(refused)
                assert said.startswith(f"{record.__name__}."), said
                assert name in said
                assert "\n" not in said
                assert said.endswith("."), said


def test_every_number_and_switch_of_the_records_refuses_a_text():
    for record in (TrainingConfig, LoraConfig):
        for name, about in record.__dataclass_fields__.items():
            kinds = str(about.type)
            if "str" not in kinds and "Literal" not in kinds:
                with pytest.raises(ValueError, match=rf"{name} is '1e-4'; .*it must be"):
                    record(**{name: "1e-4"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"r": "8"}, r"get_peft_model\.r is '8'; it must be a whole number, at least 1; write r=8\."),
        ({"lora_alpha": "x"}, r"get_peft_model\.lora_alpha is 'x'; it must be a finite number above 0\."),
        ({"target_modules": 5}, r"get_peft_model\.target_modules is 5; it must be a list of texts"),
        ({"use_dora": "no"}, r"use_dora is 'no'; it must be True or False; write use_dora=False\."),
    ],
)
def test_an_argument_of_get_peft_model_is_refused_as_the_field_of_the_record_is(model, arguments, said):
    with pytest.raises(ValueError, match=said):
        FastModel.get_peft_model(model, **arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_seq_length": "2048"}, r"max_seq_length is '2048'; .*; write max_seq_length=2048\."),
        ({"max_seq_length": 0}, "max_seq_length is 0; it must be a whole number, at least 1"),
        ({"load_in_4bit": "yes"}, "load_in_4bit is 'yes'; it must be True or False; write load_in_4bit=True"),
        ({"dtype": 16}, "dtype is 16; it must be a text, a Dtype or None"),
        ({"chat_template": 5}, "chat_template is 5; it must be a text or None"),
    ],
)
def test_an_argument_of_from_pretrained_is_refused_before_anything_is_opened(arguments, said):
    with pytest.raises(ValueError, match=said):
        FastModel.from_pretrained("nowhere/at-all", **arguments)
    with pytest.raises(ValueError, match="name is 5; it must be a text or a path, not empty"):
        FastModel.from_pretrained(5)


def test_arguments_of_generate_and_stream_are_refused_where_they_are_called(model):
    with pytest.raises(ValueError, match=r"stream.max_tokens is '5'; .*; write max_tokens=5"):
        model.stream("Hi", max_tokens="5")
    with pytest.raises(ValueError, match=r"generate\.temperature is -1; it must be a finite number, 0 or more"):
        model.generate("Hi", temperature=-1)
    with pytest.raises(ValueError, match=r"generate\.prompt is 5; it must be a text or a list, each a dict"):
        model.generate(5)


@pytest.mark.parametrize("wrong", [5, None, 2.5, True, object()])
def test_what_can_be_no_rows_is_refused_by_who_reads_them(adapted, rows, wrong):
    with pytest.raises((TypeError, ValueError), match="train_dataset"):
        Trainer(adapted, train_dataset=wrong)
    if wrong is not None:
        with pytest.raises((TypeError, ValueError), match="verify_with"):
            adapted.save_pretrained("out", verify_with=wrong)
        with pytest.raises((TypeError, ValueError), match="rows"):
            Trainer(adapted, train_dataset=rows).evaluate(wrong)


def test_rows_to_compare_an_export_on_are_read_from_where_they_are_before_anything_is_written(adapted, rows, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    given = adapted.save_pretrained(tmp_path / "lora", verify_with=str(tmp_path / "rows.jsonl")).verification
    assert given.passed
    assert given.tokens == adapted.save_pretrained(tmp_path / "lora", verify_with=rows[:2]).verification.tokens
    for save in (adapted.save_pretrained, adapted.save_pretrained_merged, adapted.save_pretrained_gguf):
        with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
            save(tmp_path / "other", verify_with="gone.jsonl")
        assert not (tmp_path / "other").exists()
