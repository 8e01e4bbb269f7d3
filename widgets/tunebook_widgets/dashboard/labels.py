"""What runs are called beside one another: the name of their folder, and where that is the same what tells them apart.

Names and facts come in, labels go out. No path of the machine is among them: they are saved in notebooks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebook.machine.inert import one_line

MOST_SETTINGS = 3  # in a label; of more differences the first few say enough


def labels(folders: Sequence[Path], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each run, no two alike; `facts` are the settings of each."""
    names = [folder.name for folder in folders]
    made = list(names)
    for name in dict.fromkeys(names):
        alike = [at for at, other in enumerate(names) if other == name]
        if len(alike) > 1:
            for at, difference in zip(alike, _differences([facts[at] for at in alike]), strict=True):
                made[at] = f"{name} · {difference}"
    return made


def plain(value: Any) -> str:
    """A setting on one line, a float in a few digits."""
    return f"{value:g}" if isinstance(value, float) else one_line(value)


def _differences(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each run has that the others have not: one setting where one is enough, else a few; else a number."""
    settings = {name: [_told(each.get(name)) for each in facts] for each in facts for name in each}
    places = [_last_part(each.get("output_dir")) for each in facts]
    settings.pop("output_dir", None)
    differing = {name: values for name, values in settings.items() if len(set(values)) > 1}
    alone = next((name for name, values in differing.items() if len(set(values)) == len(facts)), None)
    chosen = [alone] if alone is not None else list(differing)[:MOST_SETTINGS]
    told = [", ".join(f"{name} {differing[name][at]}" for name in chosen) for at in range(len(facts))]
    if len(set(told)) == len(facts):
        return told
    if len(set(places)) == len(facts):
        return [", ".join(filter(None, pair)) for pair in zip(places, told, strict=True)]
    return [", ".join(filter(None, [words, f"no. {at}"])) for at, words in enumerate(told, start=1)]


def _told(value: Any) -> str:
    """A setting in a label; of a path, such as a model's, the last part."""
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else plain(value)


def _last_part(output_dir: Any) -> str:
    """The name of the folder that was given for runs, without the folders it lies in."""
    return Path(str(output_dir)).name if output_dir else ""
