import math
from dataclasses import asdict

import pytest

from tunebook import LoraConfig, TrainingConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 1.5),
        ("max_steps", True),
        ("learning_rate", math.nan),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("max_grad_norm", math.inf),
        ("adam_beta2", 1.0),
        ("warmup_steps", -1),
        ("warmup_steps", 0.1),
        ("warmup_ratio", 1.0),
        ("lr_scheduler_type", "triangular"),
        ("optim", "adamw_8bit"),
        ("dataset_order", "random"),
        ("embedding_learning_rate", 0.0),
        ("lora_plus_ratio", -16.0),
        ("max_grad_leaf_norm", -1.0),
        ("max_grad_value", math.nan),
        ("seed", -1),
        ("num_train_epochs", "3"),
        ("learning_rate", "2e-4"),
        ("learning_rate", True),
        ("weight_decay", "0.1"),
        ("max_grad_norm", "1"),
        ("adam_beta1", "0.9"),
        ("save_minutes", [10]),
        ("hold_out", True),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_value(field, value):
    with pytest.raises(ValueError, match=field) as refused:
        TrainingConfig(**{field: value})
    assert repr(value) in str(refused.value)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is checked
        TrainingConfig(max_steps=0, learning_rate=-1.0, warmup_steps=-2)
    assert all(name in str(refused.value) for name in ("max_steps", "learning_rate", "warmup_steps"))


def test_epochs_and_steps_cannot_silently_beat_one_another():
    with pytest.raises(ValueError, match="num_train_epochs is 2 and max_steps is 60"):
        TrainingConfig(num_train_epochs=2, max_steps=60)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="choose one of adamw, adafactor, lion, sgd, muon"):
        TrainingConfig(optim="adam")  # pyright: ignore[reportArgumentType]


def test_with_nothing_given_the_global_norm_is_clipped_at_one():
    assert TrainingConfig().max_grad_norm == 1.0
    assert TrainingConfig().clipping == ("max_grad_norm", 1.0)


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_none_and_zero_both_switch_clipping_off(off):
    assert TrainingConfig(max_grad_norm=off).clipping is None
    assert TrainingConfig(max_grad_leaf_norm=off).clipping == ("max_grad_norm", 1.0)


@pytest.mark.parametrize("name", ["max_grad_leaf_norm", "max_grad_value"])
def test_another_clipping_takes_the_place_of_the_default(name):
    config = TrainingConfig(**{name: 1.0})
    assert config.clipping == (name, 1.0)
    assert config.max_grad_norm is None


@pytest.mark.parametrize(
    "both",
    [
        {"max_grad_norm": 1.0, "max_grad_leaf_norm": 0.5},
        {"max_grad_norm": 1.0, "max_grad_value": 0.5},
        {"max_grad_leaf_norm": 1.0, "max_grad_value": 0.5},
    ],
)
def test_two_clippings_that_are_switched_on_are_refused_and_both_named(both):
    first, second = both
    with pytest.raises(ValueError, match=f"{first} is 1.0 and {second} is 0.5"):
        TrainingConfig(**both)
    assert TrainingConfig(**{**both, first: 0}).clipping == (second, 0.5)


def test_a_warm_up_is_five_steps_unless_it_is_given_as_one_of_two():
    assert TrainingConfig().warmup(1000) == 5
    assert TrainingConfig(warmup_steps=0).warmup(1000) == 0
    assert TrainingConfig(warmup_ratio=0.1).warmup(1001) == 101
    with pytest.raises(ValueError, match=r"warmup_steps is 5 and warmup_ratio is 0\.1"):
        TrainingConfig(warmup_steps=5, warmup_ratio=0.1)


@pytest.mark.parametrize("settings", [{}, {"max_grad_value": 0.5, "warmup_ratio": 0.1}, {"max_grad_norm": None}])
def test_a_record_read_back_from_its_values_is_the_same(settings):
    config = TrainingConfig(**settings)
    assert TrainingConfig(**asdict(config)) == config


def test_the_scale_of_an_adapter_is_alpha_over_r_and_over_its_root_with_rslora():
    assert LoraConfig(r=16, lora_alpha=32).scale == 2.0
    assert LoraConfig(r=16, lora_alpha=32, use_rslora=True).scale == 8.0


@pytest.mark.parametrize("setting", [{"r": 0}, {"lora_alpha": 0}, {"lora_dropout": 1.0}, {"target_modules": ()}])
def test_a_wrong_adapter_setting_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        LoraConfig(**setting)
