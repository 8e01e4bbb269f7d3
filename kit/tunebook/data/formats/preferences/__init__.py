"""Rows of preferences -> answers: a pair of which one is chosen, or a single one with a label; as TRL 1.16 reads them.

`read.py` makes a reader for a whole set and has the table of both kinds. `pairs.py` and `labelled.py` read a row each,
`sides.py` has what they share: columns that are strings or conversations, and the answers in them; `prompt_images.py`
takes the images out of a prompt and puts them back. What is malformed is refused with a sentence. Strings are plain
text, whose answers end in the end token; conversations are written by the chat template. The prompt of a pair may be
implied: what both of its sides begin with. Images are the prompt's, in its parts or in a column `images` or `image`;
strings with images and no place for them are taken for a question and its answers.
"""

from .prompt_images import image_references
from .read import PREFERENCES, Comparing, preference_reader, told_kind

__all__ = ["PREFERENCES", "Comparing", "image_references", "preference_reader", "told_kind"]
