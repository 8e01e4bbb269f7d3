"""Rows -> examples: the function that reads one row, made for a whole set, and the prompts of a chat.

Supervision is decided here, where the text is rendered, and is never guessed at: what cannot be told exactly is
refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...config import TrainOn
from ..examples import Example, Text
from ..reach import ANYWHERE, Reach
from ..sources import Row
from .columns import BadRow, BadRows
from .conversations import as_messages, row_tools
from .markers import Markers
from .reading import Reading
from .recognition import FORMATS, Format, check_columns, format_named, recognise
from .row_images import Placing
from .templates import ChatTemplate, Message, Tools, printable, template_of
from .unread import rendered_before, unread, unread_frames

FormattingFunc = Callable[[Row], str | list[dict[str, Any]] | Row]


def reader(
    rows: Sequence[Row],
    tokenizer: TokenizerWrapper,
    format: str | None = None,
    *,
    train_on: TrainOn = "assistant",
    response_markers: Markers | None = None,
    formatting_func: FormattingFunc | None = None,
    placeholder: str | None = None,
    reach: Reach = ANYWHERE,
    thinking: bool | None = None,
) -> Callable[[Row], Example]:
    """The function that reads one of `rows`, each by itself and in any order; it raises BadRow for one it cannot use.

    `rows` are gone through once to recognise their format, and not at all when `format` names a key of FORMATS.
    `formatting_func` is called with each row first and returns raw text, a list of messages, or another row.
    `train_on` is about conversations and answers; raw text is supervised whole. `response_markers`, a pair
    (instruction_part, response_part), decide in place of the chat template, and in raw text. `placeholder` is the
    token that stands for an image, with None the model reads text alone; `reach` says which files it may open.
    `thinking` is as `ChatTemplate` has it.
    Raises ValueError for rows of no format or of several, and for settings that contradict one another; the function
    it returns raises ValueError for a template that does not let its answers be told exactly.
    """
    if train_on not in ("assistant", "last_assistant", "everything"):
        raise ValueError(f"train_on is {train_on!r}; choose 'assistant', 'last_assistant' or 'everything'.")
    if response_markers is not None and train_on == "everything":
        raise ValueError("response_markers and train_on='everything' are both given; choose one.")
    name = format if format is not None else format_of(rows, formatting_func)
    kind = format_named(name)
    template = template_of(tokenizer, thinking)
    reading = Reading(
        tokenizer=tokenizer,
        template=template,
        train_on=train_on,
        response_markers=response_markers,
        reads_images=placeholder is not None,
    )

    def read_text(row: Row) -> Example:
        row = formatted(row, formatting_func)
        check_columns(row, kind)
        return _noted(row, kind.read(row, reading), kind, reading)

    if placeholder is None:
        return read_text
    placing = Placing(tokenizer, placeholder, template, reach)

    def read_with_images(row: Row) -> Example:
        row = formatted(row, formatting_func)
        check_columns(row, kind)
        text, images = placing.take(row, kind)
        return _noted(row, placing.put_back(kind.read(text, reading), images), kind, reading)

    return read_with_images


def to_examples(
    rows: Sequence[Row], tokenizer: TokenizerWrapper, format: str | None = None, **options: Any
) -> Iterator[Example]:
    """The rows as examples, in order and one at a time; `options` are those of `reader`.

    A bad row yields nothing; once all rows are read, ValueError says how many there were, the first, and what is wrong
    with them. Whoever consumes examples while they come learns of bad rows at the end.
    """
    read, bad = reader(rows, tokenizer, format, **options), BadRows()
    for index, row in enumerate(rows):
        try:
            example = read(row)
        except BadRow as error:
            bad.add(index, error)
        else:
            yield example
    bad.check(len(rows))


def format_of(rows: Iterable[Row], formatting_func: FormattingFunc | None = None) -> str:
    """The format of rows, told from their columns. Raises ValueError for rows of no format or of several.

    A row that `formatting_func` fails on says nothing; it is met again, and counted, when it is read.
    """
    failed: dict[str, BadRow] = {}

    def made() -> Iterator[Row]:
        for row in rows:
            try:
                yield formatted(row, formatting_func)
            except BadRow as error:
                failed.setdefault("first", error)

    all_made = made()
    first = next(all_made, None)
    if first is None and failed:
        raise ValueError(f"No row is left to train on. Of the first: {failed['first']}") from failed["first"]
    return recognise(all_made if first is None else chain([first], all_made))


def formatted(row: Row, formatting_func: FormattingFunc | None) -> Row:
    """What `formatting_func` makes of a row, as a row of one of the formats. Raises BadRow where it fails."""
    if formatting_func is None:
        return row
    try:
        made = formatting_func(row)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # what a row raises that lacks something
        said = printable(f"{type(error).__name__}: {error}", 80)
        columns = printable(", ".join(map(str, row)), 80)
        raise BadRow(f"formatting_func fails on it with {said}; its columns are {columns}.") from error
    if isinstance(made, str):
        return {"text": made}
    if isinstance(made, list) and made and all(isinstance(turn, Mapping) for turn in made):
        return {"messages": made}
    if isinstance(made, Mapping):
        return made
    raise ValueError(
        f"formatting_func returned a {type(made).__name__}; it must return, for one row, a string, a list of messages, "
        "or a row."
    )


def render_chat(messages: Sequence[Message], tokenizer: TokenizerWrapper, tools: Tools = None) -> Example:
    """One conversation as its template writes it, each assistant turn supervised."""
    template = ChatTemplate(tokenizer) if tokenizer.has_chat_template else None
    return Reading(tokenizer=tokenizer, template=template).chat(as_messages(messages), tools)


def render_prompt(
    messages: Sequence[Message],
    tokenizer: TokenizerWrapper,
    placeholder: str | None = None,
    *,
    thinking: bool | None = None,
    tools: Tools = None,
) -> Example:
    """A conversation up to the point where the assistant speaks next; nothing is supervised.

    `placeholder` is the token that stands for an image, None for a model that reads text alone; `thinking` is as
    `ChatTemplate` has it, `tools` as in a row. Raises ValueError for tools that the template leaves out.
    """
    template = ChatTemplate(tokenizer, thinking)
    if placeholder is None:
        return Example(parts=(Text(_asked(template, as_messages(messages), tools)),), rendered=True)
    placing = Placing(tokenizer, placeholder, template)
    row, images = placing.take({"messages": messages}, FORMATS["messages"])
    text = _asked(template, as_messages(row["messages"], images=True), tools)
    return placing.put_back(Example(parts=(Text(text),), rendered=True), images)


def _asked(template: ChatTemplate, messages: Sequence[Message], given: Tools) -> str:
    tools = row_tools({"tools": given})
    text = template.render(messages, tools, add_generation_prompt=True)
    if tools and text == template.render(messages, add_generation_prompt=True):
        raise ValueError(
            f"tools are given, and {template.name} leaves them out. Pass one with tool support to from_pretrained "
            "(chat_template=...), or leave them out."
        )
    return text


def _noted(row: Row, example: Example, format: Format, reading: Reading) -> Example:
    """`example` with the names of what stands in its row and was not read, or not as it was meant."""
    names = unread(
        row,
        format,
        None if reading.template is None else reading.template.source,
        reads_images=reading.reads_images,
        follows_weights=reading.response_markers is None and reading.train_on != "everything",
    )
    names += unread_frames(example)
    markup = rendered_before(row, format.turns, reading.template, strings=format.exchange)
    return replace(example, unread=names, markup=markup) if names or markup else example
