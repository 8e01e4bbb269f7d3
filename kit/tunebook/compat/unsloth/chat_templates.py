"""Chat templates and what is trained of them, by the names that Unsloth's notebooks use.

This kit brings no collection of templates: a model's own is kept where it is of the kind that was asked for. Three
kinds that are a few lines each are written here for base models whose tokenizer has the tokens for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ... import Trainer
from ...data.formats import as_messages
from ..told import tell
from .tokenizer import Tokenizer

_TURNS = "{% for message in messages %}{% set role = message['role'] %}"
_ASKED = "{% endfor %}{% if add_generation_prompt %}"


@dataclass(frozen=True)
class Kind:
    """A way of writing chats: the token that begins a turn, how questions and answers begin, and its template."""

    mark: str
    instruction_part: str
    response_part: str
    end: str
    source: str | None = None  # None: a model's own is needed


CHATML = Kind(
    "<|im_start|>",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "<|im_end|>",
    _TURNS
    + "{{ '<|im_start|>' + role + '\n' + message['content'] + '<|im_end|>\n' }}"
    + _ASKED
    + "{{ '<|im_start|>assistant\n' }}{% endif %}",
)
_LLAMA_ROLE = "'<|start_header_id|>' + {} + '<|end_header_id|>\n\n'"
LLAMA_3 = Kind(
    "<|start_header_id|>",
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "{{ bos_token }}"
    + _TURNS
    + "{{ "
    + _LLAMA_ROLE.format("role")
    + " + message['content'] | trim + '<|eot_id|>' }}"
    + _ASKED
    + "{{ "
    + _LLAMA_ROLE.format("'assistant'")
    + " }}{% endif %}",
)
GEMMA = Kind(
    "<start_of_turn>",
    "<start_of_turn>user\n",
    "<start_of_turn>model\n",
    "<end_of_turn>",
    "{{ bos_token }}"
    + _TURNS
    + "{% if role == 'assistant' %}{% set role = 'model' %}{% endif %}"
    + "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    + _ASKED
    + "{{ '<start_of_turn>model\n' }}{% endif %}",
)
# By the beginnings of the names that notebooks give; what comes first is looked for first, in a template as well.
KINDS: Mapping[str, Kind] = {
    "phi-4": Kind("<|im_sep|>", "<|im_start|>user<|im_sep|>", "<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
    **dict.fromkeys(("chatml", "qwen", "yi-chat"), CHATML),
    **dict.fromkeys(("llama-3", "llama3"), LLAMA_3),
    **dict.fromkeys(("gemma-4", "gemma4"), Kind("<|turn>", "<|turn>user\n", "<|turn>model\n", "<turn|>")),
    "gemma": GEMMA,
    **dict.fromkeys(("mistral", "llama"), Kind("[INST]", "[INST]", "[/INST]", "</s>")),
    **dict.fromkeys(("zephyr", "phi-3"), Kind("<|user|>", "<|user|>\n", "<|assistant|>\n", "")),
}


def get_chat_template(
    tokenizer: Any,
    chat_template: str | tuple[str, str] = "chatml",
    mapping: Mapping[str, str] | None = None,
    map_eos_token: bool = True,
    system_message: str | None = None,
) -> Any:
    """Have `tokenizer` write chats as `chat_template` says, and return it.

        >>> tokenizer = get_chat_template(tokenizer, chat_template="chatml")
        tunebook.compat: chat_template='chatml': the model's own template, which is of this kind, is kept.

    A name keeps the model's own template where that is of its kind; "chatml", "llama-3" and "gemma" are written for a
    base model whose tokenizer has their tokens. A pair is a template's source and the token that ends a turn. `mapping`
    says what rows call role, content, user and assistant. With `map_eos_token` the template's end token ends answers.
    Raises ValueError for a template that cannot be had, and for a `system_message`, which belongs into the rows.
    """
    if system_message is not None:
        raise ValueError("system_message is given; put it into the rows as a turn: {'role': 'system', 'content': ...}.")
    if mapping is not None and isinstance(tokenizer, Tokenizer):
        tokenizer.mapping = {**mapping}
    if isinstance(chat_template, tuple | list):
        source, end = chat_template
        return _given(tokenizer, source, end if map_eos_token else None)
    own = tokenizer.chat_template
    kind = next((kind for name, kind in KINDS.items() if chat_template.lower().startswith(name)), None)
    if kind is None:
        known = ", ".join(KINDS)
        move = "leave get_chat_template out: the model's own template is used" if own else "load the instruct model"
        raise ValueError(f"chat_template is {chat_template!r}, and the kinds known here are {known}; {move}.")
    if isinstance(own, str) and kind.mark in own:
        tell(f"chat_template={chat_template!r}: the model's own template, which is of this kind, is kept.")
        return tokenizer
    if kind.source is None or not {kind.mark, kind.end} <= {*tokenizer.get_vocab()}:
        raise ValueError(
            f"chat_template is {chat_template!r}, whose turns begin with {kind.mark}, and this model was not made for "
            "it. Leave get_chat_template out, load the instruct model, or pass the pair (source, end token)."
        )
    return _given(tokenizer, kind.source, kind.end if map_eos_token else None)


def train_on_responses_only(
    trainer: Trainer,
    instruction_part: str | None = None,
    response_part: str | None = None,
    *,
    force_match: bool = True,  # noqa: ARG001 - markers are matched as they stand
    tokenizer: Any = None,  # noqa: ARG001 - it is the model's
    num_proc: int | None = None,  # noqa: ARG001 - rows are read once, by all cores
    last_response_only: bool = False,
) -> Trainer:
    """Have `trainer` train what stands behind each `response_part`, up to the next `instruction_part`; it is returned.

        >>> asks, answers = "<|im_start|>user\\n", "<|im_start|>assistant\\n"
        >>> trainer = train_on_responses_only(trainer, instruction_part=asks, response_part=answers)

    Without both they are those of the model's chat template, where its kind is known. `last_response_only` leaves out
    all answers but the last. `force_match`, `tokenizer` and `num_proc` change nothing. Raises ValueError where no row
    has a `response_part`.
    """
    if instruction_part is None or response_part is None:
        source = trainer.loaded.tokenizer.chat_template
        kind = next((kind for kind in KINDS.values() if isinstance(source, str) and kind.mark in source), None)
        if kind is None:
            raise ValueError("This model's chat template is of no known kind; give instruction_part and response_part.")
        instruction_part, response_part = kind.instruction_part, kind.response_part
    options = replace(
        trainer.datasets.options,
        response_markers=(instruction_part, response_part),
        train_on="last_assistant" if last_response_only else "assistant",
    )
    trainer.prepare(replace(trainer.datasets, options=options))
    return trainer


def standardize_sharegpt(dataset: Any, tokenizer: Any = None, **more: Any) -> Any:  # noqa: ARG001 - rows alone are read
    """The rows of `dataset` with their conversation as turns of role and content; a list, or a `datasets` object.

        >>> dataset = standardize_sharegpt([{"conversations": [{"from": "human", "value": "Hi"}]}])
        >>> dataset[0]["conversations"]
        [{'role': 'user', 'content': 'Hi'}]

    The trainer reads both forms by itself. `tokenizer` and `more` change nothing. Raises ValueError for rows without
    one.
    """
    first = next(iter(dataset), {})
    column = next((name for name in ("conversations", "messages") if name in first), None)
    if column is None:
        raise ValueError(f"These rows have no column 'conversations' or 'messages'; they have {', '.join(first)}.")

    def one(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, column: [dict(turn) for turn in as_messages(row[column], images=True)]}

    return [one(row) for row in dataset] if isinstance(dataset, list) else dataset.map(one)


def _given(tokenizer: Any, source: str, end: str | None) -> Any:
    """`tokenizer` with another template, whose turns `end` so."""
    tokenizer.chat_template = source
    if end is not None:
        tokenizer.eos_token = end
    return tokenizer
