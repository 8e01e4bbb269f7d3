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
# # Continue pretraining, on text with pictures
#
# A model is pretrained on documents: it learns to predict all of a text, word after word. Continued pretraining goes on
# with that, on documents of yours. Choose it when you have manuals, papers, catalogues or web pages, and want the model
# to know their subject, language and pictures. Choose chat rows, as in the quickstart and the notebook about vision,
# when you have questions with answers and want it to answer like that. Often one follows the other.
#
# In about a minute, without a download, this notebook takes a tiny vision-language model through documents that have
# pictures between their sentences, interrupts the run and resumes it, and then proves that the pictures are read.

# %% [markdown]
# ## 1. The choices
# These fit two CPU cores.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig, samples

# %% tags=["parameters"]
HELD_OUT_ROWS = 100  # documents that are never trained on
BATCH_SIZE = 32  # for a released model: 1 or 2, with gradient accumulation
STEPS = 160
STOPPED_AT = 80  # the step at which the run is interrupted
LEARNING_RATE = 3e-3  # for random weights; a released model wants a hundredth of it, or less
MAX_SEQ_LENGTH = 128  # tokens per document, those of its pictures included
OUTPUT = "pretraining"  # the folder the results go to

# %% [markdown]
# ## 2. The documents
# A row is a text and a list of pictures. Where a picture is to be seen, the text has the model's own placeholder, here
# `<image>`; the pictures are paths below one folder. These documents describe small tiles of two photographs.

# %%
pictures = Path(OUTPUT) / "tiles"
rows = samples.photographs(pictures)
train_rows, held_out_rows = tunebook.hold_out(rows, HELD_OUT_ROWS)
for name, some in {"train": train_rows, "held-out": held_out_rows}.items():
    lines = "".join(json.dumps(row) + "\n" for row in some)
    (Path(OUTPUT) / f"{name}.jsonl").write_text(lines)
print(f"{len(train_rows)} documents to train on, {len(held_out_rows)} held out, such as")
train_rows[:3]

# %% [markdown]
# The sentences are computed from the pixels, so they are true. These tiles are some of those in the documents.

# %%
figure, places = plt.subplots(1, 8, figsize=(11, 1.6))
for place, row in zip(places, [row for row in train_rows if len(row["images"]) == 1], strict=False):
    place.imshow(Image.open(pictures / row["images"][0]))
    place.set_title(row["text"].split(": ")[-1], fontsize=8)
    place.axis("off")
plt.show()

# %% [markdown]
# `MultimodalPretrain` names the file, and the folder its pictures must be in. A picture that is missing, broken or
# outside that folder is an error that names the row, before the first step; with `skip_bad_images=True` such rows are
# left out and counted instead. Nothing is fetched from a network unless you allow it.

# %%
documents = MultimodalPretrain(f"{OUTPUT}/train.jsonl", image_base_dir=pictures)
held_out = MultimodalPretrain(f"{OUTPUT}/held-out.jsonl", image_base_dir=pictures)

# %% [markdown]
# ## 3. The model
# SmolVLM's architecture with 100,000 random weights. With a released model, whose pretraining you really continue, put
# its name in place of the folder.

# %%
untrained = samples.photograph_reader(f"{OUTPUT}/untrained")
model, processor = FastModel.from_pretrained(untrained, full_finetuning=True, max_seq_length=MAX_SEQ_LENGTH)
model

# %% [markdown]
# ## 4. Train, and stop halfway
# All of a text is learnt, but no token of a picture. Somewhere in the middle the run is stopped, as by the **Stop**
# button, a closed lid or a full disk; it leaves a checkpoint.

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
stopped = await trainer.train_async()

# %% [markdown]
# ## 5. Resume
# A new kernel would do the same: load the model, make the trainer, and go on from the newest checkpoint. Weights,
# optimizer and learning rate are those of the moment it stopped, and the next document is the one that was next. This
# time there is a progress bar alone.

# %%
model, processor = FastModel.from_pretrained(untrained, full_finetuning=True, max_seq_length=MAX_SEQ_LENGTH)
trainer = Trainer(model, processor, train_dataset=documents, eval_dataset=held_out, args=settings)
result = await trainer.train_async(resume_from_checkpoint=stopped.run_folder)

# %% [markdown]
# ## 6. Are the pictures read?
# A falling loss is no proof: most of such a sentence can be guessed without looking. So the held-out documents get each
# other's pictures, and nothing else is changed. A model that does not look would not notice.

# %%
shown = [row for row in held_out_rows if row["images"]]
names = [name for row in shown for name in row["images"]]
others = iter(names[len(names) // 2 :] + names[: len(names) // 2])
exchanged_rows = [{**row, "images": [next(others) for _ in row["images"]]} for row in shown]

losses = {
    label: Trainer(
        model,
        processor,
        train_dataset=documents,
        eval_dataset=MultimodalPretrain(some, image_base_dir=pictures),
        args=settings,
    )
    .evaluate()
    .loss
    for label, some in {"their own pictures": shown, "each other's pictures": exchanged_rows}.items()
}
figure, axes = plt.subplots(figsize=(6, 1.8))
axes.bar_label(axes.barh(list(losses), list(losses.values()), color=["tab:blue", "tab:orange"]), fmt="%.3f", padding=4)
axes.set(xlabel="held-out loss, nats per token", xlim=(0, 1.2 * max(losses.values())))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# The pictures are all that differs, so whatever the second bar is longer by, the model takes from them.

# %% [markdown]
# ## 7. Take it with you
# A model folder that mlx-vlm opens. It is read back at once, and must give the same loss on documents held out.

# %%
check = [{**row, "images": [str(pictures / name) for name in row["images"]]} for row in shown[:8]]
saved = model.save_pretrained_merged(Path(OUTPUT) / "continued", verify_with=check)
saved

# %% [markdown]
# ## Where next
# Put your own .jsonl, .parquet or hub id in place of `train.jsonl`, and a released model such as
# `HuggingFaceTB/SmolVLM-256M-Instruct` in place of the folder. Its placeholder is `model.family.placeholder`. To train
# small adapters in place of all weights, call `FastModel.get_peft_model` as in the notebook about vision. For answers
# rather than documents, go on from the saved folder with chat rows.
