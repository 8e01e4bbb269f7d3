import math

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
        ("lr_scheduler_type", "polynomial"),
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


def test_none_and_zero_both_switch_clipping_off():
    assert not TrainingConfig(max_grad_norm=None).max_grad_norm
    assert not TrainingConfig(max_grad_norm=0).max_grad_norm


def test_the_scale_of_an_adapter_is_alpha_over_r_and_over_its_root_with_rslora():
    assert LoraConfig(r=16, lora_alpha=32).scale == 2.0
    assert LoraConfig(r=16, lora_alpha=32, use_rslora=True).scale == 8.0


@pytest.mark.parametrize("setting", [{"r": 0}, {"lora_alpha": 0}, {"lora_dropout": 1.0}, {"target_modules": ()}])
def test_a_wrong_adapter_setting_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        LoraConfig(**setting)
