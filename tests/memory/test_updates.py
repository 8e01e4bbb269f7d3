"""memory/updates.py: a whole run in which everything is trained, much of it beside its largest parameter."""

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import StepEvent

ROWS = [{"prompt": f"Say {number}.", "completion": f"The number is {number}."} for number in range(8)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.cpu("a GPU's forms are measured in the CPU build's stand-ins for its kernels, which hold other arrays")
def test_the_estimate_is_within_a_fifth_of_a_whole_runs_peak(dtype, tmp_path):
    folder = tiny_model_folder(tmp_path, vocab_size=16_000, hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    model, tokenizer = FastModel.from_pretrained(folder, full_finetuning=True, dtype=dtype)
    config = TrainingConfig(max_steps=4, per_device_train_batch_size=1, gradient_accumulation_steps=1, output_dir=None)
    trainer = Trainer(model, tokenizer, train_dataset=ROWS, args=config)
    estimate = trainer.memory()
    peaks = []
    trainer.subscribe(lambda event: peaks.append(event.peak_gb) if isinstance(event, StepEvent) else None)
    trainer.train()
    assert estimate.keeps_start
    assert estimate.earlier == estimate.trained
    assert estimate.total / 1e9 == pytest.approx(peaks[-1], rel=0.2), estimate
