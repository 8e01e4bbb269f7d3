"""Conversations, templates to render them with, and what of an example is supervised."""

from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.makers.tiny import tiny_tokenizer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where are you?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "In Rome,\nby now."},
]

# A template with tools, and a conversation that calls one.
TOOL_TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool.function.name }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if 'tool_calls' in m %}"
    "{% for call in m.tool_calls %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL_TURNS = [
    {"role": "user", "content": "How warm is it in Rome?"},
    {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}}],
    },
    {"role": "tool", "content": "12", "name": "f"},
    {"role": "assistant", "content": "12 degrees."},
]


def with_template(folder, template):
    tiny_tokenizer(folder, chat_template=template)
    return TokenizerWrapper(AutoTokenizer.from_pretrained(folder))


def supervised(example):
    return [part.text for part in example.parts if part.supervised]
