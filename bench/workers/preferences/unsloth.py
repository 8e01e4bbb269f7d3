"""unsloth-zoo's MLXDPOTrainer with its own loss and compiled step; its wheel refuses Linux by a platform check."""

import platform
import tempfile

from workers.job import PROJECTIONS, RATE, quiet
from workers.preferences.job import BETA, answer, job

quiet()
import tunebook  # noqa: E402 - for its BLAS alone, so that all trainers have the same

assert tunebook

import mlx.core as mx  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

system, machine = platform.system, platform.machine
platform.system, platform.machine = lambda: "Darwin", lambda: "arm64"
from unsloth_zoo.mlx.loader import FastMLXModel  # noqa: E402
from unsloth_zoo.mlx.trainer import MLXDPOConfig, MLXDPOTrainer  # noqa: E402

platform.system, platform.machine = system, machine


def main() -> None:
    task = job()
    model, tokenizer = FastMLXModel.from_pretrained(
        task.folder,
        max_seq_length=task.longest,
        dtype="float32",
        load_in_4bit=False,
        load_in_16bit=True,
        text_only=True,
    )
    model = FastMLXModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        target_modules=PROJECTIONS,
        max_seq_length=task.longest,
        use_gradient_checkpointing="mlx" if task.checkpointing else False,
    )
    mx.eval(model.parameters())
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in task.pairs]
    with tempfile.TemporaryDirectory() as folder:
        trainer = MLXDPOTrainer(
            model=model,
            tokenizer=tokenizer,
            train_dataset=rows,
            args=MLXDPOConfig(
                per_device_train_batch_size=len(rows),
                gradient_accumulation_steps=1,
                max_steps=task.warmup + task.steps,
                max_seq_length=task.longest,
                max_length=task.longest,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                warmup_steps=0,
                weight_decay=0.0,
                logging_steps=1,
                gradient_checkpointing=task.checkpointing,
                disable_memory_limits=True,
                beta=BETA,
                precompute_ref_log_probs=task.way == "cached",
                output_dir=folder,
            ),
        )

        def train(ended) -> None:
            class Ended(TrainerCallback):
                def on_log(self, *_run, logs=None, **_others):
                    if "logps/chosen" in (logs or {}):
                        ended(logs["loss"], [logs["logps/chosen"], logs["logps/rejected"]])

            trainer.add_callback(Ended())
            trainer.train()

        answer(task, train)


if __name__ == "__main__":
    main()
