"""How unlikely a token was, as one of four steps of a scale that is told in words, in lines and in colour."""

LEVELS = (0.693, 2.303, 4.605)  # nats: ln 2, ln 10, ln 100
WORDS = ("1 in 2 or likelier", "to 1 in 10 (2.3 nats)", "to 1 in 100 (4.6 nats)", "less likely")


def level(nats: float | None) -> int:
    """The step of a loss in nats; 0 too where there is none."""
    return 0 if nats is None else sum(nats > limit for limit in LEVELS)
