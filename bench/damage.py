"""What damage of a run folder or of the token cache comes to: the same numbers, or one sentence.

    python bench/damage.py [--runs 300] [--caches 200] [--seed 0]

Each trial damages one or two files of a copy of a run folder in one of many ways and resumes in a process of its own,
in limits, or damages an entry of the cache and makes the rows again. What is neither right nor refused in a sentence,
or takes over 5 seconds of a processor or 500 MB, is printed, and the exit status is 1.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from limited import count_outcomes, outcome, prepare
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.tokens import encoding
from tunebook.tokens.encoding import encode_rows
from tunebook.train.kept.checkpoint import checkpoint_folders

WHOLE_WEIGHTS, WHOLE_ROWS = "weights.safetensors", "rows.txt"  # what is right
ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": "the dog " * (1 + n % 5)}]}
    for n in range(12)
]
Damage = Callable[[Path, random.Random], object]


def _changed(file: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)


def _in_place_of(file: Path, make: Callable[[], object]) -> None:
    file.unlink()
    make()


def _flip(content: bytearray, chance: random.Random) -> None:
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _noise(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content) + 1)
    content[start : start + 64] = chance.randbytes(64)


def _swap_digit(content: bytearray, chance: random.Random) -> None:
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if digits:
        content[chance.choice(digits)] = ord(chance.choice("0123456789"))


DAMAGES: dict[str, Damage] = {
    "bit": lambda file, chance: _changed(file, lambda content: _flip(content, chance)),
    "noise": lambda file, chance: _changed(file, lambda content: _noise(content, chance)),
    "digit": lambda file, chance: _changed(file, lambda content: _swap_digit(content, chance)),
    "cut": lambda file, chance: os.truncate(file, chance.randrange(file.stat().st_size + 1)),
    "doubled": lambda file, _: file.write_bytes(file.read_bytes() * 2),
    "zeros": lambda file, _: file.write_bytes(bytes(file.stat().st_size)),
    "empty": lambda file, _: file.write_bytes(b""),
    "gone": lambda file, _: file.unlink(),
    "list": lambda file, _: file.write_text("[]"),
    "null": lambda file, _: file.write_text("null\n"),
    "nested": lambda file, chance: file.write_text(chance.choice(['{"a":', "["]) * 100_000 + "\n"),
    "digits": lambda file, _: file.write_text("7" * 100_000 + "\n"),
    "utf-16": lambda file, _: file.write_bytes(file.read_bytes().decode("latin-1").encode("utf-16")),
    "folder": lambda file, _: _in_place_of(file, file.mkdir),
    "pipe": lambda file, _: _in_place_of(file, lambda: os.mkfifo(file)),
    "link to itself": lambda file, _: _in_place_of(file, lambda: file.symlink_to(file.name)),
    "long": lambda file, _: os.truncate(file, 300_000_000),  # sparse
}


def trainer_in(base: Path, out: Path) -> Trainer:
    model, _ = FastModel.from_pretrained(base, max_seq_length=128)
    FastModel.get_peft_model(model, r=2, lora_dropout=0.1)
    args = TrainingConfig(
        max_steps=6, learning_rate=5e-3, per_device_train_batch_size=2, save_steps=2, eval_steps=2,
        save_total_limit=None, output_dir=str(out),
    )  # fmt: skip
    trainer = Trainer(model, train_dataset=ROWS, eval_dataset=ROWS[:2], args=args)
    trainer.subscribe(lambda _: None, shows_progress=True)
    return trainer


def changes_its_rate(trainer: Trainer, stop_at: int) -> None:
    """Ask for another rate after the checkpoint of step 4, which only the log and its sealed file know of then."""
    asked = {4: lambda: trainer.send("learning_rate", 1e-3), stop_at: trainer.stop}
    trainer.add_step_callback(lambda step, *_: asked.get(step, lambda: None)())


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in tree_flatten(trainer.loaded.module.trainable_parameters())}


def equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def damaged(folder: Path, chance: random.Random) -> list[str]:
    """Damage a file, in one of four times a second one; how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = chance.sample(files, 2 if chance.random() < 0.25 else 1)
    done = []
    for file in chosen:
        how = chance.choice(list(DAMAGES))
        DAMAGES[how](file, chance)
        done.append(f"{how} of {file.relative_to(folder)}")
    return done


def make_run(work: Path) -> None:
    """A whole run for its weights, and one that broke off at step 5, whose newest checkpoint is of step 4."""
    base = tiny_model_folder(work / "base")
    with contextlib.redirect_stdout(io.StringIO()):
        whole = trainer_in(base, work / "whole")
        changes_its_rate(whole, stop_at=99)
        whole.train()
        save_file(weights(whole), str(work / WHOLE_WEIGHTS))
        first = trainer_in(base, work / "run")
        changes_its_rate(first, stop_at=5)
        run_folder = first.train().run_folder
    assert run_folder is not None
    shutil.rmtree(checkpoint_folders(run_folder)[-1])  # as if it had been killed just before


def resumed(work: Path) -> str:
    """Go on with the damaged run; say "right" where its weights are those of the whole one."""
    trainer = trainer_in(work / "base", work / "copy")
    trainer.train(resume_from_checkpoint=True)
    truth = load_file(str(work / WHOLE_WEIGHTS))
    return "right" if equal(truth, weights(trainer)) else "ANOTHER RESULT"


def damage_runs(work: Path, trials: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """(what was damaged, its outcome)."""
    prepare(partial(make_run, work))
    [run] = (work / "run").iterdir()
    for number in range(trials):
        shutil.rmtree(work / "copy", ignore_errors=True)
        shutil.copytree(work / "run", work / "copy")
        what = damaged(work / "copy" / run.name, chance)
        yield f"run {number} ({'; '.join(what)})", outcome(partial(resumed, work))


def rows_of(base: Path) -> list[tuple]:
    """What a row comes to, out of the cache where it is there."""
    loaded = FastModel.from_pretrained(base, max_seq_length=128)[0].loaded
    made = encode_rows(ROWS, loaded, max_seq_length=128)
    return [(row.tokens.tolist(), row.loss_mask.tolist(), row.number) for row in made.rows]


def make_cache(work: Path) -> None:
    """The rows, made once and by that cached."""
    with contextlib.redirect_stdout(io.StringIO()):
        (work / WHOLE_ROWS).write_text(repr(rows_of(tiny_model_folder(work / "base"))))


def read_again(work: Path) -> str:
    """Make the rows again; say "right" where they are the same."""
    return "right" if repr(rows_of(work / "base")) == (work / WHOLE_ROWS).read_text() else "OTHER ROWS"


def damage_caches(work: Path, trials: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """(what was damaged, its outcome)."""
    os.environ["TUNEBOOK_CACHE"] = str(work / "cache")
    encoding.CACHED_ROWS = len(ROWS)
    prepare(partial(make_cache, work))
    [entry] = (work / "cache" / "tokenized").iterdir()
    shutil.copytree(entry, work / "entry")
    for number in range(trials):
        shutil.rmtree(entry, ignore_errors=True)
        shutil.copytree(work / "entry", entry)
        what = damaged(entry, chance)
        yield f"cache {number} ({'; '.join(what)})", outcome(partial(read_again, work))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=300)
    options.add_argument("--caches", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    status = 0
    for name, damage, trials in (("runs", damage_runs, asked.runs), ("caches", damage_caches, asked.caches)):
        with tempfile.TemporaryDirectory() as folder:
            tried = damage(Path(folder), trials, random.Random(asked.seed))
            status |= count_outcomes(tried, ("right", "refused"), name)
    return status


if __name__ == "__main__":
    sys.exit(main())
