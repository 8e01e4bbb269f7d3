"""A run that is over, kept as every run keeps itself: to look at a dashboard before anything was downloaded."""

from pathlib import Path


def recorded_run() -> Path:
    """The folder of a run of `01_quickstart`: 24 steps of SmolLM2-135M on two CPU cores, with samples on the way.

    >>> folder = samples.recorded_run()

    `replay(folder)` of the widgets plays it, `Dashboard(folder)` shows how it went; neither needs MLX. It holds the
    events of the run, and no weights.
    """
    return Path(__file__).with_name("quickstart_run")
