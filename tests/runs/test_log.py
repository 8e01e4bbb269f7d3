"""runs/log.py, log_lines.py: a log tells what happened or says what it cannot tell, and is never what ends a run."""

import json
import os
import random
import resource
import signal

import pytest

from tests.runs.logged_events import ENDED, EVENTS, SAMPLE, STARTED, STEP, STEPS, lines_of
from tunebook.events import (
    Notice,
    to_json,
)
from tunebook.runs import log, log_lines
from tunebook.runs.learning_rates import RATES_FILE
from tunebook.runs.log import event_log, rewind
from tunebook.runs.log_lines import EVENTS_FILE, SAMPLES_FILE, read_events


def told_and_said(folder):
    """(events, the sentence about the lines that were passed over)."""
    *events, last = read_events(folder)
    assert isinstance(last, Notice)
    return events, last.text


def test_what_was_logged_is_read_back_and_every_line_is_plain_json(folder):
    assert list(read_events(folder)) == EVENTS
    assert [json.loads(line)["event"] for line in lines_of(folder)][:3] == ["run_started", "step", "step"]
    assert json.loads((folder / SAMPLES_FILE).read_text())["text"] == SAMPLE.text


def test_no_flipped_bit_makes_another_event(folder):
    """Each event read back is one that was told; what is missing was counted."""
    whole, generator = (folder / EVENTS_FILE).read_bytes(), random.Random(0)
    for _ in range(400):
        place, bit = generator.randrange(len(whole)), generator.randrange(8)
        (folder / EVENTS_FILE).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        read = list(read_events(folder))
        told = [event for event in read if event in EVENTS]
        others = [event for event in read if event not in EVENTS]
        assert len(told) >= len(EVENTS) - 2
        assert len(others) == 0 or (len(others) == 1 and isinstance(others[0], Notice) and read[-1] is others[0])
        assert others or len(told) >= len(EVENTS) - 1  # of the last newline, the line is one that is being written


