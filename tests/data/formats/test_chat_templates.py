"""What is supervised, held against the chat templates of some forty released models.

The package `trl` brings them, and beside most a twin with {% generation %} markers, written by hand by other people:
the judge. Its files are read, its code is not imported. What a twin marks is what we supervise up to the treatment of
both ends, which `marked_by_twin` makes alike: we leave out the part of the generation prompt that some twins mark,
whitespace behind the token that ends a turn, and text behind it (Phi's `<|endoftext|>` at the end of a conversation);
we take in the token that ends a turn for its tools (Gemma 4's `<|tool_response>`).
"""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from tests.makers.tiny import tiny_tokenizer
from tunebook.data.formats import BadRow, render_chat, render_prompt
from tunebook.data.questions import question_in

FOLDER = Path(str(distribution("trl").locate_file("trl/chat_templates")))
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
TWINS = [name for name in NAMES if (FOLDER / f"{name}_training.jinja").exists()]

# The tokens at which generation stops, as in the released generation_config.json, where the template needs them.
ENDS = {
    "glm4moe": ["<|user|>", "<|observation|>"],
    "gptoss": ["<|return|>", "<|call|>"],
    "gemma4": ["<turn|>", "<|tool_response>"],
    "diffusion_gemma": ["<turn|>", "<|tool_response>"],
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]

# Conversations that ValueError refuses, and why; every other one is exact, or a bad row.
BEFORE_CONTENT = "writes the output of its tools before its content"
REFUSED = {
    **{
        (name, "tools and content"): BEFORE_CONTENT
        for name in ("diffusion_gemma", "gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5")
    },
    ("gptoss", "tools and content"): "does not write its content once",
}

