"""What sleeping instead of spinning OpenBLAS threads do for two programs that share the cores.

    python bench/blas_contention.py

Runs an MLP's forward pass in one process, then in two at once, with OpenBLAS's own OPENBLAS_THREAD_TIMEOUT (26) and
with the one `tunebook.machine.blas` sets (4), and prints the milliseconds per pass.
"""

import os
import subprocess
import sys

CHILD = """
import time
import tunebook
import mlx.core as mx
import mlx.nn as nn

x, up, down = (mx.random.normal(shape) for shape in ((640, 576), (1536, 576), (576, 1536)))
def forward():
    hidden = x @ up.T
    mx.eval((nn.silu(hidden) * hidden) @ down.T)
forward()
began = time.perf_counter()
for _ in range(60):
    forward()
print((time.perf_counter() - began) / 60 * 1e3)
"""


def milliseconds(timeout: str, processes: int) -> list[float]:
    """Per pass, in each of `processes` that run at the same time."""
    environment = os.environ | {"OPENBLAS_THREAD_TIMEOUT": timeout}
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return [float(child.communicate()[0]) for child in children]


def main() -> None:
    """Measure and print."""
    for processes in (1, 2):
        for timeout in ("26", "4"):
            shown = ", ".join(f"{each:.1f}" for each in milliseconds(timeout, processes))
            print(f"{processes} at once, OPENBLAS_THREAD_TIMEOUT={timeout:>2}: {shown} ms per pass")


if __name__ == "__main__":
    main()
