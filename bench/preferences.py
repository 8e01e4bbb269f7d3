"""Speed and memory of steps on pairs of answers: DPO against the next token's loss, mlx-lm-lora and unsloth-zoo.

    python bench/peers.py                 # once: the environment the peers need
    python bench/preferences.py [--shape smollm2 | tiny] [--pairs 1] [--rounds 3] [--checkpointing] [--json]

SmolLM2-135M-Instruct with its own weights (or random ones) in float32, adapters of rank 16 on all linear layers, and
pairs of the docstrings of Python's library: a function's own and another's, behind the same question. Every trainer
gets the same tokens, in fresh processes that take turns, with steps before those that are counted. Beside DPO with its
reference asked in each step, and from before the first where the kit or unsloth-zoo has that, runs a step on the next
token of the very rows. A step's loss before the first update has to be ln 2 and its log-probabilities those of the
others, or the trainer is told of as wrong; one that fails, by the last line it says. Exits with 1 where something asked
for is not there. Memory is the highest beyond weights and adapters of one model.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import peers  # noqa: E402
from throughput import WorkerFailed, said  # noqa: E402
from workers.preferences.job import Answer, Job, Pair, Way  # noqa: E402

from tests.makers.tiny import tiny_model_folder  # noqa: E402
from tunebook import FastModel, samples  # noqa: E402
from tunebook.machine import runtime  # noqa: E402

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
TRAINERS: dict[str, tuple[str, Way]] = {
    "tunebook": ("ours", "live"),
    "tunebook, cached": ("ours", "cached"),
    "tunebook, next token": ("ours", "sft"),
    "mlx-lm-lora": ("mlx_lm_lora", "live"),
    "unsloth-zoo": ("unsloth", "live"),
    "unsloth-zoo, cached": ("unsloth", "cached"),
}
OURS, CACHED, SFT = [*TRAINERS][:3]
PEERS = {"mlx-lm-lora": OURS, "unsloth-zoo": OURS, "unsloth-zoo, cached": CACHED}  # -> which of ours it is held against
LONGEST = 350  # tokens of a row


@dataclass(frozen=True)
class Asked:
    """A ratio that was measured, and what it has to be."""

    what: str
    found: float
    least: float  # of its rounds
    most: float
    limit: float
    at_least: bool = False  # the limit is the least it may be, and no upper one

    @property
    def is_met(self) -> bool:
        """Whether it is within its limit."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--pairs", type=int, default=1, help="of a batch")
    parser.add_argument("--steps", type=int, default=4, help="steps that are counted, of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=TRAINERS, default=[*TRAINERS], help="trainers to run")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, in all of them")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not peers.PYTHON.exists():
        sys.exit(f"The peers are not installed. Run: python {Path(peers.__file__)}")
    with tempfile.TemporaryDirectory() as folder:
        pairs, (rounds, failed) = measured(options, Path(folder))
    tokens = sum(len(row) for pair in pairs for row in pair.rows.values())
    wrong = {name: complaint for name, answers in rounds.items() if (complaint := what_is_wrong(rounds, answers[0]))}
    asked = ratios(rounds)
    if options.json:
        found = {name: [asdict(one) for one in answers] for name, answers in rounds.items()}
        ratio = [asdict(one) | {"is_met": one.is_met} for one in asked]
        about = {**vars(options), "processor": runtime.device_name(), "tokens": tokens}
        print(json.dumps({**about, "found": found, "asked": ratio, "failed": failed, "wrong": wrong}))
    else:
        lengths = ", ".join(f"{len(pair.rows['chosen'])} and {len(pair.rows['rejected'])}" for pair in pairs)
        print(f"{options.shape}, pairs of {lengths} tokens; {runtime.device_name()}, {os.cpu_count()} cores")
        print_seconds(rounds, tokens)
        print_asked(asked)
        for name, sentence in (failed | wrong).items():
            print(f"{name}: {sentence}")
    sys.exit(any(not one.is_met for one in asked) or bool(wrong.keys() | failed.keys()))


def measured(
    options: argparse.Namespace, folder: Path
) -> tuple[list[Pair], tuple[dict[str, list[Answer]], dict[str, str]]]:
    """The pairs, and the answers of every trainer, a round after the other; and the last words of those that failed."""
    model = write_model(folder / "model", options.shape)
    pairs = pairs_of(model, options.pairs)
    answers, failed = defaultdict(list), {}
    for number in range(options.rounds):
        for name in options.only[:: 1 if number % 2 == 0 else -1]:
            if name in failed:
                continue
            worker, way = TRAINERS[name]
            job = Job(
                folder=str(model),
                pairs=pairs,
                way=way,
                steps=options.steps,
                warmup=2,
                checkpointing=options.checkpointing,
            )
            try:
                answers[name].append(Answer(**said(f"workers.preferences.{worker}", asdict(job), folder)))
            except WorkerFailed as failure:
                failed[name] = str(failure).strip().splitlines()[-1]
                continue
            print(f"round {number + 1} of {options.rounds}: {name} {answers[name][-1].seconds}", file=sys.stderr)
    return pairs, ({name: answers[name] for name in TRAINERS if answers[name]}, failed)


