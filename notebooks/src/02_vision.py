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
# A *vision-language model* takes images and text, and answers in text. In about two minutes on a laptop, without a
# download, this notebook teaches a very small one to read handwritten digits. Its 100,000 parameters are random numbers
# at first, so whatever it can do in the end it has learned here.
#
# You will train the whole model first. Then you will keep it as it is and train small adapters beside it, which make it
# answer in words. On the way you compare two runs, watch one once more, and export with a panel. The same cells tune
# Qwen-VL, Gemma 3, SmolVLM and Idefics 3.

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples

# %% [markdown]
# These numbers fit two CPU cores and this small model. For a released model, mind the comments. An *epoch* is one pass
# over all the rows to train on.

# %% tags=["parameters"]
HELD_OUT_ROWS = 300  # digits that are never trained on
BATCH_SIZE = 32  # rows read at a time; for a released model: 1 or 2, with gradient accumulation
EPOCHS = 5  # with all parameters trained
LEARNING_RATE = 3e-3  # for random parameters; a released model wants a hundredth of it
LORA_EPOCHS = 2  # with adapters alone
LORA_RANK = 8  # how much an adapter can hold
LORA_LEARNING_RATES = [5e-4, 5e-3]  # both are tried, and the second is kept
OUTPUT = "vision"  # the folder the results go to

# %% [markdown]
# ## 2. The data
# The package scikit-learn brings 1,797 digits that people wrote by hand. Each row is a short conversation: the user
# shows an image and asks which digit it is, and the answer is the digit. Here is the first.

# %%
train_rows, held_out_rows = tunebook.hold_out(samples.digits(), HELD_OUT_ROWS)
train_rows[0]["messages"]

# %% [markdown]
# A digit is only 8 pixels wide and 8 high. This is the image of that row, enlarged.

# %%
train_rows[0]["messages"][0]["content"][0]["image"].resize((128, 128), resample=0)

# %% [markdown]
# ## 3. The model
# It is built like SmolVLM, but so small that it learns while you watch. `full_finetuning=True` lets every parameter be
# trained.

# %%
folder = samples.digit_reader(f"{OUTPUT}/untrained")
model, tokenizer = FastModel.from_pretrained(folder, full_finetuning=True, max_seq_length=64)
model

# %% [markdown]
# This is what the model reads. The image has become a few tokens called `<image>` among those of the text. The marked
# tokens are what it learns to write, and those of an image are never among them.

# %%
widgets.TokenView(model, train_rows[:200])

# %% [markdown]
# ## 4. Before
# How many of the held-out digits does it read? By guessing it would get one in ten. It gets fewer, because it does not
# know yet that the answer is a digit.

# %%
asked = [(row["messages"][:1], row["messages"][1]["content"]) for row in held_out_rows]
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits")

# %% [markdown]
# ## 5. Train everything
# Before the first step the model itself is checked. Among other things, no token may see a token that comes after it, a
# row must give the same numbers alone and in a batch, and the image must make a difference. Then the *loss* falls,
# which says how much the right answers surprise the model. (`01_quickstart` explains the charts, and the *nats* the
# loss is counted in.)

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
# The two notes below the table do not mean that something is wrong. The images of these rows are not in files, so each
# is read anew when its turn comes; and Tunebook writes no GGUF files of models that read images.
#
# Now the same held-out digits again. The model has never been trained on any of them.

# %%
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits")

# %% [markdown]
# ## 6. Keep it
# The model is saved as a folder that mlx-vlm, another program for such models, can open. It is opened there at once,
# and the loss on eight held-out rows is compared: *loss there* is what mlx-vlm finds, *loss here* what this notebook
# finds. The column *ids* counts the texts that both programs cut into the same tokens. It stays empty here, because a
# row with an image is not text alone.

# %%
reader = model.save_pretrained_merged(Path(OUTPUT) / "reader", verify_with=held_out_rows[:8])
reader

# %% [markdown]
# ## 7. Adapters alone: which learning rate?
# From now on the model stays as it is. A small pair of matrices, an *adapter*, is put beside each large matrix of its
# language part, and only the adapters are trained. They learn to answer with a word: *seven* in place of *7*. (With
# `finetune_vision_layers=True` its vision part would get adapters too.)
#
# How large should the learning rate be? Try two. Each run begins from the saved model, with new adapters, and shows a
# progress bar in place of the dashboard, with the same two notes.

# %%
train_words, held_out_words = tunebook.hold_out(samples.digits(in_words=True), HELD_OUT_ROWS)
runs = {}
for learning_rate in LORA_LEARNING_RATES:
    model, tokenizer = FastModel.from_pretrained(reader.path, max_seq_length=64)
    model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
    trainer = Trainer(
        model,
        tokenizer,
        train_dataset=train_words,
        eval_dataset=held_out_words,
        args=TrainingConfig(
            per_device_train_batch_size=BATCH_SIZE,
            gradient_accumulation_steps=1,
            num_train_epochs=LORA_EPOCHS,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            eval_steps=25,
            output_dir=f"{OUTPUT}/adapters",
        ),
    )
    runs[f"learning rate {learning_rate:g}"] = await trainer.train_async()

# %% [markdown]
# `compare` draws the runs over one another. Its table says how each of them went, and then which settings were not the
# same in all of them.

# %%
widgets.compare(list(runs.values()), names=list(runs))

# %% [markdown]
# `replay` brings back a run that is over, from what it left on the disk: play it at any speed, or drag it to any step.
# It moves in a running notebook only. The saved notebook has this picture of it instead:
#
# ![A replay: the losses of a run up to the step that a slider is at, and buttons to play it, slower or
# faster](images/replay.png)

# %% tags=["skip-execution"]
widgets.replay(runs[f"learning rate {LORA_LEARNING_RATES[-1]:g}"])

# %% [markdown]
# ## 8. After
# Does the model with the second learning rate, which is the one in memory, read the held-out digits in words?

# %%
asked = [(row["messages"][:1], row["messages"][1]["content"]) for row in held_out_words]
read = sum(model.generate(question, max_tokens=4).strip() == answer for question, answer in asked)
print(f"{read / len(asked):.0%} of {len(asked)} held-out digits, in words")

# %% [markdown]
# ## 9. Take it with you
# The adapters alone, which are small and need the saved model beside them, and the whole model with the adapters merged
# in. Both are read back and compared, as above.

# %%
lora = model.save_pretrained(Path(OUTPUT) / "lora", verify_with=held_out_words[:8])
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged", verify_with=held_out_words[:8])
tunebook.ExportTable([lora, merged])

# %% [markdown]
# An `ExportPanel` does the same without code: tick the forms, press the button, and see each of them read back. It
# needs a running kernel. The saved notebook has this picture of it instead:
#
# ![The export panel: a box to tick for each form, and a table of the forms that were written and read
# back](images/export.png)

# %% tags=["skip-execution"]
widgets.ExportPanel(model, Path(OUTPUT) / "exports", rows=held_out_words[:8])

# %% [markdown]
# ## Where next
# - **Your own rows.** Put them in place of `digits()`: `messages` with images in them, or columns of text beside a
#   column `images` that holds paths, bytes or PIL images.
# - **A released model.** Put its name in place of the folder, such as `HuggingFaceTB/SmolVLM-256M-Instruct`. If memory
#   is short, load it with `load_in_4bit=True`.
# - **Documents with images.** `04_continued_pretraining` trains on whole texts in place of questions and answers.
