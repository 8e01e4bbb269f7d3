"""Words to be spelled and to be copied, each beside versions of it that are nearly right."""

from collections.abc import Sequence
from random import Random

from .draws import different, one, shuffled, some, whole_number, with_choices

# Long enough that a letter more, less or elsewhere makes no other word of them.
_LONG = """
    accident address adventure afternoon airport alphabet although animal appointment apartment arrange attention
    attractive autumn backpack balance beautiful beginning behaviour believe birthday bottle breakfast building business
    calendar campaign celebrate century certain challenge chocolate citizen collect comfortable committee community
    complete computer condition consider continue conversation country culture customer dangerous daughter decision
    delicious department describe dictionary different difficult discover distance education electric elephant
    emergency engineer enormous environment equipment especially evening example excellent exercise experience
    explain factory familiar favourite festival foreign forest furniture garden general government
    grandfather grateful hospital hundred imagine immediately important information instrument interesting invitation
    island journey kitchen knowledge language library machine magazine measure medicine message mountain museum
    necessary neighbour newspaper opinion opposite orchestra parliament passenger patience performance photograph
    pleasure politician popular possible potatoes practical president probably problem professor promise pronounce
    quality question receive recommend remember restaurant science secretary separate signature similar
    situation strawberry success sugar surprise telephone temperature theatre together tomorrow traditional translate
    umbrella understand university vegetable village weather window yesterday
"""

# Words of everyday, a token or two each, to be repeated in an order.
_SHORT = """
    apple bread bridge cat chair clock cloud door dog egg fire fish flower garden glass gold hand hat horse house key
    lamp leaf letter milk moon mountain paper pen rain ring river road rose salt sea ship shoe snow star stone sugar sun
    table train tree water wind window winter
"""

LONG, SHORT = _LONG.split(), _SHORT.split()


def spelling(chance: Random) -> dict:
    """One row: a word, and three ways to spell it wrong."""
    word = one(chance, LONG)
    wrong = different(lambda: _misspelled(chance, word), str)
    return with_choices(chance, "Which word is spelled correctly?", word, [next(wrong) for _ in range(3)])


def copying(chance: Random) -> dict:
    """One row: words to repeat, and three lists in which two changed places or one is another."""
    words = some(chance, SHORT, whole_number(chance, 5, 7))
    right = ", ".join(words)
    wrong = different(lambda: ", ".join(_nearly(chance, words)), str)
    return with_choices(
        chance, f"Repeat these words in the same order: {right}", right, [next(wrong) for _ in range(3)]
    )


def _misspelled(chance: Random, word: str) -> str:
    """`word` with a letter left out, doubled, another vowel, or two letters that changed places."""
    place = whole_number(chance, 1, len(word) - 2)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    versions = {before + after, before + letter * 2 + after, before + after[0] + letter + after[1:]}
    if letter in "aeiou":
        versions |= {before + vowel + after for vowel in "aeiou"}
    return one(chance, sorted(versions - {word, *LONG}))


def _nearly(chance: Random, words: Sequence[str]) -> list[str]:
    place = whole_number(chance, 0, len(words) - 2)
    if chance.random() < 0.5:
        return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]
    return [*words[:place], shuffled(chance, sorted({*SHORT} - {*words}))[0], *words[place + 1 :]]
