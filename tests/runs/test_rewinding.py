"""runs/learning_rates.py: a log that is rewound keeps the rates that were asked for, or says that they may be lost."""

import os
from dataclasses import replace

import pytest

from tests.runs.logged_events import EVENTS, SAMPLE, STARTED, STEPS, lines_of
from tunebook.events import (
    LearningRateChanged,
)
from tunebook.runs.learning_rates import RATES_FILE, LearningRatesLost, check_learning_rates, keep_rates
from tunebook.runs.log import event_log, rewind
from tunebook.runs.log_lines import EVENTS_FILE, SAMPLES_FILE


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
