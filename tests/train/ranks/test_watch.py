"""train/ranks/watch.py: who is gone is found out and named, and nobody is called gone who only has finished."""

import os
import socket
import time

import pytest

from tunebook.train.ranks import watch
from tunebook.train.ranks.watch import Peer, Watch

SECONDS = 10.0


def peer(rank):
    # Processes of other machines, as far as they know: nothing here may end the process of the tests.
    return Peer(rank, f"host{rank}", 1000 + rank, f"space {rank}")


@pytest.fixture
def lines():
    pairs = [socket.socketpair() for _ in range(2)]
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.fixture
def first(lines):
    """The watch of the first of three processes; the ends of the other two are the test's."""
    watching = Watch(peer(0), [(peer(1), lines[0][0]), (peer(2), lines[1][0])], [])
    watching.begin()
    return watching


def heard(end, word):
    """The first message that holds `word`."""
    end.settimeout(SECONDS)
    with end.makefile("r") as messages:
        return next(message for message in messages if word in message)


def test_a_process_that_ends_without_a_word_is_named_to_all(first, lines):
    lines[1][1].close()
    assert "Rank 2 (host2, process 1002) ended without a word" in (first.found_out(SECONDS) or "")
    assert "Rank 2 (host2, process 1002)" in heard(lines[0][1], "lost")


def test_one_that_says_why_it_leaves_is_quoted(first, lines):
    lines[0][1].sendall(b'{"left": "OSError: the disk is on fire"}\n')
    assert first.found_out(SECONDS) == "Rank 1 (host1, process 1001) left the run: OSError: the disk is on fire"


def test_one_that_is_done_with_the_run_may_end(first, lines):
    lines[0][1].sendall(b'{"done": 1}\n')
    time.sleep(1.0)
    lines[0][1].close()
    assert first.found_out(2.0) is None
    first.done()
    first.begin()  # a second run needs it
    assert "has ended already" in (first.lost or "")


def test_nobody_is_needed_when_this_process_is_done(first, lines):
    first.done()
    lines[0][1].close()
    assert first.found_out(2.0) is None


def test_one_that_gives_no_sign_of_life_is_lost(first, lines, monkeypatch):
    monkeypatch.setattr(watch, "SILENT_SECONDS", 2.0)
    until = time.monotonic() + SECONDS
    while first.lost is None and time.monotonic() < until:
        lines[0][1].sendall(b'{"beat": null}\n')
        time.sleep(0.2)
    assert "Rank 2 (host2, process 1002) has given no sign of life for 2 seconds" in (first.lost or "")


def test_an_exchange_that_all_wait_in_for_good_is_told(first, lines, monkeypatch):
    monkeypatch.setattr(watch, "STUCK_SECONDS", 1.0)
    with first.inside():
        until = time.monotonic() + 4
        while first.lost is None and time.monotonic() < until:
            for _, end in lines:
                end.sendall(b'{"beat": [1, 5.0]}\n')
            time.sleep(0.2)
    assert "All ranks have waited in the same exchange" in (first.lost or "")


def test_the_engines_connections_are_closed_so_that_an_exchange_ends():
    before = watch.open_sockets()
    engine, other_side = socket.socketpair()
    ours, theirs = socket.socketpair()
    try:
        found = [each for each in watch.open_sockets() - before if each[0] == engine.fileno()]
        assert found == [(engine.fileno(), os.fstat(engine.fileno()).st_ino)]
        watching = Watch(peer(0), [(peer(1), ours)], found)
        watching.begin()
        theirs.close()
        other_side.settimeout(SECONDS)
        assert other_side.recv(1) == b""
        assert watching.lost is not None
    finally:
        for end in (engine, other_side, ours):
            end.close()
