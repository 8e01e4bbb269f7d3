"""Chats of customers with a shop, and which of its teams each of them is for: a task that a program can check.

Questions are made of patterns and words by chance; the same seed gives the same rows.
"""

from random import Random

ITEMS = ("kettle", "lamp", "radio", "toaster", "headset", "keyboard", "backpack", "drill", "tent", "watch")

# By the team they are for; few of them name it.
PATTERNS = {
    "billing": (
        "I was charged twice for order {order}.",
        "Can I have an invoice for order {order}, please?",
        "Order {order} cost more than the price I was shown for the {item}.",
        "My card was refused for order {order}. Can I pay by transfer?",
    ),
    "delivery": (
        "Where is my {item}? The order is {order}.",
        "Order {order} should have been here on Monday.",
        "Please send order {order} to another address.",
        "They say that the {item} of order {order} was left at my door, but it was not.",
    ),
    "returns": (
        "I want to send the {item} back. My order is {order}.",
        "How do I return order {order}?",
        "The {item} of order {order} is not the one in the picture, I do not want it.",
        "I changed my mind about the {item}, order {order}.",
    ),
    "repairs": (
        "The {item} from order {order} broke after a week.",
        "My {item} does not switch on any more. It was order {order}.",
        "Order {order}: the {item} makes a strange noise.",
        "A part of the {item} came loose, order {order}. Can you mend it?",
    ),
}
ANSWER = "Order {order} is with our {team} team."
OPENINGS = ("", "", "Hello! ", "Hi, ", "Good morning. ")


def support_chats(rows: int = 240, *, seed: int = 0) -> list[dict]:
    """Question and answer rows: what a customer writes, and what the shop answers.

        >>> print(support_chats(1)[0]["messages"][1]["content"])
        Order 6755 is with our delivery team.

    Each row is `{"messages": [user, assistant]}`; the answer repeats the number of the order and names one of four
    teams, equally often all of them. No order comes twice. Raises ValueError for more rows than there are numbers.
    """
    if not 1 <= rows <= 9000:
        raise ValueError(f"rows is {rows}; there are 1 to 9000.")
    chance, teams, made = Random(seed), [], []
    orders = sorted(range(1000, 10_000), key=lambda _: chance.random())  # of `Random`, what is the same in every Python
    for order in orders[:rows]:
        teams = teams or sorted(PATTERNS, key=lambda _: chance.random())
        team = teams.pop()
        words = (OPENINGS, PATTERNS[team], ITEMS)
        opening, pattern, item = (some[int(len(some) * chance.random())] for some in words)
        asked = opening + pattern.format(order=order, item=item)
        made.append(_row(asked, ANSWER.format(order=order, team=team)))
    return made


def _row(asked: str, answer: str) -> dict:
    turns = {"user": asked, "assistant": answer}
    return {"messages": [{"role": role, "content": content} for role, content in turns.items()]}
