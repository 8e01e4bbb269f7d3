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
# # The parity lab: where do two fine-tunes part?
#
# Two people fine-tune the same model on the same rows with the same settings, each in another program, and the results
# differ. Is that rounding, or is something wrong in one of the programs? And where: in the tokens, the loss, the
# adapters, the optimizer? The lab compares training here with other programs (torch with transformers and PEFT, mlx-lm,
# and llama.cpp) one stage after another, and says in one sentence at which stage they part.
#
# First you will see what agreement looks like. Then you get a run in which one thing is wrong, and find out what it is.
# That takes some minutes on two CPU cores and needs no GPU. It does need torch: `pip install 'tunebook[parity]'`.

# %% [markdown]
# ## 1. The choices
# First the imports; `parity` is the lab.

# %%
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Markdown, display

import tunebook
from tunebook import parity

# %% [markdown]
# The model of this notebook is a miniature: built like the real one, with its tokenizer, but narrower, and its
# parameters are random. A fault shows in it as clearly as in the real model, and in seconds.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what the miniature is built like
LAYERS = 18  # of the miniature
ROWS = 8
STEPS = 12  # of each run
MAX_SEQ_LENGTH = 160  # tokens per row
SUSPECT = 10  # what is wrong in section 3; for another puzzle, another number from 0 to 17
SEEDS = 6  # pairs of runs in section 5; with fewer, chance cannot be ruled out
OUTPUT = "parity-lab"  # the folder the results go to

# %% [markdown]
# The rows are short functions from Python's standard library, with what their authors wrote about them.

# %%
docs = sorted(tunebook.samples.python_docs(), key=lambda row: len(str(row["messages"])))
rows, held_out = docs[:ROWS], docs[ROWS : ROWS + 4]
small = parity.miniature(MODEL, Path(OUTPUT) / "miniature", layers=LAYERS)
training = replace(parity.TRAINING, max_steps=STEPS)
print(f"{len(rows)} rows, and a model of {LAYERS} layers in {small}")

# %% [markdown]
# ## 2. What agreement looks like
# The lab goes through training in the order in which one part can spoil the next. At each stage both sides get the same
# input, so a fault of an earlier stage does not show in all the later ones. These are the stages:
#
# | stage | what is asked |
# |---|---|
# | tokens | Is each text cut into the same tokens? Every token has a number, its *id*. |
# | supervision | Are the same tokens trained? A token that counts in the loss is *supervised*. |
# | batches | Are the same rows read together, in the same order, filled up to the same width? |
# | logits | Before training, does the model give the next token the same scores? These are its *logits*. |
# | reduction | Do the losses of the tokens become the one loss of a step in the same way? |
# | token losses | Is the loss of each token the same? It is measured in *nats*; 0 means the model was sure. |
# | adapters | Do the same layers get an adapter, with the same random start? |
# | gradients | For each adapter, do both sides find the same direction in which to change it? |
# | rates | Is the learning rate of every step the same? |
# | optimizer | Does the same gradient lead to the same change? |
# | reference | Does torch, run twice, give the same losses? Otherwise nothing could be compared with it. |
# | curve | Are the losses of a whole run the same here and in torch? |
# | mlx-lm | Are they the same here and in mlx-lm's own training? |
# | dtypes | What do 16 bits per number in place of 32 cost, here and there? |
# | generation | Does the model predict the same when it reads token by token as when it reads all at once? |
# | exports | Do other programs find the same loss in the files that are saved? |
# | quantization | Are parameters of 8 and 4 bits as near to the original as they can be? |
#
# In the table below, a line is one comparison: the largest difference that was found, the largest that rounding
# explains, and the place where it was found. A number such as `5.57e-07` means 5.57 divided by ten million, and
# *relative* that it is a share of the value itself. *Within* means that the difference is no larger than rounding
# explains; otherwise it is *beyond*.

# %%
report = parity.bisect(small, rows, training=training, max_seq_length=MAX_SEQ_LENGTH)
report

# %% [markdown]
# Here are the losses of the whole run, from two programs that share no line of code. On the left the two curves lie on
# one another. On the right is the difference between them: far below the dotted line, which is where the lab begins to
# doubt.

