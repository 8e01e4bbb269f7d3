"""runs/log.py, log_lines.py: a log tells what happened or what it cannot tell, and what became of it ends no resume."""

import json
import os
import random
import resource
import signal
from dataclasses import replace

import pytest

from tunebook.events import (
    EndReason,
    LearningRateChanged,
    Notice,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
    to_json,
)
from tunebook.runs import log, log_lines
from tunebook.runs.learning_rates import RATES_FILE, LearningRatesLost, check_learning_rates, keep_rates
from tunebook.runs.log import event_log, rewind
from tunebook.runs.log_lines import EVENTS_FILE, SAMPLES_FILE, read_events

STARTED = RunStarted(
    total_steps=9, model="m", trainable_parameters=1, total_parameters=2, train_rows=3, eval_rows=0, awaited=False
)
STEP = StepEvent(
    step=1, total_steps=9, loss=2.5, lr=1e-4, tokens_sec=30.0, peak_gb=1.2, elapsed=3.4, num_tokens=99, grad_norm=0.7
)
STEPS = [replace(STEP, step=step, loss=1 / step) for step in range(1, 7)]
RATE = LearningRateChanged(step=4, learning_rate=5e-5)
SAMPLE = SampleEvent(step=2, prompt="Why?", text="ünï \udc80", seconds=0.5)
EVENTS = [STARTED, *STEPS[:2], SAMPLE, *STEPS[2:4], RATE, *STEPS[4:]]
ENDED = RunEnded(step=6, total_steps=9, reason=EndReason.STOPPED, message="done", elapsed=9.0)


@pytest.fixture
def folder(tmp_path):
    keep = event_log(tmp_path)
    for event in EVENTS:
        keep(event)
    return tmp_path


def lines_of(folder):
    return (folder / EVENTS_FILE).read_bytes().splitlines(keepends=True)


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


# A disk that will not take it


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


# Rewinding


def test_rewinding_leaves_the_lines_up_to_a_step_as_they_were(folder):
    before = lines_of(folder)
    rewound = rewind(folder, 3)
    assert rewound.events == [*STEPS[:2], SAMPLE, STEPS[2]]
    assert rewound.rates_ahead == {4: 5e-5}
    assert rewound.notices == []
    assert lines_of(folder) == before[1:5]


DAMAGES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 3]),
    "a list": lambda file: file.write_text("[]\n"),
    "another encoding": lambda file: file.write_bytes(b"\xff\xfe" + file.read_text().encode("utf-16")),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "another number": lambda file: file.write_text(file.read_text().replace("5e-05", "9e-05")),
}


