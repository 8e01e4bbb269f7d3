"""Tunebook's Trainer, as a notebook would use it."""

from workers.job import RATE, answer, job, quiet

quiet()
from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402


def main() -> None:
    task = job()
    length = len(task.rows[0])
    model, tokenizer = FastModel.from_pretrained(task.folder, max_seq_length=length)
    FastModel.get_peft_model(model, r=16, lora_alpha=16)
    rows = [{"input_ids": row, "labels": [-100] * task.answer + row[task.answer :]} for row in task.rows]
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
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=config)

    def train(ended) -> None:
        trainer.add_step_callback(ended)
        trainer.train()

    answer(task, train)


if __name__ == "__main__":
    main()
