"""How a run that broke off goes on: the line to type, and where it is kept, in the words of whoever configured it.

A path of the machine is shown to nobody who did not type it: what is said here stands in notebooks that are shared.
"""

from pathlib import Path


def as_typed(folder: Path, output_dir: str | None) -> str:
    """A run's folder with `output_dir` as it was given; whole where it lies elsewhere."""
    if output_dir is not None and folder.parent == Path(output_dir).expanduser().absolute():
        return str(Path(output_dir) / folder.name)
    return str(folder)


def resume_line(folder: str, output_dir: str | None, *, awaited: bool, trainer: str = "trainer") -> str:
    """The call that goes on with the newest checkpoint of `folder`, which is as `as_typed` gave it."""
    within = output_dir is not None and Path(folder).parent == Path(output_dir)
    return train_line(
        awaited=awaited, trainer=trainer, argument=f"resume_from_checkpoint={True if within else folder!r}"
    )


def train_line(*, awaited: bool, trainer: str = "trainer", argument: str = "") -> str:
    """The call that trains, as the cell that is meant has it."""
    return f"await {trainer}.train_async({argument})" if awaited else f"{trainer}.train({argument})"
