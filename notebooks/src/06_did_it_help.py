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
# # Did it help, and what did it forget?
#
# A loss that falls says that the model is less surprised by the answers it is shown. It does not say that the model
# does its job, nor what else it could do before and can do no longer. This notebook asks, and answers with numbers that
# say how sure they are. You get:
#
# - **an exam** of a task that a program can check: SmolLM2-135M turns a command to a home into JSON;
# - **one table** of the base, the tuned model and four files of it, each asked in the program it is for;
# - **what it forgot**, by a small exam of general abilities that comes with the kit;
# - **a run that goes wrong** while its loss gets better and better, caught by an exam that is taken while it trains.
#
# It needs llama.cpp and the K-quants: `pip install 'tunebook[verify,kquants]'`.

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from pathlib import Path

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
STEPS = 24  # with four rows each; on a Mac: 200
EXAM_ROWS = 12  # never trained on; on a Mac: 100
ABILITY_ROWS = 8  # of each general ability; on a Mac: leave them all, 24
HARSH_RATE = 5e-3  # of the run that goes wrong
HARSH_STEPS = 24
HARSH_ROWS = 32  # and so few rows that each is seen three times
ANSWER_TOKENS = 28  # of an answer at most
OUTPUT = "did-it-help"  # the folder the results go to

# %% [markdown]
# ## 2. A task that a program can check
# Each row is a command to a home, and the JSON that means the same. The sentence may say what it wants in many ways:
# "Why is the fan in the attic still off?" wants it on. There is one right answer, and a program can tell whether it was
# given.

# %%
train_rows, exam_rows = tunebook.hold_out(samples.home_commands(), EXAM_ROWS)
print(f"{len(train_rows)} rows to train on, {len(exam_rows)} for the exam")
train_rows[0]

# %% [markdown]
# ## 3. The exam, before
# An `Exam` holds rows and the metrics that judge them. `json_match` is whether the answer is JSON with the very values
# of the row's own answer. The base cannot do it.

# %%
exam = scores.Exam(exam_rows, metrics=["json_match"], max_tokens=ANSWER_TOKENS)
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
base = exam.take(model, name="base")
base

# %% [markdown]
# Here is what it writes.

# %%
for row in base.rows[:2]:
    print(row.prompt, "\n->", row.answer, "\n")

# %% [markdown]
# It is kept as a GGUF file too, for later, as it is before any training.

# %%
base_file = model.save_pretrained_gguf(Path(OUTPUT) / "base", quantization_method="q8_0")

# %% [markdown]
# Another exam is of other things, which a training may cost. `scores.general()` is a small one that comes with the kit:
# facts, everyday sense, grammar, the form of an answer, English. It is far from complete, and its intervals are wide.

# %%
general = scores.general(rows=ABILITY_ROWS, abilities=["facts", "sense", "grammar", "instructions", "english"])
base_general = general.take(model, name="base")
base_general

# %% [markdown]
# ## 4. Train
# As in `01_quickstart`, with an adapter.

# %%
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
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# ## 5. Did it help?
# The same exam again, and both side by side. The sentences below the table say what can be concluded from so few rows:
# *flipped* counts rows that came to be right or wrong, and *p* is how often chance alone would do as much.

# %%
tuned = exam.take(model)
scores.compare(base, tuned)

# %% [markdown]
# A notebook that runs by itself can insist: this line raises an error, with that sentence, where the model is not
# better by half of all rows at least.

# %%
tuned.require(better_than=base, by=0.5, metric="json_match")

# %% [markdown]
# ## 6. Do the files still do it?
# What people will use is a file: a merged model, in 16 or in 4 bits, or a GGUF with its weights rounded to 8 bits or to
# 4 or 5. Each takes the same exam in the program it is for, in a process of its own: the merged models in stock
# mlx-lm, the GGUF files in llama.cpp. The 16-bit one takes minutes on a CPU, where mlx-lm is slow in 16 bits.

# %%
merged = model.save_pretrained_merged(Path(OUTPUT) / "merged-16bit")
four_bits = model.save_pretrained_merged(Path(OUTPUT) / "merged-4bit", save_method="merged_4bit")
gguf_files = model.save_pretrained_gguf(Path(OUTPUT) / "gguf", quantization_method=["q8_0", "q4_k_m"])
exported = [
    exam.take(merged, name="merged 16-bit"),
    exam.take(gguf_files[0], name="q8_0"),
    exam.take(gguf_files[1], name="q4_k_m"),
    exam.take(four_bits, name="merged 4-bit"),
]
table = scores.compare(base, tuned, *exported)
table

# %% [markdown]
# The picture has the differences to the base, with their intervals. To the right is better.

# %%
table.picture()

