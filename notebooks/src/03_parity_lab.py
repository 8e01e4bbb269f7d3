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
# # The parity lab: where does a fine-tune part from the others?
#
# The same model, the same rows, the same settings, and yet the fine-tune on this machine is not the one your colleague
# has. Where do they part: in the tokens, the loss, the adapters, the optimizer? This notebook lets you find out. The
# lab compares a run here with transformers, PEFT and torch, with stock mlx-lm and with llama.cpp, one stage after
# another, and says in one sentence at which stage they part.
#
# You will see what agreement looks like, then get a run in which something is wrong, and find what it is. Nothing here
# needs a GPU. It needs torch: `pip install 'tunebook[parity]'`.

# %% [markdown]
# ## 1. The choices
# First the tools; `parity` is the lab.

# %%
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

import tunebook
from tunebook import parity

# %% [markdown]
# A random miniature of the model shows a difference as well as the model itself does, in seconds. To compare the real
# one, give its name to the command at the end of this notebook.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokenizer and architecture the miniature has
LAYERS = 18  # of the miniature
ROWS = 8
STEPS = 12  # of each run; the lab takes 20 where it is not told
MAX_SEQ_LENGTH = 160  # tokens per row
SUSPECT = "mean of means"  # what is wrong in section 3; no peeking at this line
SEEDS = 6  # five pairs cannot show anything at 5 %
OUTPUT = "parity-lab"  # the folder the results go to

# %% [markdown]
# The rows are short functions from Python's own standard library with the sentences their authors wrote about them.

# %%
docs = sorted(tunebook.samples.python_docs(), key=lambda row: len(str(row["messages"])))
rows, held_out = docs[:ROWS], docs[ROWS : ROWS + 4]
small = parity.miniature(MODEL, Path(OUTPUT) / "miniature", layers=LAYERS)
training = replace(parity.TRAINING, max_steps=STEPS)
print(f"{len(rows)} rows, and a model of {LAYERS} layers in {small}")

# %% [markdown]
# ## 2. What agreement looks like
# Each line below is one comparison: how large the largest difference was, how large rounding may make it, and where it
# was. The chain is in the order in which one part can spoil the next, and every stage is fed what both sides have in
# common.

# %%
report = parity.bisect(small, rows, training=training, max_seq_length=MAX_SEQ_LENGTH)
report

# %% [markdown]
# Two programs that share no line of code, and a dozen steps of training: the curves lie on one another. What is left
# between them, drawn on the right, is the rounding of 32-bit numbers.

# %%
here, there = report.curves["curve"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
left.plot(there, linewidth=5, alpha=0.4, label="torch")
left.plot(here, label="here")
left.set(xlabel="step", ylabel="loss")
left.legend()
right.semilogy([abs(a - b) / b + 1e-9 for a, b in zip(here, there, strict=True)])
right.axhline(1e-3, color="gray", linestyle=":")
right.set(xlabel="step", ylabel="relative difference", ylim=(1e-9, 1))
plt.show()

# %% [markdown]
# ## 3. A run that is not right
# Somebody's trainer differs from ours in one function. All you are given at first is what everybody has: two curves.

# %%
suspect = replace(parity.FAULTS[SUSPECT].procedure, name="the suspect")
first_look = parity.bisect(
    small, rows, procedure=suspect, training=training, max_seq_length=MAX_SEQ_LENGTH, stages=["curve"]
)

here, there = first_look.curves["curve"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
left.plot(there, linewidth=5, alpha=0.4, label="torch")
left.plot(here, label="the suspect")
left.set(xlabel="step", ylabel="loss")
left.legend()
right.semilogy([abs(a - b) / b + 1e-9 for a, b in zip(here, there, strict=True)])
right.axhline(1e-3, color="gray", linestyle=":")
right.set(xlabel="step", ylabel="relative difference", ylim=(1e-9, 1))
plt.show()

# %% [markdown]
# It learns; it looks healthy. Nobody who sees only this curve would look for a mistake, and nobody who suspects one
# could say where. Make a guess before you run the next cell: the tokens, the loss, the adapters, the optimizer?

# %%
until_curve = list(parity.CHAIN)[: list(parity.CHAIN).index("curve") + 1]
found = parity.bisect(
    small, rows, procedure=suspect, training=training, max_seq_length=MAX_SEQ_LENGTH, stages=until_curve
)
print(found.sentence)

# %% [markdown]
# The stages before it agree, so tokens, masks, order and the model itself are innocent. The stage it names is the one
# to read. Here are the stages the difference showed in; the others did not notice it.

# %%
[(finding.stage, finding.evidence) for finding in found.findings if finding.verdict == "beyond"]

# %% [markdown]
# ## 4. More suspects
# Each of these has been somebody's real bug. The lab needs only the stages before the runs to tell them apart.

# %%
before_runs = list(parity.CHAIN)[: list(parity.CHAIN).index("reference")]
for name in ("pad token in the loss", "seed set before loading", "16 instead of all layers", "no bias correction"):
    look = parity.bisect(
        small, rows, procedure=parity.FAULTS[name].procedure, max_seq_length=MAX_SEQ_LENGTH, stages=before_runs
    )
    print(f"{look.sentence}\n")

# %% [markdown]
# ## 5. Does it matter, or is it the seed?
# A difference in the numbers need not be a difference in what comes out. Both ways of training are run over the same
# seeds, and the loss on held-out rows is compared pair by pair, with an exact test: what a model writes by itself
# changes with every breath, and one lucky seed proves nothing.

# %%
faster = replace(training, learning_rate=5e-3)
parity.sweep(
    small,
    rows,
    parity.Setting(name="here", training=faster),
    parity.Setting(name="the suspect", training=faster, procedure=suspect),
    held_out=held_out,
    seeds=range(SEEDS),
    steps=STEPS,
    max_seq_length=MAX_SEQ_LENGTH,
)

# %% [markdown]
# ## 6. Take it with you
# The report is one page that needs nothing else, to send to the person whose run differs from yours, and one file of
# numbers for a program to read.

# %%
print(found.to_html(Path(OUTPUT) / "report.html"))
print(found.to_json(Path(OUTPUT) / "report.json"))

# %% [markdown]
# ## Where next
# Put in a part of your own: a `Procedure` is a run taken apart into its functions, and `replace(parity.KIT,
# loss=my_loss)` is this kit with your loss. For a real model and your own rows, from a shell:
# `python -m tunebook.parity --model HuggingFaceTB/SmolLM2-135M-Instruct --rows mine.jsonl --report out.html`.