def write_model(folder: Path, shape: str) -> Path:
    """A model folder in float32: SmolLM2 with its weights, or a tiny random one."""
    if shape == "tiny":
        return tiny_model_folder(folder)
    model, _ = FastModel.from_pretrained(SMOLLM2, dtype="float32")
    FastModel.get_peft_model(model, r=1)
    model.save_pretrained_merged(folder, dtype="float32")
    return folder


def pairs_of(model: Path, count: int) -> list[Pair]:
    """Questions about Python functions with the docstring of each and that of another, of 100 to `LONGEST` tokens."""
    _, tokenizer = FastModel.from_pretrained(str(model))
    docs = samples.python_docs(source_characters=(100, 500), answer_characters=(200, 800))
    found: list[Pair] = []
    for row, other in zip(docs, docs[len(docs) // 2 :] + docs, strict=False):
        question, answer = row["messages"]
        prompt = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
        before = tokenizer.encode(prompt, add_special_tokens=False)
        sides = {"chosen": answer["content"], "rejected": other["messages"][1]["content"]}
        rows = {
            side: [*tokenizer.encode(prompt + text, add_special_tokens=False), tokenizer.eos_token_id]
            for side, text in sides.items()
        }
        if all(100 <= len(ids) <= LONGEST and ids[: len(before)] == before for ids in rows.values()):
            found.append(Pair(prompt=prompt, **sides, rows=rows, prompt_tokens=len(before)))
    return sorted(found, key=lambda pair: -max(map(len, pair.rows.values())))[:count]


def what_is_wrong(rounds: dict[str, list[Answer]], answer: Answer) -> str | None:
    """What is wrong with what a trainer says of its first step; None where it is right."""
    if not answer.logps or OURS not in rounds:
        return None
    if not math.isclose(answer.losses[0], math.log(2.0), rel_tol=1e-3):
        return f"its first loss is {answer.losses[0]:.5f}, and a model that is its own reference has ln 2."
    right = rounds[OURS][0].logps
    if not all(map(lambda found, known: math.isclose(found, known, rel_tol=1e-3), answer.logps, right)):
        return f"the log-probabilities of its first step are {answer.logps}, and not {right}."
    return None


def ratios(rounds: dict[str, list[Answer]]) -> list[Asked]:
    """All that is asked for and can be told."""
    asked = []
    if OURS in rounds and SFT in rounds:
        both = ratio(rounds, OURS, SFT, lambda one: step(one) + (statistics.median(one.forward) if one.forward else 0))
        asked.append(Asked("time of DPO against next token and one forward pass", *both, 1.1))
    if CACHED in rounds and SFT in rounds:
        asked.append(Asked("time of DPO, cached, against next token", *ratio(rounds, CACHED, SFT, step), 1.1))
    for ours in (OURS, CACHED):
        if ours in rounds and SFT in rounds:
            asked.append(Asked(f"memory of {ours} against next token", *ratio(rounds, ours, SFT, peak, min), 1.1))
    for peer, ours in PEERS.items():
        if peer in rounds and ours in rounds:
            asked.append(Asked(f"speed against {peer}", *ratio(rounds, peer, ours, step), 1.3, at_least=True))
            asked.append(Asked(f"memory against {peer}", *ratio(rounds, ours, peer, peak, min), 0.7))
    return asked


def step(answer: Answer) -> float:
    return statistics.median(answer.seconds)


def peak(answer: Answer) -> float:
    return answer.gb


def ratio(
    rounds: dict[str, list[Answer]],
    above: str,
    below: str,
    of: Callable[[Answer], float],
    middle: Callable[[list[float]], float] = statistics.median,
) -> tuple[float, float, float]:
    """(of all rounds, the least of one round, the most): what one trainer takes over what another does."""
    first, second = [of(one) for one in rounds[above]], [of(one) for one in rounds[below]]
    each = [one / other for one, other in zip(first, second, strict=True)]
    return middle(first) / middle(second), min(each), max(each)


def print_seconds(rounds: dict[str, list[Answer]], tokens: int) -> None:
    """A line for each trainer."""
    print(f"{'':>24}  {'s a step':>9}  {'of rounds':>15}  tokens/s      GB")
    for name, answers in rounds.items():
        lines = {name: [step(one) for one in answers]}
        if name == SFT:
            lines["a forward pass"] = [statistics.median(one.forward) for one in answers]
        for title, seconds in lines.items():
            middle, spread = statistics.median(seconds), f"{min(seconds):.3f} to {max(seconds):.3f}"
            memory = f"{min(map(peak, answers)):6.2f}" if title == name else ""
            print(f"{title:>24}  {middle:9.3f}  {spread:>15}  {tokens / middle:8.1f}  {memory}")


def print_asked(asked: list[Asked]) -> None:
    """A line for each ratio, with what is asked of it."""
    print(f"\n{'':>52}  found  of rounds     asked")
    for one in asked:
        limit = f"{'at least' if one.at_least else 'at most'} {one.limit:.2f}"
        spread = f"{one.least:.2f} to {one.most:.2f}"
        print(f"{one.what:>52}  {one.found:5.2f}  {spread}  {limit}{'' if one.is_met else '  MISSED'}")


if __name__ == "__main__":
    main()
