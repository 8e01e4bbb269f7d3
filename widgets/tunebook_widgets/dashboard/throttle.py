"""When to send: at most four messages in any second, steps no closer than a quarter of one, and never too dear.

Time comes in with each event, so the rule is the same under a real clock and a counted one.
"""

from collections import deque

from tunebook.events import CommandReceived, Event, StepEvent, Working

SECONDS_BETWEEN_STEPS = 0.25
MESSAGES_PER_SECOND = 4
SHARE = 0.01  # of the time, at most, that may go into messages


class Throttle:
    """Says for each event whether the browser is told now or with a later one.

    Rare events (an evaluation, a notice, a command) are told at once while the budget lasts: when steps take a minute,
    holding one back for a quarter of a second would hold it back for a minute, because nothing is sent inside a step.
    That a click was heard is told whatever messages have cost: a person waits for it.
    """

    def __init__(self):
        self._sent: deque[float] = deque([float("-inf")] * MESSAGES_PER_SECOND, maxlen=MESSAGES_PER_SECOND)
        self._last_step = float("-inf")
        self._debt = 0.0  # seconds that messages have taken beyond their share; below 0, saved up
        self._paid_at = 0.0

    def allows(self, event: Event, now: float) -> bool:
        """Whether to send at `now` (seconds of a clock that only goes forward); True counts as sent."""
        self._debt -= SHARE * (now - self._paid_at)
        self._paid_at = now
        if now - self._sent[0] < 1 or (self._debt > 0 and not isinstance(event, CommandReceived)):
            return False
        if isinstance(event, Working) and now - self._sent[-1] < SECONDS_BETWEEN_STEPS:
            return False  # so that the step it leads to still finds room in the budget
        if isinstance(event, StepEvent):
            if now - self._last_step < SECONDS_BETWEEN_STEPS:
                return False
            self._last_step = now
        self._sent.append(now)
        return True

    def took(self, seconds: float) -> None:
        """What the message just sent has cost. A second's worth of such messages can be saved up, no more."""
        self._debt = max(self._debt, -MESSAGES_PER_SECOND * seconds) + seconds
