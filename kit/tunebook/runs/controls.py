"""What is asked of a run while it goes on, by requests from any thread or by a file called `STOP` in its folder.

Requests come in; acknowledged commands go out, and what they ask for stands here until the loop takes it up. Nothing is
carried out here. In a run of several processes a request that one of them heard counts when all have agreed on it.
"""

import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

from ..events import Command, CommandReceived, EndReason, Notice, Request
from .folder import STOP_FILE


@final
class Controls:
    """The requests made of one run, and what is still to be done about them."""

    def __init__(self, exchange: Callable[[Any], list[Any]] | None = None):
        """`exchange` gives what each process of the run gave; None: there is one."""
        self._exchange = exchange
        self._heard: list[Request] = []  # here, and not agreed on yet
        self.stopping = False  # the run is to end with the step in progress
        self.paused = False
        self.going_back = False  # it is to end with the weights of before its loss ran away
        self._discarding = False
        self._stop_file_stays = False  # it was heard, and is not taken away
        self._requests: deque[Request] = deque()  # not heard yet
        self._to_say: deque[str] = deque()  # of what was asked for and is nothing to do
        self._commands: set[Command] = set()  # heard, and to be done before the next step
        self._learning_rate: float | None = None  # the same

    def ask(self, request: Request) -> None:
        """Leave a request, from any thread; it is heard when the loop listens."""
        self._requests.append(request)

    def say(self, text: str) -> None:
        """Have a sentence told when the loop listens, from any thread."""
        self._to_say.append(text)

    def listen(self, step: int, folder: Path | None) -> Iterator[CommandReceived | Notice]:
        """Acknowledge what has come in, `step` being the last one completed; takes an empty STOP out of `folder`.

        One that holds anything is somebody's, and stays where it is with a sentence. Only a stop and a pause change
        what happens by themselves; the rest waits for `take_commands` and `take_learning_rate`. What is asked for by
        someone told of a command is heard too.
        """
        if folder is not None and not self._stop_file_stays and (folder / STOP_FILE).exists():
            self._stop_file_stays = not _took_away(folder / STOP_FILE)
            self.ask(Request(Command.STOP))
            if self._stop_file_stays:
                text = (
                    f"{folder / STOP_FILE} ends the run, and stays where it is: only an empty file of that name is "
                    "taken away. While it lies there this run is stopped again as soon as it goes on."
                )
                yield Notice(step=step, text=text)
        while self._to_say:
            yield Notice(step=step, text=self._to_say.popleft())
        while self._requests:
            request = self._requests.popleft()
            if self._exchange is None:
                self._take(request)
            else:
                self._heard.append(request)
            yield CommandReceived(step=step, command=request.command, value=request.value)

    def agree(self) -> None:
        """Have count in every process, from the same moment on, what any of them heard; all call it together."""
        if self._exchange is not None:
            heard, self._heard = self._heard, []
            for requests in self._exchange([[request.command, request.value] for request in heard]):
                for command, value in requests:
                    self._take(Request(Command(command), value))

    @property
    def asked_to_stop(self) -> bool:
        """Whether the run is to end as far as this process has heard."""
        ends = (Command.STOP, Command.DISCARD, Command.GO_BACK)
        return self.stopping or any(request.command in ends for request in self._heard)

    def take_commands(self) -> list[Command]:
        """The commands to be done now, each once, to save last: a checkpoint holds the scores of its step."""
        commands, self._commands = sorted(self._commands), set()
        return commands

    def take_learning_rate(self) -> float | None:
        """The learning rate asked for last and not taken up yet."""
        rate, self._learning_rate = self._learning_rate, None
        return rate

    def _take(self, request: Request) -> None:
        match request:
            case Request(Command.STOP | Command.DISCARD | Command.GO_BACK):
                self.stopping = True
                self.going_back |= request.command is Command.GO_BACK
                self._discarding |= request.command is Command.DISCARD
            case Request(Command.PAUSE | Command.RESUME):
                self.paused = request.command is Command.PAUSE
            case Request(Command.LEARNING_RATE, rate):
                self._learning_rate = rate
            case _:
                self._commands.add(request.command)

    @property
    def end_reason(self) -> EndReason:
        """How a run ends that is `stopping`; a stop after a discard does not take it back."""
        return EndReason.DISCARDED if self._discarding else EndReason.STOPPED


def _took_away(stop: Path) -> bool:
    """Remove what asked for a stop where nothing is lost with it, an empty file or folder; False where it stays."""
    try:
        there = stop.lstat()
        if stat.S_ISDIR(there.st_mode):
            stop.rmdir()
        elif stat.S_ISREG(there.st_mode) and there.st_size == 0:
            stop.unlink()
        else:
            return False
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