@pytest.mark.parametrize("name", [EVENTS_FILE, RATES_FILE, SAMPLES_FILE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_of_one_file_takes_the_learning_rates_that_were_asked_for(folder, name, damage):
    DAMAGES[damage](folder / name)
    rewound = rewind(folder, 3)
    assert rewound.rates_ahead == {4: 5e-5}
    assert all("\n" not in text for text in rewound.notices)
    assert not any(event not in EVENTS for event in rewound.events)
    assert rewind(folder, 3).rates_ahead == {4: 5e-5}  # also when the process is killed again before step 4


def lost(folder, step=3, newest=5, is_kept=True):
    """What a resume at `step` is refused with; nothing where it is not."""
    try:
        check_learning_rates(folder, step, newest=newest, checkpoint=folder / "step", is_kept=is_kept)
    except LearningRatesLost as error:
        return str(error)
    return ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_rates_are_lost_only_with_both_of_their_files(folder, damage):
    assert lost(folder) == ""
    whole = (folder / EVENTS_FILE).read_bytes()
    (folder / EVENTS_FILE).write_bytes(whole[:-9])
    assert lost(folder) == ""
    (folder / EVENTS_FILE).write_bytes(whole)
    DAMAGES[damage](folder / RATES_FILE)
    assert lost(folder) == ""
    (folder / EVENTS_FILE).write_bytes(whole[:-9])
    assert RATES_FILE in lost(folder)
    assert EVENTS_FILE in lost(folder)
    assert "\n" not in lost(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_log_vouches_for_rates_whose_file_is_damaged_too(folder, damage):
    (folder / RATES_FILE).write_text("[]")
    DAMAGES[damage](folder / EVENTS_FILE)
    assert "after step 3 may be lost" in lost(folder)


LACKING = {
    "the newest checkpoint's step": (lambda lines: lines[:-2], 5, "step 5"),
    "what came after the checkpoint": (lambda lines: lines[:5], 4, "step 4"),
    "a step in between": (lambda lines: [*lines[:5], *lines[7:]], 5, "step 4"),
    "the end of a line": (lambda lines: [*lines[:-1], lines[-1][:-1]], 5, "within a line"),
    "a sound change": (lambda lines: [*lines[:6], lines[6].replace(b"5e", b"6e"), *lines[7:]], 5, "damaged lines"),
    "a sound step of the checkpoint": (lambda lines: [*lines[:4], b"{}\n", *lines[5:]], 5, "damaged lines"),
    "its beginning": (lambda lines: lines[1:], 5, "begins where the run was resumed"),
}


@pytest.mark.parametrize("what", LACKING)
def test_a_log_vouches_for_no_rates_where_it_lacks(folder, what):
    change, newest, why = LACKING[what]
    (folder / EVENTS_FILE).write_bytes(b"".join(change(lines_of(folder))))
    assert lost(folder, newest=newest) == ""  # the sealed file is enough
    (folder / RATES_FILE).write_bytes(b"")
    assert why in lost(folder, newest=newest)


def test_damaged_lines_of_steps_that_a_checkpoint_holds_do_not_matter(folder):
    lines = lines_of(folder)
    (folder / EVENTS_FILE).write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    (folder / RATES_FILE).write_bytes(b"")
    assert lost(folder) == ""


def test_a_rate_that_only_the_sealed_file_still_tells_of_is_missed_when_that_is_damaged(folder):
    """A run that was resumed, and killed again before the step of the change."""
    rewind(folder, 3)
    event_log(folder)(replace(STARTED, step=3))
    assert lost(folder, newest=3) == ""
    (folder / RATES_FILE).write_bytes(b"")
    assert "begins where the run was resumed" in lost(folder, newest=3)


def test_a_run_whose_rates_nobody_changed_is_never_refused(tmp_path):
    keep_rates(tmp_path, {})
    keep = event_log(tmp_path)
    for event in [STARTED, *STEPS]:
        keep(event)
    (tmp_path / EVENTS_FILE).write_bytes(b"\0" * 99)
    assert lost(tmp_path) == ""
    (tmp_path / RATES_FILE).unlink()
    assert lost(tmp_path, is_kept=False) == ""  # of an earlier version, which had no file where nobody changed any


def test_a_rate_is_in_its_file_with_those_before_it_whatever_became_of_the_file_meanwhile(folder):
    told = [STARTED, *STEPS[:3]]
    keep = event_log(folder, told=told)
    for step, rate in ((3, 7e-5), (4, 6e-5)):
        told.append(LearningRateChanged(step=step, learning_rate=rate))
        (folder / RATES_FILE).unlink()
        keep(told[-1])
    (folder / EVENTS_FILE).write_bytes(b"")
    assert rewind(folder, 3, rates_are_kept=True).rates_ahead == {3: 7e-5, 4: 6e-5}


def test_a_file_of_rates_that_is_missed_is_told_of_and_made_anew(folder):
    (folder / RATES_FILE).unlink()
    (notice,) = rewind(folder, 3, rates_are_kept=True).notices
    assert notice.startswith(f"{RATES_FILE} is missing; of the learning rates that were asked for, those in")
    assert rewind(folder, 3, rates_are_kept=True).notices == []


def test_a_damaged_file_of_rates_is_written_anew_for_the_next_resume(folder):
    (folder / RATES_FILE).write_bytes(b"")
    (folder / EVENTS_FILE).write_bytes(b"")
    assert len(rewind(folder, 3, same_course=False).notices) == 1
    assert lost(folder) == ""


def test_a_run_that_takes_another_course_forgets_the_rates_of_the_one_before(folder):
    assert rewind(folder, 3, same_course=False).rates_ahead == {}
    assert rewind(folder, 3).rates_ahead == {}


# Who may read it


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
