"""Every way of training learns one row by heart on a tiny model, stopped and resumed in the middle.

What `test_memorise.py` shows of a real model, for the combinations a real model would take too long for.
"""

import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, StepEvent

ROW = {
    "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris, and it's lovely."},
    ]
}
WAYS = {
    "lora": ({}, {}, {}),
    "rslora": ({}, {"use_rslora": True}, {}),
    "dora": ({}, {"use_dora": True}, {}),
    "whole modules": ({}, {"modules_to_save": ["embed_tokens", "norm"]}, {"embedding_learning_rate": 1e-3}),
    "dropout and noise": ({}, {"lora_dropout": 0.05}, {"neftune_noise_alpha": 1}),
    "4-bit base": ({"load_in_4bit": True}, {}, {}),
    "8-bit base": ({"load_in_8bit": True}, {}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}, {}),
    "compiled": ({}, {"lora_dropout": 0.05}, {"compile": True}),
    "compiled and recomputed": ({}, {"use_gradient_checkpointing": True}, {"compile": True}),
    "recomputed": ({}, {"use_gradient_checkpointing": True}, {}),
    "full": ({"full_finetuning": True}, None, {"learning_rate": 3e-3}),
    "full in bfloat16": ({"full_finetuning": True, "dtype": "bfloat16"}, None, {"learning_rate": 3e-3}),
}


def trainer_in(out, folder, way):
    load, adapt, train = WAYS[way]
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, **load)
    if adapt is not None:
        FastModel.get_peft_model(model, r=8, lora_alpha=32, **adapt)
    args = TrainingConfig(
        **{
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "max_steps": 36,
            "learning_rate": 1e-2,
            "max_grad_norm": None,
            "output_dir": str(out),
            **train,
        }
    )
    return model, Trainer(model, train_dataset=[ROW] * 64, eval_dataset=[ROW], args=args)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_is_learnt_by_heart_across_a_resume(tiny_folder, tmp_path, way):
    _, first = trainer_in(tmp_path / "runs", tiny_folder, way)
    first.subscribe(lambda event: first.stop() if isinstance(event, StepEvent) and event.step == 18 else None)
    assert first.train().reason is EndReason.STOPPED

    model, second = trainer_in(tmp_path / "runs", tiny_folder, way)
    second.subscribe(lambda event: None)
    result = second.train(resume_from_checkpoint="latest")
    assert [step.step for step in result.steps] == list(range(1, 37))
    before, after = result.evals[0].loss, second.evaluate().loss
    assert before > 4
    assert after < 0.5  # a tied head with embeddings of length 1 gives logits up to 8, and can hardly go below 0.2

    merged = tmp_path / "merged"
    model.save_pretrained_merged(merged)
    again, _ = FastModel.from_pretrained(merged, max_seq_length=128, full_finetuning=True)
    read = Trainer(again, train_dataset=[ROW], eval_dataset=[ROW]).evaluate().loss
    assert read == pytest.approx(after, abs=0.02)
