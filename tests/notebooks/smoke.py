"""Every tutorial on a small scale: copies with smaller values and a few claims, for pytest's plugin nbmake to execute.

    python -m tests.notebooks.smoke FOLDER [NAME ...]     # then: pytest --nbmake FOLDER

nbmake puts the values in place of those of the cell tagged `parameters` when that has run (`mock` in its metadata),
and runs the claims behind the cell they belong to (`post_cell_execute`). Neither is seen by a reader of the tutorials.
Lines that only a whole run can pass are left out.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@dataclass(frozen=True)
class Smoke:
    """How a tutorial is executed on a small scale."""

    values: Mapping[str, Any]  # a name of its parameters cell -> its value here
    claims: Mapping[str, str]  # a piece of a cell that no other has -> what holds when that has run
    left_out: Sequence[str] = ()  # pieces of lines that ask for what so few steps cannot reach


SMOKES = {
    "00_check_my_mac": Smoke(
        {"STEPS": 2, "BATCH_SIZE": 2, "BATCH_SIZES": [1, 2], "LENGTHS": [32], "TOO_LARGE": [256, 128]},
        {
            "too_much = widgets.FitCheck": "assert not too_much.estimate.fits and too_much.estimate.remedies",
            "asked = {": "assert len(asked) == 2 and all(need.fits for need in asked.values())",
            "result = await": "assert len(result.steps) == STEPS",
        },
        ["report"],  # two trainers and their processes, which `tests/parity/test_speed.py` starts on a smaller scale
    ),
    "01_quickstart": Smoke(
        {
            **{"MAX_SEQ_LENGTH": 160, "BATCH_SIZE": 1, "GRADIENT_ACCUMULATION": 1, "MAX_STEPS": 2},
            **{"HELD_OUT_ROWS": 2, "EXAM_ROWS": 1},
        },
        {
            "await trainer.train_async()": "assert len(result.steps) == MAX_STEPS and len(result.evals) == 3",
            "scores.compare(base, tuned)": "assert len(tuned.rows) == EXAM_ROWS",
            "tunebook.ExportTable": "assert all(one.verification.passed for one in [lora, merged, *gguf_files])",
        },
    ),
    "02_vision": Smoke(
        {"HELD_OUT_ROWS": 64, "EPOCHS": 1, "LORA_EPOCHS": 1},
        {
            "result = await trainer.train_async()": "assert result.evals[-1].loss < result.evals[0].loss",
            'reader = model.save_pretrained_merged(Path(OUTPUT) / "reader"': "assert reader.verification.passed",
            "widgets.compare(list(runs.values())": "assert len(runs) == 2",
            "tunebook.ExportTable": "assert lora.verification.passed and merged.verification.passed",
        },
    ),
    "03_parity_lab": Smoke(
        {"LAYERS": 4, "ROWS": 4, "STEPS": 4, "SEEDS": 2},
        {
            "report = parity.bisect": "assert not [one for one in report.findings if one.verdict == 'beyond']",
            "stages=until_curve": "assert list(parity.FAULTS.values())[SUSPECT].stage in found.sentence",
        },
    ),
    "04_continued_pretraining": Smoke(
        {"STEPS": 16, "STOPPED_AT": 6},
        {
            "trainer.stop() if step == STOPPED_AT": "assert settings.max_steps == STEPS",
            "resume_from_checkpoint=True": "assert [step.step for step in result.steps] == list(range(1, STEPS + 1))",
            "saved = model.save_pretrained_merged": "assert saved.verification.passed",
        },
    ),
    "05_preferences": Smoke(
        {
            **{"SOURCE_CHARACTERS": [30, 80], "START_STEPS": 1, "STEPS": 2, "PAIRS": 1},
            **{"HELD_OUT_PAIRS": 2, "ANSWER_TOKENS": 4},
        },
        {
            "dpo_result = await": "import math; assert abs(dpo_result.evals[0].loss - math.log(2)) < 1e-3",
            "orpo_result = await": "assert len(orpo_result.steps) == STEPS",
            'Path(OUTPUT) / "lora"': "assert (Path(OUTPUT) / 'lora' / 'adapters.safetensors').exists()",
        },
        [".require(", "assert "],
    ),
    "06_did_it_help": Smoke(
        {"STEPS": 1, "EXAM_ROWS": 1, "ABILITY_ROWS": 1, "HARSH_STEPS": 3, "HARSH_ROWS": 12, "ANSWER_TOKENS": 4},
        {
            "result = await trainer.train_async()": "assert len(result.steps) == STEPS",
            "table = scores.compare(base, tuned, *exported)": "assert len(table.marks) == 6",
            "harsh_result = await": "assert len(harsh_result.scores) == 4",
        },
        [".require(", "assert "],
    ),
    "07_overnight": Smoke(
        {"STEPS": 5, "SAVE_STEPS": 2, "ABORTED_AFTER": 3, "HELD_OUT_ROWS": 2},
        {
            "runs.append(trainer.start())": "assert [one.place for one in jobs.queue()] == [1, 2]",
            "os.kill(run.pid, signal.SIGABRT)": "assert len(result.steps) == STEPS",
            "trainer.start(processes=2)": "assert len(result.steps) == STEPS",
        },
    ),
    "08_your_own_data": Smoke(
        {"STEPS": 2, "EXAM_ROWS": 3, "ANSWER_TOKENS": 8},
        {
            "quick = Trainer(": "assert len(quick.data.notices) == 4 and 'line 53' in quick.data.notices[3]",
            "swapped = [": "assert len(rows) == 231 and len(odd) == 2 and len(swapped) == 1",
            "result = await": "assert len(result.steps) == STEPS and len(train_rows) == 231 - EXAM_ROWS",
        },
        [".require("],
    ),
    "09_tools_and_json": Smoke(
        {"STEPS": 2, "EXAM_ROWS": 3, "ANSWER_TOKENS": 8},
        {
            "bad = widgets.TokenView(": "assert 'leaves its tools out' in bad.ailments[0].text",
            "call_schema = {": "assert base.scores['tool_call'] == 0 and len(base.metrics) == 4",
            "result = await": "assert len(result.steps) == STEPS and len(result.scores) == 3",
        },
        [".require("],
    ),
    "10_another_field": Smoke(
        {
            **{"TEXTS": 24, "TEXT_STEPS": 4, "QUESTIONS": 24, "QUESTION_STEPS": 2},
            **{"HELD_OUT": 3, "ABILITY_ROWS": 2, "ANSWER_TOKENS": 4},
        },
        {
            "stage_1_run = await": "assert stage_1_run.evals[-1].loss < stage_1_run.evals[0].loss",
            "stage_1 = [": "assert stage_1[0]['raw_text'] < base[0]['raw_text']",
            "stage_2_run = await": "assert len(stage_2_run.steps) == QUESTION_STEPS",
        },
        ["assert "],
    ),
    "11_take_it_with_you": Smoke(
        {"STEPS": 2, "EXAM_ROWS": 2, "CHECK_ROWS": 1, "GGUF_TYPES": ["f16", "q4_0"]},
        {
            "lora = model.save_pretrained": "assert lora.verification.passed and peft.verification.passed",
            "merged = model.save_pretrained_merged": "assert merged.verification.passed",
            "marks = [": "assert len(marks) == 2 and all(len(mark.rows) == EXAM_ROWS for mark in marks)",
        },
    ),
    "12_turn_the_knobs": Smoke(
        {
            **{"TRIES": 4, "RANKS": [2, 4], "RATES": [1e-3], "SEEDS": [1], "SHORT_STEPS": 2, "STEPS": 2},
            **{"HELD_OUT_ROWS": 2, "ANSWER_TOKENS": 4},
        },
        {
            "trainer.find_learning_rate(": "assert len(found.losses) == len(found.rates) + 1 <= TRIES + 1",
            "results = {pair": "assert all(len(result.steps) == SHORT_STEPS for result in results.values())",
            "tuned = exam.take(model)": "assert len(tuned.rows) == HELD_OUT_ROWS",
        },
        ["assert "],
    ),
    "13_the_clinic": Smoke(
        {"STEPS": 2, "STOPPED_AT": 1, "TOO_LARGE": [512, 64], "WILD_STEPS": 3, "LONG_STEPS": 3},
        {
            "resumed = await": "assert is_same and resumed.steps[-1].step == STEPS",
            "too_much = widgets.FitCheck": "assert not too_much.estimate.fits and too_much.estimate.remedies",
            "exploded = await": "assert not exploded.steps[-1].loss < 2 * exploded.steps[0].loss",
            "twice = [": "assert widgets.TokenView(model, twice).report.findings[0].kind == 'markup'",
        },
        ["assert abs(now"],
    ),
}


def small_copy(name: str, folder: Path) -> Path:
    """A copy of a tutorial in `folder`, with its values and its claims, and without the lines it leaves out.

    Raises ValueError for a claim whose cell is not found once, a line that is not there, a value that is no parameter.
    """
    smoke, notebook = SMOKES[name], nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    [parameters] = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if unknown := [value for value in smoke.values if f"{value} = " not in parameters.source]:
        raise ValueError(f"{name} has no parameter {', '.join(unknown)}.")
    parameters.metadata["nbmake"] = {"mock": dict(smoke.values)}
    for piece, claim in smoke.claims.items():
        found = [cell for cell in cells if piece in cell.source]
        if len(found) != 1:
            raise ValueError(f"{len(found)} cells of {name} hold {piece!r}; a claim belongs to one.")
        found[0].metadata["nbmake"] = {"post_cell_execute": [claim]}
    for piece in smoke.left_out:
        if not any(piece in cell.source for cell in cells):
            raise ValueError(f"No cell of {name} holds {piece!r}.")
        for cell in cells:
            cell.source = "\n".join(line for line in cell.source.split("\n") if piece not in line)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def main() -> None:
    """Write the copies."""
    folder, *names = sys.argv[1:]
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    shutil.copytree(NOTEBOOKS / "images", place / "images", dirs_exist_ok=True)
    for name in names or SMOKES:
        print(small_copy(name, place))


if __name__ == "__main__":
    main()
