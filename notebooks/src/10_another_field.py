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
# # Another language or field
#
# Instructions teach a model how to answer. They are a poor way to teach it a language it has never read, or the words
# of a field. So people do it in two stages: *raw text* first, which is plenty and needs no questions, and instructions
# after that. This notebook does both, in a language that was made up for it, so that no model can know a word of it
# before. You get:
#
# - **a small language** with its own words and its own order of words;
# - **stage 1**, continued pretraining on raw text: rows of `{"text": ...}`;
# - **stage 2**, instructions: make a sentence of these words;
# - **one table** of the base, after stage 1 and after stage 2: how well each reads the language, what each can do with
#   it, and what it has cost.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import re
from dataclasses import replace
from random import Random

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, scores

# %% [markdown]
# These numbers fit two CPU cores and a few minutes. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 128  # tokens per row at most; with texts of your own: 2048
LORA_RANK = 8  # on a Mac: 64
TEXTS = 160  # raw texts, of four sentences each; on a Mac: as many as you have
TEXT_STEPS = 16  # steps of stage 1, with four texts each; on a Mac: 200
TEXT_RATE = 1e-3  # with hundreds of steps: 2e-4
QUESTIONS = 240  # sentences to be made; on a Mac: 2000
QUESTION_STEPS = 28  # steps of stage 2, with four questions each; on a Mac: 200
QUESTION_RATE = 1e-3  # with hundreds of steps: 2e-4
HELD_OUT = 12  # texts, and questions, that are never trained on; on a Mac: 100
ABILITY_ROWS = 8  # of each general ability; on a Mac: 24
ANSWER_TOKENS = 20  # of an answer at most
OUTPUT = "another-language"  # the folder the results go to

# %% [markdown]
# ## 2. A language nobody knows
# It has a few words, and three rules: the verb comes first, an adjective stands behind its noun, and `o` stands before
# what the verb is done to. "The small cat sees the old house" is `Lake miru tiko o domi ruma.`

# %%
nouns = ["miru", "tavo", "selu", "nalo", "garu", "domi"]  # cat, dog, bird, child, king, house
verbs = ["lake", "fomi", "suti", "beno"]  # sees, loves, follows, finds
adjectives = ["tiko", "ruma", "savi", "loni"]  # small, old, red, happy

chance = Random(0)
sentences = {}  # each once -> its words, in no order
while len(sentences) < 4 * TEXTS + QUESTIONS:
    verb, (who, what) = chance.choice(verbs), chance.sample(nouns, 2)
    how, which = chance.sample(adjectives, 2)
    words = [verb, who, how, what, which]
    sentences[f"{verb} {who} {how} o {what} {which}.".capitalize()] = ", ".join(chance.sample(words, 5))

known = list(sentences)
text_rows = [{"text": " ".join(known[4 * at : 4 * at + 4])} for at in range(TEXTS)]
question_rows = [
    {
        "messages": [
            {"role": "user", "content": f"Make a sentence of these words: {sentences[said]}."},
            {"role": "assistant", "content": said},
        ]
    }
    for said in known[4 * TEXTS :]
]
train_texts, held_out_texts = tunebook.hold_out(text_rows, HELD_OUT)
train_questions, held_out_questions = tunebook.hold_out(question_rows, HELD_OUT)
print(text_rows[0]["text"], *[turn["content"] for turn in question_rows[0]["messages"]], sep="\n\n")

# %% [markdown]
# No sentence is in two rows: what is asked in the end was read in neither stage. This is how the model reads a raw
# text. There is no question and no turn in it, and every token is trained but the first, which nothing stands before.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
widgets.TokenView(model, train_texts)

# %% [markdown]
# ## 3. Three exams
# They are taken now and after each stage.
#
# - `raw_text`: how surprised the model is by held-out texts of the language, as perplexity per byte. 1 would be no
#   surprise at all, and less is better. Bytes are the same for every tokenizer, tokens are not.
# - `grammatical`: is the answer a sentence of the language? A pattern says so. `its_words`: is it made of the words
#   that were given, all of them and no others? A function of one line says that.
# - `general`: a small exam of other things, which comes with the kit. It says what was forgotten.

