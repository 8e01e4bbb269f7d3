"""dashboard/dashboard.py: where a run shows itself (notebook, script, or nowhere), and what trainers of others say."""

import json
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

from tests.browser import rehearsal
from tests.browser.rehearsal import Rehearsal
from tests.widgets.dashboard.told_runs import cells_of, started_run, step_event
from tunebook_widgets import Dashboard
from tunebook_widgets.dashboard.terminal import TerminalScreen

WIDGET = "application/vnd.jupyter.widget-view+json"


def executed(folder: Path, *cells: str) -> nbformat.NotebookNode:
    """The notebook of these cells, run as nbconvert, nbmake and papermill run one."""
    (folder / "rehearsal.py").write_text(Path(rehearsal.__file__).read_text())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.mark.parametrize("ui", [None, "widget"])
def test_an_executed_notebook_keeps_the_picture_and_the_table_and_no_widget(tmp_path, monkeypatch, ui):
    monkeypatch.delenv("TUNEBOOK_UI", raising=False)
    if ui:
        monkeypatch.setenv("TUNEBOOK_UI", ui)
    notebook = executed(
        tmp_path,
        "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=12, seconds=0.01, eval_steps=6)\nDashboard(trainer)",
        "result = await trainer.train_async()",
    )
    upper, lower = notebook.cells[0].outputs
    assert set(upper.data) == {"image/png", "text/plain"}
    assert cells_of(lower.data["text/html"])["Steps"].startswith("12 of 12 in ")
    assert notebook.cells[1].outputs == []
    assert WIDGET not in json.dumps(notebook.cells)
    assert ("widgets" in notebook.metadata) == (ui == "widget")  # asked for in so many words, its state is recorded


def test_a_dashboard_nobody_showed_appears_in_the_cell_that_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("TUNEBOOK_UI", raising=False)
    notebook = executed(
        tmp_path,
        "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=2, seconds=0)\ndashboard = Dashboard(trainer)",
        "trainer.train();",
        "Dashboard(trainer).show()\ntrainer.train();",  # the newest dashboard shows the trainer, and it alone
        "dashboard",
    )
    kinds = [[sorted(output.data) for output in cell.outputs] for cell in notebook.cells]
    frozen = [["image/png", "text/plain"], ["text/html", "text/plain"]]
    assert kinds == [[], frozen, frozen, frozen]


def test_a_script_prints_a_line_a_second_and_every_rare_event(tmp_path):
    code = (
        "from tests.browser.rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=300, seconds=0.005, eval_steps=150, notice='A row was cut.')\n"
        "Dashboard(trainer).show()\ntrainer.train()"
    )
    printed = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    lines = printed.stdout.splitlines()
    steps = [line for line in lines if line.startswith("step") and "tok/s" in line]
    assert lines[0] == "Training example/rehearsal-135M: 300 steps, 400 rows."
    assert "step 0: A row was cut." in lines
    assert [line[:9] for line in lines if "held-out loss" in line][:3] == ["step 0: h", "step 150:", "step 300:"]
    assert 2 <= len(steps) <= 8
    assert steps[-1].startswith("step 300/300  loss 1.")
    assert lines[-1].startswith("Finished all 300 steps in ")
    assert printed.stderr == ""


def test_log_lines_are_a_second_apart():
    now, lines = [0.0], []
    screen, run = TerminalScreen(write=lines.append, clock=lambda: now[0]), started_run(total=1000)
    for step in range(1, 1001):
        now[0] += 0.1
        event = step_event(step, total=1000, elapsed=now[0])
        run.add(event)
        screen.update(run, event)
    seconds = [int(line.split("/")[0].removeprefix("step")) / 10 for line in lines]
    assert min(np.diff(seconds[:-1]).round(6)) >= 1.0
    assert seconds[-1] == 100.0


def test_off_says_nothing_at_all(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "off")
    trainer = Rehearsal(steps=3, seconds=0)
    Dashboard(trainer).show()
    trainer.train()
    assert capsys.readouterr().out == ""


def test_an_unknown_form_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("TUNEBOOK_UI", "fancy")
    with pytest.raises(ValueError, match="TUNEBOOK_UI is 'fancy'; set it to one of widget, html, text, off"):
        Dashboard()


def test_only_the_newest_dashboard_of_a_trainer_prints(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    trainer = Rehearsal(steps=3, seconds=0)
    Dashboard(trainer)
    Dashboard(trainer)
    trainer.train()
    assert capsys.readouterr().out.count("Training example/rehearsal-135M") == 1


def test_nine_arguments_are_enough_and_the_last_may_be_missing(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    dashboard = Dashboard()
    for step in (1, 2, 3):
        dashboard.on_step(step, 3, 2.0 / step, 1e-4, 500.0, 1.5, 2.0 * step, 100 * step)
    out = capsys.readouterr().out
    assert "step 3/3  loss 0.667  lr 1.00e-04  500 tok/s  1.50 GB  6.0 s" in out
    assert out.splitlines()[-1] == "Finished all 3 steps in 6.0 s · loss 2.000 → 0.667."


def test_steps_that_begin_again_are_a_new_run(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    dashboard = Dashboard()
    for step in (1, 2, 1, 2, 3):
        dashboard.on_step(step, 3, 1.0, 1e-4, 500.0, 1.5, 2.0 * step, 100 * step, 0.5)
    verdicts = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("step")]
    assert verdicts == [
        "Stopped after step 2 of 3 in 4.0 s · loss 1.000 → 1.000.",
        "Finished all 3 steps in 6.0 s · loss 1.000 → 1.000.",
    ]
