"""Rows and settings of the notebooks, and the same run written out in the kit's own names."""

from tests.makers.tiny import CORPUS
from tunebook import FastModel as KitModel
from tunebook import Trainer, TrainingConfig
from tunebook import train_on_responses_only as kit_responses_only

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ASKS, ANSWERS = "<|im_start|>user\n", "<|im_start|>assistant\n"
WORDS = CORPUS[0].split()  # the quick brown fox ...
SHAREGPT = [
    {
        "conversations": [
            {"from": "human", "value": f"Say {number} words."},
            {"from": "gpt", "value": " ".join(WORDS[: 2 + number])},
        ]
    }
    for number in range(6)
]
ALPACA = [
    {"instruction": "Say some words.", "input": f"{number}", "output": " ".join(WORDS[: 2 + number])}
    for number in range(6)
]
PAIRS = [
    {"prompt": f"How many? {number}", "chosen": " ".join(WORDS[: 2 + number]), "rejected": "no idea at all"}
    for number in range(6)
]
RUN = {"per_device_train_batch_size": 2, "warmup_steps": 0, "max_steps": 2, "learning_rate": 2e-3, "seed": 3407}
# The same in the kit's names, with what TRL has where a notebook says nothing.
KIT_RUN = {**RUN, "gradient_accumulation_steps": 1, "weight_decay": 0.0, "hold_out": 0.0, "output_dir": None}


def losses(result):
    assert len(result.steps) == 2
    return [step.loss for step in result.steps]


def in_kit_names(folder, rows, *, adapters=None, loading=None, responses=None, config=None, **given):
    """The losses of a run of the kit."""
    model, tokenizer = KitModel.from_pretrained(folder, max_seq_length=128, **(loading or {}))
    if adapters is not None:
        KitModel.get_peft_model(model, **adapters)
    args = TrainingConfig(**{**KIT_RUN, **(config or {})})
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=args, **given)
    if responses is not None:
        kit_responses_only(trainer, instruction_part=responses[0], response_part=responses[1])
    trainer.subscribe(lambda event: None, shows_progress=True)
    return losses(trainer.train())


def trained(trainer):
    trainer.subscribe(lambda event: None, shows_progress=True)
    return trainer.train()
