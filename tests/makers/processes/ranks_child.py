"""A process of a run in several: `main([OUT, NAME, ...])` trains what is named in turn, `--resume` goes on with it.

Started alone it is the run of one process that the others are held against. What is trained, the losses and how the
run ended lie in OUT afterwards, by name and rank.
"""

import json
import os
from pathlib import Path

import numpy as np

import tests.makers.processes.without_torch
import tunebook  # before anything imports MLX
from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.models.tensors import flat
from tunebook.objectives import DPO, KTO

assert tests.makers.processes.without_torch, tunebook

SENTENCE = "the quick brown fox jumps over the lazy dog and sleeps in the warm sun until noon"
WORDS = SENTENCE.split(" ")
TEXTS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {number} words."},
            {"role": "assistant", "content": " ".join(WORDS[: 1 + (number * 5) % 16])},
        ]
    }
    for number in range(13)
]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"What is number {number}?"}],
        "chosen": [{"role": "assistant", "content": " ".join(WORDS[: 1 + number % 7])}],
        "rejected": [{"role": "assistant", "content": " ".join(WORDS[number % 5 :])}],
    }
    for number in range(12)
]
JUDGED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row in PAIRS
    for side in ("chosen", "rejected")
]

# The update of plain descent at a rate of 1 is the gradient.
GRADIENT = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "max_steps": 2,
    "hold_out": 0.0,
    "save_steps": None,
}
SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
FIFTY = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 50,
    "learning_rate": 2e-3,
    "max_grad_norm": 0.3,
    "eval_steps": 10,
    "hold_out": 0.0,
    "save_steps": 20,
}
# name -> (rows, objective, settings, adapters' dropout)
RUNS = {
    "texts": (TEXTS, None, {**GRADIENT, **SMALL}, 0.0),
    "one batch": (TEXTS, None, {**GRADIENT, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}, 0.0),
    "one row": (TEXTS, None, {**GRADIENT, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}, 0.0),
    "packed": (TEXTS, None, {**GRADIENT, **SMALL, "packing": True}, 0.0),
    "recomputed": (TEXTS, None, {**GRADIENT, **SMALL, "gradient_checkpointing": True}, 0.0),
    "pairs": (PAIRS, DPO(loss_type=["sigmoid", "sft"]), {**GRADIENT, **SMALL}, 0.0),
    "asked beforehand": (PAIRS, DPO(precompute_ref_log_probs=True), {**GRADIENT, **SMALL}, 0.0),
    "full": (TEXTS, None, {**GRADIENT, **SMALL, "learning_rate": 0.1, "max_grad_norm": 0.5}, 0.0),
    "judged": (JUDGED, KTO(), {**GRADIENT, **SMALL}, 0.0),
    "images": (None, None, {**GRADIENT, **SMALL}, 0.0),
    "fifty": (TEXTS, None, FIFTY, 0.0),
    "dropout": (TEXTS, None, {**FIFTY, "max_steps": 4}, 0.3),
    "best": (
        [{"text": "zq " * (4 + number)} for number in range(8)],
        None,
        {
            **FIFTY,
            **{"max_steps": 12, "eval_steps": 2, "learning_rate": 0.05, "lr_scheduler_type": "constant"},
            **{"warmup_steps": 0, "load_best_model_at_end": True, "early_stopping_patience": 2},
        },
        0.0,
    ),
    "guard": (TEXTS, None, {**FIFTY, "max_steps": 6, "learning_rate": 1e30, "max_grad_norm": None}, 0.0),
    "long": (TEXTS, None, {**FIFTY, "max_steps": 14, "save_steps": 3, "eval_steps": None}, 0.0),
}
HELD_OUT = TEXTS[:5]


def image_rows() -> list[dict]:
    """Five rows with images of several sizes, and one without."""
    from tests.makers.tiny_vision import asked, noise_images  # here: a run of texts begins without mlx-vlm

    sizes = [(40, 40), (90, 60), (56, 84), (60, 60), (40, 90)]
    images = [noise_images(1, size=size)[0] for size in sizes]
    answers = ["a dog", "the quick brown fox and the lazy dog", "a tune", "noon", "the sun in June"]
    rows = [asked(f"What is {number}?", [image], answers[number]) for number, image in enumerate(images)]
    return [*rows, TEXTS[3]]


def tiny_smolvlm(folder: Path) -> Path:
    """A tiny model that reads images."""
    from tests.makers.tiny_vision import tiny_vision_folder

    return tiny_vision_folder(folder, "smolvlm")


def trainer_of(name: str, folder: Path, out: Path) -> Trainer:
    """The trainer of a run; every process makes the same."""
    rows, objective, settings, dropout = RUNS[name]
    made = tiny_model_folder(folder) if rows is not None else tiny_smolvlm(folder)
    model, _ = FastModel.from_pretrained(made, max_seq_length=128, full_finetuning=name == "full")
    if name != "full":
        FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=dropout)
    held_out = HELD_OUT if objective is None and settings.get("eval_steps") else None
    trainer = Trainer(
        model,
        train_dataset=image_rows() if rows is None else rows,
        eval_dataset=held_out,
        objective=objective,
        args=TrainingConfig(**{"output_dir": str(out / "runs" / name), **settings}),
    )
    trainer.subscribe(lambda event: None)
    return trainer


def trained(name: str, out: Path, *, resume: bool) -> None:
    """Train it, and write what came of it."""
    rank = os.environ.get("MLX_RANK", "0")
    trainer = trainer_of(name, out / f"{name} model {rank}", out)
    before = {key: in_numpy(array) for key, array in flat(trainer.loaded.module.trainable_parameters()).items()}
    result = trainer.train(resume_from_checkpoint=resume or None)
    after = {key: in_numpy(array) for key, array in flat(trainer.loaded.module.trainable_parameters()).items()}
    np.savez(out / f"{name} {rank}.npz", **after)
    np.savez(out / f"{name} {rank} change.npz", **{key: before[key] - after[key] for key in after})
    said = {
        "losses": [step.loss for step in result.steps],
        "norms": [step.grad_norm for step in result.steps],
        "tokens": [step.num_tokens for step in result.steps],
        "padded": [step.total_tokens for step in result.steps],
        "metrics": [step.metrics for step in result.steps],
        "evals": [score.loss for score in result.evals],
        "reason": result.reason,
        "folder": None if result.run_folder is None else str(result.run_folder),
    }
    (out / f"{name} {rank}.json").write_text(json.dumps(said))


def main(arguments: list[str]) -> None:
    """Train all that is named."""
    out, *names = arguments
    for name in names:
        if name != "--resume":
            trained(name, Path(out), resume="--resume" in names)
