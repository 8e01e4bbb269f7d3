"""Rows that hold a question and its answer: prompt and completion, and Alpaca's instruction, input and output.

With a chat template they are one exchange of a conversation; without one, plain text in which the answer is supervised.
"""

from typing import Any

from ..examples import Example
from ..sources import Row
from .columns import BadRow, column, is_missing, listed
from .conversations import as_messages, row_tools, with_system
from .reading import Reading
from .templates import Message

# The prompts Stanford Alpaca was trained with (tatsu-lab, stanford_alpaca/train.py, PROMPT_DICT).
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def read_prompt_completion(row: Row, reading: Reading) -> Example:
    """`{"prompt": ..., "completion": ...}`: two strings, or two lists of messages of which the second is answered for.

    Strings are one chat turn each; without a chat template they are plain text.
    """
    prompt, completion = (column(row, name, str, list, tuple) for name in ("prompt", "completion"))
    if isinstance(prompt, str) != isinstance(completion, str):
        raise BadRow("one of 'prompt' and 'completion' is a string and the other a list of messages.")
    if isinstance(prompt, str):
        return _exchange(row, prompt, completion, reading) if reading.template else reading.answer(prompt, completion)
    messages = as_messages([*prompt, *completion], images=reading.reads_images)
    whole = with_system(row, messages)
    return reading.chat(whole, row_tools(row), first_turn=len(prompt) + len(whole) - len(messages))


def read_alpaca(row: Row, reading: Reading) -> Example:
    """`{"instruction": ..., "input": ..., "output": ...}`, whose input may be empty or absent.

    Instruction and input are the user's turn, a blank line between them; without a chat template they are put as
    Stanford Alpaca's were.
    """
    instruction, output = column(row, "instruction", str), column(row, "output", str)
    given = _optional_text(row, "input")
    if reading.template:
        return _exchange(row, f"{instruction}\n\n{given}" if given else instruction, output, reading)
    form = ALPACA_WITH_INPUT if given else ALPACA_WITHOUT_INPUT
    return reading.answer(form.format(instruction=instruction, input=given), output)


def _exchange(row: Row, question: str, answer: str, reading: Reading) -> Example:
    turns = [turn for pair in (*_history(row), (question, answer)) for turn in _turns(*pair)]
    return reading.chat(with_system(row, turns), row_tools(row))


def _turns(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _history(row: Row) -> list[tuple[str, str]]:
    """Alpaca's `history` as LLaMA-Factory has it: questions and their answers before this one, learnt as it is."""
    pairs = listed(row.get("history")) if "instruction" in row else None
    if pairs is None or pairs == "":
        return []
    found = [pair if isinstance(pair, list) else [] for pair in (pairs if isinstance(pairs, list) else [pairs])]
    if not all(len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in found):
        raise BadRow("its column 'history' is not a list of pairs, each a question and its answer.")
    return [(pair[0], pair[1]) for pair in found]


def _optional_text(row: Row, name: str) -> Any:
    value = row.get(name)
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise BadRow(f"its column '{name}' is a {type(value).__name__}, not a str.")
    return value
