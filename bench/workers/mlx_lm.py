"""mlx-lm's own `train` function, which mlx-tune 0.6 calls too; it is told where the answers begin."""

from workers.job import RATE, answer, job, quiet

quiet()
import tunebook  # noqa: E402 - for its BLAS alone, so that all trainers have the same

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx_lm import load  # noqa: E402
from mlx_lm.tuner.callbacks import TrainingCallback  # noqa: E402
from mlx_lm.tuner.trainer import TrainingArgs, train  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402


def main() -> None:
    task = job()
    module, _ = load(task.folder)
    module.freeze()
    linear_to_lora_layers(module, len(module.layers), {"rank": 16, "scale": 1.0, "dropout": 0.0})
    mx.eval(module.parameters())

    def run(ended) -> None:
        class Ended(TrainingCallback):
            def on_train_loss_report(self, train_info: dict):
                ended(train_info["iteration"], train_info["iteration"], train_info["train_loss"])

        train(
            module,
            optim.Adam(learning_rate=RATE),
            [(row, task.answer) for row in task.rows],
            args=TrainingArgs(
                batch_size=len(task.rows),
                iters=task.warmup + task.steps,
                max_seq_length=len(task.rows[0]),
                steps_per_report=1,
                steps_per_save=10**9,
                adapter_file="/dev/null",
                grad_checkpoint=task.checkpointing,
            ),
            training_callback=Ended(),
        )

    answer(task, run)


if __name__ == "__main__":
    main()
