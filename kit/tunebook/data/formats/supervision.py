"""Which characters of a rendered conversation the model is trained to write.

The supervised stretch of an assistant turn begins behind what the template itself puts before an answer (its generation
prompt) and ends with the token that ends the turn; whitespace behind that token is not supervised. The template's own
{% generation %} markers decide where it has them. Elsewhere the stretch is found by rendering variants of the
conversation that differ in one content only, and each finding is checked against the true rendering. What cannot be
told exactly is refused, never guessed at.
"""

from collections.abc import Iterable, Sequence

from ...config import TrainOn
from ..examples import Example, Text
from .columns import BadRow
from .templates import NEXT_SENTINEL, SENTINEL, ChatTemplate, Message, Span, Tools


def supervise(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Tools = None,
    *,
    train_on: TrainOn = "assistant",
    first_turn: int = 0,
) -> Example:
    """A conversation as the template writes it, its assistant turns supervised.

    Turns before `first_turn` are context whoever speaks. Raises BadRow when there is no answer to learn or the template
    refuses the conversation, ValueError when the template does not let its answers be told exactly.
    """
    try:
        whole = template.render(messages, tools)
    except BadRow:
        # A template without tool support may trip over a call that has no content, and would leave it out if it had.
        spoken = [{"content": "", **message} for message in messages]
        if (said := template.renders(spoken, tools)) is not None:
            _check_tools_are_rendered(template, said, spoken, tools)
        raise
    _check_tools_are_rendered(template, whole, messages, tools)
    if train_on == "everything":
        return Example(parts=(Text(whole, supervised=True),), rendered=True)
    turns = [turn for turn in range(first_turn, len(messages)) if messages[turn]["role"] == "assistant"]
    if not turns:
        raise BadRow("it has no assistant turn, so there is no answer to learn; add one, or drop it.")
    turns = turns[-1:] if train_on == "last_assistant" else turns
    learnt = [turn for turn in turns if messages[turn].get("weight") != 0]
    if not learnt:
        raise BadRow("each of its answers says that it is not to be learnt (weight 0, train false); drop it.")
    if not all(_says_something(messages[turn]) for turn in learnt):
        raise BadRow("an assistant turn is empty, so there is no answer to learn; write one, or drop it.")
    spans = template.marked(messages, tools)
    if spans:
        spans = _of_turns(template, spans, messages, turns, tools)
        if len(learnt) < len(turns):
            spans = _of_some(spans, turns, learnt)
        spans = [(start, _without_last_whitespace(template, whole, start, end)) for start, end in spans]
    else:
        spans = [_answer(template, whole, messages, turn, tools) for turn in learnt]
    return Example(parts=tuple(split(whole, spans)), rendered=True)


def split(text: str, supervised: Iterable[Span]) -> Iterable[Text]:
    """`text` as parts, those within the ascending spans `supervised`."""
    cursor = 0
    for start, end in supervised:
        yield from (part for part in (Text(text[cursor:start]), Text(text[start:end], supervised=True)) if part.text)
        cursor = end
    if text[cursor:]:
        yield Text(text[cursor:])


def _says_something(message: Message) -> bool:
    return bool((message.get("content") or "").strip() or message.get("tool_calls"))


def _check_tools_are_rendered(template: ChatTemplate, whole: str, messages: Sequence[Message], tools: Tools) -> None:
    """Raise BadRow when the template leaves tools or tool calls out, as one without tool support does in silence."""
    if tools and template.renders(messages, None) == whole:
        raise BadRow(
            "the chat template leaves its tools out; pass one with tool support to from_pretrained "
            "(chat_template=...), or drop the column."
        )
    without_calls = [{key: value for key, value in message.items() if key != "tool_calls"} for message in messages]
    if without_calls != list(messages) and template.renders(without_calls, tools) == whole:
        raise BadRow(
            "the chat template leaves its tool calls out; pass one with tool support to from_pretrained "
            "(chat_template=...)."
        )


