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
# # Check my Mac
#
# Before you train anything: is this machine ready, what fits into it, and does it compute correctly? Three questions,
# three answers, and nothing to install or to download but one small model. You get:
#
# - **a check-up** of the machine and its Python, line by line, with the command that mends what is wrong;
# - **a forecast** of the memory that a run takes, for several settings and for larger models, held against a real run;
# - **a proof** that the fast ways to compute, which the kit uses, give what the plain way gives;
# - **a report** you can send, which names neither you nor your machine.
#
# It works on a Mac with Apple Silicon and on Linux. The outputs below come from a rented Linux machine without a GPU,
# which other programs used at the same time. So its times say nothing about yours.

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, memory, samples

# %% [markdown]
# These numbers fit two CPU cores. On a Mac, take those in the comments, and the memory of your own machine.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 128  # tokens per row at most; on a Mac: 2048
BATCH_SIZE = 4  # rows read at a time; on a Mac: 8
LORA_RANK = 8  # on a Mac: 16
STEPS = 4  # of the run that is held against its forecast
BATCH_SIZES = [1, 4]  # to forecast; on a Mac: [1, 4, 16]
LENGTHS = [64, 256]  # tokens of a row, to forecast; on a Mac: [512, 2048]
TOO_LARGE = (32, 1024)  # rows and tokens of a run that will not fit; on a Mac: (64, 4096)
MAC_GB = 16  # the memory of your Mac
OUTPUT = "check-my-mac"  # the folder the results go to

# %% [markdown]
# ## 2. The check-up
# `doctor()` looks at everything that decides whether the kit works here, and how fast. It takes about two seconds and
# changes nothing. In a terminal, `python -m tunebook doctor` does the same.

# %%
tunebook.doctor()

# %% [markdown]
# What the lines mean:
#
# - **Python**, **System**: the Python this notebook runs in, and where it lies. If that is not the one you installed
#   Tunebook into, you chose the wrong kernel. On a Mac the system must say `arm64`.
# - **Memory**, **Free disk**: what the machine has. A Mac shares its memory with its GPU.
# - **tunebook** to **jupyterlab**: the versions of what matters most. One that is too old is named as a problem.
# - **Backend**: where MLX computes. On a Mac with Apple Silicon this says `metal`, with the name of the chip. Here it
#   is `cpu`.
# - **BLAS**: the library that multiplies matrices on a CPU. There is no such line where a GPU computes.
# - **fp32 products**: how fast MLX multiplies matrices of 32-bit numbers, measured just now. A GFLOP/s is a billion
#   operations a second.
# - **GPU memory**: how much of its memory a GPU can use well. On a Mac that is some three quarters of the whole, and it
#   is what a run has to fit into. On a CPU there is no such line.
#
# The last sentence is the verdict. Where something is to be mended, it says so, and with which command. Here is what
# that looks like. This cell starts a second Python with the fast BLAS of Linux turned off, and asks for its check-up.
# (A Mac has no such switch: there, all is in order again.)

# %%
slow = {**os.environ, "TUNEBOOK_BLAS": "off"}
second = subprocess.run([sys.executable, "-m", "tunebook", "doctor"], env=slow, capture_output=True, text=True)
print("\n".join(second.stdout.splitlines()[-7:]))

# %% [markdown]
# ## 3. What fits?
# A run needs memory for the model, and for what training adds to it. The trainer knows both before it starts. So here
# is a model with an adapter, and a trainer that is not started yet.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
settings = TrainingConfig(
    per_device_train_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=1,
    max_steps=STEPS,
    learning_rate=1e-3,
    warmup_steps=1,
    output_dir=f"{OUTPUT}/runs",
)
trainer = Trainer(model, tokenizer, train_dataset=samples.home_commands(), args=settings)

# %% [markdown]
# `FitCheck` shows its forecast. The whole bar is the memory of this machine that a run may use, and the coloured part
# is what this run needs. `print(trainer.memory())` is the same as text.

# %%
widgets.FitCheck(trainer)

# %% [markdown]
# - *weights*: the model itself, which stays as it is;
# - *trained parameters*: the adapter. *Earlier parameters* are copies of it, to go back to if the run goes wrong;
# - *optimizer state* and *gradients*: what is kept about each trained parameter;
# - *activations*: what the layers must remember while a batch is worked on. This part grows with the rows of a batch
#   and with their length;
# - *loss*: the scores of all tokens that could come next, a piece at a time.
#
# And with other settings? `memory.estimate` asks for any of them, without training. It needs a few seconds for each,
# because it measures what a layer takes.

# %%
asked = {
    f"{rows} x {tokens}": memory.estimate(
        model, TrainingConfig(per_device_train_batch_size=rows, max_seq_length=tokens, gradient_accumulation_steps=1)
    )
    for rows in BATCH_SIZES
    for tokens in LENGTHS
}
for name, need in asked.items():
    print(f"{name:>9}: {need.total / 1e9:5.2f} GB, of these {need.weights / 1e9:.2f} GB for the weights")
figure, axes = plt.subplots(figsize=(7, 2.4))
axes.barh(list(asked), [need.weights / 1e9 for need in asked.values()], label="weights")
axes.barh(
    list(asked),
    [(need.total - need.weights) / 1e9 for need in asked.values()],
    left=[need.weights / 1e9 for need in asked.values()],
    label="what training adds",
)
axes.set(xlabel="GB", ylabel="rows x tokens")
axes.invert_yaxis()
axes.legend()
plt.show()

