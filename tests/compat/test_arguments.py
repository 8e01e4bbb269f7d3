"""Settings by TRL's names: their defaults are TRL's, and none is ignored without a word."""

import dataclasses

import pytest

from tunebook import TrainingConfig
from tunebook.compat import unsloth
from tunebook.compat.unsloth import DPOConfig, KTOConfig, ORPOConfig, SFTConfig, TrainingArguments
from tunebook.compat.unsloth.names import DEFAULTS, SETS_NOTHING

RECORDS = {record.__name__: record for record in (TrainingArguments, SFTConfig, DPOConfig, ORPOConfig, KTOConfig)}


@pytest.fixture(scope="module")
def theirs():
    """The records of transformers and TRL that are installed."""
    trl = pytest.importorskip("trl")
    from transformers import TrainingArguments
    from trl.experimental.orpo import ORPOConfig

    records = (TrainingArguments, trl.SFTConfig, trl.DPOConfig, trl.KTOConfig, ORPOConfig)
    return {record.__name__: defaults(record) for record in records}


def defaults(record):
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(record)
    }


def test_what_is_not_given_is_what_trl_has_there(theirs):
    for name, ours in DEFAULTS.items():
        own = {key: value for key, value in ours.items() if key != "optim"}
        assert own == {key: theirs[name][key] for key in own}, name
        assert theirs[name]["optim"].startswith("adamw")


def test_every_setting_that_trl_has_is_taken_at_its_default(theirs):
    for name, settings in theirs.items():
        given = {key: value for key, value in settings.items() if key not in ("output_dir", "local_rank")}
        assert RECORDS[name](**given).config.learning_rate == settings["learning_rate"]


def test_every_setting_that_trl_has_is_followed_told_of_or_refused_when_it_is_another(theirs, capsys):
    others = {bool: lambda value: not value, int: lambda value: value + 3, float: lambda value: value / 2 + 0.37}
    silent = []
    for name, settings in theirs.items():
        plain = RECORDS[name]()
        for key, value in settings.items():
            if type(value) not in others or key in ("local_rank", "max_steps"):
                continue
            capsys.readouterr()
            unsloth.arguments.tell.__globals__["_SAID"].clear()
            try:
                found = RECORDS[name](**{key: others[type(value)](value)})
            except (TypeError, ValueError):
                continue
            followed = dataclasses.replace(found, given={}) != dataclasses.replace(plain, given={})
            is_off_here = value is True and key in SETS_NOTHING
            if not followed and not is_off_here and key not in capsys.readouterr().out:
                silent.append((name, key))
    assert not silent


@pytest.mark.parametrize(
    ("given", "kit"),
    [
        ({"max_steps": 60, "warmup_steps": 0.1}, {"max_steps": 60, "warmup_ratio": 0.1}),
        ({"max_steps": 60, "warmup_ratio": 0.03}, {"max_steps": 60, "warmup_ratio": 0.03}),
        ({"num_train_epochs": 1}, {"num_train_epochs": 1.0, "warmup_steps": 0}),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3}, {"warmup_steps": 3}),
        (
            {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
            {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        ),
        ({"lr_scheduler_type": "constant", "warmup_steps": 3}, {"lr_scheduler_type": "constant", "warmup_steps": 0}),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.125}, "learning_rate": 0.5},
            {"lr_scheduler_type": "cosine", "min_lr_rate": 0.25},
        ),
        ({"optim": "paged_adamw_8bit"}, {"optim": "adamw"}),
        ({"optim": "lion_8bit"}, {"optim": "lion"}),
        ({"eval_strategy": "steps", "eval_steps": 20}, {"eval_steps": 20}),
        ({"eval_strategy": "no", "eval_steps": 20}, {"eval_steps": None}),
        ({"eval_strategy": "steps", "logging_steps": 7}, {"eval_steps": 7}),
        ({"save_strategy": "no"}, {"save_steps": None}),
        ({"group_by_length": True}, {"dataset_order": "length_grouped"}),
        ({"max_length": 99}, {"max_seq_length": 99}),
        ({"gradient_checkpointing": True, "neftune_noise_alpha": 5}, {"gradient_checkpointing": True}),
    ],
)
def test_settings_of_other_names_and_values_become_the_kits(given, kit):
    config = SFTConfig(**given).config
    assert isinstance(config, TrainingConfig)
    assert {name: getattr(config, name) for name in kit} == kit
    assert config.hold_out == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"report_to": "wandb"}, "bridges"),
        ({"push_to_hub": True}, "push_to_hub"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"optim": "adamw_anyprecision"}, "optim='adamw'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr_rate"),
        ({"eval_strategy": "epoch"}, "eval_strategy='steps'"),
        ({"eval_strategy": "steps"}, "eval_steps=50"),
        ({"max_length": 5, "max_seq_length": 6}, "give one"),
        ({"truncation_mode": "keep_end"}, "truncation_mode"),
        ({"learning_rat": 1e-4}, "learning_rate"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_to_write(given, said):
    with pytest.raises((TypeError, ValueError), match=said):
        SFTConfig(**given)


def test_what_sets_nothing_is_told_of_once(capsys):
    SFTConfig(dataset_num_proc=2, logging_steps=1)
    SFTConfig(dataset_num_proc=2)
    assert capsys.readouterr().out.count("dataset_num_proc sets nothing here: rows are read and encoded once") == 1
    SFTConfig(dataset_num_proc=None, remove_unused_columns=False, report_to="none", push_to_hub=False)
    assert capsys.readouterr().out == ""


def test_the_reasons_of_all_that_sets_nothing_are_known():
    for name, said in SETS_NOTHING.items():
        assert said or unsloth.arguments.elsewhere("TrainingConfig", name, 1), name


def test_names_that_are_not_here_are_answered_where_they_are_imported():
    with pytest.raises(ImportError, match=r"tunebook\.objectives"):
        from tunebook.compat.unsloth import GRPOTrainer  # noqa: F401
    with pytest.raises(ImportError, match=r"from_pretrained\(\.\.\.\) gives model and tokenizer"):
        from tunebook.compat.unsloth import AutoTokenizer  # noqa: F401
    with pytest.raises(ImportError):
        from tunebook.compat.unsloth import Nonsense  # noqa: F401


@pytest.mark.parametrize(
    "named", [unsloth.DataCollatorForSeq2Seq(), unsloth.DataCollatorForLanguageModeling(mlm=False)]
)
def test_a_collator_that_pads_may_be_imported_with_the_rest_and_changes_nothing(named):
    assert unsloth.collators.collated(named) == unsloth.collators.Collated()


def test_tokens_are_not_masked_for_a_model_that_writes():
    with pytest.raises(TypeError, match=r"mlm is True; .* Write mlm=False"):
        unsloth.DataCollatorForLanguageModeling()