# %%
here, there = report.curves["curve"]
steps = range(1, len(here) + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
left.plot(steps, there, linewidth=5, alpha=0.4, label="torch")
left.plot(steps, here, label="here")
left.set(xlabel="step", ylabel="loss")
left.legend()
right.semilogy(steps, [abs(a - b) / b + 1e-9 for a, b in zip(here, there, strict=True)])
right.axhline(1e-3, color="gray", linestyle=":")
right.set(xlabel="step", ylabel="relative difference", ylim=(1e-9, 1))
plt.show()

# %% [markdown]
# ## 3. A run that is not right
# Somebody's training differs from ours in one function. At first you get what everybody gets: two curves.

# %%
suspect = replace(list(parity.FAULTS.values())[SUSPECT].procedure, name="The suspect")
first_look = parity.bisect(
    small,
    rows,
    procedure=suspect,
    training=training,
    max_seq_length=MAX_SEQ_LENGTH,
    stages=["curve"],
)

here, there = first_look.curves["curve"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
left.plot(steps, there, linewidth=5, alpha=0.4, label="torch")
left.plot(steps, here, label="the suspect")
left.set(xlabel="step", ylabel="loss")
left.legend()
right.semilogy(steps, [abs(a - b) / b + 1e-9 for a, b in zip(here, there, strict=True)])
right.axhline(1e-3, color="gray", linestyle=":")
right.set(xlabel="step", ylabel="relative difference", ylim=(1e-9, 1))
plt.show()

# %% [markdown]
# The suspect learns, and its curve looks healthy. Seeing only this curve, nobody would look for a fault. And the
# difference on the right says that there is one, but not where. Make a guess before you go on: is it in the tokens, the
# loss, the adapters or the optimizer?

# %%
until_curve = list(parity.CHAIN)[: list(parity.CHAIN).index("curve") + 1]
found = parity.bisect(
    small,
    rows,
    procedure=suspect,
    training=training,
    max_seq_length=MAX_SEQ_LENGTH,
    stages=until_curve,
)
replace(found, findings=tuple(finding for finding in found.findings if finding.verdict == "beyond"))

# %% [markdown]
# The sentence names the first stage at which the suspect parts from the others. The stages before it agree, so the
# fault is in none of them. The table has the comparisons that are beyond what rounding explains; the others did not
# notice the fault. Now the lab may say what it had planted.

# %%
print(list(parity.FAULTS)[SUSPECT])

# %% [markdown]
# What does this fault do? A step here reads two batches, and must make one loss of them. Say that the first has 90
# trained tokens, each with a loss of 2, and the second has 10, each with a loss of 4. Over all 100 tokens the loss is
# 2.2. The suspect takes the mean of each batch alone, 2 and 4, and then the mean of these two means, which is 3. So a
# token of the small batch counts nine times as much as a token of the large one, and the model learns more from short
# answers than from long ones.
#
# In the lab's own test a step has three batches, which it calls micro-batches, with 10, 6 and 6 trained tokens. The
# first should make up 10 of 22 parts of the step. The suspect gives it one of three, which is too little by 0.267 of
# what is due: the number in the sentence above. And why does the curve look healthy? Most batches have about as many
# trained tokens as the next, and then the mean of the means is nearly right. This fault was in transformers for years,
# until version 4.46.

# %% [markdown]
# ## 4. More suspects
# Each of these has been somebody's real fault. The stages before the whole runs are enough to tell them apart.

# %%
before_runs = list(parity.CHAIN)[: list(parity.CHAIN).index("reference")]
for name in (
    "pad token in the loss",
    "seed set before loading",
    "16 instead of all layers",
    "no bias correction",
):
    look = parity.bisect(
        small,
        rows,
        procedure=replace(parity.FAULTS[name].procedure, name=f"“{name}”"),
        max_seq_length=MAX_SEQ_LENGTH,
        stages=before_runs,
    )
    display(Markdown(look.sentence))

# %% [markdown]
# In the same order, in words:
#
# - The first suspect trains one token too many: the one that follows each answer, which is often a *pad* token that
#   only fills up a short row.
# - The random numbers an adapter starts from follow from a *seed*. The second suspect sets the seed and then loads the
#   model, which uses up some of these numbers, so its adapters start from others.
# - The third puts adapters on the last 16 layers only, which is mlx-lm's default. This model has more.
# - AdamW, the optimizer, keeps averages that start at zero and are too small in the first steps. A correction makes up
#   for that, and MLX leaves it out unless it is asked for.

# %% [markdown]
# ## 5. Does it matter?
# A fault need not make the result worse. To find out, both ways of training are run several times, each time from
# another seed, and after each pair of runs their losses on held-out rows are compared. What the models write is no
# measure: after the first word that differs, everything differs. The steps are larger here than before, so that a dozen
# of them are enough to learn something.
#
# *p* is how often chance alone would make a difference at least as large as the mean one, if neither way were better;
# *by signs* is the same where only the better one of each pair is counted. The lab believes in a difference when p is
# below 0.05.

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
# If two ways cannot be told apart, that does not prove them equal. It says that so few and so short runs do not show a
# difference; more seeds and more steps might.

# %% [markdown]
# ## 6. Take it with you
# The report becomes two files: a page to send to the person whose run differs from yours, which needs nothing but a
# browser, and the numbers for a program to read.

# %%
print(found.to_html(Path(OUTPUT) / "report.html"))
print(found.to_json(Path(OUTPUT) / "report.json"))

# %% [markdown]
# ## Where next
# - **A part of your own.** A `Procedure` is training taken apart into its functions. `replace(parity.KIT,
#   loss=my_loss)` is this kit with your loss, and goes where the suspect went.
# - **Preferences.** `parity.bisect(small, pairs, objective=objectives.DPO())` compares learning from pairs of answers
#   with TRL, from the token ids of both sides to the curve. `parity.PREFERENCE_FAULTS` has suspects for it.
# - **A real model and your own rows.** In a terminal:
#
# ```
# python -m tunebook.parity --rows mine.jsonl --report out.html \
#     --model HuggingFaceTB/SmolLM2-135M-Instruct
# ```
