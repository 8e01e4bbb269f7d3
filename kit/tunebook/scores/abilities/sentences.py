"""Pairs of sentences that differ in one word, one as English grammar has it.

Minimal pairs after BLiMP (Warstadt et al., 2020, arXiv 1912.00582), with words and patterns of our own.
"""

from collections.abc import Callable
from random import Random

from .draws import one, with_choices

THINGS = ("dog", "car", "teacher", "bird", "farmer", "horse", "student", "machine", "child", "woman")
PLURAL = {"child": "children", "woman": "women"}
PLACES = ("house", "trees", "river", "old walls", "shops", "road", "tables", "school")
VERBS = (("sleeps", "sleep"), ("stands", "stand"), ("moves", "move"), ("waits", "wait"), ("looks", "look"))
HOW = ("quietly", "every day", "in the morning", "all the time", "for hours")
HIM, HER = ("man", "boy", "king", "father", "uncle"), ("woman", "girl", "queen", "mother", "aunt")
ALONE = ("hurt", "saw", "asked", "taught", "helped")
PAST = (("went", "goed"), ("came", "comed"), ("ran", "runned"), ("swam", "swimmed"), ("drove", "drived"))
AN, A = ("apple", "egg", "orange", "umbrella", "onion", "island"), ("banana", "letter", "house", "pencil", "bottle")
BOUGHT = ("found", "bought", "wanted", "saw", "painted")
MANY = (("book", "books"), ("house", "houses"), ("box", "boxes"), ("shoe", "shoes"), ("picture", "pictures"))
LIKED = ("are new", "are expensive", "were too small", "look old")


def grammar(chance: Random) -> dict:
    """One row: two sentences, of which one is right."""
    right, wrong = one(chance, PATTERNS)(chance)
    return with_choices(chance, "Write a correct English sentence.", right, [wrong])


def _agreement(chance: Random) -> tuple[str, str]:
    thing, place, how = one(chance, THINGS), one(chance, PLACES), one(chance, HOW)
    forms = one(chance, VERBS)
    many = chance.random() < 0.5
    subject = PLURAL.get(thing, thing + "s") if many else thing
    right, wrong = (f"The {subject} near the {place} {verb} {how}." for verb in (forms if not many else forms[::-1]))
    return right, wrong


def _reflexive(chance: Random) -> tuple[str, str]:
    is_he = chance.random() < 0.5
    who, did = one(chance, HIM if is_he else HER), one(chance, ALONE)
    right, wrong = (f"The {who} {did} {self} yesterday." for self in sorted(("himself", "herself"), reverse=is_he))
    return right, wrong


def _past(chance: Random) -> tuple[str, str]:
    who, (right, wrong) = one(chance, (*HIM, *HER)), one(chance, PAST)
    end = one(chance, ("to the lake", "across the river", "along the coast", "home again"))
    return f"The {who} {right} {end}.", f"The {who} {wrong} {end}."


def _article(chance: Random) -> tuple[str, str]:
    vowel = chance.random() < 0.5
    thing, did, who = one(chance, AN if vowel else A), one(chance, BOUGHT), one(chance, (*HIM, *HER))
    right, wrong = (f"The {who} {did} {article} {thing}." for article in sorted(("a", "an"), reverse=vowel))
    return right, wrong


def _number(chance: Random) -> tuple[str, str]:
    (single, many), how = one(chance, MANY), one(chance, LIKED)
    these = one(chance, ("These", "Those", "Many", "Both", "Several"))
    return f"{these} {many} {how}.", f"{these} {single} {how}."


PATTERNS: tuple[Callable[[Random], tuple[str, str]], ...] = (_agreement, _reflexive, _past, _article, _number)
