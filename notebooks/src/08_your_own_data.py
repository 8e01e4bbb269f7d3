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
# # Your own data
#
# Data that people collect has holes in it: an answer that nobody wrote, a column with another name, a line that breaks
# off. This notebook takes three messy files to a tuned model, and shows at each step where the kit tells you what is
# wrong, and where only you can know it. You get:
#
# - **three files** of a shop's support chats, a JSONL, a CSV and a parquet, each with its own faults;
# - **every fault by its line**, with the call that mends it or does without it;
# - **one clean set**, a part of it held out before anything is trained;
# - **a score before and after** on chats the model has never seen, and a verdict that says how sure it is.
#
# With files of your own, begin at section 3. (The times in this copy are those of a machine that was busy with other
# work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import json
from pathlib import Path

import pandas as pd

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples, scores

# %% [markdown]
# These numbers fit two CPU cores and a few minutes. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 128  # tokens per row at most; on a Mac: 1024
LORA_RANK = 8  # on a Mac: 16
LEARNING_RATE = 1e-3  # with hundreds of steps: 2e-4
STEPS = 28  # with four rows each; on a Mac: 100
EXAM_ROWS = 20  # held out and never trained on; on a Mac: 40
ANSWER_TOKENS = 24  # of an answer at most
OUTPUT = "your-own-data"  # the folder the files and the results go to

# %% [markdown]
# ## 2. Three messy files
# The chats are made up: a customer writes, and the shop answers with the number of the order and the team that sees to
# it. The first third comes from the inbox, one chat a line. Each statement below does to it what happens to files.

# %%
folder = Path(OUTPUT)
folder.mkdir(exist_ok=True)
chats = samples.support_chats(240)
lines = [json.dumps(chat) for chat in chats[:80]]
lines[4] = lines[4][:70]  # the program was stopped while it wrote this one
lines[9] = json.dumps({"messages": chats[9]["messages"][:1]})  # nobody has answered yet
lines[17] = lines[17].replace("messages", "mesages")  # misspelt
lines[25] = json.dumps({"messages": []})
lines[30] = lines[29]  # written twice
lines[41] = lines[41].replace('"assistant"', '"asistant"')  # misspelt
lines[52] = lines[52].replace('"content": "', '"content": "On Monday you wrote: ' + "please wait, " * 60, 1)
(folder / "inbox.jsonl").write_text("\n".join(lines) + "\n")
lines[52][:150]

# %% [markdown]
# The second third is a CSV that a help desk has exported, with columns of its own names. The last is a parquet file of
# a web form, in the columns of Alpaca, with one more that says which form it was.

# %%
asked, answered = ([chat["messages"][turn]["content"] for chat in chats] for turn in (0, 1))
helpdesk = pd.DataFrame({"question": asked[80:160], "reply": answered[80:160]})
helpdesk.loc[7, "reply"] = None  # nobody has answered yet
helpdesk.loc[20] = helpdesk.loc[19]  # exported twice
helpdesk.loc[33, "reply"] = helpdesk.loc[33, "reply"][:14]  # the export has cut it
helpdesk.loc[46, ["question", "reply"]] = [answered[126], asked[126]]  # somebody has swapped them
helpdesk.to_csv(folder / "helpdesk.csv", index=False)

form = pd.DataFrame({"instruction": asked[160:], "output": answered[160:], "form": "contact"})
form.loc[12, "output"] = "   "  # sent by mistake
form.to_parquet(folder / "form.parquet")
form.head(3)

# %% [markdown]
# ## 3. Look at them
# Rows need not be loaded by hand: wherever the kit takes rows it takes the path of a file. It tells the kind of file
# and the format of its rows by itself. `TokenView` shows them as the model would read them, the tokens it would learn
# to write marked. What cannot be trained on comes first, each line as it came, with the call that mends it.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
widgets.TokenView(model, folder / "inbox.jsonl")

# %% [markdown]
# Four kinds of faults make rows unreadable: a line that is no JSON, rows without an answer, a misspelt column, a
# misspelt role. Two more are found in rows that can be read: an answer that begins beyond `MAX_SEQ_LENGTH`, behind the
# quoted mail, and a row that comes twice.
#
# Of the CSV no row can be read, for its columns are called `question` and `reply`. The view says what to pass.

# %%
print(widgets.TokenView(model, folder / "helpdesk.csv").bad)

# %% [markdown]
# That function is passed here, as a trainer would take it: `formatting_func` is called with each row and gives back a
# row in one of the formats the kit knows. One row of the CSV is left that cannot be trained on, and one that comes
# twice. The parquet file is recognised as Alpaca's format. Of its third column the report says that it is not read.

# %%
desk_view = widgets.TokenView(
    model,
    folder / "helpdesk.csv",
    formatting_func=lambda row: {"prompt": row["question"], "completion": row["reply"]},
)
form_view = widgets.TokenView(model, folder / "form.parquet")
print(desk_view.bad, desk_view.report, form_view.bad, form_view.report, sep="\n\n")

