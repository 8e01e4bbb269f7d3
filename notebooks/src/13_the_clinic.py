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
# # The clinic
#
# Runs go wrong, and most of them go wrong in one of six ways. Here each is made to happen, seen, and mended, so that
# you know it when you meet it:
#
# - **interrupted**: a run that was broken off goes on, to the very weights it would have had;
# - **out of memory**: told before the first step, with what to change;
# - **a loss that explodes**: nothing that is not a number gets into the weights, and the cause is named;
# - **the template twice**: rows that a chat template wrote already;
# - **answers cut off**: rows that are longer than the model may read;
# - **overfitted**: a model that learns its rows by heart, and the weights from before it did.
#
# Each section stands for itself; read the one you need.

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples

# %% [markdown]
# These numbers fit two CPU cores. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 128  # tokens per row at most; on a Mac: 1024
LORA_RANK = 8  # on a Mac: 16
LEARNING_RATE = 1e-3  # with hundreds of steps: 2e-4
BATCH_SIZE = 2  # rows of a step; on a Mac: 8
STEPS = 4  # of the run that is interrupted; on a Mac: 60
STOPPED_AT = 2  # after which of them; on a Mac: 25
TOO_LARGE = (64, 512)  # rows and tokens of a run that does not fit; on a Mac: (64, 4096)
WILD_RATE = 1e6  # a learning rate at which the loss explodes
WILD_STEPS = 8  # at most, of the run with it
HASTY_RATE = 2e-3  # of the run that learns its rows by heart
FEW_ROWS = 6  # which are those rows
LONG_STEPS = 30  # at most, of that run
CUT_AT = 72  # tokens, which is too few for some rows
OUTPUT = "clinic"  # the folder the results go to

# %% [markdown]
# ## 2. Interrupted
# The rows are short functions of Python's standard library, each with what its author wrote about it. For comparison,
# first a run that nobody disturbs. Its adapter goes to a file.

# %%
rows = samples.python_docs(source_characters=(30, 100), answer_characters=(30, 80))
rows = [{"messages": row["messages"]} for row in rows]
train_rows, held_out_rows = tunebook.hold_out(rows, 6)
settings = {
    "per_device_train_batch_size": BATCH_SIZE,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "hold_out": 0,
}
steady = {**settings, "learning_rate": LEARNING_RATE, "max_steps": STEPS}

model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
config = TrainingConfig(**steady, output_dir=f"{OUTPUT}/whole")
undisturbed = await Trainer(model, tokenizer, train_dataset=train_rows, args=config).train_async()
whole = model.save_pretrained(Path(OUTPUT) / "whole-lora")

# %% [markdown]
# Now the same run is stopped in the middle, from code. The **Stop** button, the kernel's interrupt and an error in a
# step end it just so: with the step it is in, and a *checkpoint*, which holds all that is needed to go on.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
config = TrainingConfig(**steady, output_dir=f"{OUTPUT}/stopped")
trainer = Trainer(model, tokenizer, train_dataset=train_rows, args=config)
trainer.add_step_callback(lambda step, *_: trainer.stop() if step == STOPPED_AT else None)
widgets.Dashboard(trainer).show()
stopped = await trainer.train_async()

# %% [markdown]
# **To mend it**, make the model and the trainer once more, as you would in a new kernel, and pass
# `resume_from_checkpoint=True`. The adapter that comes out is compared with that of the undisturbed run, byte by byte.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
trainer = Trainer(model, tokenizer, train_dataset=train_rows, args=config)
resumed = await trainer.train_async(resume_from_checkpoint=True)
mended = model.save_pretrained(Path(OUTPUT) / "resumed-lora")
is_same = (mended.path / "adapters.safetensors").read_bytes() == (whole.path / "adapters.safetensors").read_bytes()
print(stopped, resumed, f"The same bytes as undisturbed: {is_same}.", sep="\n")
assert is_same

# %% [markdown]
# ## 3. Out of memory
# A run that takes too much memory makes the whole machine slow, or is killed. `FitCheck` tells it beforehand. Here is
# one that is far too large for this machine. (*Gradient checkpointing*, which computes things twice and keeps less, is
# turned off on purpose: left alone, it goes on by itself where a run would not fit without.)

# %%
many, long = TOO_LARGE
greedy = TrainingConfig(
    per_device_train_batch_size=many,
    gradient_accumulation_steps=1,
    max_seq_length=long,
    gradient_checkpointing=False,
)
too_much = widgets.FitCheck(model, greedy)
too_much

# %% [markdown]
# **To mend it**, do what stands at the top of its list: read one row at a time, and make one step of all of them. The
# step is the same, and takes a little longer.

