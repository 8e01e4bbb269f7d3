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
# # Teach a model to read
#
# In two minutes on a laptop, without a download: a vision-language model with 100,000 random weights learns to read
# handwritten digits, all of it being trained. Then it is frozen, and small adapters beside it learn to say the digits
# in words. The same cells tune Qwen-VL, Gemma 3, SmolVLM and Idefics 3.

# %% [markdown]
# ## 1. The choices
# These fit two CPU cores. For a released model put its name in place of the folder, and mind the comments.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples

# %% tags=["parameters"]
HELD_OUT_ROWS = 300  # digits that are never trained on
BATCH_SIZE = 32  # for a released model: 1 or 2, with gradient accumulation
EPOCHS = 5  # over all training digits, with every weight trained
LEARNING_RATE = 3e-3  # for random weights; a released model wants a hundredth of it
LORA_EPOCHS = 2  # with adapters alone
LORA_RANK = 8
LORA_LEARNING_RATE = 5e-3  # for 94 steps; with hundreds of steps 2e-4 is a calmer choice
OUTPUT = "vision"  # the folder the results go to

# %% [markdown]
# ## 2. The data
# Scikit-learn brings 1,797 digits that people wrote by hand. A row is a conversation, and the image a part of a turn.

# %%
train_rows, held_out_rows = tunebook.hold_out(samples.digits(), HELD_OUT_ROWS)
train_rows[0]["messages"]

# %% [markdown]
# A digit is 8 pixels high and wide; this is one of them, larger.

# %%
train_rows[0]["messages"][0]["content"][0]["image"].resize((128, 128), resample=0)

# %% [markdown]
# ## 3. The model
# SmolVLM's architecture, made so small that it learns while you watch. Its weights are random: it knows nothing yet.

# %%
folder = samples.digit_reader(f"{OUTPUT}/untrained")
model, tokenizer = FastModel.from_pretrained(folder, full_finetuning=True, max_seq_length=64)
model

# %% [markdown]
# What the model reads: the image is a few tokens among the others. The marked part is what it learns to write, and no
# token of an image is ever in it.

# %%
widgets.TokenView(model, train_rows[:200])

# %% [markdown]
# ## 4. Before
# How many of the digits held out does it read? One in ten would be luck; it does not even answer with a digit.

# %%
asked = [(row["messages"][:1], row["messages"][1]["content"]) for row in held_out_rows]
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits")

# %% [markdown]
# ## 5. Train everything
# Before the first step the model is tried out: that no token sees a later one, that a row in a batch is the row alone,
# and that the image is seen at all.

# %%
trainer = Trainer(
    model,
    tokenizer,
    train_dataset=train_rows,
    eval_dataset=held_out_rows,
    args=TrainingConfig(
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=1,
        num_train_epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        eval_steps=50,
        output_dir=f"{OUTPUT}/full",
    ),
)
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# The same digits again, none of which it was trained on.

# %%
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits")

# %% [markdown]
# ## 6. Keep it
# A model folder that mlx-vlm opens. It is opened at once, by a program that is not this notebook.

# %%
reader = model.save_pretrained_merged(Path(OUTPUT) / "reader", verify_with=held_out_rows[:8])
reader

# %% [markdown]
# ## 7. Adapters alone
# Now the reader stays as it is. The answers shall be words, and only a small pair of matrices beside each projection of
# the language model learns that. (`finetune_vision_layers=True` would put adapters on its eyes as well.)

# %%
train_words, held_out_words = tunebook.hold_out(samples.digits(in_words=True), HELD_OUT_ROWS)
model, tokenizer = FastModel.from_pretrained(reader.path, max_seq_length=64)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
model

# %% [markdown]
# Half as long is enough, for it has learnt to see already. This time there is a progress bar alone.

# %%
trainer = Trainer(
    model,
    tokenizer,
    train_dataset=train_words,
    eval_dataset=held_out_words,
    args=TrainingConfig(
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=1,
        num_train_epochs=LORA_EPOCHS,
        learning_rate=LORA_LEARNING_RATE,
        lr_scheduler_type="cosine",
        eval_steps=25,
        output_dir=f"{OUTPUT}/adapters",
    ),
)
result = await trainer.train_async()

# %% [markdown]
# ## 8. After
# In words, and still right.

# %%
asked = [(row["messages"][:1], row["messages"][1]["content"]) for row in held_out_words]
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits, in words")

# %% [markdown]
# ## 9. Take it with you
# The adapters alone and the model with them merged in, each read back by mlx-vlm with the same loss.

# %%
lora = model.save_pretrained(Path(OUTPUT) / "lora", verify_with=held_out_words[:8])
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged", verify_with=held_out_words[:8])
tunebook.ExportTable([lora, merged])

# %% [markdown]
# ## Where next
# Put your own rows in place of `digits()`: `messages` with image parts, or text columns beside a column `images`, which
# holds paths, bytes or PIL images. Put a released model in place of the folder, such as
# `HuggingFaceTB/SmolVLM-256M-Instruct`, and load it with `load_in_4bit=True` if memory is short.
