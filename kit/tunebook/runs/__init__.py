"""What a run says and leaves on the disk, who listens to it, and what is asked of it. No MLX.

Events go in; a folder with a log comes out, and is read again. A callback is any function of an event
(`trainer.subscribe`), or of the nine values of a step (`trainer.add_step_callback`), and needs no edit here.
`tunebook.events` says what there is to hear, and `bridges.py`, for experiment trackers, holds some to follow.

Doors: `attached`, `best`, `controls`, `ending_interrupts`, `folder`, `hearing`, `listeners`, `lock`, `log_lines`,
`looked_after/locked`, `looked_after/state`, `looked_after/wanted`, `progress_bar`, `resuming`, `result`, `run_state`.
"""

from .folder import CONFIG_FILE, STOP_FILE, RunHistory, keep_config, load, new_run_folder, run_folders
from .learning_rates import RATES_FILE, LearningRatesLost, check_learning_rates
from .log import Rewound, event_log, rewind
from .log_lines import EVENTS_FILE, SAMPLES_FILE, last_events, log_of, read_events

__all__ = [
    "CONFIG_FILE",
    "EVENTS_FILE",
    "RATES_FILE",
    "SAMPLES_FILE",
    "STOP_FILE",
    "LearningRatesLost",
    "Rewound",
    "RunHistory",
    "check_learning_rates",
    "event_log",
    "keep_config",
    "last_events",
    "load",
    "log_of",
    "new_run_folder",
    "read_events",
    "rewind",
    "run_folders",
]