# %%
modest = TrainingConfig(
    per_device_train_batch_size=1,
    gradient_accumulation_steps=many,
    max_seq_length=long,
    gradient_checkpointing=False,
)
enough = widgets.FitCheck(model, modest)
assert enough.estimate.fits
enough

# %% [markdown]
# ## 4. A loss that explodes
# The learning rate says how far each step goes. Here it is far too high, on purpose. NaN, *not a number*, is what a
# computer writes where numbers have grown beyond all bounds.

# %%
wild = TrainingConfig(**settings, learning_rate=WILD_RATE, max_steps=WILD_STEPS, output_dir=f"{OUTPUT}/wild")
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=wild)
widgets.Dashboard(trainer).show()
exploded = await trainer.train_async()

# %% [markdown]
# A step whose numbers are not finite is not applied, so no NaN gets into the weights. After three of them in a row the
# run ends, and it says what to blame. Rows that alone give such a loss would be named. A loss that stays finite and
# climbs for several steps is told of as well.
#
# **To mend it**, load the model again, since the finite steps before have spoilt the adapter, and take a lower rate.
# Where you do not know which, `trainer.find_learning_rate()` tries some and puts everything back.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
config = TrainingConfig(**steady, output_dir=f"{OUTPUT}/calm")
trainer = Trainer(model, tokenizer, train_dataset=train_rows, eval_dataset=held_out_rows, args=config)
calm = await trainer.train_async()
print("wild:", *(f"{step.loss:.2f}" for step in exploded.steps))
print("calm:", *(f"{step.loss:.2f}" for step in calm.steps), f"; held out: {calm.message.partition('; ')[2]}")
assert calm.evals[-1].loss < calm.evals[0].loss

# %% [markdown]
# ## 5. The template twice
# A chat model reads a conversation in a certain form, with marks such as `<|im_start|>`. Its *chat template* writes
# them, and Tunebook calls it for you. Many recipes call it beforehand. Then it is written twice, and the model learns a
# form in which nobody will ever ask it. `TokenView` shows what the model reads, and says so above.

# %%
twice = [
    {
        "prompt": tokenizer.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True),
        "completion": row["messages"][1]["content"],
    }
    for row in train_rows[:12]
]
widgets.TokenView(model, twice)

# %% [markdown]
# **To mend it**, pass the turns as people wrote them.

# %%
once = [
    {"prompt": row["messages"][0]["content"], "completion": row["messages"][1]["content"]} for row in train_rows[:12]
]
print(widgets.TokenView(model, once).report)

# %% [markdown]
# ## 6. Answers cut off
# A row that is longer than `max_seq_length` is cut on the right, where the answer is. The model then learns to break
# off, or the row has no answer left to learn from.

# %%
widgets.TokenView(model, train_rows[:60], max_seq_length=CUT_AT)

# %% [markdown]
# **To mend it**, give the rows the length that stands in the finding, or more. Longer rows take more memory; `FitCheck`
# says how much.

# %%
report = widgets.TokenView(model, train_rows[:60], max_seq_length=MAX_SEQ_LENGTH).report
print(report)
assert not report.findings

# %% [markdown]
# ## 7. Overfitted
# A few rows, read again and again at a high rate, are soon known by heart: their own loss falls and falls. What the
# model knows of other rows gets worse, and only held-out rows can tell. So the run looks at them every few steps. It
# ends when they have not become better for three looks (`early_stopping_patience`), and puts the best weights back
# (`load_best_model_at_end`).

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
hasty = TrainingConfig(
    **settings,
    learning_rate=HASTY_RATE,
    max_steps=LONG_STEPS,
    eval_steps=3,
    early_stopping_patience=3,
    load_best_model_at_end=True,
    output_dir=f"{OUTPUT}/hasty",
)
trainer = Trainer(model, tokenizer, train_dataset=train_rows[:FEW_ROWS], eval_dataset=held_out_rows, args=hasty)
widgets.Dashboard(trainer).show()
by_heart = await trainer.train_async()
for found in by_heart.evals:
    print(f"step {found.step:>2}: held-out loss {found.loss:.3f}")
now, best = trainer.evaluate(held_out_rows).loss, min(found.loss for found in by_heart.evals)
print(f"in the model now: {now:.3f}")
assert abs(now - best) < 1e-3 < by_heart.evals[-1].loss - best

# %% [markdown]
# In the picture the line of the steps goes down, and the diamonds of the held-out rows turn and rise. The weights in
# the model are those of the lowest diamond. More rows are the better cure, or a lower rate.

# %% [markdown]
# ## Where next
# - **Is the machine in order?** `00_check_my_mac` checks it, and says what fits.
# - **What the loss cannot tell.** `06_did_it_help` finds a run whose loss falls while the model forgets.
# - **A loss that is not the one you expect.** `03_parity_lab` compares a run with other programs, stage by stage.
