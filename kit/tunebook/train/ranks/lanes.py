"""How each process of a run fares: what each counted since the last time goes in, a record for the page comes out."""

import time
from typing import Any, final

from ...events import RanksEvent
from ...machine import runtime
from .group import Ranks

SECONDS = 2.0  # between two records, at least


@final
class Lanes:
    """Adds up what is told with each step, and says now and then what it came to."""

    def __init__(self, ranks: Ranks):
        self._ranks, self._since = ranks, time.perf_counter()
        self._tokens = [0] * ranks.size
        self._waited, self._exchanging = [0.0] * ranks.size, [0.0] * ranks.size

    def own(self, tokens: int) -> list[Any]:
        """What this process tells the others of its step: tokens it trained on, seconds it waited, memory."""
        traffic, memory = self._ranks.taken_traffic(), runtime.memory()
        return [tokens, traffic.waited, traffic.seconds, memory.active_gb, memory.peak_gb]

    def taken(self, step: int, said: list[list[Any]], *, is_last: bool) -> RanksEvent | None:
        """Take up what all told; the record, where one is due."""
        for rank, (tokens, waited, exchanging, _, _) in enumerate(said):
            self._tokens[rank] += tokens
            self._waited[rank] += waited
            self._exchanging[rank] += exchanging
        seconds = time.perf_counter() - self._since
        if seconds < SECONDS and not is_last:
            return None
        event = RanksEvent(
            step=step,
            names=[f"{peer.host} {peer.rank}" for peer in self._ranks.peers],
            tokens_sec=[tokens / seconds for tokens in self._tokens],
            waiting=[min(1.0, waited / seconds) for waited in self._waited],
            exchanging=[min(1.0, spent / seconds) for spent in self._exchanging],
            active_gb=[each[3] for each in said],
            peak_gb=[each[4] for each in said],
        )
        self.__init__(self._ranks)
        return event
