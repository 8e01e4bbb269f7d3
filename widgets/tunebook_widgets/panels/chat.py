"""`Chat`: a conversation with the tuned model and, beside it, with its base.

A model comes in, messages from the browser or from `ask`; what goes out are traits with the text so far, to be drawn by
view/chat.js. Both models write in slices on the kernel's own thread; between two the event loop turns, so that Stop is
heard. Nothing is trained or saved, and a cell that computes without awaiting holds the answer up.
"""

import asyncio
from typing import Any, Literal

import anywidget
import traitlets

from tunebook.data.formats.templates import template_of
from tunebook.machine.inert import one_line
from tunebook.models.base_model import why_no_base
from tunebook.models.generation import as_prompt, write_in_slices
from tunebook.models.loaded import HoldsLoaded, loaded_in

from ..esm import esm
from . import STYLES

SLICE = 0.1  # seconds between two messages to the browser
TURNS_OF_THE_LOOP = 8  # until ipykernel 7.4 has taken a press of a button from its socket to our handler


Side = Literal["tuned", "base"]
Turn = dict[str, str]  # "you", an answer under each Side ("" where there is none), "note"


class Chat(anywidget.AnyWidget):
    """Talk to a tuned model and its base side by side.

        >>> chat = Chat(model, system="You are a pirate.")

    First the tuned model answers a message, then the base; each remembers its own answers. Where the base is not in
    memory, or the model is the base, one side is shown and `alone` says why. A model without a chat template goes on
    with each message as a text of its own. `turns` is what was said. `temperature`, `top_p` and
    `max_tokens` are as in `FastModel.stream`, and can be changed on the page; `thinking` is the template's
    switch for thoughts.
    """

    _esm = esm("chat.js")
    _css = "\n".join(file.read_text(encoding="utf-8") for file in STYLES)

    name = traitlets.Unicode().tag(sync=True)  # of the model
    alone = traitlets.Unicode().tag(sync=True)  # why there is no base to compare with; "" where there is
    chats = traitlets.Bool().tag(sync=True)  # whether there is a chat template, and so a system prompt
    settings = traitlets.Dict().tag(sync=True)  # "system", "temperature", "top_p", "max_tokens"
    turns = traitlets.List().tag(sync=True)  # those that are over
    now = traitlets.Dict().tag(sync=True)  # the turn in progress, with the "side" that writes; empty when none is
    complaint = traitlets.Unicode().tag(sync=True)  # what went wrong last

    def __init__(
        self,
        model: HoldsLoaded,
        system: str | None = None,
        *,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_tokens: int = 256,
        thinking: bool | None = None,
    ):
        super().__init__()
        self._loaded = loaded_in(model, "Chat")
        self._stops = False
        template_of(self._loaded.tokenizer, thinking)  # refuses what cannot be had before anything is said
        self._thinking = thinking
        self._answering: asyncio.Task[Turn] | None = None
        self.name = one_line(self._loaded.name)
        self.alone = why_no_base(self._loaded.module) or ""
        self.chats = self._loaded.tokenizer.has_chat_template
        self.settings = _checked(
            {"system": system or "", "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        )
        if system and not self.chats:
            raise ValueError("This model has no chat template, so it takes no system prompt; leave system out.")
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that is opened without its kernel."""
        return "The tuned model and its base could be talked to here. Run the cell again to do so."

    async def ask(self, text: str) -> Turn:
        """Have both answer `text`, and return the turn once it is over; `stop()` ends it early.

        Raises ValueError while another is in progress or where there is nothing to answer, and what the model raises.
        """
        if self.now:
            raise ValueError("An answer is being written; stop it, or wait for its end.")
        if not text.strip():
            raise ValueError("The message is empty; write something to answer.")
        self._stops, self.complaint = False, ""
        # Asked anew each time: adapters may have been made since.
        self.alone = why_no_base(self._loaded.module) or ""
        turn: Turn = {"you": text, "tuned": "", "base": "", "note": ""}
        sides: list[Side] = ["tuned"] if self.alone else ["tuned", "base"]
        try:
            for side in sides:
                await self._answer(side, turn)
        except Exception:
            turn["note"] = "failed"
            raise
        finally:
            with self.hold_sync():
                self.turns, self.now = [*self.turns, turn], {}
        return turn

    def stop(self) -> None:
        """End the turn in progress after the slice that is being written; what was written stays."""
        self._stops = True

    def clear(self) -> None:
        """Forget what was said. Raises ValueError while an answer is being written."""
        if self.now:
            raise ValueError("An answer is being written; stop it first.")
        self.turns, self.complaint = [], ""

    async def _answer(self, side: Side, turn: Turn) -> None:
        """Add what `side` answers to `turn`, slice by slice."""
        self.now = {**turn, "side": side}
        await _let_others_run()
        if self._stops:
            turn["note"] = "stopped"
            return
        prompt = turn["you"] if not self.chats else self._conversation(side, turn["you"])
        tokenizer, placeholder = self._loaded.tokenizer, self._loaded.family.placeholder
        example = as_prompt(prompt, tokenizer, placeholder, thinking=self._thinking).example
        options = {name: value for name, value in self.settings.items() if name != "system"}
        for text in write_in_slices(self._loaded, example, seconds=SLICE, adapters=side == "tuned", **options):
            turn[side] += text
            self.now = {**turn, "side": side}
            await _let_others_run()
            if self._stops:
                turn["note"] = "stopped"
                return

    def _conversation(self, side: Side, text: str) -> list[dict[str, str]]:
        """What `side` has heard and said, and `text`; a turn it gave no answer in is left out."""
        messages = [_message("system", self.settings["system"])] if self.settings["system"] else []
        for turn in self.turns:
            if turn[side]:
                messages += [_message("user", turn["you"]), _message("assistant", turn[side])]
        return [*messages, _message("user", text)]

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        """A press of a button: {"say": text, "settings": {...}}, {"do": "stop"} or {"do": "clear"}."""
        match content:
            case {"do": "stop"}:
                self.stop()
            case {"do": "clear"} if not self.now:
                self.clear()
            case {"say": str(text), "settings": dict(settings)} if not self.now:
                try:
                    self.settings = _checked({name: settings[name] for name in self.settings})
                except ValueError as error:
                    self.complaint = str(error)
                    return
                self._answering = asyncio.get_running_loop().create_task(self.ask(text))
                self._answering.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[Turn]") -> None:
        """Show what went wrong, for nobody awaits an answer the browser asked for."""
        self._answering = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complaint = f"{type(error).__name__}: {error}"


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings`, if a model can be sampled with them; raises ValueError with all that is wrong."""
    wrong = []
    for name, kinds, low, high in (
        ("temperature", int | float, 0, 5),
        ("top_p", int | float, 0, 1),
        ("max_tokens", int, 1, 100_000),
    ):
        value = settings[name]
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            wrong.append(f"{name} is {value!r}; it must be from {low} to {high:,}.")
    if not isinstance(settings["system"], str):
        wrong.append(f"system is {settings['system']!r}; it must be text.")
    if wrong:
        raise ValueError(" ".join(wrong))
    return settings


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


async def _let_others_run() -> None:
    for _ in range(TURNS_OF_THE_LOOP):
        await asyncio.sleep(0)
