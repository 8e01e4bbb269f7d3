"""How the test files are spread over the workers of pytest-xdist: which share a worker, and which begin first.

A file always stays whole, for its fixtures are dear. A run without workers, `pytest tests/test_wings.py`, is untouched.
"""

import os
from pathlib import PurePath

import pytest

# What must happen once, or not beside another of its kind, goes one after another in one worker.
GROUPS = {
    # Downloaded, and made of a GGUF, once.
    "SmolLM2": [
        *("test_quickstart", "test_memorise", "test_smollm2_template", "test_smollm2_preferences"),
        "test_smollm2_harness",
    ],
    "clocks and browsers": [
        *("test_charts_browser", "test_page_browser", "test_lab_browser", "test_token_browser", "test_panels_browser"),
        "test_score_browser",
        *(
            "test_lost_kernel_browser",
            "test_elsewhere_browser",
            "test_numbers_browser",
            "test_kernels",
            "test_recorded",
            "test_dashboard",
            "test_throttle",
        ),
        *("test_blas", "test_doctor", "test_startup", "test_fetch"),
    ],
}
# The longest of the others, so that none of them is left for the end, when one worker has nothing to do.
LONG = [
    *("test_released_tokenizers", "test_checkpoint_config", "test_odd_names", "test_trusted", "test_scratch"),
    *("test_resume", "test_export", "test_vision_training", "test_parity", "test_weights", "test_verify"),
    *("test_memorise_tiny", "test_step", "test_endings", "test_merged", "test_memory", "test_malformed"),
    *("test_chat_templates", "test_supervisor", "test_start", "test_processes", "test_same_run"),
]
ORDER = [*GROUPS, *LONG]


def group_of(nodeid: str) -> str:
    """What a test shares a worker with: the name of a group, else the path of its file."""
    path = nodeid.partition("::")[0]
    return next((group for group, names in GROUPS.items() if PurePath(path).stem in names), path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a worker, the tests in the order of the groups."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _place(group_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)  # a hook of xdist, which pytest does not know where that is not installed
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """xdist's own scheduler of whole files, of whole groups here, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # it would begin with the files of the most tests, not the longest
    return GroupScheduling(config, log)


def _place(group: str) -> int:
    name = PurePath(group).stem
    return ORDER.index(name) if name in ORDER else len(ORDER)
