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
# # Take it with you
#
# A tuned model is of use where people use it: in a chat on a laptop, in an app, on a server. Each of those programs
# wants a file of its own kind. This notebook trains one model for a minute or two, and saves it in ten ways:
#
# - **the adapter alone**, for mlx-lm and for PEFT: small, and of use only beside the model it was made from;
# - **the whole model**, with the adapter merged in, in 16 bits and in 4;
# - **GGUF files of six types**, for llama.cpp, Ollama and LM Studio, from 16 bits a parameter down to 4.
#
# Each is read back by the program it is for. Then the GGUF files take the same exam, and a picture shows what a smaller
# file costs. It needs llama.cpp and PEFT: `pip install 'tunebook[verify,kquants]' peft torch`.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples, scores

# %% [markdown]
# These numbers fit two CPU cores. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 128  # tokens per row at most
LORA_RANK = 8  # on a Mac: 16
LEARNING_RATE = 1e-3  # with hundreds of steps: 2e-4
STEPS = 20  # with four rows each; on a Mac: 200
EXAM_ROWS = 12  # never trained on; on a Mac: 100
CHECK_ROWS = 2  # of these, for reading a file back; on a Mac: 8
GGUF_TYPES = ["f16", "q8_0", "q6_k", "q5_1", "q4_k_m", "q4_0"]  # from large to small
OUTPUT = "take-it"  # the folder the results go to

# %% [markdown]
# ## 2. One short training
# The task is one that a program can check: a command to a home becomes JSON, as in `06_did_it_help`.

# %%
train_rows, exam_rows = tunebook.hold_out(samples.home_commands(), EXAM_ROWS)
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
trainer = Trainer(
    model,
    tokenizer,
    train_dataset=train_rows,
    args=TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=STEPS,
        learning_rate=LEARNING_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        hold_out=0,  # the exam is held out already
        output_dir=f"{OUTPUT}/runs",
    ),
)
widgets.Dashboard(trainer).show()
result = await trainer.train_async()

# %% [markdown]
# The exam asks commands that were not trained on. `json_match` is the share of answers that are JSON with the right
# values. `perplexity` says how much the right answers surprise the model: 1 is no surprise, and less is better.

# %%
exam = scores.Exam(exam_rows, metrics=["json_match", "perplexity"], max_tokens=28)
tuned = exam.take(model, name="tuned")
tuned

# %% [markdown]
# ## 3. The adapter alone
# It holds what was trained and nothing else. mlx-lm and PEFT keep it in different forms. With `verify_with`, the
# program it is for opens it in a process of its own, and must find the loss that this notebook finds.

# %%
check = exam_rows[:CHECK_ROWS]
lora = model.save_pretrained(Path(OUTPUT) / "lora", verify_with=check)
peft = model.save_pretrained(Path(OUTPUT) / "peft", format="peft", verify_with=check)

# %% [markdown]
# ## 4. The whole model
# Here the adapter is added into the weights, and nobody needs the base any more. In 16 bits mlx-lm and transformers
# open it; in 4 bits mlx-lm alone does.

# %%
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged-16bit", verify_with=check)
four_bits = model.save_pretrained_merged(Path(OUTPUT) / "merged-4bit", save_method="merged_4bit", verify_with=check)

# %% [markdown]
# ## 5. GGUF
# One file holds the model, its tokenizer and its chat template. The name of a type begins with the bits of a parameter.
# `_0` and `_1` are the simple kinds; `_k` is a later kind that spends its bits more cleverly, and `_m` means that some
# parts get more of them.

# %%
gguf_files = model.save_pretrained_gguf(Path(OUTPUT) / "gguf", quantization_method=GGUF_TYPES, verify_with=check)

# %% [markdown]
# ## 6. Were they read back?
# - **read back by** is the program that opened the file;
# - **loss there** is the loss it found, **loss here** the one in this notebook;
# - **ids** counts the texts that the program cut into the same tokens;
# - **check** is PASS where all ids agree and the losses differ by no more than the bits explain.
#
# Below the table stand the commands that open each file.

# %%
exports = [lora, peft, merged, four_bits, *gguf_files]
tunebook.ExportTable(exports)

# %% [markdown]
# All but one pass. The file of type `q5_1` does not: the loss that llama.cpp found is far from that in this notebook,
# and so is the loss this kit finds in the file. A type that does well with most models may spoil one, and only reading
# the file back tells.
#
# ## 7. What does a smaller file cost?
# A loss that is nearly the same is no proof that the model still does its job. So the six GGUF files take the exam, in
# llama.cpp. (`06_did_it_help` asks the merged models too, in mlx-lm, which takes minutes on a CPU.)

# %%
marks = [exam.take(export, name=export.kind) for export in gguf_files]
scores.compare(tuned, *marks)

# %% [markdown]
# Here is the size of each file against its scores. The best place is at the left and high up in the first picture, and
# at the left and low down in the second.

# %%
figure, places = plt.subplots(1, 2, figsize=(10, 3.6))
for place, metric in zip(places, ["json_match", "perplexity"], strict=True):
    place.axhline(tuned[metric], linestyle="--", color="gray", label="the live model")
    for export, mark in zip(gguf_files, marks, strict=True):
        place.scatter(export.bytes / 1e6, mark[metric], label=export.kind)
    place.set(xlabel="MB", ylabel=metric)
places[0].set_ylim(-0.05, 1.05)
places[1].legend(fontsize=8)
figure.tight_layout()
plt.show()

# %% [markdown]
# The order is not that of the sizes. Five of the files do the job as well as the live model, as far as twelve rows can
# tell. Of these the smallest, `q4_0`, is a little more surprised by the right answers. `q5_1` is larger than two of
# them, and has lost everything. Take the smallest that still passes your exam.

# %% [markdown]
# ## 8. Open them elsewhere
# llama.cpp and LM Studio need the file alone. Ollama needs a *Modelfile* beside it, which tells it in which form the
# model was tuned to be asked. It was written with each GGUF file.

# %%
smallest = min(gguf_files, key=lambda export: export.bytes)
print(smallest.path.with_suffix(".Modelfile").read_text())

# %% [markdown]
# With the commands below the table of section 6, in a terminal and from the folder of this notebook:
#
# - **mlx-lm**: `mlx_lm.chat` with the folder of the merged model, or with the base and `--adapter-path`;
# - **llama.cpp**: `llama-cli -m` and the file;
# - **Ollama**: `ollama create` reads the Modelfile and gives the model a name, `ollama run` talks to it;
# - **LM Studio**: `lms import --copy` puts the file among its models. Then choose it in the window;
# - **PEFT**: in Python, as the README in its folder says. Each folder has such a model card.

# %% [markdown]
# ## Where next
# - **To the hub.** `model.push_to_hub(...)`, `push_to_hub_merged(...)` and `push_to_hub_gguf(...)` send the same files
#   to the Hugging Face hub, private unless you say otherwise.
# - **Train on.** `FastModel.from_pretrained("take-it/lora")` goes on from an adapter.
# - **Was it worth it?** `06_did_it_help` asks what was gained, and what was forgotten.
