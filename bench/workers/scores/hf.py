"""lm-eval's own `hf` backend, under torch on the CPU."""

from workers.job import quiet
from workers.scores.job import answer, job

quiet()
from lm_eval.models.huggingface import HFLM  # noqa: E402


def main() -> None:
    task = job()
    judge = HFLM(pretrained=task.folder, device="cpu", dtype=task.dtype, batch_size=task.batch_size)
    answer(task, lambda requests: judge.loglikelihood(requests, disable_tqdm=True))


if __name__ == "__main__":
    main()
