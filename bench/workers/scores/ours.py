"""Tunebook's model for lm-eval, as `scores.harness` makes it."""

from workers.job import quiet
from workers.scores.job import answer, job, mlx_peak

quiet()
from tunebook import FastModel  # noqa: E402
from tunebook.scores.lm_eval_model import LiveModel  # noqa: E402


def main() -> None:
    task = job()
    model, _ = FastModel.from_pretrained(task.folder, dtype="float32")
    live = LiveModel(model.loaded, adapters=True, batch_size=task.batch_size)
    answer(task, live.loglikelihood, peak=mlx_peak())


if __name__ == "__main__":
    main()
