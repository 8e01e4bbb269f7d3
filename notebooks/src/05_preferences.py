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
# # Teach a model what you prefer
#
# It is often easier to say which of two answers is better than to write a perfect one. *Preference tuning* learns from
# such judgements. A row has a question and two answers, one *chosen* and one *rejected*, and the model learns to write
# more like the first and less like the second.
#
# On two CPU cores, this notebook teaches SmolLM2-135M one preference: an answer shall be one
# sentence, with a full stop at its end. A program can check that, so nobody has to judge by eye. You get:
#
# - **a model that has learned it** by DPO, the best known method, from a start that answers either way;
# - **scores before and after**, on questions it was never trained on: how often what it writes passes the check, and
#   how often the better answer of two has gained on the other;
# - **the same by ORPO**, which needs no start and does all in one run;
# - **an adapter** to take with you.
#
# (The times in this copy are those of a machine that was busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
from pathlib import Path

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples, scores
from tunebook.objectives import DPO, ORPO

# %% [markdown]
# These numbers fit two CPU cores and a few minutes. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 192  # tokens of a question and an answer together at most; on a Mac: 512
SOURCE_CHARACTERS = (30, 120)  # how long the functions are; on a Mac: (30, 400)
LORA_RANK = 8  # on a Mac: 16
HELD_OUT_PAIRS = 20  # never trained on; on a Mac: 100
ANSWER_TOKENS = 32  # how long an answer may become when the model is asked
START_STEPS = 16  # steps of the start, with four rows each; on a Mac: 60
START_RATE = 1e-3  # how far each of them goes; with more steps: 2e-4
STEPS = 16  # steps of DPO, and of ORPO; on a Mac: 100
PAIRS = 2  # pairs in each of them; on a Mac: 8
BETA = 0.1  # of DPO: how dear it is to depart from the start
DPO_RATE = 5e-4  # with more steps: 5e-5
ORPO_BETA = 1.0  # how much the preference counts beside imitating the chosen answers
ORPO_RATE = 1e-3  # with more steps: 1e-4
OUTPUT = "preferences"  # the folder the results go to

# %% [markdown]
# ## 2. The pairs
# The questions show a function of Python's standard library. The chosen answer is the first sentence of what its author
# wrote about it. The rejected one goes on with the author's second sentence, or breaks off after a third of the words;
# these two take turns. So the chosen answer is the shorter one in half of the pairs and the longer one in the other
# half: if it were always shorter, being short is all that would be learned.

# %%
pairs = samples.one_sentence_pairs(source_characters=SOURCE_CHARACTERS)
train_pairs, held_out_pairs = tunebook.hold_out(pairs, HELD_OUT_PAIRS)
print(f"{len(train_pairs)} pairs to train on, {len(held_out_pairs)} held out")
train_pairs[0]

# %% [markdown]
# `is_one_sentence` is the check, a function of one line. Every chosen answer passes, and no rejected one does. With
# pairs of your own this is the place to look whether a rule you have in mind tells them apart.

# %%
for side in ("chosen", "rejected"):
    passed = sum(samples.is_one_sentence(pair[side][0]["content"]) for pair in pairs)
    print(f"{passed} of {len(pairs)} {side} answers are one sentence")

# %% [markdown]
# This is how the model reads them: a question, and below it both answers. Marked are the tokens whose probability
# counts, which are those of the answers. The objective says that the rows are pairs.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
widgets.TokenView(model, train_pairs, objective=DPO())

# %% [markdown]
# ## 3. The start
# DPO moves a model from where it stands. So the model should be able to describe functions before, and a short
# fine-tuning on examples, as in `01_quickstart`, sees to that. Its examples are the answers that go on, as somebody may
# have collected them who had no preference yet.

# %%
long_pairs = [pair for pair in train_pairs if len(str(pair["rejected"])) > len(str(pair["chosen"]))]
start_rows = [{"messages": pair["prompt"] + pair["rejected"]} for pair in long_pairs]

model = FastModel.get_peft_model(model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
start = Trainer(
    model,
    tokenizer,
    train_dataset=start_rows,
    args=TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=START_STEPS,
        learning_rate=START_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        hold_out=0,
        output_dir=f"{OUTPUT}/start",
    ),
)
start_result = await start.train_async()

