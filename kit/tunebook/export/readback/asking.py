"""An export asked by the program it is for, in a fresh process: what it writes, and how likely it finds tokens.

Token ids go in, and beside them what was made of a row's images, so that the program is asked just what a live model
is; that it makes the same ids of the text itself is asked beside it. Nothing is judged here.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from ...data.encoded import Encoded
from ...machine.working import working_folder
from ...models.families.base import Library
from . import llama_cpp
from .mlx_lm_reader import is_for_mlx_lm

_ASKED: dict[Library, tuple[str, ...]] = {
    "mlx-lm": (sys.executable, "-P", "-m", "tunebook.export.readback.mlx_lm_asked"),
    "mlx-vlm": (sys.executable, "-P", "-m", "tunebook.export.readback.mlx_vlm_asked"),
}

Arrays = Mapping[str, np.ndarray]  # what is given beside a row's ids, by name; of a row of text nothing


class DidNotReply(RuntimeError):
    """A program that does not open an export, or ends before it has replied to everything; with its own words."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """An export, and what it is opened with."""

    path: Path  # a .gguf file, a model folder or a folder of adapters
    base: Path | None = None  # the model folder that adapters go on
    library: Library = "mlx-lm"  # that opens a folder

    @property
    def is_gguf(self) -> bool:
        """Whether it is llama.cpp's."""
        return self.base is None and self.path.is_file()

    @property
    def opened(self) -> dict[str, str | None]:
        """What the process opens."""
        if self.base is None:
            return {"path": str(self.path), "adapter": None}
        return {"path": str(self.base), "adapter": str(self.path)}

    @property
    def program(self) -> str:
        """Who opens it, with the version."""
        if self.is_gguf:
            return f"llama.cpp (xllamacpp {version('xllamacpp')})"
        is_stock = self.base is None or is_for_mlx_lm(self.path)
        return f"{'' if is_stock else 'tunebook on '}{self.library} {version(self.library)}"


@dataclass(frozen=True)
class Wrote:
    """What a program wrote after a prompt."""

    tokens: tuple[int, ...]  # without the one that ends it
    ended: bool  # by itself; False: as many tokens were written as were asked for


@dataclass(frozen=True)
class Likely:
    """What a program says of the supervised tokens of a row."""

    nats: float  # the logarithm of their probability together, 0 at most
    is_greedy: bool  # whether each is the likeliest in its place


@final
class Elsewhere:
    """The process in which an export is asked: begun by the first question, and ended by `close`.

    Every method raises DidNotReply.
    """

    def __init__(self, export: Opening):
        self._export = export
        self._child: _Child | None = None

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        beside: Iterable[Arrays] | None = None,
    ) -> Iterator[Wrote]:
        """What is greedily written after each of `prompts`, in their order; nothing more after one of the texts `stop`.

        That text is among the tokens, in whole or in part. `beside` is what belongs to each prompt.
        """
        context, options = max(map(len, prompts), default=0) + max_tokens + 1, {"max_tokens": max_tokens, "stop": stop}
        for ids, arrays in zip(prompts, _beside(prompts, beside), strict=True):
            reply = self._reply({"prompts": [list(ids)]}, arrays, context=context, options=options)
            yield Wrote(tuple(reply["tokens"]), reply["ended"])

    def likelihoods(self, rows: Sequence[Encoded], beside: Iterable[Arrays] | None = None) -> Iterator[Likely]:
        """How likely the supervised tokens of each of `rows` are found, in their order."""
        longest = max((len(row.tokens) for row in rows), default=0)
        for row, arrays in zip(rows, _beside(rows, beside), strict=True):
            asked = {"tokens": row.tokens.tolist(), "positions": _predicted(row)}
            reply = self._reply({"rows": [asked]}, arrays, context=longest + 1)
            yield Likely(reply["nats"], reply["is_greedy"])

    def tokenize(
        self, texts: Sequence[tuple[str, bool]], images: Iterable[Sequence[np.ndarray]] | None = None
    ) -> list[list[int]]:
        """The ids of each text; True: opened with the tokenizer's special tokens, as llama.cpp always does.

        `images` are those of each text, (height, width, 3) uint8; of texts with images mlx-vlm decides how they open.
        """
        beside = None if images is None else [{str(n): image for n, image in enumerate(some)} for some in images]
        asked = zip(texts, _beside(texts, beside), strict=True)
        return [self._reply({"texts": [text]}, arrays, context=64)["ids"] for text, arrays in asked]

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _reply(
        self, asked: dict[str, Any], beside: Arrays, *, context: int, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """To one thing that is asked."""
        child, replied = self._begun(context), False
        question = {"texts": [], "prompts": [], "rows": [], "context": context, "threads": 1}
        try:
            with _kept(beside) as arrays:
                child.ask({**question, **asked, **self._export.opened, **(options or {}), "arrays": arrays})
                for line in child.lines:
                    if line.startswith("{"):
                        replied = True
                        return json.loads(line)
            raise DidNotReply(f"{self._export.program} does not answer for {self._export.path}: {child.last_words()}")
        finally:
            if not replied:  # what it may say yet would be taken for the reply to the next question
                self.close()

    def _begun(self, context: int) -> "_Child":
        """The process; another one where llama.cpp made room for fewer tokens."""
        if self._child is not None and self._export.is_gguf and self._child.context < context:
            self.close()
        if self._child is None:
            if self._export.is_gguf:
                llama_cpp.check(self._export.path)
            command = llama_cpp.COMMAND if self._export.is_gguf else _ASKED[self._export.library]
            self._child = _Child(command, context)
        return self._child


@final
class _Child:
    """A process that is given lines of JSON and gives some back."""

    def __init__(self, command: Sequence[str], context: int):
        self.context = context  # tokens there is room for
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - till `close`
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, encoding="utf-8"
        )

    @property
    def lines(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def ask(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended already, which reading its lines tells
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()

    def last_words(self) -> str:
        """What it said before it ended."""
        status = self._process.wait()
        self._errors.seek(0)
        return self._errors.read().strip()[-2000:] or f"its process ended with status {status}"

    def close(self) -> None:
        self._process.kill()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self.lines.close()
        self._process.wait()
        self._errors.close()


def _beside(asked: Sequence[Any], beside: Iterable[Arrays] | None) -> Iterable[Arrays]:
    return [{}] * len(asked) if beside is None else beside


@contextmanager
def _kept(arrays: Arrays) -> Iterator[str | None]:
    """The path of a file that holds `arrays` for as long as the block runs; None where there are none."""
    if not arrays:
        yield None
        return
    with working_folder("asked") as scratch:
        file = scratch / "arrays.npz"
        np.savez(file, allow_pickle=False, **arrays)
        yield str(file)


def _predicted(row: Encoded) -> list[int]:
    """Positions of the supervised tokens; the first token is predicted from nothing."""
    return [position for position in np.flatnonzero(row.loss_mask).tolist() if position > 0]
