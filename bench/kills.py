"""Ends runs and exports at random moments, and looks whether anything was lost.

    python bench/kills.py [--trials 200] [--seed 1] [--json]

Three of five trials are runs (rows tokenized and cached, dropout, accumulation, held-out losses, samples, checkpoints,
best weights put back), the others exports of each kind over an older one. Each is a process of its own, ended by
SIGKILL, SIGTERM, one interrupt or two, at a moment drawn evenly from the time it takes undisturbed. Then a run is taken
up again, and its weights, losses, held-out losses, samples and end must be those of the undisturbed run, bit for bit;
an export must be the old one or the new one, beside a person's files that nobody touched; and after the next write
nothing unfinished may lie about. Prints a line for each kind and signal, and every trial that failed. Not on Windows.
"""

import argparse
import atexit
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
WORK = Path(tempfile.mkdtemp(prefix="kills-"))
TEMPORARY = WORK / "temporary"
TEMPORARY.mkdir()
tempfile.tempdir = os.environ["TMPDIR"] = str(TEMPORARY)
os.environ["TUNEBOOK_CACHE"] = str(WORK / "cache")
os.environ["TUNEBOOK_UI"] = "off"
sys.path.insert(0, str(Path(__file__).parents[1]))

# Whatever a child needs is imported here, so that a trial times the kit's work and not Python's imports. Nothing is
# computed before the forks: MLX's threads do not survive one.
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten, tree_map_with_path  # noqa: E402

from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402
from tunebook.events import EvalEvent, SampleEvent, StepEvent  # noqa: E402

SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "interrupt": [signal.SIGINT],
    "two interrupts": [signal.SIGINT, signal.SIGINT],
}
EXPORTS: dict[str, Callable[[FastModel, Path], object]] = {
    "lora": lambda model, out: model.save_pretrained(out),
    "peft": lambda model, out: model.save_pretrained(out, format="peft"),
    "lora gguf": lambda model, out: model.save_pretrained(out, format="gguf"),
    "merged": lambda model, out: model.save_pretrained_merged(out),
    "merged 4-bit": lambda model, out: model.save_pretrained_merged(out, save_method="merged_4bit"),
    "gguf": lambda model, out: model.save_pretrained_gguf(out, quantization_method=["f32", "q8_0"]),
}
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "sleeps",
    "in",
    "the",
    "warm",
    "sun",
    "until",
    "noon",
]
PATIENCE = 60  # seconds a child may take


@dataclass
class Trial:
    """One process that was ended, and what was found afterwards."""

    kind: str
    how: str  # the name of a signal
    at: float  # seconds after it began
    outcome: str  # "as undisturbed", "old", "new", or what is wrong
    good: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    try:
        runs = options.trials * 3 // 5
        trials = [*run_trials(runs, draw), *export_trials(options.trials - runs, draw)]
    finally:
        shutil.rmtree(WORK)
    failed = [trial for trial in trials if not trial.good]
    if options.json:
        print(json.dumps({"trials": len(trials), "failed": [vars(trial) for trial in failed]}))
    else:
        counts = collections.Counter((trial.kind, trial.how, trial.outcome) for trial in trials)
        for (kind, how, outcome), count in sorted(counts.items()):
            print(f"{count:4d}  {kind:14s} {how:15s} {outcome}")
        print(f"{len(trials)} trials, {len(failed)} failed")
    sys.exit(bool(failed))


def run_trials(count: int, draw: random.Random) -> list[Trial]:
    """Runs that are ended and taken up again; every third tokenizes its rows for itself, with an empty cache."""
    whole = WORK / "whole"
    seconds = _finished(lambda: _train(whole, resume=False))
    truth, trials = json.loads((whole / "said.json").read_text()), []
    for number in range(count):
        how = draw.choice(list(SIGNALS))
        folder = WORK / f"run-{number}"
        if number % 3 == 0:
            shutil.rmtree(WORK / "cache" / "tokenized", ignore_errors=True)
        at = draw.random() * seconds
        _ended(lambda folder=folder: _train(folder, resume=False), how, at, draw)
        for name in ("said.json", "began"):
            (folder / name).unlink(missing_ok=True)
        _finished(lambda folder=folder: _train(folder, resume=True))
        outcome = _compared(folder, truth) or _left_over(folder, WORK / "cache", TEMPORARY) or "as undisturbed"
        trials.append(Trial("run", how, at, outcome, outcome == "as undisturbed"))
        shutil.rmtree(folder)
    return trials


def export_trials(count: int, draw: random.Random) -> list[Trial]:
    """Exports over an older one of the same kind, every other time in a folder that holds a person's files too."""
    trials = []
    wanted: dict[str, list[dict[str, str]]] = {}
    seconds: dict[str, float] = {}
    for kind in EXPORTS:
        wanted[kind] = []
        for seed in (1, 2):
            out = WORK / f"{kind}-{seed}" / "out"
            seconds[kind] = _finished(lambda kind=kind, out=out, seed=seed: _export(kind, out, seed))
            wanted[kind].append(_files(out))
    for number in range(count):
        kind, how = list(EXPORTS)[number % len(EXPORTS)], draw.choice(list(SIGNALS))
        folder = WORK / f"export-{number}"
        out = folder / "out"
        shutil.copytree(WORK / f"{kind}-1" / "out", out)
        theirs = {"notes.md": "mine", "data/rows.jsonl": "{}\n"} if number % 2 else {}
        for name, text in theirs.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text(text)
        at = draw.random() * seconds[kind]
        _ended(lambda kind=kind, out=out: _export(kind, out, 2), how, at, draw)
        found = _files(out)
        lost = [name for name, text in theirs.items() if found.pop(name, None) != _digest(text.encode())]
        old, new = wanted[kind]
        outcome = "old" if found == old else "new" if found == new else _mixture(found, old, new)
        if lost:
            outcome = f"a person's files are gone: {lost}"
        else:
            _finished(lambda kind=kind, out=out: _export(kind, out, 2))  # the next write
            after = {name: digest for name, digest in _files(out).items() if name not in theirs}
            if after != new:
                outcome = f"written again: {_mixture(after, old, new)}"
            outcome = _left_over(folder, TEMPORARY) or outcome
        trials.append(Trial(kind, how, at, outcome, outcome in ("old", "new")))
        shutil.rmtree(folder)
    return trials


