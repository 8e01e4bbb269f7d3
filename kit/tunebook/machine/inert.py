"""Text from rows, models, logs and names of files, made harmless to print: it shows what it holds and does none of it.

A terminal obeys escape sequences, and so does a front end that shows plain text; marks that turn the direction of
writing make a line read as another. Whatever is printed or shown goes through here.
"""

from typing import Any
from unicodedata import category

# Unicode's categories of control, format (invisible, or turning the direction), surrogate and separating characters.
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: Any) -> str:
    """`text` with ⟨U+001B⟩ in place of a character that is invisible or acts on what is around it.

    Tab and newline stay.
    """
    whole = text if isinstance(text, str) else str(text)
    if whole.isprintable():
        return whole
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if category(char) in ACTING and char not in "\t\n" else char for char in whole
    )


def one_line(text: Any) -> str:
    """`visible` on a single line, its newlines and tabs as blanks."""
    return visible(" ".join(str(text).split("\n"))).replace("\t", " ")
