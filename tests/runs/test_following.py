"""runs/following.py: however a log grows, is cut back or is moved, what is read is what it says, each event once."""

import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.logged_events import ENDED, EVENTS, STARTED, STEP, STEPS, lines_of
from tunebook.events import Notice
from tunebook.runs.folder import event_log, read_events, rewind
from tunebook.runs.following import Following
from tunebook.runs.log_lines import EVENTS_FILE, line_of


def written(folder, events):
    keep = event_log(folder)
    for event in events:
        keep(event)


def test_a_run_that_has_not_begun_and_has_no_folder_yet_is_followed_from_its_first_event(tmp_path):
    following = Following(tmp_path / "run-001")
    assert following.look().events == []
    (tmp_path / "run-001").mkdir()
    assert following.look().events == []
    written(tmp_path / "run-001", EVENTS)
    assert following.look().events == EVENTS
    assert following.look().events == []


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_however_the_bytes_come_each_event_comes_once_and_in_order(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("run")
    content = b"".join(line_of(event) for event in [*EVENTS, ENDED])
    following, told, places = Following(folder), [], sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    for first, last in zip([0, *places], places, strict=False):
        with (folder / EVENTS_FILE).open("ab") as file:
            file.write(content[first:last])
        told += following.look().events
    assert told == list(read_events(folder)) == [*EVENTS, ENDED]


def test_a_resumed_run_is_read_from_where_it_went_on_with_what_was_before_it(folder):
    following = Following(folder)
    following.look()
    rewind(folder, 3)
    cut = following.look()
    written(folder, [again := replace(STARTED, step=3), *STEPS[3:5]])
    news = following.look()
    assert (cut.events, cut.before) == ([], [event for event in EVENTS if event.step <= 3 and event is not STARTED])
    assert (news.events, news.before) == ([again, *STEPS[3:5]], None)


def test_of_a_run_that_was_resumed_twice_between_two_looks_the_last_start_counts(folder):
    following = Following(folder)
    following.look()
    for step in (3, 2):
        rewind(folder, step)
        written(folder, [replace(STARTED, step=step), *STEPS[step : step + 2]])
    news = following.look()
    assert news.events == [replace(STARTED, step=2), *STEPS[2:4]]
    assert [event.step for event in news.before or []] == [1, 2, 2]  # a sample was written after step 2
    assert [*(news.before or []), *news.events] == list(read_events(folder))


def test_a_log_that_was_taken_away_and_is_written_anew_tells_nothing_twice(folder):
    following = Following(folder)
    following.look()
    told = [*EVENTS, STEP]
    keep = event_log(folder, told=told)
    keep(STEP)
    assert following.look().events == [STEP]
    (folder / EVENTS_FILE).unlink()
    assert following.look().events == []
    told.append(ENDED)
    keep(ENDED)
    assert lines_of(folder) == [line_of(event) for event in told]
    news = following.look()
    assert (news.events, news.before) == ([ENDED], None)


def test_a_folder_that_is_moved_is_read_on_where_it_is(folder):
    following = Following(folder)
    following.look()
    elsewhere = folder.with_name("elsewhere")
    shutil.move(folder, elsewhere)
    written(elsewhere, [STEP])
    assert following.look().events == [STEP]


def test_a_damaged_line_is_passed_over_and_told_of_with_its_number_in_the_file(folder):
    following = Following(folder)
    following.look()
    with (folder / EVENTS_FILE).open("ab") as file:
        file.write(b'{"event": "step"}\n' + line_of(STEP))
    news = following.look()
    assert news.events == [STEP]
    notice = list(read_events(folder))[-1]
    assert isinstance(notice, Notice)
    assert news.odd == notice.text
    assert f"line {len(EVENTS) + 1}" in notice.text
    assert following.look().odd is None


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_waited_for(tmp_path, kind):
    import os

    if kind == "folder":
        (tmp_path / EVENTS_FILE).mkdir()
    else:
        os.mkfifo(tmp_path / EVENTS_FILE)
    assert Following(tmp_path).look().events == []
