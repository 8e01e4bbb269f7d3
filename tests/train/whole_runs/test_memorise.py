"""A real model learns one row by heart: if anything between the row and the weights is wrong, it does not."""

import math

import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason

pytestmark = pytest.mark.real_model

ROW = {
    "messages": [
        {"role": "user", "content": "What does the tunebook say?"},
        {"role": "assistant", "content": "Every tune is kept, in order, with its key."},
    ]
}


def trainer_in(folder):
    model, tokenizer = FastModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct", max_seq_length=128)
    FastModel.get_peft_model(model, r=8, lora_alpha=16)
    args = TrainingConfig(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=10,
        learning_rate=3e-3,
        warmup_steps=2,
        max_grad_norm=None,
        output_dir=str(folder),
    )
    return model, Trainer(model, tokenizer, train_dataset=[ROW] * 64, eval_dataset=[ROW], args=args)


def test_ten_steps_with_a_resume_in_the_middle_learn_a_row_by_heart(tmp_path):
    calls = []
    _, first = trainer_in(tmp_path / "runs")
    first.add_step_callback(lambda *values: calls.append(values))
    first.add_step_callback(lambda step, *_: first.stop() if step == 5 else None)
    assert first.train().reason is EndReason.STOPPED

    model, second = trainer_in(tmp_path / "runs")
    second.add_step_callback(lambda *values: calls.append(values))
    result = second.train(resume_from_checkpoint="latest")

    assert [values[0] for values in calls] == list(range(1, 11))
    assert all(len(values) == 9 and all(math.isfinite(value) for value in values) for values in calls)
    assert result.steps[-1].loss < 0.1
    assert second.evaluate().loss < 0.5
    exports = [
        model.save_pretrained(tmp_path / "lora", verify_with=[ROW]),
        model.save_pretrained_merged(tmp_path / "merged", verify_with=[ROW]),
    ]
    for export in exports:
        assert abs(export.verification.loss_there - export.verification.loss_here) < 0.02, export