# %% [markdown]
# The GGUF files answer as the live model does, `q4_k_m` too. The merge that mlx-lm reads in 4 bits has lost most of
# what the training taught: a model of 135M parameters has little to spare. (Its rows are no multiple of 256 wide, so
# that llama.cpp's `q4_k_m` keeps 5 to 8 bits of most of them.) The loss of the live model says nothing of that; an
# exam of the file does, before anybody else finds out.
#
# To ask whether a file is as good as the live model, compare it with that: `require(no_worse_than=tuned)` raises where
# it is worse. And the base as a file and the tuned model as a file are told apart as the two were in this notebook.

# %%
exported[0].require(no_worse_than=tuned)
exported[1].require(no_worse_than=tuned)
of_files = scores.compare(exam.take(base_file[0], name="base, q8_0"), exported[1])
live, filed = table.differences[0]["json_match"], of_files.differences[0]["json_match"]
assert filed.verdict == live.verdict
of_files

# %% [markdown]
# ## 7. What did it forget?
# The exam of general abilities once more, and both exams in one table. `general` is the share of all questions with
# choices whose right answer the model finds the likeliest. `instructions` is how many answers have the form that was
# asked for, such as a single word. `english` is the perplexity per byte of plain texts, and less is better.

# %%
what_it_cost = scores.compare(base_general, general.take(model, name="tuned"))
scores.gained_and_lost(scores.compare(base, tuned), what_it_cost)

# %% [markdown]
# A short run with a calm rate costs little: plain English has become a little less familiar, and of the rest nothing is
# told from chance. Here is what the model writes now where something else is asked: it has not taken to answering
# everything in JSON.

# %%
for row in [row for row in what_it_cost.marks[1].rows if row.answer is not None][:3]:
    print(row.prompt, "\n->", row.answer, "\n")

# %% [markdown]
# ## 8. A run whose loss hides what it does
# Now a run that goes wrong: few rows, and a rate five times as high. The rows on which its loss is measured are
# commands like those it is trained on, so that loss falls. What else becomes of the model it cannot show. So the
# trainer takes an exam of something else while it trains, every `score_steps` steps.

# %%
watched = scores.general(rows=ABILITY_ROWS, abilities=["facts", "english"])
harsh_model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
harsh_model = FastModel.get_peft_model(harsh_model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
harsh = Trainer(
    harsh_model,
    tokenizer,
    train_dataset=train_rows[:HARSH_ROWS],
    eval_dataset=exam_rows[:8],
    exam=watched,
    args=TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=HARSH_STEPS,
        learning_rate=HARSH_RATE,
        warmup_steps=2,
        lr_scheduler_type="constant",
        eval_steps=HARSH_STEPS // 3,
        score_steps=HARSH_STEPS // 3,
        output_dir=f"{OUTPUT}/harsh",
    ),
)
dashboard = widgets.Dashboard(harsh)
dashboard.show()
harsh_result = await harsh.train_async()

# %% [markdown]
# The loss on held-out rows says at each look that all is well. The exam says that it is not, and says so at the first
# look after the training has begun.

# %%
for found, scored in zip(harsh_result.evals, harsh_result.scores, strict=True):
    print(f"step {found.step:>2}: held-out loss {found.loss:.3f}, english {scored.scores['english']:.2f}")
assert max(found.loss for found in harsh_result.evals[1:]) < harsh_result.evals[0].loss / 2
assert harsh_result.scores[1].scores["english"] > harsh_result.scores[0].scores["english"]

# %% [markdown]
# Both runs in the whole exam of general abilities. The task is learned by both, and the harsh one has paid for it with
# many times as much of what the model could do before.

# %%
harsh_cost = general.take(harsh_model, name="harsh")
cost = scores.gained_and_lost(scores.compare(*what_it_cost.marks, harsh_cost))
assert "english" in cost.lost("harsh")
cost

# %% [markdown]
# Here are the answers of this run to the questions above.

# %%
for row in [row for row in harsh_cost.rows if row.answer is not None][:3]:
    print(row.prompt, "\n->", row.answer, "\n")

# %% [markdown]
# With `metric_for_best_model="json_match"`, an exam of the task and `load_best_model_at_end=True`, a run ends with the
# weights that did best in the exam, in place of those of the lowest loss. `early_stopping_patience` then waits for the
# exam too.

# %% [markdown]
# ## 9. Look at the rows
# A number says how many rows are wrong, and only the rows say why. These are the worst of the tuned model in the exam
# of the task, with the answers of both models.

# %%
widgets.ScoreView(base, tuned, model=model, exam=exam)

# %% [markdown]
# ## Where next
# - **Your own exam.** Rows are whatever a trainer reads, or have a `question` and an `answer`; a metric may be a
#   function of yours, `fn(prompt, answer, row)`.
# - **Other people's.** `scores.harness(model, ["arc_easy"], limit=100)` runs lm-eval's own tasks on the model in
#   memory.
# - **In CI.** `python -m tunebook score FOLDER --exam rows.jsonl --fail-below 0.8` ends with an exit code.
# - **More rows.** With 12 of them a difference of a few rows may be chance. On a Mac take the numbers in the comments.