DAMAGED = {
    "half a line": to_json(STEP)[:40],
    "a number": "5",
    "nothing": "",
    "a null for a number": to_json(STEP).replace("2.5", "null"),
    "a text for a number": to_json(STEP).replace("2.5", '"x"'),
    "a number no file of ours has": to_json(STEP).replace('"step": 1,', '"step": 1' + "0" * 400 + ","),
    "more digits than are read": "1" * 5000,
    "a list for a text": '{"event": "notice", "step": 1, "text": ["a"]}',
    "true for a count": '{"event": "notice", "step": true, "text": "a"}',
    "settings that are a list": to_json(STARTED).replace('"config": {}', '"config": [1]'),
    "a list of kinds": '{"event": ["step"]}',
    "too deep": "[" * 100_000,
    "too deep a setting": to_json(STARTED).replace('"config": {}', '"config": ' + '{"a":' * 50_000),
    "not enough": '{"event": "run_ended", "step": 1}',
    "bytes that are no text": "\udcff\udcfe",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_line_is_passed_over_and_counted(tmp_path, kind):
    text = "".join(f"{line}\n" for line in (to_json(STARTED), DAMAGED[kind], to_json(STEP)))
    (tmp_path / EVENTS_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    told, sentence = told_and_said(tmp_path)
    assert told == [STARTED, STEP]
    assert sentence == f"In {tmp_path / EVENTS_FILE}, 1 line is damaged and left out (the first: line 2)."


NEWER = {
    "a kind": '{"event": "temperature", "step": 1, "celsius": 61.5}',
    "a kind without a step": '{"event": "weather"}',
    "a reason to end": to_json(ENDED).replace("stopped", "evicted"),
    "a command": '{"event": "command_received", "step": 1, "command": "rewind"}',
}


@pytest.mark.parametrize("kind", NEWER)
def test_what_a_newer_version_tells_is_left_aside_and_stays_in_the_log(tmp_path, kind):
    (tmp_path / EVENTS_FILE).write_text(f"{to_json(STARTED)}\n{NEWER[kind]}\n{to_json(STEP)}\n")
    told, sentence = told_and_said(tmp_path)
    assert told == [STARTED, STEP]
    assert sentence == f"In {tmp_path / EVENTS_FILE}, 1 is of a newer version, read as far as known."
    assert rewind(tmp_path, 6).events == [STEP]
    assert NEWER[kind] in (tmp_path / EVENTS_FILE).read_text()


def test_a_field_of_a_newer_version_is_left_aside_and_its_event_read(tmp_path):
    (tmp_path / EVENTS_FILE).write_text(to_json(STARTED) + "\n" + to_json(STEP)[:-1] + ', "watts": [3, null]}\n')
    told, sentence = told_and_said(tmp_path)
    assert told == [STARTED, STEP]
    assert "1 is of a newer version" in sentence


def test_a_line_without_end_is_not_taken_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "MOST_LINE_BYTES", 1000)
    (tmp_path / EVENTS_FILE).write_text(to_json(STARTED) + "\n" + "x" * 5000 + "\n" + to_json(STEP) + "\n" + "y" * 3000)
    assert list(read_events(tmp_path))[:2] == [STARTED, STEP]


def test_a_full_disk_is_said_once_and_what_waited_is_written_when_it_has_room_again(tmp_path):
    said, (soft, hard) = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    keep = event_log(tmp_path, said.append)
    try:
        for event in EVENTS:
            full = event in STEPS[1:4]
            resource.setrlimit(resource.RLIMIT_FSIZE, (500 if full else soft, hard))  # a line and a half
            keep(event)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(read_events(tmp_path)) == EVENTS
    assert len([text for text in said if "cannot be written" in text]) == len(said) / 2
    assert said[-1].endswith("with what had to wait.")


def test_a_log_that_cannot_be_opened_waits_too_and_in_memory_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MOST_WAITING_BYTES", 900)
    (tmp_path / EVENTS_FILE).mkdir()
    said = []
    keep = event_log(tmp_path, said.append)
    for event in EVENTS:
        keep(event)
    assert len(said) == 1
    assert "Is a directory" in said[0]
    (tmp_path / EVENTS_FILE).rmdir()
    keep(ENDED)
    assert len(said) == 2
    lost = int(said[1].split(";")[1].split()[0])
    assert list(read_events(tmp_path)) == [*EVENTS[lost:], ENDED]


@pytest.mark.parametrize("name", [EVENTS_FILE, SAMPLES_FILE])
def test_a_log_that_is_a_pipe_holds_nobody_up(tmp_path, name):
    os.mkfifo(tmp_path / name)
    said = []
    keep = event_log(tmp_path, said.append)
    for event in EVENTS:
        keep(event)
    assert "there is no file" in said[0]
    (tmp_path / name).unlink()
    keep(ENDED)
    assert list(read_events(tmp_path)) == [*EVENTS, ENDED]


def test_a_run_folder_that_goes_and_comes_back_has_the_whole_log(tmp_path):
    said, run = [], tmp_path / "run-001"
    keep = event_log(run, said.append)
    for event in EVENTS:
        keep(event)
    run.mkdir()  # as the next checkpoint does
    keep(ENDED)
    assert list(read_events(run)) == [*EVENTS, ENDED]
    assert len(said) == 2


def test_behind_a_line_whose_writer_was_killed_the_next_one_is_whole(folder):
    (folder / EVENTS_FILE).write_bytes(b"".join(lines_of(folder))[:-9])
    event_log(folder)(ENDED)
    told, sentence = told_and_said(folder)
    assert told == [*EVENTS[:-1], ENDED]
    assert "1 line is damaged" in sentence


def test_what_a_run_leaves_is_its_owners_alone_whatever_the_umask(tmp_path):
    from tunebook.runs.folder import keep_config, new_run_folder

    before = os.umask(0)
    try:
        run = new_run_folder(tmp_path / "out")
        keep_config(run, {}, {})
        keep = event_log(run)
        for event in EVENTS:
            keep(event)
        fresh = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir()}
        rewind(run, 3)
    finally:
        os.umask(before)
    assert run.stat().st_mode & 0o777 == 0o700
    assert fresh == dict.fromkeys([EVENTS_FILE, SAMPLES_FILE, RATES_FILE, "config.json"], 0o600)
    assert {path.name: path.stat().st_mode & 0o777 for path in run.iterdir()} == fresh
