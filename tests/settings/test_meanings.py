"""What Shift-Tab shows: every setting and argument with its meaning and its default, and a signature without noise."""

import inspect
import re
from dataclasses import fields

import pytest

from tunebook import FastModel, LoraConfig, TrainingConfig

RECORDS = [TrainingConfig, LoraConfig]
CALLS = [
    FastModel.from_pretrained,
    FastModel.get_peft_model,
    FastModel.stream,
    FastModel.generate,
    FastModel.save_pretrained,
    FastModel.save_pretrained_merged,
    FastModel.save_pretrained_gguf,
    FastModel.push_to_hub,
    FastModel.push_to_hub_merged,
    FastModel.push_to_hub_gguf,
]
ENTRY = re.compile(r"^    (\w+)(?: = (.+?))?: (\S.*)$", re.MULTILINE)


def entries(about):
    """name -> (default as it is shown, meaning) of the list at the end of a docstring."""
    shown = re.split(r"^(?:Settings|Arguments):$", about.__doc__, flags=re.MULTILINE)[1]
    return {name: (default, said) for name, default, said in ENTRY.findall(shown)}


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_in_the_docstring_with_its_default_and_its_meaning(record):
    shown = entries(record)
    assert list(shown) == [field.name for field in fields(record)]
    for field in fields(record):
        default, said = shown[field.name]
        assert default == repr(field.default)
        assert len(said) > 10


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_every_argument_is_in_the_docstring_with_its_default_and_its_meaning(call):
    shown, signature = entries(call), inspect.signature(call)
    expected = [name for name in signature.parameters if name not in ("self", "model")]
    assert [name for name in shown if name != "model"] == expected
    for name in expected:
        default = signature.parameters[name].default
        assert shown[name][0] == ("" if default is inspect.Parameter.empty else repr(default))


def test_an_argument_of_get_peft_model_has_the_default_and_the_meaning_of_the_field():
    of_record, of_call = entries(LoraConfig), entries(FastModel.get_peft_model)
    assert of_record.keys() <= of_call.keys()
    assert all(of_call[name] == of_record[name] for name in of_record)


@pytest.mark.parametrize("shown", [*RECORDS, *CALLS], ids=lambda shown: shown.__name__)
def test_a_signature_shows_types_and_no_sentences(shown):
    assert "Annotated" not in str(inspect.signature(shown))
    assert "Limit" not in str(inspect.signature(shown))


def test_units_stand_where_a_number_has_one():
    shown = entries(TrainingConfig)
    for name, unit in {
        "max_seq_length": "tokens",
        "sample_max_tokens": "tokens",
        "save_minutes": "minutes",
        "max_steps": "optimizer steps",
        "eval_steps": "optimizer steps",
        "warmup_steps": "optimizer steps",
        "hold_out": "share",
    }.items():
        assert unit in shown[name][1]
