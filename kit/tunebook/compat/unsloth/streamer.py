"""`TextStreamer`: shows what a model writes while it writes it. transformers' own is taken as well."""

from typing import Any, Protocol

import numpy as np

HALF_A_CHARACTER = "\ufffd"


class Streamer(Protocol):
    """What `generate` needs of a streamer: `put` with the ids of the prompt, then with each new one, and `end`."""

    def put(self, value: Any) -> None: ...
    def end(self) -> None: ...


class TextStreamer:
    """Prints a text while it is written.

        >>> streamer = TextStreamer(tokenizer, skip_prompt=True)
        >>> outputs = model.generate(**tokenizer("A tune", return_tensors="pt"), streamer=streamer, max_new_tokens=4)

    `tokenizer` is the model's, and `decode_kwargs` are for its `decode`; `skip_prompt` leaves the prompt out.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any):
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        self._begin()

    def put(self, value: Any) -> None:
        """Take the ids of the prompt first, then those that are written."""
        ids = np.asarray(value)
        if ids.ndim > 1 and ids.shape[0] > 1:
            raise ValueError(
                f"A TextStreamer shows one text, and {ids.shape[0]} are written; generate them one by one."
            )
        is_prompt, self._met_prompt = not self._met_prompt, True
        if is_prompt and self.skip_prompt:
            return
        self._ids += ids.reshape(-1).tolist()
        text = self.tokenizer.decode(self._ids, **self.decode_kwargs)
        if not text.endswith(HALF_A_CHARACTER):
            self._show(text)

    def end(self) -> None:
        """Show what was held back, and end the line."""
        if self._ids:
            self._show(self.tokenizer.decode(self._ids, **self.decode_kwargs))
        print(flush=True)
        self._begin()

    def _begin(self) -> None:
        self._ids: list[int] = []
        self._shown, self._met_prompt = 0, False

    def _show(self, text: str) -> None:
        print(text[self._shown :], end="", flush=True)
        self._shown = len(text)
