"""The tokenizer of a model, called as transformers' tokenizers and processors are in notebooks, without torch.

Everything it does not do itself is the model's own tokenizer's, which stays the one that trains and is saved. A model
that reads images has no other thing in its place: images are given to the same call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.examples import Example
from ...data.formats import as_messages, reader
from ...models.loaded import Loaded
from ..told import tell
from .inputs import Inputs, ids_of, padded

Turns = Sequence[Mapping[str, Any]]


class Tokenizer:
    """The tokenizer that `from_pretrained` gives beside a model.

        >>> text = tokenizer.apply_chat_template(rows[0]["messages"][:1], tokenize=False, add_generation_prompt=True)
        >>> inputs = tokenizer([text], return_tensors="pt").to("cuda")
        tunebook.compat: `.to('cuda')` does nothing: MLX computes where the model is. Leave it out.

    `own` is the model's, `name` the model's name, `placeholder` what stands for an image in a text. It holds no model,
    for `datasets` takes the functions of its `map` apart to know them again, and this with them.
    """

    own: TokenizerWrapper
    name: str
    placeholder: str | None  # None: the model reads text alone
    mapping: Mapping[str, str] | None  # what rows call role, content, user and assistant; None: as everybody does

    def __init__(self, own: TokenizerWrapper, name: str, placeholder: str | None):
        vars(self).update(own=own, name=name, placeholder=placeholder, mapping=None)

    @property
    def tokenizer(self) -> "Tokenizer":
        """Itself: a processor has its tokenizer under this name."""
        return self

    @property
    def reads_images(self) -> bool:
        """Whether it stands for a processor."""
        return self.placeholder is not None

    def __getattr__(self, name: str) -> Any:
        if "own" not in vars(self):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.own, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(self.own, name, value)

    def __len__(self) -> int:
        return len(self.own)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, {len(self)} tokens)"

    def __call__(
        self,
        *given: Any,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        **options: Any,
    ) -> Inputs:
        """`input_ids` and `attention_mask` of texts: lists, or with `return_tensors` of any kind arrays (B, T).

        What is no text among `given` is an image, or several, for the places that the one text has for them. `options`
        are those of transformers' `encode`. Raises ValueError for texts of unequal length that are neither padded nor
        left as lists.
        """
        for one in given:
            if isinstance(one, str) or (isinstance(one, list | tuple) and one and isinstance(one[0], str)):
                text = one
            elif one is not None:
                images = one
        if text is None:
            raise ValueError("There is no text among these arguments; give one, as in tokenizer('A tune').")
        texts = [text] if isinstance(text, str) else list(text)
        if images is not None:
            return self._with_images(texts, images, is_rendered=not add_special_tokens)
        rows = [self.own.encode(one, add_special_tokens=add_special_tokens, **options) for one in texts]
        if return_tensors is None and not padding:
            masks = [[1] * len(row) for row in rows]
            single = isinstance(text, str)
            return Inputs(input_ids=rows[0] if single else rows, attention_mask=masks[0] if single else masks)
        if not padding and len({*map(len, rows)}) > 1:
            raise ValueError("These texts are of unequal length in tokens; pass padding=True, or one at a time.")
        pad = self.own.pad_token_id if self.own.pad_token_id is not None else self.own.eos_token_id or 0
        ids, mask = padded(rows, pad, side=self.own.padding_side)
        if return_tensors is None:
            return Inputs(input_ids=ids.tolist(), attention_mask=mask.tolist())
        return Inputs(input_ids=ids, attention_mask=mask)

    def apply_chat_template(
        self,
        conversation: Turns | Sequence[Turns],
        tokenize: bool | None = None,
        add_generation_prompt: bool = False,
        *,
        return_tensors: str | None = None,
        return_dict: bool = False,
        padding: bool | str = False,
        **template: Any,
    ) -> Any:
        """A conversation, or several, as text or, where it is to `tokenize`, as ids: (1, T) with `return_tensors`.

        A processor gives text unless told otherwise, as transformers' do. `template` are the template's own switches,
        such as enable_thinking.
        """
        several = bool(conversation) and isinstance(conversation[0], list | tuple)
        all_turns: Any = conversation if several else [conversation]
        texts = [
            self.own.apply_chat_template(
                self._turns(turns), tokenize=False, add_generation_prompt=add_generation_prompt, **template
            )
            for turns in all_turns
        ]
        if not (not self.reads_images if tokenize is None else tokenize):
            return texts if several else texts[0]
        given: Any = texts if several or return_tensors else texts[0]
        inputs = self(given, add_special_tokens=False, return_tensors=return_tensors, padding=padding)
        return inputs if return_dict else inputs["input_ids"]

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write the tokenizer's files, unless the model has just been saved to `folder`, which brings all it needs.

        `options` are those of transformers' own call.
        """
        if (Path(folder).expanduser() / "tunebook.json").is_file():
            tell("`tokenizer.save_pretrained` has nothing to add where the model was saved; leave it out.")
        else:
            self.own.save_pretrained(folder, **options)

    def push_to_hub(self, repo_id: str, **_: Any) -> None:
        """Send nothing: the tokenizer is part of what `model.push_to_hub` sends."""
        tell(f"`tokenizer.push_to_hub` sends nothing: `model.push_to_hub({repo_id!r})` takes it along. Leave it out.")

    def _turns(self, turns: Any) -> Any:
        """The turns as a chat template takes them."""
        mapping = self.mapping
        if mapping is not None:
            names = {mapping.get(role, role): role for role in ("user", "assistant", "system")}
            role, content = mapping.get("role", "role"), mapping.get("content", "content")
            turns = [
                {"role": names.get(turn[role], turn[role]), "content": turn[content]} if role in turn else turn
                for turn in turns
            ]
        return as_messages(turns, images=self.reads_images)

    def _with_images(self, texts: list[str], images: Any, *, is_rendered: bool) -> Inputs:
        """A text with its images: `input_ids` of the text, and in `pixel_values` all that `generate` reads."""
        if len(texts) != 1:
            raise ValueError(f"Images go with one text at a time, and there are {len(texts)}.")
        if self.placeholder is None:
            raise ValueError(f"{self.name} reads text alone; load a model that reads images.")
        row = {"text": texts[0], "images": list(images) if isinstance(images, list | tuple) else [images]}
        example = reader([row], self.own, "text", placeholder=self.placeholder)(row)
        ids = ids_of([self.own.encode(texts[0], add_special_tokens=not is_rendered)])
        return Inputs(input_ids=ids, pixel_values=Seen(replace(example, rendered=is_rendered)))


def tokenizer_of(loaded: Loaded) -> Tokenizer:
    """The tokenizer of a model."""
    return Tokenizer(loaded.tokenizer, loaded.name, loaded.family.placeholder)


class Seen:
    """A text with its images, as `generate` reads it: what stands in `pixel_values`."""

    def __init__(self, example: Example):
        self.example = example

    def to(self, *_: Any, **__: Any) -> "Seen":
        """The same."""
        return self