# %% [markdown]
# ## 4. The quick way
# A trainer refuses a set with bad rows and names all of them. With `skip_bad_rows=True` it leaves them out, and lists
# what it left out, so that nothing is lost in silence. Nothing is trained here yet: this only asks.

# %%
quick = Trainer(model, tokenizer, train_dataset=folder / "inbox.jsonl", skip_bad_rows=True)
print(*quick.data.notices, sep="\n\n")

# %% [markdown]
# That is enough where rows are plenty. But two of these rows were only misspelt, and of the CSV, whose columns have
# other names, nothing would be left.
#
# ## 5. Mend them
# So do what the sentences say. `read_rows` opens a file as the trainer does, and here `skip_bad_rows` passes over the
# broken line alone. Of every row the question and the answer are taken, wherever they stand; rows without one of them
# go, and so does a second copy.

# %%
inbox = tunebook.read_rows(folder / "inbox.jsonl", skip_bad_rows=True)
helpdesk_rows = tunebook.read_rows(folder / "helpdesk.csv")
form_rows = tunebook.read_rows(folder / "form.parquet")
pairs = [(row["question"], row["reply"]) for row in helpdesk_rows]
pairs += [(row["instruction"], row["output"]) for row in form_rows]
pairs += [[turn["content"] for turn in row.get("messages") or row.get("mesages") or ()] for row in inbox]
whole = [pair for pair in pairs if len(pair) == 2 and all(text and text.strip() for text in pair)]
whole = list(dict.fromkeys(map(tuple, whole)))  # each once
print(f"{len(inbox)} + {len(helpdesk_rows)} + {len(form_rows)} rows, {len(whole)} of them different and whole")

# %% [markdown]
# ## 6. What only you can know
# To a program, a reply that an export has cut is a text like any other, and so is a question that stands in the column
# of answers. What an answer has to look like is known to you alone, so write it down: a line is enough. Here an answer
# ends with the name of a team and a full stop, and two do not. Of the first the end is lost. In the second the columns
# are swapped, which can be mended. The mail with the long quotation is too long for the rows of this model here, so it
# goes. What remains is looked at once more, and now nothing odd is found.

# %%
odd = [pair for pair in whole if not pair[1].endswith(" team.")]
print(*odd, sep="\n", end="\n\n")
swapped = [(answer, question) for question, answer in odd if question.endswith(" team.")]
kept = [pair for pair in whole if pair not in odd and len(pair[0]) < 300] + swapped
turns = [zip(("user", "assistant"), pair, strict=True) for pair in kept]
rows = [{"messages": [{"role": role, "content": text} for role, text in pair]} for pair in turns]
(folder / "clean.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
print(widgets.TokenView(model, folder / "clean.jsonl").report)

# %% [markdown]
# ## 7. Hold out, and ask the base
# Some rows are put aside before anything is trained: what is measured on rows that were trained on is memory.
# `hold_out` keeps copies apart too. The exam asks two things of each held-out chat: is the answer the shop's own,
# letter for letter, and does it name the right team? The second is a function of yours, in one line.

# %%
train_rows, exam_rows = tunebook.hold_out(folder / "clean.jsonl", EXAM_ROWS)
names_team = scores.program(
    lambda _prompt, answer, row: f" {row['messages'][-1]['content'].split()[-2]} " in answer, name="names_team"
)
exam = scores.Exam(exam_rows, metrics=["exact_match", names_team], max_tokens=ANSWER_TOKENS)
base = exam.take(model, name="base")
print(f"{len(train_rows)} rows to train on, {len(exam_rows)} for the exam\n")
for row in base.rows[:2]:
    print(f"{row.prompt}\n-> {row.answer}\n   (the shop: {row.reference})\n")

# %% [markdown]
# ## 8. Train
# The file goes to the trainer with its held-out rows taken out. The exam is given to it too: it says if one of the
# exam's rows, or nearly one, were among those it trains on.

# %%
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
trainer = Trainer(
    model,
    tokenizer,
    train_dataset=train_rows,
    exam=exam,
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
# ## 9. The verdict
# The same exam again, beside the base. The sentences below the table say what can be concluded from so few rows.

# %%
tuned = exam.take(model)
verdict = scores.compare(base, tuned)
verdict

# %% [markdown]
# ## 10. Look at what is still wrong
# A number says how many rows are wrong, and only the rows say why. The worst come first, with the answers of both
# models.

# %%
tuned.require(better_than=base, by=0.3, metric="names_team")
widgets.ScoreView(base, tuned, model=model, exam=exam)

# %% [markdown]
# ## Where next
# - **Other sources.** A pandas frame, a list, a `datasets` object, a hub id or a folder of files goes wherever a path
#   went here. Large files stay on the disk.
# - **All rows, one by one.** `widgets.TokenView(model, path).browse()` leafs through every row, as long as the kernel
#   runs.
# - **In a program.** `read_rows(path)` raises one error that names every broken line, and a trainer one that names
#   every bad row; both are of use in a script that checks data before anybody trains.
# - **More data.** `06_did_it_help` asks what a training has cost, and `05_preferences` learns from answers that people
#   liked and did not.
