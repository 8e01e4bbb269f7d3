"""A run in a process of its own, in JupyterLab: the kernel is restarted, the page is loaded again, the run is there."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.lab import LabNotebook
from tests.browser.shown_runs import LIVE
from tunebook.events import CommandReceived, EndReason, RunEnded, StepEvent
from tunebook.runs.folder import read_events

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

# Each step takes two seconds, in which nothing is said.
CHILD = """
import sys, time
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Working
model, tokenizer = FastModel.from_pretrained(sys.argv[1], max_seq_length=128)
FastModel.get_peft_model(model, r=4, lora_alpha=8)
answer = {"role": "assistant", "content": "one two"}
rows = [{"messages": [{"role": "user", "content": f"count to {n}"}, answer]} for n in range(20)]
trainer = Trainer(model, tokenizer, train_dataset=rows[:16], eval_dataset=rows[16:], args=TrainingConfig(
    per_device_train_batch_size=2, gradient_accumulation_steps=1, max_steps=200, eval_steps=3, output_dir=sys.argv[2]))
trainer.subscribe(lambda event: isinstance(event, Working) and event.what == "training" and time.sleep(2))
print("the child says", trainer.train())
"""
BEGIN = """
import subprocess, sys, time
from pathlib import Path
from tunebook_widgets import Dashboard
if not Path({name!r}).exists():
    child = [sys.executable, "-u", "child.py", {folder!r}, {name!r}]
    subprocess.Popen(child, stdout=Path("child.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True)
while not Path({name!r}, "run-001").exists():
    time.sleep(0.1)
"""
SHOW = "Dashboard({place!r})"
FREE = "print('the kernel is free')"


def test_a_run_outlives_its_kernel_and_is_seen_whole_and_stopped_from_the_page_that_comes_after(
    chromium, lab, screenshots, tiny_folder
):
    (lab.folder / "child.py").write_text(CHILD)
    place = "apart/run-001"
    cells = [BEGIN.format(folder=str(tiny_folder), name="apart"), SHOW.format(place=place), FREE]
    with LabNotebook(chromium, lab, lab.write_notebook("apart.ipynb", cells)) as notebook:
        page = notebook.page
        headline = page.locator(".tunebook-headline")
        notebook.run_all()
        expect(headline).to_contain_text(re.compile(r"Step [2-9] of 200"), timeout=90_000)
        expect(notebook.outputs(2)).to_have_text("the kernel is free")
        page.screenshot(path=screenshots / "elsewhere-running.png")
        notebook.save()
        notebook._menu("Kernel", "Restart Kernel…")
        page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(page.locator(".tunebook-lost code")).to_have_text(f"Dashboard('{place}')", timeout=15_000)
        page.screenshot(path=screenshots / "elsewhere-lost.png")

        page.reload(wait_until="domcontentloaded")
        expect(notebook.outputs(1).last).to_contain_text(f"Dashboard('{place}') shows it again", timeout=60_000)
        page.screenshot(path=screenshots / "elsewhere-reloaded.png")
        notebook.run_all()
        expect(headline).to_contain_text(re.compile(r"Step \d+ of 200"), timeout=60_000)
        with second_viewer(chromium, lab, place) as second:
            expect(second.page.locator(".tunebook-headline")).to_contain_text(re.compile("of 200"), timeout=60_000)
            second.page.screenshot(path=screenshots / "elsewhere-narrow-dark.png")
            took = stopped_from(page, second.page)
            expect(notebook.outputs(1).locator("img")).to_be_visible(timeout=20_000)
            expect(second.outputs(0).locator("img")).to_be_visible(timeout=20_000)
        expect(page.locator(LIVE)).to_have_count(0)
        page.screenshot(path=screenshots / "elsewhere-stopped.png")
        expect(notebook.outputs(2)).to_have_text("the kernel is free")
        saved = notebook.save()
    assert took < 5  # in the page and in that of the other viewer; a second where nothing else computes
    told = list(read_events(lab.folder / place))
    [heard] = [event for event in told if isinstance(event, CommandReceived)]
    ended = told[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.reason, ended.step) == (EndReason.STOPPED, heard.step + 1)
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)
    steps = [event for event in told if isinstance(event, StepEvent)]
    assert f"{len(steps)} of 200 in" in saved.cells[1].outputs[1].data["text/html"]


def second_viewer(chromium, lab, place):
    """Another notebook with a kernel of its own, in the dark and on a narrow page."""
    lab.use_theme("JupyterLab Dark")
    try:
        cells = ["from tunebook_widgets import Dashboard\n" + SHOW.format(place=place)]
        notebook = LabNotebook(chromium, lab, lab.write_notebook("second.ipynb", cells), width=700)
        notebook.run_all()
    finally:
        lab.use_theme("JupyterLab Light")
    return notebook


def stopped_from(page, other) -> float:
    """Press Stop in `page`; the seconds until both pages say that the run has heard it."""
    began = page.evaluate("() => { document.querySelector('.tunebook-stop').click(); return Date.now() / 1000; }")
    heard = """() => {
        const told = document.querySelector('.tunebook-headline'); // none: it has stopped already
        return !told || /^Stop(ped| heard after step)/.test(told.textContent) ? Date.now() / 1000 : 0;
    }"""
    return max(each.wait_for_function(heard, timeout=10_000).json_value() for each in (page, other)) - began


# Steps of some tenths of a second; the child draws its progress bar all the while.
STARTED = """
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook_widgets import Dashboard
model, tokenizer = FastModel.from_pretrained({folder!r}, max_seq_length=128)
FastModel.get_peft_model(model, r=4, lora_alpha=8)
answer = {{"role": "assistant", "content": "one two"}}
rows = [{{"messages": [{{"role": "user", "content": f"count to {{n}}"}}, answer]}} for n in range(20)]
args = TrainingConfig(per_device_train_batch_size=8, gradient_accumulation_steps=16, max_steps=5000, hold_out=0,
    output_dir="{out}")
run = Trainer(model, tokenizer, train_dataset=rows, args=args).start({how})
"""
ANSWERED = "print(model.generate('count', max_tokens=2) != '', 'the kernel is free')"


def test_a_run_that_a_cell_started_is_found_by_the_same_cell_after_a_restart_and_prints_under_none(
    chromium, lab, screenshots, tiny_folder
):
    cells = [STARTED.format(folder=str(tiny_folder), out="started", how="keep=True"), "Dashboard(run)", ANSWERED]
    with LabNotebook(chromium, lab, lab.write_notebook("started.ipynb", cells)) as notebook:
        page = notebook.page
        headline = page.locator(".tunebook-headline")
        notebook.run_all()
        expect(headline).to_contain_text(re.compile(r"Step \d+ of 5,?000"), timeout=90_000)
        expect(notebook.outputs(2).last).to_contain_text("the kernel is free", timeout=60_000)
        notebook.save()
        notebook._menu("Kernel", "Restart Kernel…")
        page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(page.locator(".tunebook-lost code")).to_have_text("Dashboard('started/run-001')", timeout=15_000)
        page.reload(wait_until="domcontentloaded")
        notebook.run_all()
        expect(headline).to_contain_text(re.compile(r"Step \d+ of 5,?000"), timeout=90_000)
        expect(notebook.outputs(0).last).to_contain_text("started/run-001 is a run of this very model")
        page.screenshot(path=screenshots / "started-found.png")
        page.locator(".tunebook-stop").click()
        expect(notebook.outputs(1).locator("img")).to_be_visible(timeout=60_000)
        saved = notebook.save()
    assert not (lab.folder / "started" / "run-002").exists()
    told = list(read_events(lab.folder / "started" / "run-001"))
    steps = [event.step for event in told if isinstance(event, StepEvent)]
    assert steps == list(range(1, len(steps) + 1))
    assert "step/s" in (lab.folder / "started" / "run-001" / "process" / "child.out").read_text()
    printed = [output.text for cell in saved.cells for output in cell.outputs if output.output_type == "stream"]
    assert not [text for text in printed if "step/s" in text or "%|" in text]
    assert f"{len(steps):,} of 5,000 in" in saved.cells[1].outputs[1].data["text/html"]


def test_a_run_in_two_processes_has_a_lane_for_each_and_stops_from_the_page(chromium, lab, screenshots, tiny_folder):
    cells = [STARTED.format(folder=str(tiny_folder), out="shared", how="processes=2"), "Dashboard(run)"]
    with LabNotebook(chromium, lab, lab.write_notebook("lanes.ipynb", cells), width=700) as notebook:
        page = notebook.page
        notebook.run_all()
        lanes = page.get_by_role("list", name="Processes").get_by_role("listitem")
        expect(lanes).to_have_count(2, timeout=120_000)
        for lane in range(2):
            expect(lanes.nth(lane)).to_contain_text(re.compile(r"tokens/s, waits \d+%, exchanges \d+%, [\d.]+ GB"))
        page.screenshot(path=screenshots / "lanes-narrow.png")
        page.locator(".tunebook-stop").click()
        expect(notebook.outputs(1).locator("img")).to_be_visible(timeout=60_000)
    ended = list(read_events(lab.folder / "shared" / "run-001"))[-1]
    assert isinstance(ended, RunEnded)
    assert ended.reason == EndReason.STOPPED