# Templates that refuse a kind of conversation, or would leave part of it out in silence, in the words they are refused.
ALTERNATE, NO_TOOLS, NO_CALLS = "must alternate", "leaves its tools out", "leaves its tool calls out"
BAD_ROWS = {
    ("gemma", "system"): "System role not supported",
    **{
        (name, kind): ALTERNATE
        for name in ("cohere", "cohere2", "gemma", "gemma3")
        for kind in ("tools", "tools and content")
    },
    **{
        (name, kind): NO_TOOLS
        for name in ("deepseek_r1_distill", "idefics3", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm")
        for kind in ("tools", "tools and content")
    },
    **{("llava_next", kind): "Only user and assistant" for kind in ("tools", "tools and content")},
    **{("deepseekv3", kind): 'can only concatenate str (not "dict")' for kind in ("tools", "tools and content")},
    **{("lfm2", kind): NO_CALLS for kind in ("tools", "tools and content")},
}

# Twins that never render what the plain template renders, so that there is nothing to hold against each other.
NOT_COMPARABLE = {
    ("deepseek_r1_distill", "thoughts"): "the plain template drops the thoughts of every answer, the twin keeps them",
    ("qwen3", "tools"): "the twin adds an empty think block to the turn that calls tools",
    ("qwen3", "tools and content"): "the twin adds an empty think block to the turn that calls tools",
}

WANT_PARTS = ("idefics3", "llava_next", "smolvlm")  # whose content must be a list of parts

KINDS = ("chat", "system", "thoughts", "tools", "tools and content")
words = st.text(alphabet="aZ7 é日🎵.<>{}\n\t'\"", max_size=12)


@st.composite
def conversations(draw, kind):
    """A conversation of a kind whose every content holds a name of its own: Q1, A1, S0, T1."""
    messages = []

    def say(role, sign, before="", **more):
        messages.append({"role": role, "content": f"{before}{draw(words)}{sign}{draw(words)}", **more})

    if kind == "system":
        say("system", "S0")
    for number in range(draw(st.integers(1, 3))):
        say("user", f"Q{number}")
        if kind.startswith("tools") and draw(st.booleans() if number else st.just(True)):
            call = {"name": "weather", "arguments": {"city": f"C{number}"}}
            calls = [{"type": "function", "id": "abcdefghi", "function": call}]
            if kind == "tools":
                messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            else:
                say("assistant", f"B{number}", tool_calls=calls)
            say("tool", f"T{number}", name="weather", tool_call_id="abcdefghi")
        thoughts = f"<think>\nH{number}\n</think>\n\n" if kind == "thoughts" else ""
        say("assistant", f"A{number}", before=thoughts)
    return messages


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory):
    """A function: the name of a template -> a tiny tokenizer that has it, and its markers as special tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)

    def make(name: str, template: str) -> TokenizerWrapper:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        markers = re.findall(r"<[|｜]?[A-Za-z_][\w▁|｜]*[|｜]?>|</think>|\[/?[A-Z_]+\]", template)
        tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(markers))})
        tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
        tokenizer.chat_template = template
        ends = ENDS.get(name.split("_v")[0], [])
        return TokenizerWrapper(tokenizer, eos_token_ids=tokenizer.convert_tokens_to_ids(["</s>", *ends]))

    return make


def template(name):
    return (FOLDER / f"{name}.jinja").read_text()


def spans(example):
    found, cursor = [], 0
    for part in example.parts:
        if part.supervised:
            found.append((cursor, cursor + len(part.text)))
        cursor += len(part.text)
    return found


def marked_by_twin(name, kind, messages, tokenizer):
    """(rendering of the twin, spans it marks), with both ends as ours."""
    rendering = dict(
        chat_template=template(f"{name}_training"),
        enable_thinking=tokenizer.has_thinking,
        **tokenizer.special_tokens_map,
    )
    if name in WANT_PARTS:
        messages = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
    tools = TOOLS if kind.startswith("tools") else None
    asked = [next(turn for turn in messages if turn["role"] == "user")]
    [[text], [marked]] = render_jinja_template([messages], tools=tools, return_assistant_tokens_mask=True, **rendering)
    [[question], _] = render_jinja_template([asked], tools=tools, **rendering)
    [[prompted], _] = render_jinja_template([asked], tools=tools, add_generation_prompt=True, **rendering)
    prompt = prompted[len(question) :] if prompted.startswith(question) else ""
    joined: list[tuple[int, int]] = []
    for start, end in marked:
        if text[start:end] in ("", tokenizer.eos_token):
            continue
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, end))
    special = tuple(tokenizer.get_added_vocab())
    stretches = []
    for start, end in joined:
        start += _prompt_within(text, start, prompt)
        stretch = text[start:end]
        end = start + len(stretch.rstrip()) if stretch.rstrip().endswith(special) else end
        called = "<|tool_response>"
        stretches.append((start, end + len(called) * text.startswith(called, end)))
    return text, stretches


def _prompt_within(text, start, prompt):
    """How many characters of the generation prompt stand within a marked stretch, at its start."""
    pieces = re.findall(r"<[^<>]*>|\n|[^<\n]+", prompt)
    outside = max(count for count in range(len(pieces) + 1) if text[:start].endswith("".join(pieces[:count])))
    within = start
    for piece in pieces[outside:]:
        if not text.startswith(piece, within):
            break
        within += len(piece)
    return within - start


def rendered(name, kind, messages, tokenizer):
    """The example, or None for one of the conversations that are listed as refused."""
    try:
        return render_chat(messages, tokenizer, TOOLS if kind.startswith("tools") else None)
    except ValueError as error:
        listed = BAD_ROWS if isinstance(error, BadRow) else REFUSED
        if listed.get((name, kind), "not listed") not in str(error):
            raise
    return None


def run(check, kind, examples):
    wrapped = given(conversations(kind))(check)
    settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(wrapped)()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TWINS)
def test_what_is_supervised_is_what_the_training_twin_marks(name, kind, tokenizer_of):
    tokenizer = tokenizer_of(name, template(name))
    alike = 0

    def check(messages):
        nonlocal alike
        example = rendered(name, kind, messages, tokenizer)
        if example is None:
            return
        text, marked = marked_by_twin(name, kind, messages, tokenizer)
        if not text.startswith(example.text):
            return
        alike += 1
        ours = [example.text[slice(*span)] for span in spans(example)]
        assert ours == [text[start : min(end, len(example.text))] for start, end in marked]

    run(check, kind, examples=8)
    assert bool(alike) != ((name, kind) in {**REFUSED, **BAD_ROWS, **NOT_COMPARABLE})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_supervised_and_what_others_say_never_is(name, kind, tokenizer_of):
    tokenizer = tokenizer_of(name, template(name))
    exact = 0

    def check(messages):
        nonlocal exact
        example = rendered(name, kind, messages, tokenizer)
        if example is None:
            return
        exact += 1
        learned = "".join(part.text for part in example.parts if part.supervised)
        said = {found for message in messages for found in re.findall(r"[QSTA]\d", message["content"])}
        assert {found for found in said if found in learned} == {found for found in said if found[0] == "A"}

    run(check, kind, examples=4)
    assert bool(exact) != ((name, kind) in {**REFUSED, **BAD_ROWS})


@pytest.mark.parametrize("name", NAMES)
def test_of_a_rendered_prompt_people_see_the_question_alone(tokenizer_of, name):
    tokenizer = tokenizer_of(name, template(name))
    asked = "Why is\nthe sky blue?"
    conversation = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    for earlier in ([], conversation):
        rendered = render_prompt([*earlier, {"role": "user", "content": asked}], tokenizer).text
        assert rendered != asked
        assert question_in(rendered, tokenizer) == asked
