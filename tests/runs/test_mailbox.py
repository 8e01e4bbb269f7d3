"""runs/mailbox.py: every command arrives once and in order, and what is none does nothing and stays or is named."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tunebook.events import Command, Request, Working
from tunebook.runs.mailbox import ASKED_FOLDER, NOW_FILE, Mailbox, Now, post, read_now, say_now

NAME = "1764500000000000000-17-0123abcd.json"


def left(folder, content, name=NAME):
    (folder / ASKED_FOLDER).mkdir(exist_ok=True)
    (folder / ASKED_FOLDER / name).write_bytes(content)
    return folder / ASKED_FOLDER / name


def test_what_is_asked_comes_in_order_and_once(tmp_path):
    asked = [Request(Command.PAUSE), Request(Command.LEARNING_RATE, 3e-4), Request(Command.RESUME)]
    for request in asked:
        post(tmp_path, request)
    mailbox = Mailbox(tmp_path)
    assert mailbox.take() == (asked, [])
    assert mailbox.take() == ([], [])
    mailbox.close()
    assert list(tmp_path.iterdir()) == []


def test_of_several_senders_none_is_lost_while_the_box_is_emptied_and_taken_away(tmp_path):
    rates = [1e-5 * (number + 1) for number in range(200)]
    mailbox, taken = Mailbox(tmp_path), []
    with ThreadPoolExecutor(4) as senders:
        waiting = [senders.submit(post, tmp_path, Request(Command.LEARNING_RATE, rate)) for rate in rates]
        while not all(each.done() for each in waiting):
            taken += mailbox.take()[0]
    for each in waiting:
        each.result()
    while more := mailbox.take()[0]:
        taken += more
    assert sorted(request.value for request in taken) == rates


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"command": "rm -rf", "value": null}', r"'rm -rf' is none of stop, discard"),
        (b'{"command": "\\u001b[2J"}', r"is none of stop"),
        (b'{"command": ["stop"]}', r"\['stop'\] is none of stop"),
        (b'{"command": "stop", "value": 3}', "stop takes no value"),
        (b'{"command": "learning_rate", "value": "1e-4"}', "which is no number"),
        (b'{"command": "learning_rate", "value": NaN}', "must be a finite number"),
    ],
)
def test_a_command_nobody_knows_is_named_and_left_aside(tmp_path, content, said):
    file = left(tmp_path, content)
    requests, [sentence] = Mailbox(tmp_path).take()
    assert requests == []

    assert re.search(said, sentence)
    assert sentence.isprintable()
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"stop", b"[1]", b"[" * 3000, b'{"command": "stop"}' + b" " * 5000])
def test_a_file_that_is_none_of_the_kits_stays_and_is_told_of_once(tmp_path, content):
    file = left(tmp_path, content)
    mailbox = Mailbox(tmp_path)
    requests, [sentence] = mailbox.take()
    assert requests == []
    assert str(file) in sentence
    assert mailbox.take() == ([], [])
    mailbox.close()
    assert file.read_bytes() == content


def test_neither_links_nor_pipes_nor_files_of_other_names_are_touched(tmp_path):
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_text('{"command": "stop"}')
    other = left(tmp_path, b'{"command": "stop"}', name="stop.json")
    (tmp_path / ASKED_FOLDER / NAME).symlink_to(elsewhere)
    os.mkfifo(tmp_path / ASKED_FOLDER / NAME.replace("17", "18"))
    mailbox = Mailbox(tmp_path)
    requests, said = mailbox.take()
    assert (requests, len(said)) == ([], 2)
    mailbox.close()
    assert elsewhere.exists()
    assert other.exists()
    assert len(list((tmp_path / ASKED_FOLDER).iterdir())) == 3


def test_what_was_asked_of_the_run_before_is_not_done_by_this_one(tmp_path):
    post(tmp_path, Request(Command.STOP))
    [file] = (tmp_path / ASKED_FOLDER).iterdir()
    since = file.stat().st_mtime + 1
    requests, [sentence] = Mailbox(tmp_path).take(since)
    assert requests == []
    assert "stop was asked for before this run went on" in sentence
    assert not file.exists()


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises(FileNotFoundError):
        post(tmp_path / "gone", Request(Command.STOP))
    assert not (tmp_path / "gone").exists()


def test_others_than_the_owner_cannot_steer_by_it(tmp_path):
    before = os.umask(0)
    try:
        post(tmp_path, Request(Command.STOP))
    finally:
        os.umask(before)
    [file] = (tmp_path / ASKED_FOLDER).iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / ASKED_FOLDER).stat().st_mode & 0o022 == 0


def test_what_a_run_says_of_the_moment_is_read_back(tmp_path):
    now = Now(7, Working(step=3, what="evaluating", done=2, total=9), [(1, Command.LEARNING_RATE, 1e-4)])
    say_now(tmp_path, now)
    assert read_now(tmp_path) == now
    say_now(tmp_path, Now(8, None, []))
    assert read_now(tmp_path) == Now(8, None, [])
    assert [path.name for path in tmp_path.iterdir()] == [NOW_FILE]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"events": "x", "working": null, "heard": []}', b'{"events": 1, "working": 2}']
)
def test_anything_else_says_nothing(tmp_path, content):
    (tmp_path / NOW_FILE).write_bytes(content)
    assert read_now(tmp_path) is None
