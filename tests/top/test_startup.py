"""`import tunebook` is light, and a run never loads torch (machine/without_torch.py). Each in a fresh process."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

HEAVY = ("datasets", "mlx", "mlx_lm", "numpy", "torch", "transformers")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "USE_TORCH"}
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def answer(program: str, **environment: str):
    """What `program` prints as JSON on its last line, in a process of its own."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**ENVIRONMENT, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def modules_behind(name: str) -> int:
    """How many modules a fresh process has more when it imports `name`. `bench/startup.py` measures the seconds."""
    return answer(f"import sys; before = len(sys.modules); import {name}; print(len(sys.modules) - before)")


def test_importing_tunebook_loads_hardly_more_modules_than_importing_numpy():
    assert modules_behind("tunebook") < 1.2 * modules_behind("numpy")


def test_importing_tunebook_loads_nothing_heavy():
    assert answer(f"import json, sys, tunebook; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))") == []


def test_tab_finds_what_there_is_to_write_and_nothing_else():
    shown = answer("import json, tunebook, tunebook_widgets as w; print(json.dumps([dir(tunebook), dir(w)]))")
    assert {"FastModel", "Trainer", "hold_out", "samples"} < set(shown[0])
    assert {"Dashboard", "TokenView"} < set(shown[1])
    assert not {"Any", "import_module", "torch_unseen"} & {*shown[0], *shown[1]}


def test_a_trainer_draws_nothing_before_it_is_asked_to():
    assert (
        answer("import json, sys; from tunebook import Trainer; print(json.dumps('matplotlib' in sys.modules))")
        is False
    )


RUN = """
import json, sys
from tunebook import FastModel, Trainer, TrainingConfig

folder, rows = {folder!r}, {rows!r}
model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=128)
FastModel.get_peft_model(model, r=4)
trainer = Trainer(model, tokenizer, train_dataset=rows, eval_dataset=rows, args=TrainingConfig(max_steps=2))
trainer.train()
trainer.evaluate()
model.generate("Say", max_tokens=2)
print(json.dumps("torch" in sys.modules))
"""


@needs_torch
def test_a_run_with_torch_installed_never_loads_it(tiny_folder, rows, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert answer(RUN.format(folder=str(tiny_folder), rows=str(file))) is False


DOORS = [
    "from tunebook.compat.unsloth import FastLanguageModel, SFTTrainer",
    "from tunebook.compat.mlx_lm import trainer_from",
    "from tunebook.memory import estimate",
    "from tunebook.objectives import DPO",
    "from tunebook.scores import Exam",
    "import tunebook_widgets as widgets; widgets.Chat, widgets.TokenView",
]


@needs_torch
@pytest.mark.parametrize("first", DOORS)
def test_nor_does_what_is_imported_before_all_else(first):
    assert answer(f"import json, sys; {first}; print(json.dumps('torch' in sys.modules))") is False


@needs_torch
def test_the_parity_lab_says_so_where_it_comes_too_late_and_works_where_torch_came_first():
    asked = "from tunebook import FastModel, parity; FastModel"
    late = f"""
import json
{asked}
try:
    parity.bisect
    print(json.dumps(""))
except ImportError as error:
    print(json.dumps(str(error)))
"""
    assert "`import torch` before Tunebook" in answer(late)
    assert answer(f"import torch, json; {asked}; print(json.dumps(parity.bisect.__name__))") == "bisect"


AS_MAIN = """
import json, runpy, sys
sys.argv = {words!r}
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end
print()
print(json.dumps(["torch" in sys.modules, "transformers" in sys.modules]))
"""


@needs_torch
def test_neither_a_job_nor_what_reads_an_export_ever_loads_it(adapted, tiny_folder, rows, tmp_path):
    from tunebook import Trainer, TrainingConfig
    from tunebook.export.readback.mlx_lm_reader import Question

    args = TrainingConfig(max_steps=1, hold_out=0)
    job = Trainer(adapted, train_dataset=rows, args=args).save_job(tmp_path / "job")
    assert answer(AS_MAIN.format(module="tunebook", words=["tunebook", "train", str(job)])) == [False, True]
    question = Question(model=str(tiny_folder), rows=[{"tokens": [1, 2, 3], "mask": [0, 1, 1]}], texts=[])
    question.save(file := tmp_path / "question.json")
    reader = AS_MAIN.format(module="tunebook.export.readback.mlx_lm_reader", words=["", str(file)])
    assert answer(reader) == [False, True]


LOOKED = """
import importlib.util, json, sys
{first}
from tunebook.machine.without_torch import torch_unseen
with torch_unseen():
    inside = importlib.util.find_spec("torch") is not None
print(json.dumps([inside, importlib.util.find_spec("torch") is not None]))
"""


@needs_torch
@pytest.mark.parametrize(
    ("first", "switch", "seen"),
    [("", "", False), ("", "1", True), ("sys.modules['transformers'] = sys", "", True)],
)
def test_torch_is_hidden_for_a_while_and_from_nobody_who_asked_for_it(first, switch, seen):
    assert answer(LOOKED.format(first=first), USE_TORCH=switch) == [seen, True]