# %% [markdown]
# The weights are always the same. What training adds grows with the rows and with the tokens of a batch. So with a
# small model the batch decides, and with a large model the weights do.
#
# Here is a run that does not fit. `FitCheck` says so beforehand, and what to change, the change that saves most first.
# *Gradient checkpointing* means that the layers remember little and compute it again, which costs time and saves
# memory. It is turned off here on purpose: left alone, it goes on by itself where a run would not fit without.

# %%
rows, tokens = TOO_LARGE
greedy = TrainingConfig(
    per_device_train_batch_size=rows,
    max_seq_length=tokens,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
)
too_much = widgets.FitCheck(model, greedy)
too_much

# %% [markdown]
# ## 4. Larger models
# For a model you have not downloaded yet, begin with its weights: a parameter takes two bytes in 16 bits, and a little
# more than half a byte in 4 bits (`load_in_4bit=True`). The picture compares that with the three quarters of a Mac's
# memory that a run may use.

# %%
sizes = {"135M": 0.135, "1.7B": 1.7, "4B": 4, "8B": 8, "14B": 14, "32B": 32}  # billions of parameters
usable = 0.75 * MAC_GB
for name, billions in sizes.items():
    print(f"{name:>5}: {2 * billions:5.1f} GB in 16 bits, {billions * 4.5 / 8:5.1f} GB in 4 bits; {usable:g} GB usable")
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.bar([place - 0.2 for place in range(len(sizes))], [2 * each for each in sizes.values()], 0.4, label="16 bits")
axes.bar([place + 0.2 for place in range(len(sizes))], [each * 4.5 / 8 for each in sizes.values()], 0.4, label="4 bits")
axes.axhline(usable, linestyle="--", color="black", label=f"usable of {MAC_GB} GB")
axes.set(ylabel="GB of weights", ylim=(0, 2.5 * usable))
axes.set_xticks(range(len(sizes)), list(sizes))
axes.legend()
plt.show()

# %% [markdown]
# A bar above the dashed line does not fit at all (the tallest are cut off at the top). Below it, what is left is for
# training; how much that is, `FitCheck` says as above once the model is loaded. On a CPU the weights are held in 32
# bits, because MLX is slow there with fewer; so they take twice what the table says for 16.

# %% [markdown]
# ## 5. Was the forecast right?
# Now the run itself, a few steps long. Before the first step of a run, part of its first batch is computed twice, in
# the fast way and in the plain way. The run goes on with the fast way only where both agree. What was proven once for
# this machine and this model is remembered.

# %%
widgets.Dashboard(trainer).show()
result = await trainer.train_async()

# %% [markdown]
# The forecast is of the training steps, at the batch with the most tokens. So the run should stay near it.

# %%
forecast, measured = trainer.memory().total / 1e9, max(step.peak_gb for step in result.steps)
print(f"forecast {forecast:.2f} GB, measured {measured:.2f} GB: {measured / forecast:.0%} of it")
assert 0.7 < measured / forecast < 1.2

# %% [markdown]
# ## 6. Does it compute correctly?
# The kit computes a training step in faster ways than MLX alone, and fast ways can be wrong on a chip nobody has tried.
# So they are proven, on every machine. `doctor(gpu=True)` shows the proof. It also takes eight steps with the kit and
# with mlx-lm's own trainer, on random weights of SmolLM2-135M's shape.

# %%
report = tunebook.doctor(gpu=True)
report

# %% [markdown]
# The first table has a line for each *form of the pass*, which is a way to compute the loss and its gradients:
#
# - **distance** is how far its results are from those of the plain form, as a share of them. Rounding alone gives about
#   a millionth with 32-bit numbers, and up to some percent with 16-bit numbers. What is computed wrongly is off by a
#   third or more; such a form is not used, and the line says why not;
# - **seconds** and **peak GB** are the time of one pass and its memory. On a GPU several forms are timed, and the
#   fastest that is right, and takes hardly more memory, is used. On a CPU the usual form is proven and not timed, so
#   these cells are empty.
#
# On a Mac you will see more lines: *compiled* or not, other forms of *attention*, of the *mlp* and of *lora*, and
# larger pieces of *logits*. The second table has the speed of whole steps, in tokens per second, where more is better,
# and the memory they took.
#
# This machine has no GPU, so this is all it can tell. Please send yours: this cell writes the report to a file. It
# holds versions, chip, limits and the tables above, but no path and no name.

# %%
file = Path(OUTPUT) / "report.json"
file.write_text(report.json())
print(file, "holds", ", ".join(json.loads(report.json())))
assert all(not form["why_not"] for form in report.found["self_test"])

# %% [markdown]
# ## Where next
# - **Train for real.** `01_quickstart` goes from a model to files for other programs in ten minutes.
# - **Your own model.** Write its hub id as `MODEL`, and `FitCheck` says whether it fits with your settings.
# - **Something is to be mended.** Run the command that stands below the verdict in a terminal, restart the kernel, and
#   run the check-up again.
# - **A run went wrong.** `13_the_clinic` makes runs go wrong on purpose, and mends each.
