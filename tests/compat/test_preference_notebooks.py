"""Notebooks of preferences, as those of `test_notebooks.py`."""

from tests.compat.by_hand import PAIRS, RUN, in_kit_names, losses, trained
from tunebook.compat.unsloth import (
    DPOConfig,
    DPOTrainer,
    FastLanguageModel,
    KTOConfig,
    KTOTrainer,
    ORPOConfig,
    ORPOTrainer,
    PatchDPOTrainer,
)
from tunebook.objectives import DPO, KTO, ORPO


def test_a_model_learns_preferences_against_itself(folder):
    PatchDPOTrainer()
    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4)
    trainer = DPOTrainer(
        model=model,
        ref_model=None,
        args=DPOConfig(**RUN, optim="paged_adamw_8bit", logging_steps=1),
        beta=0.2,
        train_dataset=PAIRS,
        tokenizer=tokenizer,
        max_length=100,
        max_prompt_length=50,
    )
    expected = in_kit_names(
        folder, PAIRS, adapters={"r": 4, "lora_alpha": 4}, objective=DPO(beta=0.2), config={"max_seq_length": 100}
    )
    assert losses(trained(trainer)) == expected


def test_a_model_learns_preferences_without_a_reference(folder):
    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4)
    args = ORPOConfig(**RUN, max_length=128, max_prompt_length=64, max_completion_length=64, beta=0.3)
    trainer = ORPOTrainer(model=model, train_dataset=PAIRS, tokenizer=tokenizer, args=args)
    assert losses(trained(trainer)) == in_kit_names(
        folder, PAIRS, adapters={"r": 4, "lora_alpha": 4}, objective=ORPO(beta=0.3)
    )


def test_a_model_learns_from_answers_that_are_good_or_bad(folder):
    rows = [
        {"prompt": row["prompt"], "completion": row[kind], "label": kind == "chosen"}
        for row in PAIRS[:3]
        for kind in ("chosen", "rejected")
    ]
    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4)
    args = KTOConfig(**RUN, beta=0.2, desirable_weight=1.5, undesirable_weight=1.0)
    trainer = KTOTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    assert losses(trained(trainer)) == in_kit_names(
        folder,
        rows,
        adapters={"r": 4, "lora_alpha": 4},
        objective=KTO(beta=0.2, desirable_weight=1.5),
        config={"dataset_order": "sequential"},
    )
