"""Tunebook's model for lm-eval, as `scores.harness` makes it."""

from workers.job import quiet
from workers.scores.job import answer, job, mlx_peak

quiet()
from tunebook import FastModel  # noqa: E402
from tunebook.scores.tasks.lm_eval_model import AskedByTasks  # noqa: E402
from tunebook.scores.tasks.respondents import Live  # noqa: E402


def main() -> None:
    task = job()
    model, _ = FastModel.from_pretrained(task.folder, dtype="float32")
    live = Live(model.loaded, adapters=True, batch_size=task.batch_size)
    posed = AskedByTasks(live, batch_size=task.batch_size)
    answer(task, posed.loglikelihood, peak=mlx_peak())


if __name__ == "__main__":
    main()
