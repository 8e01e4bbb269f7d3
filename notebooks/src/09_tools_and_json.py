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
# # Tools and JSON
#
# A model that can *call tools* does not only talk: it says which function of a program is to run, and with what. To do
# so it has to write JSON that the program can read, choose the right tool, and fill in the right arguments. Each of
# these can be checked by a program. You get:
#
# - **a template with tools**, for a model that was published without;
# - **four questions to every answer**, each harder than the one before: is it JSON, is it a call that the program
#   takes, of the right tool, with the right arguments?
# - **a score before and after** in one table, with what flipped;
# - **the wrong calls**, and what a program does with the right ones.
#
# It needs jsonschema: `pip install 'tunebook[scores]'`. (The times in this copy are those of a machine that was
# busy with other work.)

# %% [markdown]
# ## 1. The choices
# First the imports. Everything you may want to change is in the cell after them.

# %%
import json

import tunebook
import tunebook_widgets as widgets
from tunebook import FastModel, Trainer, TrainingConfig, samples, scores

# %% [markdown]
# These numbers fit two CPU cores and a few minutes. On a Mac, take those in the comments.

# %% tags=["parameters"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a hub id, a model folder or a .gguf file
MAX_SEQ_LENGTH = 160  # tokens per row at most; with many tools: 4096
LORA_RANK = 8  # on a Mac: 16
LEARNING_RATE = 1e-3  # with hundreds of steps: 2e-4
STEPS = 24  # with four rows each; on a Mac: 200
EXAM_ROWS = 14  # never trained on; on a Mac: 100
ANSWER_TOKENS = 36  # of an answer at most
OUTPUT = "tools-and-json"  # the folder the results go to

# %% [markdown]
# ## 2. Rows with tools
# A tool is described by its name, a sentence, and the JSON schema of its arguments, the way OpenAI's interface has it.
# Three of them switch things in a home, and hand a customer's question to a team of a shop.

# %%
home = {
    "type": "object",
    "properties": {"device": {"type": "string"}, "room": {"type": "string"}},
    "required": ["device", "room"],
    "additionalProperties": False,
}
ticket = {
    "type": "object",
    "properties": {
        "order": {"type": "integer"},
        "team": {"enum": ["billing", "delivery", "returns", "repairs"]},
    },
    "required": ["order", "team"],
    "additionalProperties": False,
}
about = {
    "turn_on": ("Switch a device on.", home),
    "turn_off": ("Switch a device off.", home),
    "open_ticket": ("Hand an order to a team.", ticket),
}
tools = [
    {"type": "function", "function": {"name": name, "description": said, "parameters": takes}}
    for name, (said, takes) in about.items()
]
tools[2]

# %% [markdown]
# A row has the column `tools`, and in its `messages` an assistant's turn that has `tool_calls` in place of words. The
# questions are those of two sets that come with the kit, and their answers are turned into calls.

# %%
calls = []
for row in samples.home_commands(160):
    question, answer = (turn["content"] for turn in row["messages"])
    meant = json.loads(answer)
    state = meant.pop("state")
    calls.append((question.split("\n")[1], f"turn_{state}", meant))
for row in samples.support_chats(80):
    question, answer = (turn["content"] for turn in row["messages"])
    words = answer.split()
    calls.append((question, "open_ticket", {"order": int(words[1]), "team": words[-2]}))
rows = [
    {
        "tools": tools,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]},
        ],
    }
    for question, name, arguments in calls
]
train_rows, exam_rows = tunebook.hold_out(rows, EXAM_ROWS)
print(f"{len(train_rows)} rows to train on, {len(exam_rows)} for the exam")
train_rows[0]["messages"]

# %% [markdown]
# ## 3. A template without tools
# How a conversation becomes text is up to the model's chat template, and many know no tools: they leave them out, and
# the model would be trained on questions without answers. The kit does not let that pass.

# %%
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH)
bad = widgets.TokenView(model, train_rows).bad
print(bad.heading, bad.ailments[0].text, sep="\n")

# %% [markdown]
# ## 4. A template with tools
# Where a model has none, its tools are text like any other, and you say how they read. This template, in the language
# Jinja, keeps the marks of the model's own. It lists the tools in the system turn, each in a line as a programmer would
# write it, and writes a call as one JSON object with nothing around it. With a model that was made for tools leave it
# out: Qwen, Llama and others bring a template of their own, which is what they were trained on.