# %% [markdown]
# ## 4. Before
# An `Exam` asks the held-out questions, now and again after training, and measures two things.
#
# - `one_sentence`: does the answer that the model writes by itself pass the check? This is what counts in the end. One
#   that is longer than `ANSWER_TOKENS` is cut, and does not pass.
# - `multiple_choice`: of the two answers of a pair, is the chosen one the likelier? The probability of an answer is the
#   product of those of its tokens, the one that ends it among them. So short answers are likely ones, whatever they
#   say, and the chosen one is the shorter in half of the pairs.
#
# The interval says how far chance alone may move a score: with other questions of this kind it would lie in there.

# %%
sides = ("chosen", "rejected")
exam_rows = [
    {
        "prompt": pair["prompt"],
        "choices": [pair[side][0]["content"] + tokenizer.eos_token for side in sides],
        "answer": 0,  # the place of the chosen one
    }
    for pair in held_out_pairs
]
check = scores.program(lambda _prompt, answer, _row: samples.is_one_sentence(answer), name="one_sentence")
exam = scores.Exam(exam_rows, metrics=[scores.multiple_choice(), check], max_tokens=ANSWER_TOKENS)
at_start = exam.take(model, name="start")
at_start

# %% [markdown]
# Here is what it writes about the first of the held-out functions.

# %%
for row in at_start.rows[:3]:
    print(row.answer, "\n")

# %% [markdown]
# ## 5. DPO
# *Direct preference optimization* has one model and its past self, the *reference*: the model as it was when the run
# began. The *reward* of an answer is how much likelier it has become since then (its log-probability now minus that
# before, times `beta`). The loss of a pair falls when the reward of the chosen answer rises above that of the rejected
# one. There is no second model in memory: the reference is this model with the adapter it started with.
#
# - *Rewards*: of the chosen and of the rejected answers. What is between them is the *margin*, and that is what is
#   trained. Before the first step all of them are 0.
# - *Accuracy*: the share of pairs in which the chosen answer has the higher reward, which is called the *implicit
#   accuracy* of the model. Before the first step none has, because all rewards are equal: it says 0 there, and a coin
#   would be right in one half.
# - *Log-probabilities*: of the answers themselves, in nats; 0 would be certain.

# %%
dpo = Trainer(
    model,
    tokenizer,
    train_dataset=train_pairs,
    eval_dataset=held_out_pairs,
    objective=DPO(beta=BETA),
    args=TrainingConfig(
        per_device_train_batch_size=PAIRS,
        gradient_accumulation_steps=1,
        max_steps=STEPS,
        learning_rate=DPO_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        eval_steps=STEPS // 2,
        output_dir=f"{OUTPUT}/dpo",
    ),
)
dashboard = widgets.Dashboard(dpo)
dashboard.show()
dpo_result = await dpo.train_async()

# %% [markdown]
# The loss begins at 0.693, the logarithm of 2, which is that of a coin: as yet all rewards are 0.

# %% [markdown]
# ## 6. After
# The same exam again. The sentences below the table say what can be concluded from so few questions; *flipped* counts
# those that came to be right or wrong, and *p* is how often chance alone would do as much.

# %%
with_dpo = exam.take(model, name="DPO")
scores.compare(at_start, with_dpo)

# %% [markdown]
# The check is passed, and by answers about functions it never saw. But `multiple_choice` has hardly moved: DPO makes
# the chosen answer *gain* on the rejected one, and whether it overtakes it depends on how far behind it was. An answer
# that breaks off after three words is much likelier than a whole sentence, and after so few steps it still is. So ask
# what is trained, the rewards: in how many of the held-out pairs has the chosen answer gained on the rejected one,
# where a coin would say one half? Below it are the answers about the same functions as before.

# %%
print(f"rewards/accuracies on the held-out pairs: {dpo_result.evals[-1].metrics['rewards/accuracies']:.0%}\n")
for row in with_dpo.rows[:3]:
    print(row.answer, "\n")

