"""A Modelfile beside a .gguf, so that Ollama speaks to the model in the chat format it was tuned in.

Ollama (0.12) renders chats with a Go template. Ours is put together from what the tokenizer's own chat template writes
before, between and behind messages, and used only when it gives exactly the same text on several conversations;
otherwise there is no TEMPLATE line, and Ollama goes by the template inside the .gguf.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.formats import BadRow
from ...data.formats.templates import ChatTemplate, Message
from ...model_files.generation_config import usable_generation
from ...models.loaded import Loaded

MOST_CONTEXT = 8192  # tokens; Ollama reserves memory for the whole window when it starts

# generation_config.json's names -> Ollama's.
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}

# Their types, and the least and the most that make sense.
_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_position_embeddings": (int, 1, 2**31 - 1),
    "temperature": (float, 0, 100),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, 2**31 - 1),
    "repetition_penalty": (float, 0, 100),
}

_GO = """\
{{- $before := %(opening)s }}{{ $asked := false }}
%(system)s{{- range .Messages }}
{{- if eq .Role "user" }}{{ $before }}{{ .Content }}{{ $before = %(to_question)s }}{{ $asked = true }}
{{- else if eq .Role "assistant" }}{{ %(to_answer)s }}{{ .Content }}{{ $asked = false }}
{{- end }}
{{- end }}
{{- if $asked }}{{ %(asking)s }}{{ end }}"""
_GO_SYSTEM = """\
{{- if .System }}{{ %(before)s }}{{ .System }}{{ $before = %(behind)s }}{{ end }}
"""

# Contents no template treats specially: whitespace around a content is trimmed by some, and Go cannot.
_PROBES = ("Who <was> \"Ada\" & 'Bob'?", "She wrote {{ programs }},\n\nin 1843.", "Über 🎵 sonst?", "Nein.", "42")


class NoGoTemplate(ValueError):
    """A chat template that cannot be told in Go; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """A chat format as the texts around the contents of its messages."""

    opening: str  # before the first question, without a system message
    system: tuple[str, str] | None  # around a system message, up to the first question; None: it takes none
    to_answer: str  # between a question and its answer
    to_question: str  # between an answer and the next question
    asking: str  # behind the last question: the generation prompt

    def render(self, messages: Sequence[Message]) -> str:
        """What the Go template makes of `messages`; the last is a question."""
        text, before = "", self.opening
        for message in messages:
            content = message["content"]
            match message["role"]:
                case "system" if self.system is not None:
                    text, before = self.system[0] + content, self.system[1]
                case "user":
                    text, before = text + before + content, self.to_question
                case "assistant":
                    text += self.to_answer + content
        return text + self.asking

    def as_go(self) -> str:
        """The same as a Go template. Ollama hands it .System and .Messages, and goes on from its end."""
        system = ""
        if self.system is not None:
            system = _GO_SYSTEM % {"before": _go(self.system[0]), "behind": _go(self.system[1])}
        texts = {name: _go(text) for name, text in vars(self).items() if name != "system"}
        return _GO % {**texts, "system": system}


def modelfile_of(gguf: Path) -> Path:
    """Where the Modelfile of a .gguf is."""
    return gguf.with_suffix(".Modelfile")


def write_modelfile(loaded: Loaded, gguf: Path) -> list[str]:
    """Write `modelfile_of(gguf)`; sentences on what it does not say.

    A line of a Modelfile is a command, so nothing that comes from a file enters it but as a number or a quoted string.
    """
    path, template = modelfile_of(gguf), ""
    stops = list(ChatTemplate(loaded.tokenizer).end_tokens)
    parameters, notes = _parameters(loaded)
    try:
        turns = turns_of(loaded.tokenizer)
    except NoGoTemplate as reason:
        notes.append(f"{path.name} has no TEMPLATE: {reason} Ollama goes by the chat template in the .gguf.")
    else:
        template = f'TEMPLATE """{turns.as_go()}"""\n'
        if turns.system is None:
            notes.append(f"The chat template takes no system message, so {path.name} leaves one out.")
        if token := ChatTemplate(loaded.tokenizer).added_token_at_start(turns.to_question):
            stops.append(token)
    lines = [f"PARAMETER stop {json.dumps(token, ensure_ascii=False)}" for token in dict.fromkeys(stops)]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    path.write_text(f"FROM ./{gguf.name}\n{template}" + "\n".join(lines) + "\n", encoding="utf-8")
    return notes


