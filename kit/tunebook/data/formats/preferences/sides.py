"""The columns of a row of preferences as sides of one kind, and the answers in them: checked, and written out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...answers import Answers
from ...examples import Example, Text
from ...sources import Row
from ..columns import BadRow, check_whole, listed, shown
from ..conversations import as_messages, row_tools, with_system
from ..reading import Reading
from ..templates import Message

Side = str | list[Message]

ASKING = ("user", "human", "system", "developer")  # whose turns are never part of an answer
FEWEST_WORDS = 3  # of a prompt that an answer begins with by more than chance


@dataclass(frozen=True)
class Compared:
    """A row of preferences, checked: what is asked, and what is answered."""

    prompt: Side
    answers: Mapping[str, Side]  # by their columns, the chosen one first; of the prompt's kind
    label: bool | None = None  # of a single answer: whether it is a good one


def sides_of(row: Row, names: Sequence[str], answers: Sequence[str], *, images: bool) -> dict[str, Side]:
    """The columns `names`, all strings or all conversations, none empty. Those in `answers` hold no question.

    With `images` turns may hold parts that stand for one.
    """
    values = {name: listed(row.get(name)) for name in names}
    there = [name for name, value in values.items() if _says(value)]
    for name in names:
        if name not in there:
            raise BadRow(_missing(name, values[name], there))
    for name, value in values.items():
        if not isinstance(value, str | list):
            what = f"its column {name!r} is {shown(value)}, not a string or a list of messages"
            raise BadRow(f"{what}; {_move(name, value)}.")
        if isinstance(value, list) and isinstance(value[0], str):
            one = "of several prompts" if name not in answers else "of several answers"
            raise BadRow(f"its column {name!r} is a list of strings; take one {one}, as row[{name!r}][0] is.")
        if isinstance(value, str) and value.lstrip().startswith(("[{", '["')):
            raise BadRow(f"its column {name!r} is JSON text, not a list of messages; read it with json.loads.")
    strings = [name for name, value in values.items() if isinstance(value, str)]
    if strings and len(strings) < len(values):
        _refuse_mixed(values, strings, answers)
    if strings:
        return values
    return {name: as_messages(value, images=images) for name, value in values.items()}


def check_prompt(prompt: Side, answers: Mapping[str, Side]) -> None:
    """Raise BadRow for a prompt that is no question, or that the answers say once more."""
    if isinstance(prompt, str):
        repeats = len(prompt.split()) >= FEWEST_WORDS
    else:
        repeats = True
        if prompt[-1]["role"] == "assistant":
            swapped = next((name for name, side in answers.items() if _last_role(side) in ASKING), None)
            raise BadRow(
                f"its prompt ends in an answer and its {swapped!r} in a question; are the columns swapped?"
                if swapped is not None
                else "its prompt ends in an answer, so there is no question to answer; end it with the user's turn."
            )
    if repeats and all(_begins_with(side, prompt) for side in answers.values()):
        both = "both of its answers repeat" if len(answers) > 1 else "its answer repeats"
        move = "drop the column 'prompt', or take it out of them" if len(answers) > 1 else "take it out of the answer"
        raise BadRow(f"{both} the prompt; {move}.")


def check_answer(name: str, side: Side, why_no_question: str) -> None:
    """Raise BadRow for an answer that says nothing, or holds a question; `why_no_question` says what to do then."""
    if isinstance(side, str):
        check_whole(side)
        if not side.strip():
            raise BadRow(f"its answer {name!r} is empty; write one, or drop the row.")
        return
    for number, message in enumerate(side):
        if message["role"] in ASKING:
            raise BadRow(f"turn {number} of its {name!r} is the {message['role']}'s, not an answer; {why_no_question}.")
    if not side or side[0]["role"] != "assistant":
        raise BadRow(f"its {name!r} does not begin with the assistant's turn; an answer does.")
    if not any(_holds_something(message) for message in side):
        raise BadRow(f"its answer {name!r} is empty; write one, or drop the row.")


def written(row: Row, compared: Compared, reading: Reading) -> Answers:
    """The prompt, and the prompt with each answer, as the model reads them."""
    prompt, answers, label = compared.prompt, compared.answers.values(), compared.label
    if isinstance(prompt, str):
        check_whole(prompt)
        end = reading.tokenizer.eos_token or ""
        texts = [prompt + str(answer) + ("" if str(answer).endswith(end) else end) for answer in answers]
        _check_part(texts)
        return _answers(prompt, texts, label, rendered=False)
    template = reading.template
    if template is None:
        raise ValueError(
            "This tokenizer has no chat template, so a conversation cannot be rendered. Load an instruct model, pass "
            "chat_template=... to from_pretrained, or give the rows strings for messages."
        )
    tools, asked = row_tools(row), with_system(row, prompt)
    wholes = [[*asked, *answer] for answer in answers if not isinstance(answer, str)]
    texts = [template.render(whole, tools) for whole in wholes]
    if tools and any(template.renders(whole, None) == text for whole, text in zip(wholes, texts, strict=True)):
        raise BadRow(
            "the chat template leaves its tools out; pass one with tool support to from_pretrained "
            "(chat_template=...), or drop the column."
        )
    _check_part(texts)
    return _answers(template.render(asked, tools, add_generation_prompt=True), texts, label, rendered=True)


def _check_part(wholes: Sequence[str]) -> None:
    """Raise BadRow where both answers are one text to the model: a template strips spaces, an end token ends either."""
    if len(set(wholes)) < len(wholes):
        raise BadRow("its chosen and rejected answers are the same once they are written out; drop it.")


def _answers(prompt: str, wholes: Sequence[str], label: bool | None, *, rendered: bool) -> Answers:
    return Answers(
        prompt=Example(parts=(Text(prompt),), rendered=rendered),
        wholes=tuple(Example(parts=(Text(whole, supervised=True),), rendered=rendered) for whole in wholes),
        label=label,
    )


def _holds_something(message: Message) -> bool:
    content = message.get("content") or ""
    return bool(content.strip() if isinstance(content, str) else content) or bool(message.get("tool_calls"))


def _move(name: str, value: Any) -> str:
    """What to do with a column that is neither a string nor a list."""
    if isinstance(value, Mapping):
        text = next((key for key, held in value.items() if isinstance(held, str)), None)
        if "role" in value or text is None:
            return "put it into a list"
        return f"take its text, as row[{name!r}][{text!r}] is"
    return "put it in quotes" if isinstance(value, int | float) else "drop the row"


def _missing(name: str, value: Any, there: Sequence[str]) -> str:
    if isinstance(value, str | list):
        return f"its column {name!r} is empty; fill it in, or drop the row."
    others = " and ".join(map(repr, there))
    return f"it has no {name!r}{f' beside {others}' if others else ''}; fill it in, or drop the row."


def _says(value: Any) -> bool:
    """Whether there is something: None, NaN (pandas has it for nothing) and what is empty is not."""
    return value is not None and value == value and value not in ("", [])


def _refuse_mixed(values: Mapping[str, Any], strings: Sequence[str], answers: Sequence[str]) -> None:
    lists = [name for name in values if name not in strings]
    first = values[lists[0]][0]
    if strings == ["prompt"] and isinstance(first, Mapping) and first.get("content") == values["prompt"]:
        raise BadRow(
            f"its answers repeat the prompt as their first turn; drop the column 'prompt', and what {answers[0]!r} and "
            f"{answers[-1]!r} share is taken for it."
        )
    raise BadRow(
        f"its column {strings[0]!r} is a string and {lists[0]!r} a list of messages; make all of them one or the other."
    )


def _last_role(side: Side) -> str:
    return "" if isinstance(side, str) else side[-1]["role"]


def _begins_with(side: Side, prompt: Side) -> bool:
    if isinstance(side, str) or isinstance(prompt, str):
        return isinstance(side, str) and isinstance(prompt, str) and side.startswith(prompt)
    return list(side[: len(prompt)]) == list(prompt)
