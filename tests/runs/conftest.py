"""The folder of a run whose log is whole."""

import pytest

from tests.runs.logged_events import EVENTS
from tunebook.runs.log import event_log


@pytest.fixture
def folder(tmp_path):
    keep = event_log(tmp_path)
    for event in EVENTS:
        keep(event)
    return tmp_path