# %%
with_tools = """
{%- if tools -%}
<|im_start|>system
Answer with one call of a tool, as JSON with name and arguments.
{% for tool in tools %}
{{ tool.function.name }}({{ tool.function.parameters.properties | join(', ') }}): {{ tool.function.description }}
{% endfor %}
<|im_end|>
{% endif %}
{% for message in messages %}
<|im_start|>{{ message.role }}
{% for call in message.tool_calls or [] %}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
{%- endfor %}
{{ message.content or '' }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
model, tokenizer = FastModel.from_pretrained(MODEL, max_seq_length=MAX_SEQ_LENGTH, chat_template=with_tools)
widgets.TokenView(model, train_rows)

# %% [markdown]
# Marked is what the model learns to write: the call, and the token that ends it.
#
# ## 5. Four questions to an answer
# - `valid_json`: is the whole answer JSON?
# - `json_schema`: is it a call that the program takes: of a tool that there is, with all of its arguments, of the right
#   types, and no others? The schema below is made of those of the tools.
# - `tool_name`: does it call the right tool?
# - `tool_call`: with the right arguments too? This is what counts in the end.

# %%
call_schema = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": takes},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, (_said, takes) in about.items()
    ]
}
metrics = ["valid_json", scores.json_schema(call_schema), scores.tool_call(arguments=False), scores.tool_call()]
exam = scores.Exam(exam_rows, metrics=metrics, max_tokens=ANSWER_TOKENS)
base = exam.take(model, name="base")
base

# %% [markdown]
# The base is told of the tools in the same words. Here is what it writes.

# %%
for row in base.rows[:3]:
    print(row.prompt, "\n->", row.answer, "\n")

# %% [markdown]
# ## 6. Train
# The exam is taken in the middle of the run and at its end, so that the dashboard shows what is learnt first.

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
        score_steps=STEPS // 2,
        hold_out=0,  # the exam is held out already
        output_dir=f"{OUTPUT}/runs",
    ),
)
dashboard = widgets.Dashboard(trainer)
dashboard.show()
result = await trainer.train_async()

# %% [markdown]
# ## 7. Before and after
# The form is learnt first: after half of the steps every answer was JSON, and only half of them called the right tool.
# Here is the same exam once more, beside the base. *Flipped* counts the rows that came to be right or wrong.

# %%
tuned = exam.take(model)
tuned.require(better_than=base, by=0.3, metric="tool_call")
scores.compare(base, tuned)

# %% [markdown]
# ## 8. What a wrong call looks like
# A call may be wrong and still be fine JSON of the right form, and no schema finds that. So look at the rows that are
# wrong by `tool_call`: below what was asked stand the call that was wanted, and those that were written.

# %%
widgets.ScoreView(base, tuned, model=model, exam=exam, metric="tool_call")

# %% [markdown]
# There are three kinds. Where a sentence says what it wants between the lines, the opposite was switched: the wrong
# tool, in fine form. Two orders went to the wrong team: the right tool with a wrong argument. And one call names a tool
# that there is not, which is the one that the schema finds. What helps is more rows of these kinds, and more steps.
#
# ## 9. Run the calls
# A program takes the name as the name of a function, and the arguments as its arguments. It runs what the schema
# allows and nothing else: what a model writes is never to be trusted. Here are the answers to some of the exam's
# questions.

# %%
functions = {
    "turn_on": lambda device, room: f"the {device} in the {room} is on now",
    "turn_off": lambda device, room: f"the {device} in the {room} is off now",
    "open_ticket": lambda order, team: f"order {order} went to {team}",
}
for row in tuned.rows[-6:]:
    call = json.loads(row.answer) if row.marks["json_schema"].value else None
    ran = functions[call["name"]](**call["arguments"]) if call else "no call that may run"
    print(f"{row.prompt}\n-> {ran}\n")

# %% [markdown]
# ## Where next
# - **Answers to what a tool gives back.** Put a turn of the role `tool` with its output behind the call, and one of the
#   assistant behind that; the template then has to write it too.
# - **No call.** A row may be answered in words, where no tool helps: `tool_call` counts it as right where the answer
#   calls none. Without such rows a model learns to call at any price.
# - **JSON without tools.** `06_did_it_help` teaches an answer of one form, and asks its exports.
# - **Take it with you.** The template is saved with every export, so that other programs read tools the same way.
