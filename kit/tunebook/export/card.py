"""The model card, README.md of an exported folder: what was trained on what, how it went, how to open the result.

It holds what the model and its latest run say themselves. What is not known is left out; paths of this machine, the
rows and the prompts never enter it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..events import EvalEvent, Event, RunEnded, RunStarted, ScoreEvent, StepEvent
from ..machine.inert import one_line
from ..models.adapters import describe, parameter_counts, trained_whole
from ..models.families.base import Library
from ..models.loaded import Loaded
from ..runs.best import BY_LOSS, Yardstick
from .usage import Form, how_to_open

_LIBRARIES: dict[Form, Literal["mlx", "peft", "gguf"]] = {
    "lora": "mlx",
    "peft": "peft",
    "merged": "mlx",
    "merged for mlx-lm": "mlx",
    "gguf": "gguf",
}

_TASKS: dict[Library, str] = {"mlx-lm": "text-generation", "mlx-vlm": "image-text-to-text"}


def model_card(
    loaded: Loaded,
    events: Sequence[Event],
    form: Form,
    *,
    place: str,
    hub: bool = False,
    stored: str | None = None,
    files: Sequence[str] = (),
) -> str:
    """Markdown with the front matter the Hugging Face hub reads.

    `events` are those of the latest run, none when it is not known. `place` is what the code on the card opens: a
    folder's name or, with `hub`, a repository's id. `stored` says in what type whole weights are, `files` are the names
    of GGUF files.
    """
    base = hub_id(loaded.name)
    front = [f"base_model: {json.dumps(base)}"] if base else []
    front += [f"library_name: {_LIBRARIES[form]}", f"pipeline_tag: {_TASKS[loaded.family.library]}", "tags:"]
    tags = dict.fromkeys(("tunebook", _LIBRARIES[form], *(["lora"] if form in ("lora", "peft") else [])))
    front += [f"- {tag}" for tag in tags]
    kept = [("stored as", stored)] if stored else []
    facts = [*_of_model(loaded), *kept, *_of_run(events), *_versions()]
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {_heading(place.rpartition('/')[2])}",
        "\n".join(["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts)]),
        how_to_open(
            form,
            base=base or short_name(loaded.name),
            place=place,
            hub=hub,
            files=files,
            chats=_chats(loaded),
            library=loaded.family.library,
        ),
    ]
    return "\n\n".join(sections) + "\n"


def hub_id(name: str) -> str | None:
    """`name` when it is a model's id on the Hugging Face hub; None for a path."""
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) and not Path(name).exists() else None


def short_name(name: str) -> str:
    """The last part of a path, without the folders it lies in."""
    return Path(name).name.removesuffix(".gguf")


def _line(text: str) -> str:
    """Text in one line, with what is not to be seen named."""
    return " ".join(one_line(text).split())


def _heading(text: str) -> str:
    """Text that Markdown takes for text, and HTML too."""
    return re.sub(r"[\\`*\[\]<>#|~&!$]|(?<!\w)_|_(?!\w)", lambda found: f"\\{found[0]}", _line(text)) or "model"


def _code(text: str) -> str:
    """Text as a span of code, whatever runs of backticks are in it."""
    line = _line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def _cell(text: str) -> str:
    """Text that stays within its cell of a table; in spans of code too a bar is escaped."""
    return _line(text).replace("|", "\\|")


def _chats(loaded: Loaded) -> bool:
    return bool(loaded.tokenizer.has_chat_template)


