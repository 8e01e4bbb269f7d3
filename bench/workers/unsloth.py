"""unsloth-zoo's MLXTrainer with its own loss and compiled step; its wheel refuses Linux by a platform check alone."""

import platform
import tempfile

from workers.job import PROJECTIONS, RATE, answer, job, quiet

quiet()
import tunebook  # noqa: E402 - for its BLAS alone, so that all trainers have the same

assert tunebook

import mlx.core as mx  # noqa: E402

system, machine = platform.system, platform.machine
platform.system, platform.machine = lambda: "Darwin", lambda: "arm64"
from unsloth_zoo.mlx.loader import FastMLXModel  # noqa: E402
from unsloth_zoo.mlx.trainer import MLXTrainer, MLXTrainingConfig  # noqa: E402

platform.system, platform.machine = system, machine


def main() -> None:
    task = job()
    length = len(task.rows[0])
    model, tokenizer = FastMLXModel.from_pretrained(
        task.folder, max_seq_length=length, dtype="float32", load_in_4bit=False, load_in_16bit=True, text_only=True
    )
    model = FastMLXModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        target_modules=PROJECTIONS,
        max_seq_length=length,
        use_gradient_checkpointing="mlx" if task.checkpointing else False,
    )
    mx.eval(model.parameters())
    rows = [{"input_ids": row, "labels": [-100] * task.answer + row[task.answer :]} for row in task.rows]
    with tempfile.TemporaryDirectory() as folder:
        trainer = MLXTrainer(
            model=model,
            tokenizer=tokenizer,
            train_dataset=rows,
            args=MLXTrainingConfig(
                per_device_train_batch_size=len(rows),
                gradient_accumulation_steps=1,
                max_steps=task.warmup + task.steps,
                max_seq_length=length,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                warmup_steps=0,
                weight_decay=0.0,
                gradient_checkpointing=task.checkpointing,
                disable_memory_limits=True,
                output_dir=folder,
            ),
        )

        def train(ended) -> None:
            trainer.add_step_callback(ended)
            trainer.train()

        answer(task, train)


if __name__ == "__main__":
    main()
