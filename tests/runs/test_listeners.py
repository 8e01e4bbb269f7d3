"""listeners.py: who is told what, in which order, and what a run hears of an interrupt. Runs are mere generators."""

import asyncio

import pytest

from tunebook.events import Notice, StepEvent, Working
from tunebook.runs.listeners import Audience, drain, drain_async, step_listener

STEP = StepEvent(
    grad_norm=0.9,
    num_tokens=640,
    elapsed=2.0,
    peak_gb=0.7,
    tokens_sec=300.0,
    lr=1e-4,
    loss=2.5,
    total_steps=9,
    step=1,
    active_gb=0.5,
)


def said(text: str) -> Notice:
    return Notice(step=3, text=text)


def run_that(saves: list[str]):
    """A run of two events that, interrupted, saves and tells of it in two more."""
    try:
        yield said("one")
        yield said("two")
    except (KeyboardInterrupt, asyncio.CancelledError):
        saves.append("saved")
        yield said("saved")
        yield said("ended")


def test_a_listener_that_raises_is_left_out_and_the_others_hear_of_it_in_order():
    heard = []

    def broken(event):
        heard.append("broken")
        raise OSError("no disk")

    audience = Audience([("The broken one", broken), ("The other", heard.append)], None, [])
    with pytest.warns(UserWarning, match="The broken one raised OSError: no disk"):
        audience.tell(said("one"))
    audience.tell(said("two"))
    report = said("The broken one raised OSError: no disk. It is switched off; training goes on.")
    assert heard == ["broken", said("one"), report, said("two")]
    assert audience.told == [said("one"), report, said("two")]


def test_what_is_being_computed_is_told_and_not_kept():
    heard, working = [], Working(step=4, what="training", done=1, total=2)
    audience = Audience([("A listener", heard.append)], None, [said("earlier")])
    audience.tell(working)
    assert heard == [working]
    assert audience.told == [said("earlier")]


def test_an_interrupt_of_a_listener_is_thrown_into_the_run_and_what_follows_is_told():
    saves = []

    def presses(event):
        if event == said("one"):
            raise KeyboardInterrupt

    audience = Audience([("A listener", presses)], None, [])
    drain(run_that(saves), audience)
    assert saves == ["saved"]
    assert audience.told == [said("one"), said("saved"), said("ended")]


@pytest.mark.parametrize("rises", [KeyboardInterrupt, SystemExit])
def test_an_event_that_is_told_once_more_is_heard_by_those_who_have_not_heard_it(rises):
    """An interrupt is kept until all have heard, what ends the process is not."""
    heard = []

    def first(event):
        heard.append("first")
        raise rises

    audience = Audience([("The first", first), ("The second", lambda event: heard.append("second"))], None, [])
    event = said("one")
    with pytest.raises(rises):
        audience.tell(event)
    audience.tell(event)
    assert heard == ["first", "second"]
    assert audience.told == [event]


def test_a_cancelled_drain_ends_the_run_in_its_own_way():
    saves, audience = [], Audience([], None, [])

    async def cell():
        task = asyncio.ensure_future(drain_async(run_that(saves), audience))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(cell())
    assert saves == ["saved"]
    assert audience.told == [said("one"), said("saved"), said("ended")]


def test_a_message_that_takes_four_turns_of_the_event_loop_is_heard_before_the_next_event():
    order = []
    audience = Audience([("A listener", lambda event: order.append(event.text))], None, [])

    async def press():
        for _ in range(4):
            await asyncio.sleep(0)
        order.append("pressed")

    async def cell():
        await asyncio.gather(drain_async(run_that([]), audience), press())

    asyncio.run(cell())
    assert order == ["one", "pressed", "two"]


def test_a_step_callback_gets_the_nine_values_of_steps_alone():
    calls = []
    listener = step_listener(lambda *values: calls.append(values))
    for event in (STEP, said("one")):
        listener(event)
    assert calls == [(1, 9, 2.5, 1e-4, 300.0, 0.7, 2.0, 640, 0.9)]


def test_a_callback_of_eight_parameters_is_called_without_the_norm():
    calls = []
    step_listener(lambda step, total, loss, lr, tok, peak, sec, tokens: calls.append(tokens))(STEP)
    assert calls == [640]


def test_a_callback_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="nine positional values"):
        step_listener(lambda step, loss: None)
