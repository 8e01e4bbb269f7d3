"""A model's chat template as a function from messages to text, and the few things about it that rendering can tell.

Every question ("does it want content as a list?") is put by rendering a probe, never by reading the template's source.
It does not decide what is supervised; `supervision.py` does.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..tokenizer_state import renders_in_python
from .columns import BadRow, is_whole
from .sandbox import FAILURES, NotJinja, Span, TemplateLimit, compiled, rendered

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]] | None
_ANOTHER = "Pass another chat_template=... to from_pretrained."

# Stands in for a content, to find where the template puts it. Private-use characters survive trimming and casing.
SENTINEL = "\ue0c5content\ue0c5"
NEXT_SENTINEL = "\ue0c6content\ue0c6"


class ChatTemplate:
    """The chat template of a tokenizer that has one.

    `thinking` turns the template's switch for thoughts on or off (`enable_thinking`, or DeepSeek's `thinking`); None
    leaves it as mlx-lm has it. Raises ValueError where the template has no such switch.
    """

    def __init__(self, tokenizer: TokenizerWrapper, thinking: bool | None = None):
        self.tokenizer = tokenizer
        self.thinking = thinking
        if thinking is not None and not self._has_switch(thinking):
            raise ValueError(
                f"thinking is {thinking}, and {self.name} writes the same without thoughts as with them: it has no "
                "switch (enable_thinking). Leave thinking out."
            )

    @property
    def name(self) -> str:
        """The model and the first line of the template, for messages to people."""
        source = self.source
        first_line = "" if source is None else f", {source.lstrip().partition(chr(10))[0][:60]!r}"
        return f"the chat template of {self.tokenizer.name_or_path or 'this tokenizer'}{first_line}"

    @property
    def source(self) -> str | None:
        """The Jinja source; None where mlx-lm renders the model's chats in Python."""
        if self.tokenizer.chat_template is None:
            return None
        return self.tokenizer.get_chat_template()

    def render(self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation.

        Raises BadRow with the words of a template that refuses, ValueError for one that is no Jinja or takes more time
        or memory than a template may.
        """
        shaped = [self._shaped(message) for message in messages]
        return self._rendered(shaped, tools, add_generation_prompt=add_generation_prompt)[0]

    def renders(self, messages: Sequence[Message], tools: Tools = None) -> str | None:
        """`render`, or None when the template refuses."""
        try:
            return self.render(messages, tools)
        except BadRow:
            return None

    @cached_property
    def opens_answer(self) -> str:
        """What an assistant's turn begins with, such as "<|im_start|>assistant"; empty where that cannot be told."""
        asked = [{"role": "user", "content": SENTINEL}]
        try:
            closed, open_ = self.render(asked), self.render(asked, add_generation_prompt=True)
        except BadRow:
            return ""
        return open_[len(closed) :].strip().partition("\n")[0] if open_.startswith(closed) else ""

    def marked(self, messages: Sequence[Message], tools: Tools = None) -> list[Span]:
        """The spans between {% generation %} and {% endgeneration %}, in order; none where the template has no such."""
        source = self.source
        if source is None or "endgeneration" not in source:
            return []
        return self._rendered([self._shaped(message) for message in messages], tools)[1]

    @cached_property
    def added_tokens(self) -> tuple[str, ...]:
        """The tokens that stand outside the tokenizer's ordinary vocabulary, such as `<|im_end|>`."""
        return tuple(self.tokenizer.get_added_vocab())

    @cached_property
    def thought_marks(self) -> tuple[str, str]:
        """What stands before thoughts and behind them."""
        return marks_of_thoughts(self.tokenizer)

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

    def _has_switch(self, thinking: bool) -> bool:
        asked = [{"role": "user", "content": SENTINEL}]
        other = ChatTemplate(self.tokenizer)
        other.thinking = not thinking
        here, there = (template.render(asked, add_generation_prompt=True) for template in (self, other))
        return here != there

    def _shows(self, content: Any) -> bool:
        text = content if isinstance(content, str) else content[0]["text"]
        try:
            return text in self._rendered([{"role": "user", "content": content}])[0]
        except BadRow:
            return False

    def _rendered(
        self, messages: list[dict[str, Any]], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """The text of messages as they are, and its marked spans, within the limits of the sandbox."""
        options: dict[str, Any] = (
            {} if tools is None else {"tools": list(tools)}
        )  # mlx-lm's own renderers know no tools=None
        options["add_generation_prompt"] = add_generation_prompt
        switches: dict[str, Any] = {} if self.thinking is None else {"enable_thinking": self.thinking}
        try:
            if self.source is None or renders_in_python(self.tokenizer):
                return self.tokenizer.apply_chat_template(messages, tokenize=False, **options, **switches), []
            if switches:
                switches["thinking"] = self.thinking
            # What a template is given is transformers' to say, so it is asked by a template that shows just that.
            names = ["messages", "tools", "documents", "add_generation_prompt", *(switches or ["enable_thinking"])]
            names += self.tokenizer.special_tokens_map
            shown = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | tojson }}"
            given = self.tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=shown, **options, **switches
            )
            source = self.tokenizer.get_chat_template(tools=options.get("tools"))
            text, spans = rendered(compiled(source), json.loads(given), size=len(given))
        except TemplateLimit as error:
            raise ValueError(f"{self.name} {error}. {_ANOTHER}") from error
        except NotJinja as error:
            raise ValueError(f"{self.name} is refused: {error}. {_ANOTHER}") from error
        except FAILURES as error:  # such as adding a string to a list within the template
            raise BadRow(f"the chat template refuses it: {printable(str(error) or type(error).__name__)}") from error
        if not is_whole(text):
            raise BadRow(
                "the chat template makes half of a character of it (a surrogate), which is no text; take it out."
            )
        return text, spans

    def _shaped(self, message: Message) -> dict[str, Any]:
        """A message with its content in the shape the template wants."""
        if not self._wants_parts or not isinstance(message.get("content"), str):
            return dict(message)
        return {**message, "content": [{"type": "text", "text": message["content"]}]}


def marks_of_thoughts(tokenizer: TokenizerWrapper) -> tuple[str, str]:
    """What stands before thoughts and behind them; of a tokenizer that has no such tokens what most models write."""
    start, end = tokenizer.think_start, tokenizer.think_end
    return ("<think>", "</think>") if start is None or end is None else (start, end)


def template_of(tokenizer: TokenizerWrapper, thinking: bool | None) -> ChatTemplate | None:
    """The chat template of a tokenizer, None where it has none. Raises ValueError for `thinking` that cannot be had."""
    if tokenizer.has_chat_template:
        return ChatTemplate(tokenizer, thinking)
    if thinking is not None:
        raise ValueError(f"thinking is {thinking}, and this model has no chat template to say so. Leave thinking out.")
    return None


def printable(text: str, most: int = 300) -> str:
    """A text of somebody's on one line, of a length to read, without the codes a terminal would obey."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:most])
    return f"{line}..." if len(text) > most else line
