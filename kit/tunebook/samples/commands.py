"""Commands to a home, and what a program is to make of them: a task of which a program can tell whether it was done.

Sentences are made of patterns and words by chance; the same seed gives the same rows.
"""

import json
from random import Random

ASKED = "Write this command as JSON with device, room and state."

DEVICES = ("lamp", "fan", "heater", "radio", "television", "camera", "printer", "speaker")
ROOMS = ("kitchen", "bedroom", "bathroom", "office", "garage", "hall", "attic", "garden")

# By the state they ask for; some say it in plain words, others between the lines.
PATTERNS = {
    "on": (
        "Turn on the {device} in the {room}.",
        "Could you switch the {device} in the {room} on, please?",
        "I need the {device} in the {room} now.",
        "The {device} in the {room} should start.",
        "Please start the {room} {device}.",
        "Why is the {device} in the {room} still off?",
    ),
    "off": (
        "Turn off the {device} in the {room}.",
        "Could you switch the {device} in the {room} off, please?",
        "Nobody needs the {device} in the {room} now.",
        "The {device} in the {room} should stop.",
        "Please stop the {room} {device}.",
        "Why is the {device} in the {room} still on?",
    ),
}


def home_commands(rows: int = 320, *, seed: int = 0) -> list[dict]:
    """Question and answer rows: a command, and the JSON of it.

        >>> print(home_commands(1)[0]["messages"][1]["content"])
        {"device": "heater", "room": "bathroom", "state": "off"}

    Each row is `{"messages": [user, assistant]}`, and no sentence comes twice. Some say what they want between the
    lines: "Why is the fan in the hall still on?" wants it off. Raises ValueError for more rows than there are.
    """
    every = [
        (pattern.format(device=device, room=room), {"device": device, "room": room, "state": state})
        for state, patterns in PATTERNS.items()
        for pattern in patterns
        for device in DEVICES
        for room in ROOMS
    ]
    if not 1 <= rows <= len(every):
        raise ValueError(f"rows is {rows}; there are 1 to {len(every)}.")
    chance = Random(seed)
    order = sorted(range(len(every)), key=lambda _: chance.random())  # of `Random`, what is the same in every Python
    return [_row(*every[place]) for place in order[:rows]]


def _row(said: str, meant: dict[str, str]) -> dict:
    turns = {"user": f"{ASKED}\n{said}", "assistant": json.dumps(meant)}
    return {"messages": [{"role": role, "content": content} for role, content in turns.items()]}
