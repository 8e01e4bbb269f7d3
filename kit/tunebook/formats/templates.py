"""A model's chat template as a function from messages to text, and the few things about it that rendering can tell.

Every question ("does it want content as a list?") is put by rendering a probe, never by reading the template's source.
It does not decide what is supervised; `supervision.py` does.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from jinja2.exceptions import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers.utils.chat_template_utils import render_jinja_template

from .rows import BadRow

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]] | None
Span = tuple[int, int]  # first character and one past the last

# Stands in for a content, to find where the template puts it. Private-use characters survive trimming and casing.
SENTINEL = "\ue0c5content\ue0c5"
NEXT_SENTINEL = "\ue0c6content\ue0c6"


class ChatTemplate:
    """The chat template of a tokenizer that has one."""

    def __init__(self, tokenizer: TokenizerWrapper):
        self.tokenizer = tokenizer

    @property
    def name(self) -> str:
        """The model and the first line of the template, for messages to people."""
        source = self.source
        first_line = "" if source is None else f", {source.lstrip().splitlines()[0][:60]!r}"
        return f"the chat template of {self.tokenizer.name_or_path or 'this tokenizer'}{first_line}"

    @property
    def source(self) -> str | None:
        """The Jinja source; None where mlx-lm renders the model's chats in Python."""
        if self.tokenizer.chat_template is None:
            return None
        return self.tokenizer.get_chat_template()

    def render(self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises BadRow with the words of a template that refuses."""
        try:
            return self.tokenizer.apply_chat_template(
                [self._shaped(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **({} if tools is None else {"tools": list(tools)}),  # mlx-lm's own renderers know no tools=None
            )
        except (TemplateError, TypeError) as error:  # TypeError: such as adding a string to a list within the template
            raise BadRow(f"the chat template refuses it: {error}") from error

    def renders(self, messages: Sequence[Message], tools: Tools = None) -> str | None:
        """`render`, or None when the template refuses."""
        try:
            return self.render(messages, tools)
        except BadRow:
            return None

    def marked(self, messages: Sequence[Message], tools: Tools = None) -> list[Span]:
        """The spans between {% generation %} and {% endgeneration %}, in order; none where the template has no such."""
        source = self.source
        if source is None or "endgeneration" not in source:
            return []
        pair = render_jinja_template(
            [[self._shaped(message) for message in messages]],
            tools=None if tools is None else [dict(tool) for tool in tools],
            chat_template=self.tokenizer.get_chat_template(tools=tools),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
            enable_thinking=self.tokenizer.has_thinking,  # as mlx-lm's TokenizerWrapper passes it
        )
        rendered, spans = cast(tuple[list[str], list[list[Span]]], pair)  # transformers 5 annotates it as a str
        if rendered[0] != self.render(messages, tools):
            raise ValueError(f"{self.name} renders differently when its generation markers are followed.")
        return spans[0]

    @cached_property
    def added_tokens(self) -> tuple[str, ...]:
        """The tokens that stand outside the tokenizer's ordinary vocabulary, such as `<|im_end|>`."""
        return tuple(self.tokenizer.get_added_vocab())

    @cached_property
    def end_tokens(self) -> tuple[str, ...]:
        """The tokens at which generation stops."""
        return tuple(self.tokenizer.convert_ids_to_tokens(sorted(self.tokenizer.eos_token_ids)))

    def common_start(self, first: str, second: str) -> int:
        """How many characters two texts share at the start, never ending within an added token of either."""
        pairs = enumerate(zip(first, second, strict=False))
        shared = next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
        if shared in (len(first), len(second)):
            return shared
        cuts = (
            start
            for text in (first, second)
            for token in self.added_tokens
            if (start := text.find(token, max(0, shared - len(token) + 1), shared + len(token) - 1)) != -1
        )
        return min(cuts, default=shared)

    def added_token_at_start(self, text: str) -> str:
        """The longest added token `text` begins with, or nothing."""
        return max((token for token in self.added_tokens if text.startswith(token)), key=len, default="")

    def ends_in_added_token(self, text: str) -> bool:
        """Whether the last of `text`, trailing whitespace aside, is an added token."""
        return text.rstrip().endswith(self.added_tokens)

    @cached_property
    def generation_prompt(self) -> str:
        """What the template adds to a question when it is asked for an answer; nothing where it adds nothing."""
        asked = [{"role": "user", "content": SENTINEL}]
        bare, prompted = self.render(asked), self.render(asked, add_generation_prompt=True)
        return prompted[self.common_start(bare, prompted) :]

    @cached_property
    def turn_end(self) -> str:
        """The added token right behind the content of a user's turn; nothing where there is none."""
        bare = self.render([{"role": "user", "content": SENTINEL}])
        return self.added_token_at_start(bare.rpartition(SENTINEL)[2])

    @cached_property
    def prompts_answers(self) -> bool:
        """Whether all that stands before an answer is in the generation prompt; some templates have none."""
        asked, answered = {"role": "user", "content": "Q"}, {"role": "assistant", "content": SENTINEL}
        bare, before = self.render([asked]), self.render([asked, answered]).partition(SENTINEL)[0]
        return bool(self.generation_prompt) or not before[len(bare) :].strip()

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether content must be a list of parts: some templates iterate over it and would drop a string."""
        return not self._shows("a string") and self._shows([{"type": "text", "text": "a list"}])

    def _shows(self, content: Any) -> bool:
        text = content if isinstance(content, str) else content[0]["text"]
        try:
            asked = [{"role": "user", "content": content}]
            return text in self.tokenizer.apply_chat_template(asked, tokenize=False)
        except (TemplateError, TypeError):
            return False

    def _shaped(self, message: Message) -> dict[str, Any]:
        """A message with its content in the shape the template wants."""
        if not self._wants_parts or not isinstance(message.get("content"), str):
            return dict(message)
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
