"""A run whose kernel is lost, in JupyterLab and with a trainer that trains: what the page says, and that it goes on."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser.lab import LabNotebook
from tests.browser.shown_runs import LIVE

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.browser

SETUP = """
import os, signal, time
from pathlib import Path
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import CheckpointSaved, RunStarted, StepEvent, Working
from tunebook_widgets import Dashboard
model, tokenizer = FastModel.from_pretrained({folder!r}, max_seq_length=128)
FastModel.get_peft_model(model, r=4, lora_alpha=8)
answer = {{"role": "assistant", "content": "one two"}}
rows = [{{"messages": [{{"role": "user", "content": f"count to {{n}}"}}, answer]}} for n in range(20)]
tuner = Trainer(model, tokenizer, train_dataset=rows[:16], eval_dataset=rows[16:], args=TrainingConfig(
    per_device_train_batch_size=2, max_steps=12, save_steps=4, eval_steps=3, output_dir={name!r}))
"""
# Waits for the page at a moment of the run, and dies there as of a kill -9. What a stuck kernel cannot show any more
# must be on the page before: a paused run, which beats, is let go on until the page has it.
DYING = """
def die(event):
    if {moment}:
        while not Path("die").exists():
            time.sleep(0.05)
        time.sleep(0.3)  # what was said before is on its way to the page
        os.kill(os.getpid(), signal.SIGKILL)
