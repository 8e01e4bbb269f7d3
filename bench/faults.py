"""Has a GPU fail at random evaluations of runs and exports, and looks whether anything was lost.

    python bench/faults.py [--trials 200] [--seed 1] [--first 0] [--as-gpu] [--json]

Seven of ten trials are runs: an optimizer, LoRA, DoRA or full tuning, compiled or not, with accumulation, dropout,
noise, held-out losses and samples. One or two evaluations fail, drawn from the places of the kit that evaluate, and
leave unwritten arrays behind as on Metal (tests/makers/failing_gpu.py). Weights, optimizer state and newest checkpoint
must then be those of the last whole step of the undisturbed run, and a run that goes on from there must end as that one
did, bit for bit; a micro-batch that the watchdog took is computed again. A model with no room for a copy of what an
update replaces may say that it is torn, and saves nothing then. The other trials are exports over an older one, and
answers and scores between runs: the model must be as it was, the old export whole, and the next one right. Prints a
line for each kind and place, and every trial that failed; exit status 1 where one did. With `--as-gpu` the kit takes
the machine for an Apple GPU: updates are compiled, weights are bfloat16, and passes are in forms that were timed.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TUNEBOOK_UI": "off"}
WORK = Path(tempfile.mkdtemp(prefix="faults-"))
os.environ["TUNEBOOK_CACHE"] = str(WORK / "cache")
sys.path.insert(0, str(Path(__file__).parents[1]))

import mlx.core as mx  # noqa: E402

from tests.makers.failing_gpu import (  # noqa: E402
    BROKEN,
    OUT_OF_MEMORY,
    WATCHDOG,
    Failing,
    Leaves,
    digests,
    evaluations,
)
from tests.makers.tiny import tiny_model_folder  # noqa: E402
from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402
from tunebook.events import EvalEvent, Event, Notice, RunStarted, SampleEvent, StepEvent  # noqa: E402
from tunebook.machine import runtime  # noqa: E402
from tunebook.train.kept.checkpoint import checkpoint_folders, read_checkpoint, step_of  # noqa: E402

STEPS = 5
ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": "the dog " * (1 + n % 5)}]}
    for n in range(12)
]
TUNED = ("lora", "lora", "dora", "dora", "full", "full", "full in bfloat16", "full without room")
OPTIMIZERS = ("adamw", "adafactor", "lion", "sgd", "muon")
LEAVES: tuple[Leaves, ...] = ("nothing computed", "everything computed", "NaN", "NaN", "numbers", "numbers")
UPDATE = "train/step.py _update"
EXPORTS: dict[str, Callable[[FastModel, Path], object]] = {
    "lora": lambda model, out: model.save_pretrained(out),
    "peft": lambda model, out: model.save_pretrained(out, format="peft"),
    "lora gguf": lambda model, out: model.save_pretrained(out, format="gguf"),
    "merged": lambda model, out: model.save_pretrained_merged(out),
    "merged 4-bit": lambda model, out: model.save_pretrained_merged(out, save_method="merged_4bit"),
    "gguf": lambda model, out: model.save_pretrained_gguf(out, quantization_method=["f32", "q8_0"]),
}
LOOKS: dict[str, Callable[[Trainer, FastModel], object]] = {
    "a score": lambda trainer, _: trainer.evaluate().loss,
    "an answer": lambda _, model: model.generate("Say 3.", max_tokens=5),
}
WHOLE, TORN = "as undisturbed", "torn, and told so"

Arrays = dict[str, str]  # dotted name -> digest of its contents


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    tuned: str
    optim: str
    compiled: bool
    accumulation: int
    recomputed: bool


@dataclass
class Course:
    """A run as far as it came."""

    step: int | None = None  # None: it did not begin
    notices: list[str] = field(default_factory=list)
    end: dict[str, Any] | None = None  # what it came to
    error: Exception | None = None


@dataclass
class Truth:
    """The run that nobody disturbs."""

    trainer: Trainer
    model: FastModel
    end: dict[str, Any]
    weights: dict[int, Arrays]  # after each step, those that are frozen too
    states: dict[int, Arrays]  # of the optimizer
    places: list[str]  # of its evaluations


@dataclass
class Trial:
    """What failed, and what was found afterwards."""

    kind: str
    faults: list[Failing]
    outcome: str  # WHOLE or TORN, or what is wrong
    details: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first trial")
    parser.add_argument("--as-gpu", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.as_gpu:
        runtime.backend, runtime.default_dtype = lambda: "metal", lambda _: mx.bfloat16
    trials: list[Trial] = []
    try:
        for number in itertools.count(options.first):
            if sum(bool(trial.faults) for trial in trials) == options.trials:
                break  # where what was to fail never came, another is drawn
            draw = random.Random(f"{options.seed} {number}")
            [tried] = draw.choices((try_run, try_export, try_look), (70, 22, 8))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                trial = tried(WORK / f"trial-{number}", draw)
            shutil.rmtree(WORK / f"trial-{number}", ignore_errors=True)
            trials.append(trial)
            if trial.outcome not in (WHOLE, TORN):
                print(f"trial {number}: {trial}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(WORK)
    failed = [trial for trial in trials if trial.outcome not in (WHOLE, TORN)]
    if options.json:
        print(json.dumps({"trials": options.trials, "failed": [str(trial) for trial in failed]}))
    else:
        found = collections.Counter(
            (trial.kind, fault.place, trial.outcome) for trial in trials for fault in trial.faults
        )
        for (kind, place, outcome), count in sorted(found.items()):
            print(f"{count:4d}  {kind:18s} {place:44s} {outcome}")
        print(f"{options.trials} trials, {len(failed)} failed")
    return 1 if failed else 0


def try_run(folder: Path, draw: random.Random) -> Trial:
    """A run that a GPU ends once or twice, and that then goes on, in the same kernel or in another."""
    setting = drawn_setting(draw)
    truth, save_steps, same_kernel = undisturbed(setting), draw.choice((1, 2, None)), draw.random() < 0.5
    faults = [drawn_fault(truth.places, draw) for _ in range(draw.choice((1, 1, 2)))]
    if setting.tuned == "full without room" and draw.random() < 0.5:
        faults[0] = drawn_fault([place for place in truth.places if place == UPDATE], draw)
    trial = Trial(setting.tuned, [], WHOLE, f"{setting}, save_steps={save_steps}, same_kernel={same_kernel}")
    trainer, course = new_trainer(setting, folder, save_steps)[0], Course()
    for fault in [*faults, None]:
        with evaluations(fault) as seen:
            course = run(trainer)
        if fault is not None and seen.failed:
            trial.faults.append(fault)
        if course.end is not None:
            break
        is_torn = any("of no step" in text for text in course.notices)
        wrong = wrong_after(course, trainer, truth, newest_checkpoint(folder), is_torn=is_torn)
        if not seen.failed or not isinstance(course.error, RuntimeError | MemoryError):
            wrong = f"it ended with {course.error!r}"
        if wrong is None and is_torn and setting.tuned != "full without room":
            wrong = "torn, though there was room"
        if wrong is not None:
            trial.outcome = wrong
            return trial
        trial.outcome = TORN if is_torn else trial.outcome
        if is_torn or not same_kernel:
            trainer = new_trainer(setting, folder, save_steps)[0]
    if course.end is None or course.end != truth.end:
        others = [name for name in truth.end if course.end is None or course.end[name] != truth.end[name]]
        trial.outcome = f"another end: {', '.join(others)}"
    return trial


def wrong_after(course: Course, trainer: Trainer, truth: Truth, newest: Path | None, *, is_torn: bool) -> str | None:
    """What is wrong with what a run that failed left in the model and on the disk."""
    if course.step is not None and not is_torn:
        module, step = trainer.loaded.module, course.step
        if digests(module.parameters()) != truth.weights[step]:
            return f"other weights after step {step}: {differing(digests(module.parameters()), truth.weights[step])}"
        if digests(state_of(trainer)) != truth.states[step]:
            return f"another state of the optimizer after step {step}"
        if newest is None or step_of(newest) != step:
            return f"step {step} is not on the disk, but {newest and newest.name}"
    if newest is not None:
        kept, step = read_checkpoint(newest), step_of(newest)
        trained = digests(trainer.loaded.module.trainable_parameters())
        if digests(kept.weights) != {name: truth.weights[step][name] for name in trained}:
            return f"other weights in the checkpoint of step {step}"
        if digests(kept.optimizer_state) != truth.states[step]:
            return f"another state of the optimizer in the checkpoint of step {step}"
    return None


def try_export(folder: Path, draw: random.Random) -> Trial:
    """An export that a GPU ends, over an older one."""
    tuned = draw.choice(("lora", "dora", "full", "full in bfloat16"))
    kinds = [
        kind for kind in EXPORTS if tuned == "lora" or kind in ("merged", "gguf") or (tuned, kind) == ("dora", "lora")
    ]
    kind = draw.choice(kinds)
    truth, (places, wanted) = undisturbed(plain(tuned)), exported(tuned, kind)
    if not places:
        return Trial(f"export: {kind}", [], WHOLE, tuned)  # it writes what is there
    fault = drawn_fault(places, draw)
    trial = Trial(f"export: {kind}", [fault], WHOLE, tuned)
    out = folder / "out"
    EXPORTS[kind](new_trainer(plain(tuned), None, None)[1], out)
    old = files(out)
    leave_key_pending()
    with evaluations(fault) as seen:
        error = raised_by(lambda: EXPORTS[kind](truth.model, out))
    if not seen.failed or not isinstance(error, RuntimeError | MemoryError):
        trial.outcome = f"it ended with {error!r}"
    elif digests(truth.model.module.parameters()) != truth.weights[STEPS]:
        trial.outcome = "other weights in the model"
    elif files(out) != old:
        trial.outcome = "the old export is not there any more"
    elif (error := raised_by(lambda: EXPORTS[kind](truth.model, out))) or files(out) != wanted:
        trial.outcome = f"another export afterwards ({error!r})"
    elif left := [path.name for path in folder.rglob("*") if "partial" in path.name or path.name.startswith(".")]:
        trial.outcome = f"left over: {left}"
    return trial


def try_look(_: Path, draw: random.Random) -> Trial:
    """A score or an answer, between runs, that a GPU ends."""
    tuned, kind = draw.choice(("lora", "dora", "full")), draw.choice(list(LOOKS))
    truth = undisturbed(plain(tuned))
    before = LOOKS[kind](truth.trainer, truth.model), truth.model.module.training
    with evaluations() as seen:
        LOOKS[kind](truth.trainer, truth.model)
    fault = drawn_fault(seen.places, draw)
    trial = Trial(kind, [fault], WHOLE, tuned)
    with evaluations(fault) as seen:
        error = raised_by(lambda: LOOKS[kind](truth.trainer, truth.model))
    if not seen.failed or not isinstance(error, RuntimeError | MemoryError):
        trial.outcome = f"it ended with {error!r}"
    elif digests(truth.model.module.parameters()) != truth.weights[STEPS]:
        trial.outcome = "other weights in the model"
    elif (LOOKS[kind](truth.trainer, truth.model), truth.model.module.training) != before:
        trial.outcome = "another answer afterwards"
    return trial


def differing(found: Arrays, wanted: Arrays) -> str:
    """How many arrays differ, and the first of them."""
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return f"{len(names)} of {len(wanted)} arrays, the first {names[:1]}"


def drawn_setting(draw: random.Random) -> Setting:
    tuned = draw.choice(TUNED)
    return Setting(
        tuned=tuned,
        optim="adamw" if tuned == "full without room" else draw.choice(OPTIMIZERS),  # it remembers most
        compiled=draw.random() < 0.4,
        accumulation=draw.randint(1, 3),
        recomputed=draw.random() < 0.2,
    )


def plain(tuned: str) -> Setting:
    return Setting(tuned, "adamw", compiled=False, accumulation=1, recomputed=False)


def drawn_fault(places: list[str], draw: random.Random) -> Failing:
    """One evaluation, each place as likely as the others; the watchdog may come back at once."""
    place = draw.choice(sorted(set(places)))
    said = draw.choice((OUT_OF_MEMORY, WATCHDOG, WATCHDOG, BROKEN))
    return Failing(
        place=place,
        nth=draw.randrange(places.count(place)),
        times=draw.choice((1, 2)) if said == WATCHDOG else 1,
        said=said,
        leaves=draw.choice(LEAVES),
    )


def new_trainer(setting: Setting, out: Path | None, save_steps: int | None) -> tuple[Trainer, FastModel]:
    if runtime.backend() == "cpu":  # every run proves its passes for itself; by time they may come out otherwise
        shutil.rmtree(WORK / "cache" / "forms", ignore_errors=True)
    full = setting.tuned.startswith("full")
    model, _ = FastModel.from_pretrained(
        base(setting.tuned),
        max_seq_length=128,
        full_finetuning=full,
        dtype="bfloat16" if setting.tuned == "full in bfloat16" else None,
    )
    if not full:
        FastModel.get_peft_model(model, r=4, lora_dropout=0.1, use_dora=setting.tuned == "dora")
    args = TrainingConfig(
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=setting.accumulation,
        optim=setting.optim,
        learning_rate=5e-3,
        warmup_steps=1,
        neftune_noise_alpha=5,
        compile=setting.compiled,
        gradient_checkpointing=setting.recomputed,
        eval_steps=2,
        sample_steps=2,
        sample_max_tokens=4,
        save_steps=save_steps,
        save_total_limit=None,
        load_best_model_at_end=True,
        output_dir=str(out) if out else None,
    )
    return Trainer(model, train_dataset=ROWS, eval_dataset=ROWS[:3], args=args), model


@cache
def base(tuned: str) -> Path:
    sizes = {"hidden_size": 384, "intermediate_size": 2048, "head_dim": 96} if tuned == "full without room" else {}
    return tiny_model_folder(WORK / f"base-{len(sizes)}", **sizes)


def state_of(trainer: Trainer) -> Any:
    assert trainer._run is not None
    return trainer._run._stepper.optimizer.state


@cache
def undisturbed(setting: Setting) -> Truth:
    trainer, model = new_trainer(setting, WORK / f"whole-{setting}", None)
    weights: dict[int, Arrays] = {}
    states: dict[int, Arrays] = {}

    def look(event: Event) -> None:
        if isinstance(event, RunStarted | StepEvent):
            weights[event.step] = digests(model.module.parameters())
            states[event.step] = digests(state_of(trainer))

    with evaluations() as seen:
        course = run(trainer, look)
    if course.end is None:
        raise SystemExit(f"The run that nobody disturbs failed ({setting}): {course.error!r}")
    weights[STEPS], last = digests(model.module.parameters()), weights[STEPS]
    return Truth(trainer, model, course.end, {**weights, STEPS: last}, states, seen.places)


def run(trainer: Trainer, look: Callable[[Event], None] = lambda _: None) -> Course:
    """Train, from a checkpoint where there is one, to an end or an error."""
    course = Course()

    def note(event: Event) -> None:
        if isinstance(event, RunStarted | StepEvent):
            course.step = event.step
        if isinstance(event, Notice):
            course.notices.append(event.text)
        look(event)

    trainer._listeners = [("note", note)]
    trainer._shows_progress = True
    place = trainer.config.output_dir
    try:
        result = trainer.train(resume_from_checkpoint=place and newest_checkpoint(Path(place)) is not None)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked at)
        course.error = error
        return course
    course.end = {
        "reason": str(result.reason),
        "weights": digests(trainer.loaded.module.parameters()),
        "state of the optimizer": digests(state_of(trainer)),
        "steps": [[e.step, e.loss, e.lr, e.grad_norm, e.num_tokens] for e in result.steps if isinstance(e, StepEvent)],
        "scores": [[e.step, e.loss] for e in result.evals if isinstance(e, EvalEvent)],
        "samples": [[e.step, e.prompt, e.text] for e in result.samples if isinstance(e, SampleEvent)],
    }
    return course


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest of the newest run that has any."""
    runs = sorted(folder.glob("run-*"), reverse=True)
    return next((saved[-1] for run_folder in runs if (saved := checkpoint_folders(run_folder))), None)


@cache
def exported(tuned: str, kind: str) -> tuple[list[str], dict[str, str]]:
    """(the places of the evaluations of an export nobody disturbs, the files it writes)."""
    out = WORK / f"{tuned} {kind}" / "out"
    leave_key_pending()
    with evaluations() as seen:
        EXPORTS[kind](undisturbed(plain(tuned)).model, out)
    return seen.places, files(out)


def leave_key_pending() -> None:
    """Leave MLX's random state as training leaves it: the key of the next draw is not evaluated."""
    mx.eval(mx.random.uniform(shape=(2,)))


def files(folder: Path) -> dict[str, str]:
    """The digest of each file."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in found}


def raised_by(do: Callable[[], object]) -> Exception | None:
    try:
        do()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked at)
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
