"""A preference that a program can check, and pairs of answers that show it: one sentence, and a full stop at its end.

The rows of `python_docs` come in and pairs come out, made by rules alone. The better answer of a pair is the first
sentence of what an author wrote about a function; the worse one goes on after it, or breaks off before its end.
"""

import re
from itertools import chain

from .sets import python_docs, within

SENTENCE_CHARACTERS = (30, 90)
LONGEST_CHARACTERS = 180  # of an answer that goes on
FEWEST_WORDS = 6  # of a sentence, so that one that breaks off still says something

# A colon ends a sentence too: behind it comes a list, an example or a heading's text.
_END = re.compile(r"[.!?:](?=\s|$)")


def is_one_sentence(answer: str) -> bool:
    """Whether an answer is one sentence that ends in a full stop, with nothing behind it.

        >>> [is_one_sentence(answer) for answer in ("Return the sum.", "Return the", "Return the sum. It is exact.")]
        [True, False, False]

    A full stop, question mark, exclamation mark or colon before a space ends a sentence, so one with an abbreviation
    in it does not pass. Space at both ends of the answer is not looked at.
    """
    return answer.rstrip().endswith(".") and len(_END.findall(answer)) == 1


def one_sentence_pairs(*, source_characters: tuple[int, int] = (40, 220)) -> list[dict]:
    """Pairs of answers to "Explain what this Python function does.", of which the chosen one is a single sentence.

        >>> pair = one_sentence_pairs()[0]
        >>> [is_one_sentence(pair[side][0]["content"]) for side in ("chosen", "rejected")]
        [True, False]

    Each row is `{"prompt": [user], "chosen": [assistant], "rejected": [assistant]}`, turns of a chat: a function of the
    standard library whose source has a length inside the bounds, the first sentence its author wrote about it, and one
    of two other answers. These take turns: the first two sentences of the author, or the first third of the words of
    the one. So in half of the pairs the chosen answer is the shorter one. No function and no sentence comes twice. The
    rows depend on the Python version alone.
    """
    going_on, breaking_off, seen = [], [], set()
    for row in python_docs(source_characters=source_characters, answer_characters=(SENTENCE_CHARACTERS[0], 10_000)):
        prompt, written = (turn["content"] for turn in row["messages"])
        first, *more = _sentences(written)
        if not _is_wanted(first) or not seen.isdisjoint((prompt, first)):
            continue
        seen |= {prompt, first}
        both = " ".join([first, *more[:1]])
        if more and more[0].endswith(".") and len(both) <= LONGEST_CHARACTERS:
            going_on.append(_pair(prompt, first, both))
        elif not more:
            words = first.split()
            breaking_off.append(_pair(prompt, first, " ".join(words[: len(words) // 3])))
    return list(chain.from_iterable(zip(going_on, breaking_off, strict=False)))  # of the longer list not its end


def _pair(prompt: str, chosen: str, rejected: str) -> dict[str, list[dict[str, str]]]:
    turns = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
    return {column: [{"role": role, "content": content}] for column, (role, content) in turns.items()}


def _sentences(written: str) -> list[str]:
    """A docstring in pieces, each without line breaks; no piece begins with a small letter, as behind "e.g." does."""
    return re.split(r"(?<=\.)\s+(?![a-z])", " ".join(written.split()))


def _is_wanted(sentence: str) -> bool:
    has_words = len(sentence.split()) >= FEWEST_WORDS
    return is_one_sentence(sentence) and has_words and within(len(sentence), SENTENCE_CHARACTERS)