Dashboard(tuner).show()
tuner.subscribe(die)
{pause}
{line}
"""
GOING_ON = """
begun = []
tuner.subscribe(lambda event: begun.append(event) if isinstance(event, RunStarted) else None)
Dashboard(tuner).show()
result = {line}
print("went on at", begun[0].step, "and came to", result.steps[-1].step)
"""
STEP = r"Step \d+ of 12|being computed"  # a kernel that is stuck at a step may have told of no step yet
MOMENTS = {  # what the page shows then, the moment, whether the run was paused, and the step it goes on from
    "while the first score is measured": ("before training|being computed", "isinstance(event, Working)", "", 0),
    "in a step before any checkpoint": (STEP, "isinstance(event, Working) and event.step == 3", "", 0),
    "when its first checkpoint is written": (STEP, "isinstance(event, CheckpointSaved)", "", 4),
    "while the held-out loss is measured": (
        STEP,
        "isinstance(event, Working) and (event.step, event.what) == (9, 'evaluating')",
        "",
        8,
    ),
    "while it is paused": (
        "Paused after step 5",
        "isinstance(event, Working) and event.what == 'paused' and Path('die').exists()",
        "tuner.add_step_callback(lambda step, *_: step == 5 and tuner.send('pause'))",
        4,
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_within_ten_seconds_of_its_death_the_page_says_so_and_the_line_it_shows_goes_on(
    chromium, lab, screenshots, tiny_folder, moment
):
    shown, condition, pause, step = MOMENTS[moment]
    name = f"killed-{list(MOMENTS).index(moment)}"
    setup = SETUP.format(folder=str(tiny_folder), name=name)
    dying = DYING.format(moment=condition, pause=pause, line="await tuner.train_async()")
    (lab.folder / "die").unlink(missing_ok=True)
    with LabNotebook(chromium, lab, lab.write_notebook(f"{name}.ipynb", [setup, dying])) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile(shown), timeout=60_000)
        (lab.folder / "die").touch()
        killed = time.monotonic()
        lost = page.locator(".tunebook-lost code")
        expect(lost).to_be_visible(timeout=10_000)
        took = time.monotonic() - killed
        expect(page.locator(".tunebook-headline")).to_contain_text("The kernel died or was restarted")
        assert not any(button.is_visible() for button in page.locator(f"{LIVE} .tunebook-header button").all())
        line = lost.inner_text()
        page.screenshot(path=screenshots / f"{name}.png")
    lab.shut_kernels_down()
    assert took < 10
    going_on = lab.write_notebook(f"{name}-on.ipynb", [setup, GOING_ON.format(line=line)])
    with LabNotebook(chromium, lab, going_on) as notebook:
        notebook.run_all()
        notebook.wait_until_done(seconds=120)
        expect(notebook.outputs(1).last).to_have_text(f"went on at {step} and came to 12")


def test_a_kernel_that_is_restarted_is_shown_as_gone_too(chromium, lab, tiny_folder):
    setup = SETUP.format(folder=str(tiny_folder), name="restarted")
    dying = DYING.format(moment="isinstance(event, StepEvent)", pause="", line="tuner.train()")
    (lab.folder / "die").unlink(missing_ok=True)
    with LabNotebook(chromium, lab, lab.write_notebook("restarted.ipynb", [setup, dying])) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text(re.compile("Step|being"), timeout=60_000)
        notebook._menu("Kernel", "Restart Kernel…")
        page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(page.locator(".tunebook-lost code")).to_have_text("tuner.train()", timeout=10_000)
        expect(page.locator(".tunebook-phase")).to_have_text("No kernel")


def test_a_notebook_whose_page_was_loaded_again_in_the_run_is_saved_with_the_picture(
    chromium, lab, screenshots, tiny_folder
):
    setup = SETUP.format(folder=str(tiny_folder), name="again")
    pausing = "tuner.add_step_callback(lambda step, *_: step == 3 and tuner.send('pause'))"
    training = f"Dashboard(tuner).show()\n{pausing}\nawait tuner.train_async()"
    with LabNotebook(chromium, lab, lab.write_notebook("again.ipynb", [setup, training])) as notebook:
        notebook.run_all()
        page = notebook.page
        expect(page.locator(".tunebook-headline")).to_contain_text("Paused", timeout=60_000)
        in_between = notebook.save()
        page.reload(wait_until="domcontentloaded")
        expect(page.locator(".tunebook-headline")).to_contain_text("Paused", timeout=60_000)
        expect(page.locator(".tunebook-without-page")).to_be_hidden()
        page.screenshot(path=screenshots / "lab-reloaded-paused.png")
        page.locator('.tunebook-actions [data-command="resume"]').click()
        expect(notebook.outputs(1).locator("img")).to_be_visible(timeout=60_000)
        expect(page.locator(LIVE)).to_have_count(0)
        page.screenshot(path=screenshots / "lab-saved-after-reload.png")
        saved = notebook.save()
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)
    [upper, lower] = saved.cells[1].outputs
    assert "image/png" in upper.data
    assert "12 of 12 in" in lower.data["text/html"]
    # As it was saved in the middle of the run it says where the run is, and asks nobody to train once more.
    left = in_between.cells[1].outputs[0].data["text/plain"]
    assert "again/run-001" in left
    assert "train_async(resume_from_checkpoint=True)" in left


def test_a_notebook_that_is_opened_again_after_the_run_has_ended_shows_its_picture(chromium, lab, tiny_folder):
    setup = SETUP.format(folder=str(tiny_folder), name="closed")
    waiting = "tuner.add_step_callback(lambda step, *_: step == 3 and wait())"
    wait = "def wait():\n    while not Path('go-on').exists():\n        time.sleep(0.05)"
    training = f"{wait}\nDashboard(tuner).show()\n{waiting}\nawait tuner.train_async()\nPath('over').touch()"
    path = lab.write_notebook("closed.ipynb", [setup, training])
    with LabNotebook(chromium, lab, path) as notebook:
        notebook.run_all()
        expect(notebook.page.locator(".tunebook-headline")).to_contain_text(re.compile("Step|being"), timeout=60_000)
        notebook.save()
    (lab.folder / "go-on").touch()
    deadline = time.monotonic() + 60
    while not (lab.folder / "over").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    with LabNotebook(chromium, lab, path) as notebook:
        expect(notebook.outputs(1).locator("img")).to_be_visible(timeout=30_000)
        saved = notebook.save()
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved)
