"""Small runs that are made alike and compared bit for bit."""

import numpy as np
from mlx.utils import tree_flatten

from tests.makers.arrays import in_numpy
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Working

# Everything a resumed step could get wrong: dropout, noise, accumulation, clipping, a schedule, a shuffled order.
SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 12,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_grad_norm": 0.3,
    "neftune_noise_alpha": 5,
    "save_steps": 3,
}
# For what happens at a step of one's choice: no noise, and a step for every batch.
PLAIN = {
    "gradient_accumulation_steps": 1,
    "max_steps": 9,
    "neftune_noise_alpha": None,
    "save_steps": 3,
    "save_total_limit": None,
}


def make(folder, rows, out, eval_dataset=None, dropout=0.2, **settings):
    """A trainer of `folder` with adapters, all of whose dice are rolled."""
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=dropout)
    args = TrainingConfig(**{**SETTINGS, "output_dir": str(out), **settings})
    trainer = Trainer(model, train_dataset=rows, eval_dataset=eval_dataset, args=args)
    trainer.subscribe(lambda event: None)
    return trainer


def weights(holder):
    """name -> what is trained of a trainer's or a FastModel's model."""
    return {name: in_numpy(array) for name, array in tree_flatten(holder.loaded.module.trainable_parameters())}


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def asking(trainer, step, *request):
    """Have the trainer asked for something while it computes the step after `step`."""

    def ask(event):
        if isinstance(event, Working) and event.step == step + 1 and event.done == 1:
            trainer.send(*request)

    trainer.subscribe(ask)
    return trainer


def trainer_of(model, rows, **settings):
    """A trainer of a model at hand, for four steps of two micro-batches."""
    defaults = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "warmup_steps": 0}
    held_out = settings.pop("eval_dataset", None)
    return Trainer(model, train_dataset=rows, eval_dataset=held_out, args=TrainingConfig(**{**defaults, **settings}))


def recorded(trainer):
    events = []
    trainer.subscribe(events.append)
    return events


def ignore(*_):
    """A listener, so that no progress bar is drawn."""
