# ---
# jupyter:
#   jupytext:
#     formats: ipynb,src//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Overnight: runs that outlive the kernel
#
# A run in a notebook usually ends with its kernel. The kernel is restarted, the lid closes, the GPU's driver aborts the
# process, and the night is lost. `trainer.start()` trains in a process of its own instead. This notebook puts such runs
# through what may happen to them. You get:
#
# - **a queue**: two runs from one cell, and a notebook that stays free meanwhile;
# - **a kernel that is killed** in the middle of a run, and the run found again, from its first step;
# - **an abort** of the process that trains, after which the run goes on by itself to the very same losses;
# - **the same run in two processes**, which is how several Macs train together.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import asyncio
import os
import signal
from subprocess import DEVNULL

from jupyter_client.manager import start_new_kernel

import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, hold_out, jobs, load_run, samples
from tunebook.events import Notice, RanksEvent

# %% [markdown]
# These numbers fit two CPU cores. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 96  # tokens per row at most; on a Mac: 2048
LORA_RANK = 8  # on a Mac: 16
RATES = [1e-3, 1e-4]  # one run for each
STEPS = 14  # with four rows each; on a Mac: 300
SAVE_STEPS = 4  # between checkpoints; on a Mac: 50
ABORTED_AFTER = 6  # steps
HELD_OUT_ROWS = 8
OUTPUT = "overnight"  # the folder the results go to

# %% [markdown]
# ## 2. What is trained
# Commands to a home, and the JSON that means the same, as in `06_did_it_help`. The settings are kept by name, since
# several runs share them.

# %%
train_rows, held_out_rows = hold_out(samples.home_commands(), HELD_OUT_ROWS)
SETTINGS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_steps": STEPS,
    "warmup_steps": 2,
    "save_steps": SAVE_STEPS,
    "output_dir": f"{OUTPUT}/runs",
}
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)

# %% [markdown]
# ## 3. A night of runs is a cell
# Every `start()` returns at once with a handle on its run. Runs wait for one another unless they fit into memory
# together, and `jobs.queue()` shows who is next. These two are small and fit.

# %%
runs = []
for rate in RATES:
    args = TrainingConfig(**SETTINGS, learning_rate=rate)
    trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
    runs.append(trainer.start())
jobs.queue()

# %% [markdown]
# The notebook is free meanwhile, and callbacks are called in it. The model in it is still the one before training, and
# can be asked. What that costs the runs, which share the machine, is said once for each.

# %%
seen = []
runs[0].add_step_callback(lambda step, *_: seen.append(step))
while len(seen) < 3:
    await asyncio.sleep(0.5)
question = held_out_rows[0]["messages"][:1]
print(question[0]["content"])
print(model.generate(question, max_tokens=40))

# %% [markdown]
# `await run` waits for a run and gives its result. The live model takes over its weights then.

# %%
results = [await run for run in runs]
widgets.compare(results)

# %% [markdown]
# The first run has done better. `result()` of a run that is over puts its weights into the model once more.

# %%
runs[0].result()
print(model.generate(question, max_tokens=24))

# %% [markdown]
# ## 4. The kernel is killed
# A notebook cannot show how its own kernel is killed, since nothing would be left to show it. So a second kernel plays
# the other notebook. It runs the cells below, which start the first of the two runs anew. With `keep=True` the run goes
# on when nobody is left who wants it, and `restarts=3` is for section 5.

# %%
CELLS = f"""
import asyncio
from tunebook import FastModel, Trainer, TrainingConfig, hold_out, samples
train_rows, held_out_rows = hold_out(samples.home_commands(), {HELD_OUT_ROWS})
model, tokenizer = FastModel.from_pretrained({MODEL!r}, max_seq_length={MAX_SEQ_LENGTH})
model = FastModel.get_peft_model(model, r={LORA_RANK}, lora_alpha={2 * LORA_RANK})
args = TrainingConfig(**{SETTINGS}, learning_rate={RATES[0]})
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
run = trainer.start(keep=True, restarts=3, again=True)
steps = []
run.add_step_callback(lambda step, *_: steps.append(step))
while not steps:
    await asyncio.sleep(0.5)
print(run)
"""
kernel, client = start_new_kernel(stderr=DEVNULL)
client.execute_interactive(CELLS)
kernel.shutdown_kernel(now=True)
print("The other kernel is", "alive" if kernel.is_alive() else "dead")

# %% [markdown]
# The run is not. Its folder is enough to find it, from any notebook: `jobs.find` gives its handle, with the weights
# at its end.

# %%
run = jobs.find(f"{OUTPUT}/runs/run-003", model)
run

# %% [markdown]
# ## 5. The process is aborted
# A dashboard shows the run from its first step, those before included that another kernel began, and its buttons work.
# Then the process that trains is ended by the signal that an abort of Metal ends it with. Whoever looks after the run
# says why it ended, waits a few seconds, and begins it again from its newest checkpoint.

# %%
run.subscribe(lambda event: print(event.text) if isinstance(event, Notice) else None)
dashboard = widgets.Dashboard(run)
dashboard.show()
while len(load_run(run.run_folder).loss) < ABORTED_AFTER:
    await asyncio.sleep(0.5)
os.kill(run.pid, signal.SIGABRT)
result = await run

# %% [markdown]
# The kernel was killed and the process aborted. Nothing of that is left in what was learnt: the losses are those of the
# first run of section 3, which nobody disturbed, to the last bit.

# %%
undisturbed, killed = load_run(f"{OUTPUT}/runs/run-001"), load_run(f"{OUTPUT}/runs/run-003")
print(undisturbed.loss[-3:], killed.loss[-3:])
assert (undisturbed.loss == killed.loss).all()

# %% [markdown]
# ## 6. Another day
# The notebook is opened again and its cells are run from the top: the same model, rows and settings. They are a run
# that has finished, so nothing is trained twice. The handle is given at once, and `result()` has the weights.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
args = TrainingConfig(**SETTINGS, learning_rate=RATES[0])
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
run = trainer.start()
print(run)

# %% [markdown]
# ## 7. In two processes
# The same run once more, with the rows of each step shared out between two processes. On one machine that is for trying
# it out. Of several Macs, `hosts="hosts.json"` has one process on each. While it trains, the dashboard has a lane for
# each process: its speed, its memory, and how long it waits for the other.

# %%
run = trainer.start(processes=2)
dashboard = widgets.Dashboard(run)
dashboard.show()
result = await run

# %% [markdown]
# Gradients are added up as sums and divided by all tokens, so the update is that of one process, but for rounding.

# %%
together = load_run(run.run_folder)
print(f"the largest difference of a step's loss: {abs(together.loss - undisturbed.loss).max():.1e}")
assert abs(together.loss - undisturbed.loss).max() < 0.01
lanes = [event for event in run.events if isinstance(event, RanksEvent)][-1]
for name, waited, exchanged in zip(lanes.names, lanes.waiting, lanes.exchanging, strict=True):
    print(f"{name} waited {waited:.0%} of its time, and exchanged gradients for {exchanged:.0%}")

# %% [markdown]
# ## Where next
# - **From a shell.** `trainer.save_job("job")` writes a folder, `python -m tunebook train job` trains it here or on
#   another machine, and `python -m tunebook queue` shows the queue.
# - **A watchful eye.** `tunebook.attach("overnight/runs/run-003")` is the handle for a program that needs no MLX.
# - **Which rate to take** before a night is spent on it: `12_turn_the_knobs`.
