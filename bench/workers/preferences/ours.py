"""Tunebook's Trainer on pairs of answers, or on the same rows as texts; as a notebook would use it."""

from workers.job import RATE, quiet
from workers.preferences.job import BETA, Job, answer, job

quiet()
from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402
from tunebook.events import StepEvent  # noqa: E402
from tunebook.fast.training_form import inference_form  # noqa: E402
from tunebook.objectives import DPO  # noqa: E402
from tunebook.objectives.next_token import measured_nats, supervised_positions  # noqa: E402
from tunebook.tokens.collation import collated  # noqa: E402


def main() -> None:
    task = job()
    model, tokenizer = FastModel.from_pretrained(task.folder, max_seq_length=task.longest, dtype="float32")
    FastModel.get_peft_model(model, r=16, lora_alpha=16)
    rows, objective = rows_of(task), None
    if task.way != "sft":
        cached = {"precompute_ref_log_probs": True} if task.way == "cached" else {}
        objective = DPO(beta=BETA, **cached)
    config = TrainingConfig(
        per_device_train_batch_size=len(rows),
        gradient_accumulation_steps=1,
        max_steps=task.warmup + task.steps,
        learning_rate=RATE,
        warmup_steps=0,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        gradient_checkpointing=task.checkpointing,
        hold_out=0,
        output_dir=None,
    )
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=config, objective=objective)

    def train(ended) -> None:
        def heard(event) -> None:
            if isinstance(event, StepEvent):
                ended(event.loss, [event.metrics[f"logps/{side}"] for side in ("chosen", "rejected") if objective])

        trainer.subscribe(heard)
        trainer.train()

    def forward() -> None:
        """What the loss of a held-out batch takes."""
        batch, _ = collated(family, trainer.train_rows, task.longest)
        with form:
            measured_nats(family, module, batch, supervised_positions(batch))

    if objective is not None:
        answer(task, train)
        return
    module, family = model.loaded.module, model.loaded.family
    form = inference_form(module)
    module.eval()
    answer(task, train, forward)


def rows_of(task: Job) -> list[dict]:
    """The pairs as text, or each of their rows as token ids."""
    if task.way != "sft":
        return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in task.pairs]
    return [
        {"input_ids": row, "labels": [-100] * pair.prompt_tokens + row[pair.prompt_tokens :]}
        for pair in task.pairs
        for row in pair.rows.values()
    ]


if __name__ == "__main__":
    main()
