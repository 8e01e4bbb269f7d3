"""The check-up people call: what this machine is and what to mend, and on request how its GPU fares beside mlx-lm."""

from typing import TYPE_CHECKING, Literal, overload

from .machine.doctor import Diagnosis
from .machine.doctor import doctor as diagnosis

if TYPE_CHECKING:
    from .parity.speed.report import MachineReport


@overload
def doctor(*, gpu: Literal[False] = False) -> Diagnosis: ...
@overload
def doctor(*, gpu: Literal[True]) -> "MachineReport": ...
def doctor(*, gpu: bool = False) -> "Diagnosis | MachineReport":
    """Look at everything that decides whether, and how fast, the kit works here; about two seconds.

    With `gpu` eight steps are taken and timed with this kit and with mlx-lm, on random weights of SmolLM2-135M's shape:
    a minute or so on a GPU. `print(report.json())` is then a file that tells nothing of whose machine it is.

        >>> print(doctor())
    """
    if not gpu:
        return diagnosis()
    from .parity.speed.report import machine_report  # loads MLX, which a check-up must do without where it is broken

    return machine_report()