# %%
raw_text = replace(scores.byte_perplexity(), name="raw_text")
verb, noun, adjective = ("|".join(some) for some in (verbs, nouns, adjectives))
sentence = rf"^(?:{verb}) (?:{noun}) (?:{adjective}) o (?:{noun}) (?:{adjective})\.$"
grammatical = scores.matches(sentence, flags=re.IGNORECASE, name="grammatical")
words_of = re.compile("[a-z]+").findall
its_words = scores.program(
    lambda _prompt, answer, row: (
        sorted(words_of(answer.lower())) == sorted(words_of(row["messages"][-1]["content"].lower()))
    ),
    name="its_words",
)
reading = scores.Exam(held_out_texts, metrics=[raw_text])
making = scores.Exam(held_out_questions, metrics=[grammatical, its_words], max_tokens=ANSWER_TOKENS)
general = scores.general(rows=ABILITY_ROWS, abilities=["facts", "grammar", "english"])
exams = [reading, making, general]
base = [exam.take(model, name="base") for exam in exams]
print(*base, sep="\n\n")

# %% [markdown]
# ## 4. Stage 1: raw text
# The trainer needs nothing to be told: rows with a column `text` are raw text.

# %%
model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
reader = Trainer(
    model,
    tokenizer,
    train_dataset=train_texts,
    eval_dataset=held_out_texts,
    args=TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=TEXT_STEPS,
        learning_rate=TEXT_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        output_dir=f"{OUTPUT}/stage-1",
    ),
)
dashboard = widgets.Dashboard(reader)
dashboard.show()
stage_1_run = await reader.train_async()

# %% [markdown]
# It now reads the language. This is what it answers to the first questions, which nobody has taught it to answer.

# %%
stage_1 = [exam.take(model, name="stage 1") for exam in exams]
for row in stage_1[1].rows[:2]:
    print(f"{row.prompt}\n-> {row.answer}\n")

# %% [markdown]
# ## 5. Stage 2: instructions
# The same adapter goes on, now with questions and answers. Trained are the answers alone.

# %%
teacher = Trainer(
    model,
    tokenizer,
    train_dataset=train_questions,
    eval_dataset=held_out_questions,
    args=TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=QUESTION_STEPS,
        learning_rate=QUESTION_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        output_dir=f"{OUTPUT}/stage-2",
    ),
)
dashboard = widgets.Dashboard(teacher)
dashboard.show()
stage_2_run = await teacher.train_async()

# %% [markdown]
# The same questions as above, and others. There is more than one right answer to each.

# %%
stage_2 = [exam.take(model, name="stage 2") for exam in exams]
for row in stage_2[1].rows[:4]:
    print(f"{row.prompt}\n-> {row.answer}\n")

# %% [markdown]
# ## 6. What each stage taught, and what it cost
# All three exams in one table. The sentences below it say which of the differences are more than chance.

# %%
table = scores.gained_and_lost(*[scores.compare(*marks) for marks in zip(base, stage_1, stage_2, strict=True)])
assert "raw_text" in table.gained("stage 1")
assert {"grammatical", "its_words"} <= set(table.gained("stage 2"))
table

# %% [markdown]
# Stage 1 taught the language: 8.84 became 2.58, and nothing else has changed that these exams could tell from chance.
# But nobody can ask anything of a model that only reads. Stage 2 taught the task. All of its answers are made of the
# words that were given, and most are sentences of the language. The last one above is not: a noun and an adjective have
# changed places. Its cost is that plain English became a little less familiar, 2.08 before and 2.22 after.
#
# The same as a picture: to the right is better.

# %%
table.picture()

# %% [markdown]
# ## Where next
# - **A real field.** `from pydoc_data.topics import topics` is the reference of the Python language, on every machine
#   that has Python: `[{"text": text} for text in topics.values()]` are raw texts. Long ones come in pieces, and no
#   token is lost.
# - **More of the model.** A new language needs more than a small adapter. Take a higher rank, and train the embeddings
#   too: `get_peft_model(model, modules_to_save=["embed_tokens"])`, with `embedding_learning_rate` a fifth of the rate.
# - **Forgetting less.** Mix texts of what the model shall keep among the new ones, take a lower rate, or fewer steps.
#   `06_did_it_help` has an exam taken while it trains.
# - **Texts with images.** `04_continued_pretraining`.