def _of_turns(
    template: ChatTemplate, spans: list[Span], messages: Sequence[Message], turns: Sequence[int], tools: Tools
) -> list[Span]:
    """Those of the template's marked spans that belong to `turns`, which are the last assistant turns there are."""
    earlier = sum(message["role"] == "assistant" for message in messages[: turns[0]])
    skipped = len(template.marked(messages[: turns[0]], tools)) if earlier else 0
    if len(spans) - skipped < len(turns):
        raise BadRow(
            f"the chat template marks only {len(spans) - skipped} stretches of its {len(turns)} assistant turns as "
            "generated."
        )
    return spans[skipped:]


def _of_some(spans: list[Span], turns: Sequence[int], learnt: Sequence[int]) -> list[Span]:
    """The spans of the turns that are learnt. Raises BadRow where a turn has several of them."""
    if len(spans) != len(turns):
        raise BadRow("some of its answers have weight 0, and the chat template marks an answer in several pieces.")
    return [span for span, turn in zip(spans, turns, strict=True) if turn in learnt]


def _without_last_whitespace(template: ChatTemplate, whole: str, start: int, end: int) -> int:
    """`end`, moved before whitespace that follows an added token: the model has stopped by then."""
    stretch = whole[start:end]
    return start + len(stretch.rstrip()) if template.ends_in_added_token(stretch) else end


def _answer(template: ChatTemplate, whole: str, messages: Sequence[Message], turn: int, tools: Tools) -> Span:
    """The supervised stretch of one assistant turn in the rendering `whole`."""
    found = None if messages[turn].get("content") else _by_prefixes(template, whole, messages, turn, tools)
    found = found or _by_content(template, whole, messages, turn, tools)
    found = found or _by_prefixes(template, whole, messages, turn, tools)
    if found is None:
        raise _refused(template, turn, "does not write its content once, nor the turn alike when it is the last")
    return found


def _by_content(
    template: ChatTemplate, whole: str, messages: Sequence[Message], turn: int, tools: Tools
) -> Span | None:
    """The stretch around the turn's content, found by rendering another in its place; None when it is not rendered."""
    shape = _with_content(messages, turn, SENTINEL)
    outline = template.render(shape, tools)
    if outline.count(SENTINEL) != 1:
        return None
    before, behind = outline.split(SENTINEL)
    _, found, other = _going_on_otherwise(template, shape, turn, tools).rpartition(SENTINEL)
    if not found:
        raise _refused(template, turn, "leaves its content out when the conversation goes on otherwise")
    start = _prompt_end(template, whole, before, shape, turn, tools)
    if not messages[turn].get("content") and not whole[start:].endswith(behind):
        behind, other = behind.lstrip(), other.lstrip()  # what sets a content off from the tool calls after it
    if not whole[start:].endswith(behind):
        raise _refused(template, turn, "renders what follows it differently when its content changes")
    if NEXT_SENTINEL in _with_next_tool_output(template, shape, turn, tools).partition(SENTINEL)[0]:
        raise _refused(template, turn, "writes the output of its tools before its content")
    return start, len(whole) - len(behind) + _closing(template, behind, other, turn, messages)


def _by_prefixes(
    template: ChatTemplate, whole: str, messages: Sequence[Message], turn: int, tools: Tools
) -> Span | None:
    """The stretch between two renderings that are prefixes of the whole; None when they are not."""
    start = _prompt_end(template, whole, whole, messages, turn, tools)
    behind, other = whole[start:], _going_on_otherwise(template, messages, turn, tools)[start:]
    if template.common_start(behind, other) < min(len(behind), len(other)) or not template.prompts_answers:
        return None
    return start, start + _closing(template, behind, other, turn, messages)


