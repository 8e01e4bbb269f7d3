"""A training step of Tunebook's on as many of the rows as a batch has by default: what memory that takes."""

from workers.job import quiet
from workers.scores.job import answer, job, mlx_peak

quiet()
from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402


def main() -> None:
    task = job()
    model, tokenizer = FastModel.from_pretrained(task.folder, dtype="float32")
    FastModel.get_peft_model(model, r=16, lora_alpha=16)
    longest = sorted(task.requests, key=lambda request: -len("".join(request)))[:2]
    rows = [{"prompt": context, "completion": choice} for context, choice in longest]

    def trained(_) -> list[tuple[float, bool]]:
        config = TrainingConfig(
            max_steps=2, gradient_accumulation_steps=1, warmup_steps=0, hold_out=0, save_steps=None, output_dir=None
        )
        Trainer(model, tokenizer, train_dataset=rows, args=config).train()
        return []

    answer(task, trained, peak=mlx_peak())


if __name__ == "__main__":
    main()