# %% [markdown]
# A notebook that runs by itself, such as this one in its tests, can insist: these lines raise an error where the model
# has not learned what it should.

# %%
with_dpo.require(at_least=0.9, metric="one_sentence")
assert dpo_result.evals[-1].metrics["rewards/accuracies"] >= 0.9

# %% [markdown]
# ## 7. What it cost
# DPO asks for a distance between two answers and not for likely answers. Here are the mean log-probabilities of both
# sides on the held-out pairs, in nats.

# %%
first, last = dpo_result.evals[0].metrics, dpo_result.evals[-1].metrics
for side in ("chosen", "rejected"):
    before, after = first[f"logps/{side}"], last[f"logps/{side}"]
    print(f"{side:>8}: {before:.1f} -> {after:.1f}, which is {after - before:+.1f}")

# %% [markdown]
# Here the chosen answers have become likelier, and the rejected ones less likely by more. In a longer run, or with a
# higher rate, the chosen ones often become less likely too, and what both lose goes to answers that nobody has chosen.
# This is called *likelihood displacement*. Loss and accuracy only get better while it happens, so it is easily missed.
# The dashboard compares every twenty steps with the first twenty, and where the margin grows at the cost of the chosen
# answers it says so, with the settings that help: a lower rate, a larger `beta`, or imitation beside the preference,
# `DPO(loss_type=["sigmoid", "sft"])`.

# %% [markdown]
# ## 8. ORPO, in one run
# *Odds ratio preference optimization* needs neither a start nor a reference. Its loss imitates the chosen answers, as a
# fine-tuning on examples does, and adds a term for the preference, which counts `beta` times. So the same pairs go to a
# new adapter on the model as it was published.

# %%
other_model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
other_model = FastModel.get_peft_model(other_model, r=LORA_RANK, lora_alpha=2 * LORA_RANK)
orpo = Trainer(
    other_model,
    tokenizer,
    train_dataset=train_pairs,
    eval_dataset=held_out_pairs,
    objective=ORPO(beta=ORPO_BETA),
    args=TrainingConfig(
        per_device_train_batch_size=PAIRS,
        gradient_accumulation_steps=1,
        max_steps=STEPS,
        learning_rate=ORPO_RATE,
        warmup_steps=2,
        lr_scheduler_type="cosine",
        output_dir=f"{OUTPUT}/orpo",
    ),
)
orpo_result = await orpo.train_async()

# %% [markdown]
# It takes the same exam. Both are compared with the start of DPO, so a difference here is one from there.

# %%
scores.compare(at_start, with_dpo, exam.take(other_model, name="ORPO"))

# %% [markdown]
# Here are both runs side by side. Neither their losses nor their rewards are the same quantity: ORPO's reward is the
# log-probability of an answer per token, with no reference, so its accuracy does not begin at a coin's half. The exam
# above is what compares them. The time of DPO is that from its start on.

# %%
widgets.compare([dpo_result.run_folder, orpo_result.run_folder], names=["DPO", "ORPO"])

# %% [markdown]
# ## 9. Take it with you
# The adapter holds the start and what DPO made of it. It is opened at once by mlx-lm, another program, which has to
# find the same loss on four of the held-out answers. `save_pretrained_merged` and `save_pretrained_gguf` save it for
# other programs, as in `01_quickstart`.

# %%
answered = [{"messages": pair["prompt"] + pair["chosen"]} for pair in held_out_pairs[:4]]
model.save_pretrained(Path(OUTPUT) / "lora", verify_with=answered)

# %% [markdown]
# ## Where next
# - **Your own pairs.** A row is `{"prompt": [...], "chosen": [...], "rejected": [...]}`, each a list of messages, from
#   a .jsonl, .csv or .parquet file or a hub id. Write a check beside them where you can: it says more than a loss.
# - **Single judgements.** With answers that people liked or did not, one at a time, take `KTO` and rows of `prompt`,
#   `completion` and `label`.
# - **Other losses.** `DPO(loss_type=...)` has the losses that TRL has, `SimPO` and `CPO` need no reference.
# - **More steps.** On a Mac take the numbers in the comments, and a rate of a tenth with them.
