"""The settings a row is read with: all that decides what it becomes, besides the row itself."""

from dataclasses import dataclass
from difflib import get_close_matches

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...config import TrainOn
from ..examples import Example, Text
from .columns import BadRow, check_whole, shown
from .markers import Markers, supervise_between
from .supervision import supervise
from .templates import ChatTemplate, Message, Tools

# Who speaks in OpenAI's messages, and in those of Llama 3.1 (ipython) and GLM (observation).
SPEAKERS = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A tokenizer, its chat template, and what is to be supervised."""

    tokenizer: TokenizerWrapper
    template: ChatTemplate | None  # None: the tokenizer has no chat template
    train_on: TrainOn = "assistant"
    response_markers: Markers | None = None  # where given they decide, whatever the template could tell
    reads_images: bool = False  # a turn may hold parts that stand for images

    def chat(self, messages: list[Message], tools: Tools = None, *, first_turn: int = 0) -> Example:
        """A conversation rendered and supervised; turns before `first_turn` are context.

        Raises ValueError when there is no template, and as `supervise` does.
        """
        if self.template is None:
            raise ValueError(
                "This tokenizer has no chat template, so a conversation cannot be rendered. Load an instruct model, "
                "pass chat_template=... to from_pretrained, or give the rows a 'text' column: "
                "formatting_func=lambda row: "
                "'\\n'.join(turn['content'] for turn in row['messages'])"
            )
        self._check_roles(messages)
        self._check_thoughts(messages)
        if self.response_markers is None:
            return supervise(self.template, messages, tools, train_on=self.train_on, first_turn=first_turn)
        return Example(parts=self._between_markers(self.template.render(messages, tools)), rendered=True)

    def _check_roles(self, messages: list[Message]) -> None:
        """Raise BadRow for a role that is nobody's: many templates write any, and a misspelt one is never trained."""
        assert self.template is not None
        for number, message in enumerate(messages):
            role = message["role"]
            if role not in SPEAKERS and role not in (self.template.source or ""):
                close = get_close_matches(role[:40].lower(), SPEAKERS, n=1)
                move = f"correct it to {close[0]!r}" if close else "correct it"
                raise BadRow(
                    f"turn {number} has the role {shown(role)}, which is none of {', '.join(SPEAKERS)} and not in the "
                    f"chat template; {move}."
                )

    def _check_thoughts(self, messages: list[Message]) -> None:
        """Raise BadRow for thoughts in a row that is to be written without them."""
        assert self.template is not None
        if self.template.thinking is not False:
            return
        _, end = self.template.thought_marks
        for number, message in enumerate(messages):
            said = message.get("content")
            inside = message["role"] == "assistant" and isinstance(said, str) and end in said
            if inside or message.get("reasoning_content"):
                raise BadRow(
                    f"turn {number} has thoughts, and thinking=False writes answers without; take them out, or pass "
                    "thinking=True."
                )

    def answer(self, prompt: str, completion: str) -> Example:
        """Plain text of which the completion is supervised, unless response markers say otherwise."""
        check_whole(prompt + completion)
        if self.response_markers is not None:
            return self.raw(prompt + completion)
        if self.train_on == "everything":
            return Example(parts=(Text(prompt + completion, supervised=True),), rendered=False)
        return Example(parts=(Text(prompt), Text(completion, supervised=True)), rendered=False)

    def raw(self, text: str) -> Example:
        """Plain text, supervised whole unless there are response markers."""
        check_whole(text)
        if self.response_markers is None:
            return Example(parts=(Text(text, supervised=True),), rendered=False)
        return Example(parts=self._between_markers(text), rendered=False)

    def _between_markers(self, text: str) -> tuple[Text, ...]:
        assert self.response_markers is not None
        parts = supervise_between(text, *self.response_markers)
        if self.train_on == "assistant":
            return parts
        last = max(index for index, part in enumerate(parts) if part.supervised)
        return tuple(part if index == last else Text(part.text) for index, part in enumerate(parts))