def _train(folder: Path, *, resume: bool) -> None:
    """A run in `folder`, and what it came to in `said.json` there."""
    folder.mkdir(exist_ok=True)
    (folder / "began").touch()
    model = _model(seed=None)
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": _answer(n)}]}
        for n in range(1000)
    ]
    trainer = Trainer(
        model,
        train_dataset=rows,
        eval_dataset=rows[:6],
        args=TrainingConfig(
            max_steps=12,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=5e-3,
            lr_scheduler_type="cosine",
            warmup_steps=2,
            neftune_noise_alpha=5,
            eval_steps=3,
            sample_steps=4,
            sample_max_tokens=6,
            save_steps=2,
            load_best_model_at_end=True,
            output_dir=str(folder / "runs"),
        ),
    )
    trainer.subscribe(lambda _: None, shows_progress=True)
    try:
        result = trainer.train(resume_from_checkpoint=resume)
    except FileNotFoundError:  # it was ended before its first checkpoint
        result = trainer.train()
    weights = tree_flatten(model.module.trainable_parameters())
    said = {
        "reason": str(result.reason),
        "weights": {name: _digest(np.array(array).tobytes()) for name, array in weights},
        "steps": [[e.step, e.loss, e.lr, e.grad_norm, e.num_tokens] for e in result.steps if isinstance(e, StepEvent)],
        "evals": [[e.step, e.loss] for e in result.evals if isinstance(e, EvalEvent)],
        "samples": [[e.step, e.prompt, e.text] for e in result.samples if isinstance(e, SampleEvent)],
    }
    (folder / "said.json").write_text(json.dumps(said))


def _export(kind: str, out: Path, seed: int) -> None:
    out.parent.mkdir(exist_ok=True)
    (out.parent / "began").touch()
    EXPORTS[kind](_model(seed), out)
    (out.parent / "said.json").touch()


def _model(seed: int | None) -> FastModel:
    """The tiny model with adapters; those of a `seed` change what it says."""
    from tests.makers.tiny import tiny_model_folder

    base = WORK / "base"
    if not (base / "model.safetensors").exists():
        tiny_model_folder(base)
    model, _ = FastModel.from_pretrained(base, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.1 if seed is None else 0.0)
    if seed is not None:
        mx.random.seed(seed)
        filled = tree_map_with_path(
            lambda path, array: 0.1 * mx.random.normal(array.shape) if path.endswith("lora_b") else array,
            model.module.trainable_parameters(),
        )
        model.module.update(filled)
    return model


def _answer(number: int) -> str:
    return " ".join(WORDS[number % 7 : number % 7 + 1 + (number * 5) % 9]) + f" {number}"


def _child(do: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        do()
        atexit._run_exitfuncs()  # as at the end of any process; a forked one must not go on into the code of its parent
    except BaseException:  # noqa: BLE001 - whatever ends a child ends it here, and not in the parent's code
        os._exit(1)
    os._exit(0)


def _finished(do: Callable[[], None]) -> float:
    """Seconds that `do` takes in a process of its own, to its end."""
    began = time.perf_counter()
    _waited(_child(do))
    return time.perf_counter() - began


def _ended(do: Callable[[], None], how: str, at: float, draw: random.Random) -> None:
    pid = _child(do)
    time.sleep(at)
    for sent in SIGNALS[how]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
        time.sleep(0.2 * draw.random() if len(SIGNALS[how]) > 1 else 0)
    _waited(pid)


def _waited(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _compared(folder: Path, truth: dict) -> str | None:
    """What differs from the undisturbed run; None when nothing does."""
    if not (folder / "said.json").exists():
        return "it did not go on to its end"
    said = json.loads((folder / "said.json").read_text())
    return next((f"other {name}" for name in truth if said[name] != truth[name]), None)


def _left_over(*folders: Path) -> str | None:
    """Unfinished files that are still there, by the names the kit gives them."""
    found = (path for folder in folders for path in folder.rglob("*"))
    left = [path for path in found if "partial" in path.name or path.name.startswith((".tunebook", "tmp"))]
    return f"left over: {sorted({path.name for path in left})[:3]}" if left else None


def _files(folder: Path) -> dict[str, str]:
    """The digest of each file that shows."""
    if not folder.exists():
        return {}
    shown = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): _digest(path.read_bytes()) for path in shown if path.is_file()}


def _mixture(found: dict[str, str], old: dict[str, str], new: dict[str, str]) -> str:
    def said(name: str) -> str:
        if name not in found:
            return "missing"
        return "new" if found[name] == new.get(name) else "old" if found[name] == old.get(name) else "neither"

    return "torn: " + ", ".join(f"{name} {said(name)}" for name in sorted(found.keys() | old.keys() | new.keys()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


if __name__ == "__main__":
    main()
