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
# # Continue pretraining, on text with images
#
# A model is *pretrained* on documents: from all the words before it, it learns to predict the next. *Continued
# pretraining* does the same with documents of yours. Choose it when you have manuals, papers, catalogues or web pages,
# and the model should know their subject, their language and their images. Choose questions and answers, as in
# `01_quickstart` and `02_vision`, when it should answer like them. Often one follows the other.
#
# In about a minute, without a download, this notebook trains a very small vision-language model on documents with
# images between their sentences. It stops the run in the middle and goes on with it. In the end it shows that the model
# really looks at the images.

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig, samples

# %% [markdown]
# These numbers fit two CPU cores and this small model. For a released model, mind the comments.

# %% tags=["parameters"]
HELD_OUT_ROWS = 100  # documents that are never trained on
BATCH_SIZE = 32  # documents read at a time; for a released model: 1 or 2, with gradient accumulation
STEPS = 160
STOPPED_AT = 80  # the step at which the run is stopped
LEARNING_RATE = 3e-3  # for random parameters; a released model wants a hundredth of it, or less
MAX_SEQ_LENGTH = 128  # tokens per document, those of its images included
OUTPUT = "pretraining"  # the folder the results go to

# %% [markdown]
# ## 2. The documents
# A row has a text and a list of images. Where an image belongs, the text has a *placeholder*, which is a token of the
# model; here it is `<image>`. Images are named by their paths in one folder. These documents describe small tiles that
# were cut from two photographs.

# %%
tiles = Path(OUTPUT) / "tiles"
train_rows, held_out_rows = tunebook.hold_out(samples.photographs(tiles), HELD_OUT_ROWS)
for name, rows in {"train": train_rows, "held-out": held_out_rows}.items():
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (Path(OUTPUT) / f"{name}.jsonl").write_text(lines)
print(f"{len(train_rows)} documents to train on, {len(held_out_rows)} held out, such as")
train_rows[:3]

# %% [markdown]
# A program made the sentences from the pixels, so what they say is true. Here are the tiles of some documents.

# %%
figure, places = plt.subplots(1, 8, figsize=(11, 1.6))
for place, row in zip(places, [row for row in train_rows if len(row["images"]) == 1], strict=False):
    place.imshow(Image.open(tiles / row["images"][0]))
    place.set_title(row["text"].split(": ")[-1], fontsize=8)
    place.axis("off")
plt.show()

# %% [markdown]
# `MultimodalPretrain` names the file of documents and the folder of images. An image that is missing, broken or outside
# that folder is an error before the first step, and the error names the row. With `skip_bad_images=True` such rows are
# left out and counted instead. Nothing is fetched from a network unless you allow it.

# %%
documents = MultimodalPretrain(f"{OUTPUT}/train.jsonl", image_base_dir=tiles)
held_out = MultimodalPretrain(f"{OUTPUT}/held-out.jsonl", image_base_dir=tiles)

# %% [markdown]
# ## 3. The model
# It is built like SmolVLM, with 100,000 parameters that are random numbers. So it begins pretraining here; to
# *continue* that of a released model, put its name in place of the folder.

# %%
untrained = samples.photograph_reader(f"{OUTPUT}/untrained")
model, processor = FastModel.from_pretrained(untrained, full_finetuning=True, max_seq_length=MAX_SEQ_LENGTH)
model

# %% [markdown]
# ## 4. Train, and stop halfway
# Every token of a text is trained, and no token of an image. The *loss* says how much the tokens surprise the model, in
# *nats* per token: 0 means that it was sure of every token, 0.7 that it gave each a chance of one in two. In the middle
# the run is stopped from code, just as by a press of **Stop**: it finishes the step it is in and saves a *checkpoint*,
# which holds everything it needs to go on.
#
# What else can happen to a run?
#
# - **The kernel is interrupted, or a step fails.** The run saves a checkpoint too.
# - **The kernel is killed, or the power fails.** The steps since the newest checkpoint are lost. The first is saved
#   within two minutes, and then one every ten minutes and every hundred steps.
# - **The disk is full.** The run says that a checkpoint could not be saved, and trains on. The one before it stays.
# - **The lid is closed.** The laptop sleeps, and the run with it. It goes on when the laptop wakes.

# %%
settings = TrainingConfig(
    per_device_train_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=1,
    max_steps=STEPS,
    learning_rate=LEARNING_RATE,
    lr_scheduler_type="cosine",
    eval_steps=STEPS // 8,
    output_dir=f"{OUTPUT}/runs",
)
trainer = Trainer(model, processor, train_dataset=documents, eval_dataset=held_out, args=settings)
trainer.add_step_callback(lambda step, *_: trainer.stop() if step == STOPPED_AT else None)
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# ## 5. Go on
# In a new kernel you would run the cells with the choices and the documents, and then this one. It loads the model,
# makes the trainer, and goes on from the newest checkpoint. The parameters, the optimizer and the learning rate are as
# they were when the run stopped, and the documents come in the order they would have come in. This time a progress bar
# takes the place of the dashboard. (The note about GGUF does not mean that something is wrong: Tunebook writes no such
# files of models that read images.)

# %%
model, processor = FastModel.from_pretrained(untrained, full_finetuning=True, max_seq_length=MAX_SEQ_LENGTH)
trainer = Trainer(model, processor, train_dataset=documents, eval_dataset=held_out, args=settings)
result = await trainer.train_async(resume_from_checkpoint=True)

# %% [markdown]
# ## 6. Does it look at the images?
# The loss fell, but that alone does not prove it: much of such a sentence can be guessed without looking. So give the
# held-out documents each other's images, and change nothing else. A model that does not look would not notice.
#
# `trainer.evaluate` measures the loss on any rows.

# %%
own = [row for row in held_out_rows if row["images"]]
names = [name for row in own for name in row["images"]]
others = iter(names[len(names) // 2 :] + names[: len(names) // 2])
exchanged = [{**row, "images": [next(others) for _ in row["images"]]} for row in own]

losses = {
    label: trainer.evaluate(MultimodalPretrain(rows, image_base_dir=tiles)).loss
    for label, rows in {"their own images": own, "each other's images": exchanged}.items()
}
figure, axes = plt.subplots(figsize=(6, 1.8))
bars = axes.barh(list(losses), list(losses.values()), color=["tab:blue", "tab:orange"])
axes.bar_label(bars, fmt="%.3f", padding=4)
axes.set(xlabel="held-out loss, nats per token", xlim=(0, 1.2 * max(losses.values())))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# Only the images differ. So the part by which the second bar is longer is what the model learns from looking at them.

# %% [markdown]
# ## 7. Take it with you
# The model is saved as a folder that mlx-vlm can open. It is opened there at once, and has to give the same loss on
# eight held-out documents: *loss there* is what mlx-vlm finds, *loss here* what this notebook finds. The column *ids*,
# which counts texts that are cut into the same tokens, stays empty for documents with images.

# %%
check = [{**row, "images": [str(tiles / name) for name in row["images"]]} for row in own[:8]]
saved = model.save_pretrained_merged(Path(OUTPUT) / "continued", verify_with=check)
saved

# %% [markdown]
# ## Where next
# - **Your own documents.** Put your .jsonl or .parquet file or a hub id in place of `train.jsonl`.
# - **A released model.** Put its name in place of the folder, such as `HuggingFaceTB/SmolVLM-256M-Instruct`. The
#   placeholder your texts need is then `model.family.placeholder`.
# - **Less memory.** To train small adapters in place of all parameters, call `FastModel.get_peft_model`, as in
#   `02_vision`.
# - **Answers rather than documents.** Go on from the saved folder, with questions and answers as rows.
