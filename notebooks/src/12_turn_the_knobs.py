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
# # Turn the knobs: what to change first
#
# A trainer has some forty settings, and most of them hardly matter. Which do, and how does one know? This notebook
# measures it on one small task, where a run takes a minute. You get:
#
# - **a learning rate**, found in one cell before any run;
# - **a grid of short runs** over rate and rank, as a queue that looks after itself;
# - **the size of chance**: how far runs differ that differ in nothing but their seed;
# - **a run with the best of it**, and its score.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from tunebook import FastModel, Trainer, TrainingConfig, hold_out, jobs, samples, scores
from tunebook_widgets import Dashboard, compare

# %% [markdown]
# These numbers fit two CPU cores. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 96  # tokens per row at most; on a Mac: 2048
TRIES = 24  # rates that the finder tries; on a Mac: 40
RANKS = [2, 16]  # of the adapters
RATES = [1e-4, 5e-4, 2e-3]
SEEDS = [1, 2]  # of runs that differ in nothing else
SHORT_STEPS = 8  # of each run of the grid, with four rows each; on a Mac: 50
STEPS = 24  # of the last run; on a Mac: 300
HELD_OUT_ROWS = 12  # never trained on; on a Mac: 100
ANSWER_TOKENS = 24  # of an answer at most
OUTPUT = "knobs"  # the folder the results go to

# %% [markdown]
# ## 2. The task
# Customers write to a shop. The answer repeats the number of the order and names the team that takes care of it. The
# settings that all runs share are kept by name.

# %%
train_rows, held_out_rows = hold_out(samples.support_chats(), HELD_OUT_ROWS)
SETTINGS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 2,
    "output_dir": f"{OUTPUT}/runs",
}
train_rows[0]

# %% [markdown]
# ## 3. A rate, before any run
# Of all settings the learning rate matters most. `find_learning_rate()` takes a few steps at rates that rise from one
# to the next, and looks at the loss of eight rows after each. Then it puts everything back, the weights too. The rate
# to take is where that loss falls fastest, well before it rises.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=RANKS[-1], lora_alpha=2 * RANKS[-1])
args = TrainingConfig(**SETTINGS, max_steps=SHORT_STEPS)
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
found = trainer.find_learning_rate(lowest=1e-5, steps=TRIES)
print(found)
found

# %% [markdown]
# ## 4. A grid of short runs
# Does the rate matter more than the rank of the adapters? Each pair of both gets a short run in a process of its own.
# `start()` returns at once. The runs wait for one another where they do not fit into memory together, and the queue
# shows them. (`lora_alpha` goes with the rank, so that the same rate means the same.)

# %%
runs = {}
for rank in RANKS:
    model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
    model = FastModel.get_peft_model(model, r=rank, lora_alpha=2 * rank)
    for rate in RATES:
        args = TrainingConfig(**SETTINGS, max_steps=SHORT_STEPS, learning_rate=rate)
        trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
        runs[rank, rate] = trainer.start()
jobs.queue()

# %% [markdown]
# All curves in one picture, and below it what differs between the runs.

# %%
results = {pair: await run for pair, run in runs.items()}
compare(list(results.values()))

# %% [markdown]
# The same as a table: the loss on held-out rows after the last step, a row for each rank and a column for each rate.

# %%
losses = {pair: result.evals[-1].loss for pair, result in results.items()}
print("rank  " + "".join(f"{rate:>9.0e}" for rate in RATES))
for rank in RANKS:
    print(f"{rank:>4}  " + "".join(f"{losses[rank, rate]:>9.3f}" for rate in RATES))

# %% [markdown]
# In each row the loss is lower the further to the right. The boldest of the three rates has done most in eight steps,
# and it lies below 2.7e-03, where the finder saw the lowest loss. What the finder gives, 8.2e-04, is calmer: a rate for
# a run of ordinary length, where steps that are too long do more harm than a few that are too short. And each column is
# lower in its second row: at the same rate, the larger adapters learn faster.
#
# ## 5. How much of it is chance?
# A difference counts only if it is larger than what chance makes. So the best pair is run again, with other seeds: the
# rows come in another order and the adapters begin elsewhere. Nothing else differs.

# %%
rank, rate = min(losses, key=losses.get)
again = []
for seed in SEEDS:
    model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
    model = FastModel.get_peft_model(model, r=rank, lora_alpha=2 * rank, random_state=seed)
    args = TrainingConfig(**SETTINGS, max_steps=SHORT_STEPS, learning_rate=rate, seed=seed)
    trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
    again.append((await trainer.start()).evals[-1].loss)
print(f"rank {rank}, rate {rate:g}: {losses[rank, rate]:.3f}, with other seeds", [round(loss, 3) for loss in again])

# %% [markdown]
# Now the three can be held against each other: how far the loss moves when the rate is changed, when the rank is
# changed, and when nothing but chance is.

# %%
by_rate = [losses[rank, other] for other in RATES]
by_rank = [losses[other, rate] for other in RANKS]
by_chance = [losses[rank, rate], *again]
for name, of in [("rate", by_rate), ("rank", by_rank), ("chance", by_chance)]:
    print(f"{name:>6}: the loss moves by {max(of) - min(of):.3f}")
assert max(by_rate) - min(by_rate) > max(by_chance) - min(by_chance)

# %% [markdown]
# The rate moves it most, and the rank less than half as far. Chance moves it by a small part of that, so both
# differences count. A difference as small as that of the seeds would say nothing, however many digits it has.
#
# ## 6. A run with the best of it
# The pair that did best, for longer.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
exam = scores.Exam(held_out_rows, metrics=["exact_match"], max_tokens=ANSWER_TOKENS)
base = exam.take(model, name="base")
model = FastModel.get_peft_model(model, r=rank, lora_alpha=2 * rank)
args = TrainingConfig(**SETTINGS, max_steps=STEPS, learning_rate=rate, lr_scheduler_type="cosine")
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=args)
dashboard = Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# The loss is not what the shop wants. The exam asks whether the answer is right: the order's number and the team.

# %%
tuned = exam.take(model)
scores.compare(base, tuned)

# %% [markdown]
# ## What to change first
# In this order, since each matters less than the one before:
#
# 1. **The rows.** More of them, and better ones; `08_your_own_data` has the tools. No setting makes up for them.
# 2. **The learning rate**, with the finder, anew for each model, task and size of batch.
# 3. **How long**: `max_steps` or `num_train_epochs`, with held-out rows to see where it stops helping.
#    `load_best_model_at_end=True` keeps the best.
# 4. **Rows in a step**: `per_device_train_batch_size` times `gradient_accumulation_steps`. How the two share it changes
#    memory and speed, and nothing of what is learnt.
# 5. **The rank**, where the task is large.
#
# Change one at a time, and run the same settings with two seeds before you believe a difference.
#
# ## Where next
# - **Did it help, and what did it forget?** `06_did_it_help`.
# - **A night of such runs**, and what they survive: `07_overnight`.
