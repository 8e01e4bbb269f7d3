"""Speed and memory of scoring choices: this kit, what `mlx_lm.evaluate` gives to lm-eval, and lm-eval's own `hf`.

    python bench/scores.py [--examples shared | own] [--questions 125] [--shape smollm2 | tiny] [--rounds 1] [--json]

SmolLM2-135M-Instruct with its own weights (or random ones) in float32 is asked how likely it finds four descriptions of
a Python function, behind its source and behind some functions that are described rightly: the same ones before every
question, as in MMLU, or others before each, as where a task draws them. Whoever scores gets the same requests by
lm-eval's own interface, in fresh processes that take turns. Every choice has to be the `hf` backend's, and of the first
`--exact` questions every likelihood its own in float64 within 1e-4, which it itself is not in float32. Memory is the
highest beyond the weights, and is held against a training step of this kit on two of the rows. Exits with 1 where
something asked for is not there. It runs in this project's own environment, with its extra `dev`.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import numpy as np  # noqa: E402
from preferences import Asked, print_asked, write_model  # noqa: E402
from throughput import said  # noqa: E402
from workers.scores.job import Answer, Job  # noqa: E402

from tunebook import samples  # noqa: E402
from tunebook.machine import runtime  # noqa: E402

CHOICES, EXAMPLES = 4, 3
OURS, STOCK, JUDGE, STEP = "tunebook", "mlx_lm.evaluate", "lm-eval, hf", "a training step"
EXACT = "hf in float64"
WORKERS = {OURS: "ours", STOCK: "mlx_lm", JUDGE: "hf", STEP: "step", EXACT: "hf"}
CLOSE = 1e-4  # nats of a request

Request = tuple[str, str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--examples", choices=["shared", "own"], default="shared", help="before all questions, or each")
    parser.add_argument("--questions", type=int, default=125, help=f"of {CHOICES} choices each")
    parser.add_argument("--batch-size", type=int, default=8, help="this kit's and mlx-lm's")
    parser.add_argument("--hf-batch-size", type=int, default=1, help="of the hf backend, whose own default this is")
    parser.add_argument("--exact", type=int, default=10, help="questions that the hf backend is asked in float64")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=WORKERS, default=[*WORKERS])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    requests, warmup = asked_for(options.questions, shared=options.examples == "shared")
    with tempfile.TemporaryDirectory() as folder:
        rounds = measured(options, requests, warmup, Path(folder))
    wrong = {name: said for name in (OURS, STOCK) if (said := what_is_wrong(rounds, name))}
    asked = ratios(rounds)
    if options.json:
        found = {name: [asdict(one) for one in answers] for name, answers in rounds.items()}
        ratio = [asdict(one) | {"is_met": one.is_met} for one in asked]
        about = {**vars(options), "processor": runtime.device_name()}
        print(json.dumps({**about, "found": found, "asked": ratio, "wrong": wrong}))
    else:
        print(f"{options.shape}, {len(requests)} requests; {runtime.device_name()}, {os.cpu_count()} cores")
        print_seconds(rounds)
        for name in (OURS, STOCK, JUDGE) if EXACT in rounds else ():
            if name in rounds:
                off = off_by(rounds[name][0].replies, rounds[EXACT][0].replies).max()
                print(f"{name}: off by {off:.1e} nats at most from the hf backend in float64")
        print_asked(asked)
        for name, sentence in wrong.items():
            print(f"{name}: {sentence}")
    sys.exit(any(not one.is_met for one in asked) or OURS in wrong)


def measured(
    options: argparse.Namespace, requests: list[Request], warmup: list[Request], folder: Path
) -> dict[str, list[Answer]]:
    """The answers of everybody, a round after the other."""
    model = write_model(folder / "model", options.shape)
    answers = defaultdict(list)
    for number in range(options.rounds):
        for name in options.only[:: 1 if number % 2 == 0 else -1]:
            if name == EXACT and number:
                continue
            print(f"round {number + 1} of {options.rounds}: {name} ...", end=" ", file=sys.stderr, flush=True)
            job = job_of(name, options, Job(folder=str(model), requests=requests, warmup=warmup))
            given = said(f"workers.scores.{WORKERS[name]}", asdict(job), folder, Path(sys.executable))
            answers[name].append(Answer(**given))
            print(f"{answers[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    return {name: answers[name] for name in WORKERS if answers[name]}


def job_of(name: str, options: argparse.Namespace, job: Job) -> Job:
    """`job` as it is put to `name`."""
    if name == EXACT:
        return replace(job, requests=job.requests[: options.exact * CHOICES], dtype="float64")
    return replace(job, batch_size=options.hf_batch_size if name == JUDGE else options.batch_size)


def asked_for(questions: int, *, shared: bool) -> tuple[list[Request], list[Request]]:
    """(requests, others to warm up with): a question four times in turn, with a description of the function each."""
    rows = samples.python_docs(source_characters=(80, 320), answer_characters=(20, 400))
    asked = [(row["messages"][0]["content"], described(row["messages"][1]["content"])) for row in rows]
    draw = random.Random(0)
    draw.shuffle(asked)
    (before, asked), made = (asked[:EXAMPLES], asked[EXAMPLES:]), []
    if len(asked) < questions + 1:
        sys.exit(f"There are {len(asked)} functions to ask about; ask {len(asked) - 1} questions at most.")
    for question, right in asked[: questions + 1]:
        others = draw.sample([description for _, description in asked if description != right], CHOICES - 1)
        shown = before if shared else draw.sample([one for one in asked if one[1] != right], EXAMPLES)
        context = "\n\n".join(f"{one}\nAnswer: {answer}" for one, answer in shown) + f"\n\n{question}\nAnswer:"
        made += [(context, f" {choice}") for choice in sorted([right, *others])]
    return made[CHOICES:], made[:CHOICES]


def described(docstring: str) -> str:
    """The first line of a docstring."""
    return docstring.strip().splitlines()[0].strip()


def what_is_wrong(rounds: dict[str, list[Answer]], name: str) -> str | None:
    """How what `name` says of the requests differs from what the hf backend does; None where it does not."""
    if name not in rounds:
        return None
    ours, complaints = rounds[name][0].replies, []
    if EXACT in rounds:
        off = off_by(ours, rounds[EXACT][0].replies)
        if off.max() > CLOSE:
            complaints.append(f"{(off > CLOSE).sum()} of {len(off)} likelihoods are off by more than {CLOSE} nats")
    if JUDGE in rounds:
        theirs = rounds[JUDGE][0].replies
        chosen, right = (nats_of(one).reshape(-1, CHOICES).argmax(axis=1) for one in (ours, theirs))
        greedy = sum(one[1] != other[1] for one, other in zip(ours, theirs, strict=True))
        if (chosen != right).any() or greedy:
            complaints.append(f"{(chosen != right).sum()} choices of {len(right)} and {greedy} greedy ones are others")
    return "; ".join(complaints) + "." if complaints else None


def off_by(replies: Sequence[tuple[float, bool]], truth: Sequence[tuple[float, bool]]) -> np.ndarray:
    """By how many nats the first replies are off."""
    return np.abs(nats_of(replies[: len(truth)]) - nats_of(truth))


def nats_of(replies: Sequence[tuple[float, bool]]) -> np.ndarray:
    return np.array([nats for nats, _ in replies])


def ratios(rounds: dict[str, list[Answer]]) -> list[Asked]:
    """All that is asked for and can be told."""
    asked = []
    for peer in (STOCK, JUDGE):
        if peer in rounds and OURS in rounds:
            each = [one.seconds / other.seconds for one, other in zip(rounds[peer], rounds[OURS], strict=True)]
            asked.append(Asked(f"speed against {peer}", statistics.median(each), min(each), max(each), 2.0, True))
    if STEP in rounds and OURS in rounds:
        each = [(one.gb or 0) / (step.gb or 1) for one, step in zip(rounds[OURS], rounds[STEP], strict=True)]
        asked.append(Asked(f"memory against {STEP}", min(each), min(each), max(each), 1.0))
    return asked


def print_seconds(rounds: dict[str, list[Answer]]) -> None:
    """A line for each."""
    print(f"{'':>20}  seconds  requests/s      GB")
    for name, answers in rounds.items():
        seconds, gb = statistics.median(one.seconds for one in answers), answers[0].gb
        speed = f"{len(answers[0].replies) / seconds:10.1f}" if answers[0].replies else f"{'':>10}"
        print(f"{name:>20}  {seconds:7.1f}  {speed}  {'' if gb is None else f'{gb:6.2f}'}")


if __name__ == "__main__":
    main()