def _prompt_end(
    template: ChatTemplate, whole: str, before: str, messages: Sequence[Message], turn: int, tools: Tools
) -> int:
    """Where in `whole` the template's own words end and the answer of `turn` begins.

    `before` is a rendering of `messages` that is like `whole` up to there, at least up to the content of `turn`.
    """
    if turn == 0:
        raise BadRow("its first turn is the assistant's; put a system or user turn before it.")
    prompt = template.render(messages[:turn], tools, add_generation_prompt=True)
    bare = template.render(messages[:turn], tools)
    if whole.startswith(prompt):
        start = len(prompt)
    else:
        # The prompt ends in something this turn lacks, such as an empty think block, or earlier turns are rendered
        # otherwise once they are earlier. Compare only what stands between the content before and this one.
        outlined = _with_content(messages, turn - 1, NEXT_SENTINEL)
        between = template.render(outlined, tools).partition(SENTINEL)[0].rpartition(NEXT_SENTINEL)[2]
        prompt = template.render(outlined[:turn], tools, add_generation_prompt=True).rpartition(NEXT_SENTINEL)[2]
        bare = template.render(outlined[:turn], tools).rpartition(NEXT_SENTINEL)[2]
        start = len(before) - len(between)
        if not whole.startswith(prompt, start):
            prompt = between[: template.common_start(between, prompt)]
        if not before.endswith(between) or not whole.startswith(before[:start] + prompt):
            raise _refused(template, turn, "renders what precedes it differently when the turn before changes")
        start += len(prompt)
    ordinary = template.generation_prompt
    if ordinary and before.startswith(ordinary, start):
        start += len(ordinary)  # written before an answer that follows a tool's output, though not asked for there
    if bare.endswith(prompt) and messages[turn].get("content") == SENTINEL and before[start:].strip():
        raise _refused(template, turn, f"puts {before[start:]!r} before it and has no generation prompt")
    return start


def _going_on_otherwise(template: ChatTemplate, messages: Sequence[Message], turn: int, tools: Tools) -> str:
    """A rendering alike up to the end of `turn`: it stops there, or goes on where the conversation itself stops."""
    is_last = turn == len(messages) - 1
    try:
        return template.render(
            [*messages, {"role": "user", "content": NEXT_SENTINEL}] if is_last else messages[: turn + 1], tools
        )
    except BadRow as error:
        variant = "with a user turn after it" if is_last else "when it ends there"
        raise _refused(template, turn, f"refuses the conversation {variant} ({error})") from error


def _closing(template: ChatTemplate, behind: str, other: str, turn: int, messages: Sequence[Message]) -> int:
    """How much of `behind`, the text after a turn's content, still belongs to the turn: its tool calls and end token.

    It is what `behind` shares with `other`, the same place in a rendering that goes on otherwise.
    """
    shared = template.common_start(behind, other)
    closing = behind[:shared]
    if shared < min(len(behind), len(other)) and not template.ends_in_added_token(closing):
        # A turn may end in one token when it is the last and in another when it is not (gpt-oss).
        token = template.added_token_at_start(behind[shared:])
        if not token or token not in (*template.end_tokens, template.turn_end):
            raise _refused(template, turn, "ends it differently when it is the last turn, in no end token")
        closing += token
    next_token = template.added_token_at_start(behind[shared:])
    if (
        turn < len(messages) - 1
        and next_token in template.end_tokens
        and not closing.rstrip().endswith(template.end_tokens)
    ):
        closing += next_token  # GLM has no other end of turn than the token that opens the next one
    return len(closing.rstrip())


def _with_next_tool_output(template: ChatTemplate, messages: Sequence[Message], turn: int, tools: Tools) -> str:
    """The conversation with NEXT_SENTINEL as the tool output that follows `turn`; nothing when none does."""
    if turn + 1 == len(messages) or messages[turn + 1]["role"] != "tool":
        return ""
    return template.render(_with_content(messages, turn + 1, NEXT_SENTINEL), tools)


def _with_content(messages: Sequence[Message], turn: int, content: str) -> list[Message]:
    return [*messages[:turn], {**messages[turn], "content": content}, *messages[turn + 1 :]]


def _refused(template: ChatTemplate, turn: int, why: str) -> ValueError:
    return ValueError(
        f"What the model must write in turn {turn} (assistant) cannot be told exactly: {template.name} has no "
        f"{{% generation %}} markers there and {why}. Pass response_markers=(instruction_part, response_part), or "
        "another chat_template=... to from_pretrained."
    )
