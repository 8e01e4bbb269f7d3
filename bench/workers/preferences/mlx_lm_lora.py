"""mlx-lm-lora's `train_dpo`, called as its own command (5.10) does; the reference is a second model that it loads.

Its rows are token ids with the length of the prompt, which is what its own data set makes of messages.
"""

import tempfile
from types import SimpleNamespace

from workers.job import RATE, quiet
from workers.preferences.job import BETA, answer, job

quiet()
import tunebook  # noqa: E402 - for its BLAS alone, so that all trainers have the same

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx_lm.tuner.callbacks import TrainingCallback  # noqa: E402
from mlx_lm_lora.train import load_reference_model  # noqa: E402
from mlx_lm_lora.trainer.dpo_trainer import DPOTrainingArgs, train_dpo  # noqa: E402
from mlx_lm_lora.utils import from_pretrained  # noqa: E402


def main() -> None:
    task = job()
    with tempfile.TemporaryDirectory() as folder:
        model, _, adapter_file = from_pretrained(
            task.folder,
            new_adapter_path=folder,
            lora_config={"rank": 16, "scale": 1.0, "dropout": 0.0, "use_dora": False, "num_layers": -1},
        )
        mx.eval(model.parameters())
        rows = [
            {**pair.rows, "chosen_prompt_length": pair.prompt_tokens, "rejected_prompt_length": pair.prompt_tokens}
            for pair in task.pairs
        ]

        def train(ended) -> None:
            class Ended(TrainingCallback):
                def on_train_loss_report(self, train_info: dict):
                    # By its own naming "logits" are log-probabilities summed over an answer.
                    logps = [float(train_info[f"train_{side}_logits_mean"]) for side in ("chosen", "rejected")]
                    ended(train_info["train_loss"], logps)

            args = DPOTrainingArgs(
                batch_size=len(rows),
                iters=task.warmup + task.steps,
                max_seq_length=task.longest,
                steps_per_report=1,
                steps_per_save=10**9,
                adapter_file=adapter_file,
                grad_checkpoint=task.checkpointing,
                beta=BETA,
            )
            reference = load_reference_model(SimpleNamespace(reference_model_path=None, model=task.folder))
            optimizer = optim.Adam(learning_rate=RATE)
            # It sets a limit by a fact of Metal's; MLX's CPU build knows no such limit and no such fact.
            facts = {"max_recommended_working_set_size": 0} | mx.device_info()
            mx.device_info = lambda: facts
            train_dpo(model, reference, optimizer, rows, args=args, training_callback=Ended())

        answer(task, train)


if __name__ == "__main__":
    main()
