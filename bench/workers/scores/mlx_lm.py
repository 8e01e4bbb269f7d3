"""The model that `mlx_lm.evaluate` gives to lm-eval, as its own command makes it."""

from workers.job import quiet
from workers.scores.job import answer, job, mlx_peak

quiet()
import tunebook  # noqa: E402 - for its BLAS alone, so that both have the same

assert tunebook

import mlx.core as mx  # noqa: E402
from mlx_lm.evaluate import MLXLM  # noqa: E402


def main() -> None:
    task = job()
    stock = MLXLM(task.folder, batch_size=task.batch_size)
    mx.eval(stock._model.parameters())
    answer(task, stock.loglikelihood, peak=mlx_peak())


if __name__ == "__main__":
    main()