def _of_model(loaded: Loaded) -> Iterator[tuple[str, str]]:
    base = hub_id(loaded.name)
    yield "base model", f"[{base}](https://huggingface.co/{base})" if base else _code(short_name(loaded.name))
    if "quantization" in loaded.config:
        bits, mode = loaded.config["quantization"]["bits"], loaded.config["quantization"].get("mode", "affine")
        yield "base held in", f"{bits} bits ({mode}, groups of {loaded.config['quantization']['group_size']})"
    trainable, total = parameter_counts(loaded.module)
    adapters = describe(loaded.module)
    if adapters is not None:
        lora = adapters["lora_parameters"]
        kind = "DoRA" if adapters["fine_tune_type"] == "dora" else "LoRA"
        strength = f"rank {lora['rank']}, alpha {lora['scale'] * lora['rank']:g} (over the rank)"
        leaves = sorted({path.rpartition(".")[2] for path in lora["keys"]})
        yield "method", f"{kind}, {strength}, dropout {lora['dropout']:g}"
        yield "adapted", f"{len(lora['keys'])} layers: {', '.join(leaves)}"
        if whole := trained_whole(loaded.module):
            yield "trained whole", ", ".join(sorted({name.rpartition(".")[0] for name in whole}))
    elif trainable:
        yield "method", "full fine-tuning" if trainable == total else "fine-tuning of some modules"
    if trainable:
        yield "trained parameters", f"{trainable / 1e6:.2f} M of {total / 1e6:.1f} M"


def _of_run(events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """What the latest run says of itself; nothing when it has not begun."""
    started = [event for event in events if isinstance(event, RunStarted)]
    if not started:
        return
    run, config = started[-1], started[-1].config
    rows = "a stream of" if run.train_rows is None else run.train_rows
    yield "data", f"{rows} rows to train on, {run.eval_rows} held out"
    steps = [event for event in events if isinstance(event, StepEvent)]
    if steps:
        yield "steps", f"{steps[-1].step} of {run.total_steps}, {steps[-1].num_tokens} supervised tokens"
        yield (
            "training loss",
            f"{steps[0].loss:.4f} in the first step, {steps[-1].loss:.4f} in the last (nats per token)",
        )
    evals = [event for event in events if isinstance(event, EvalEvent)]
    if len(evals) > 1 and (best := BY_LOSS.best(BY_LOSS.measured(evals, []))):
        said = f"{evals[0].loss:.4f} at step {evals[0].step}, {evals[-1].loss:.4f} at step {evals[-1].step}"
        yield "held-out loss", f"{said}; the lowest was {best.value:.4f} at step {best.step}"
    yield from _of_exam([event for event in events if isinstance(event, ScoreEvent)], config)
    if config:
        rows = config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
        optimizer = f"{config['optim']}, learning rate {config['learning_rate']:g}, {config['lr_scheduler_type']}"
        yield "optimizer", f"{optimizer}, {rows} rows a step, seed {config['seed']}"
    ended = [event for event in events if isinstance(event, RunEnded)]
    if ended:
        yield "run", f"{ended[-1].reason.replace('_', ' ')} after {ended[-1].elapsed / 60:.1f} minutes"


def _of_exam(scores: Sequence[ScoreEvent], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the run's exam came to, metric by metric: the last score, and the best where the run went by it."""
    if not scores:
        return
    last = scores[-1]
    for metric in last.scores:
        by = Yardstick(metric=metric, exam=last.exam, higher_is_better=metric not in last.lower_is_better)
        best = by.best(by.measured([], scores)) if metric == config.get("metric_for_best_model") else None
        shown = {last.step: last, **{event.step: event for event in scores if best and event.step == best.step}}
        said = [_score(event, metric, is_best=best is not None and step == best.step) for step, event in shown.items()]
        yield f"exam, {_code(metric)}", "; ".join(said)


def _score(event: ScoreEvent, metric: str, *, is_best: bool) -> str:
    rows = event.rows - event.not_scored.get(metric, 0)
    told = event.told.get(metric, f"{event.scores[metric]:.4g} over {rows} rows").removeprefix(f"{metric}: ")
    since = event.since_start.get(metric, "").removeprefix(f"{metric}: ").removesuffix(".")
    said = f"at step {event.step}{', the best' if is_best else ''}: {told.removesuffix('.')}"
    return said + (f" (since the first: {since})" if since else "")


def _versions() -> Iterator[tuple[str, str]]:
    yield "made with", ", ".join(f"{name} {version(name)}" for name in ("tunebook", "mlx", "mlx-lm", "transformers"))