def turns_of(tokenizer: TokenizerWrapper) -> Turns:
    """The chat format of a tokenizer. Raises NoGoTemplate for one that is not made of fixed texts around contents."""
    if not tokenizer.has_chat_template:
        raise NoGoTemplate("The tokenizer has no chat template.")
    template = ChatTemplate(tokenizer)
    if "strftime_now" in (template.source or ""):
        raise NoGoTemplate("The chat template writes today's date.")
    try:
        turns = _measured(template)
        for messages in _conversations(with_system=turns.system is not None):
            if turns.render(messages) != template.render(messages, add_generation_prompt=True):
                raise NoGoTemplate("The chat template does more than put fixed texts around the messages.")
    except BadRow as error:
        raise NoGoTemplate(f"The chat template refuses a plain conversation: {error}.") from error
    return _without_bos(turns, tokenizer)


def _measured(template: ChatTemplate) -> Turns:
    """The texts around three contents that stand for themselves."""
    first, answer, second, rules = "\ue0c1one", "\ue0c2two", "\ue0c3three", "\ue0c4four"
    asked = [_message("user", first), _message("assistant", answer), _message("user", second)]
    opening, rest = _cut(template.render(asked, add_generation_prompt=True), first)
    to_answer, rest = _cut(rest, answer)
    to_question, asking = _cut(rest, second)
    system = None
    ruled = [_message("system", rules), _message("user", first)]
    text = template.renders(ruled)
    if text is not None and rules in text:
        before, rest = _cut(text, rules)
        system = (before, _cut(rest, first)[0])
    return Turns(opening=opening, system=system, to_answer=to_answer, to_question=to_question, asking=asking)


def _cut(text: str, content: str) -> tuple[str, str]:
    """What stands before and behind a content. Raises NoGoTemplate unless it stands there once."""
    if text.count(content) != 1:
        raise NoGoTemplate("The chat template does not write each message once, in order.")
    before, _, behind = text.partition(content)
    return before, behind


def _conversations(*, with_system: bool) -> list[list[Message]]:
    """One to three questions, with and without a system message."""
    roles = ("user", "assistant", "user", "assistant", "user")
    talks = [[_message(role, _PROBES[at]) for at, role in enumerate(roles[:length])] for length in (1, 3, 5)]
    ruled = [[_message("system", "Be brief.\nBe kind."), *talk] for talk in talks]
    return [*talks, *ruled] if with_system else talks


def _without_bos(turns: Turns, tokenizer: TokenizerWrapper) -> Turns:
    """Ollama opens a prompt with BOS where the .gguf says so; one in the template too would be the second."""
    bos = tokenizer.bos_token
    if not bos or tokenizer.encode("a")[:1] != [tokenizer.bos_token_id]:
        return turns
    system = turns.system and (turns.system[0].removeprefix(bos), turns.system[1])
    return Turns(**{**vars(turns), "opening": turns.opening.removeprefix(bos), "system": system})


def _parameters(loaded: Loaded) -> tuple[dict[str, int | float], list[str]]:
    """(the context window, and what the makers of the model recommend for sampling; sentences on what was left out)."""
    said = {"max_position_embeddings": loaded.config.get("max_position_embeddings")}
    settings, left_out = usable_generation(loaded.folder)
    notes = [left_out] if left_out else []
    said |= {key: settings.get(key) for key in _SAMPLING}
    given = {key: value for key, value in said.items() if value is not None}
    odd = [key for key, value in given.items() if not _is_number(value, *_RANGES[key])]
    if odd:
        listed = ", ".join(f"{key} {json.dumps(given[key])[:40]}" for key in odd)
        notes.append(f"The Modelfile leaves out what the base model says that is no number Ollama takes: {listed}.")
    parameters = {_SAMPLING.get(key, "num_ctx"): value for key, value in given.items() if key not in odd}
    if "num_ctx" in parameters:
        parameters["num_ctx"] = min(parameters["num_ctx"], MOST_CONTEXT)
    return parameters, notes


def _is_number(value: Any, kind: type[int] | type[float], least: float, most: float) -> bool:
    """Whether a value from a file is a number between two others; `kind` int takes whole ones alone."""
    is_one = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return is_one and least <= value <= most


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _go(text: str) -> str:
    """A Go string literal; JSON's escapes are Go's too, and braces or line ends in it mean nothing to the template."""
    return json.dumps(text, ensure_ascii=False)
