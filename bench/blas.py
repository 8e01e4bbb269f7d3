"""How fast MLX multiplies fp32 matrices on Linux with each BLAS this machine has: `python bench/blas.py`.

Every BLAS gets a process of its own, because MLX is bound to one for good when it is loaded. `--library PATH` (may be
repeated) adds a library, for example an OpenBLAS or MKL that is not installed system-wide. The last column is of a
product with weights in 4 bits, which MLX computes without a BLAS.
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time

from tunebook.machine.blas import SYSTEM_OPENBLAS, load_fast_blas

SIZES = (256, 512, 1024, 2048)  # n of an n x n times n x n product
SECONDS_A_SIZE = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", action="append", default=[], help="one more library to measure")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure()))
        return
    if sys.platform != "linux":
        sys.exit("This compares the BLAS libraries of MLX's Linux CPU build; on macOS MLX has Accelerate.")
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; GFLOP/s of fp32 products in MLX, best of each second\n"
    )
    print(f"{'BLAS':<44}" + "".join(f"{n:>8}" for n in SIZES) + f"{'ratio at 1024':>15}{'4 bits at 1024':>16}")
    reference: float | None = None
    for choice in ["off", *filter(can_be_loaded, SYSTEM_OPENBLAS), *given.library, None]:
        name, problem, speeds, quantized = in_another_process(choice)
        if problem and choice != "off":
            print(f"{choice or 'scipy-openblas32'}: {problem}")
            continue
        at_1024 = speeds[SIZES.index(1024)]
        reference = reference or at_1024
        print(
            f"{name:<44}"
            + "".join(f"{speed:>8.0f}" for speed in speeds)
            + f"{at_1024 / reference:>14.1f}x{quantized:>16.1f}"
        )


Measured = tuple[str, str | None, list[float], float]


def measure() -> Measured:
    """(name, problem, GFLOP/s for each of SIZES, with 4 bits at 1024) of the BLAS this process was started with."""
    blas = load_fast_blas()
    import mlx.core as mx

    def gflops(n: int, bits: int | None = None) -> float:
        a, b = mx.random.normal((n, n)), mx.random.normal((n, n))
        weights = () if bits is None else mx.quantize(b, bits=bits)

        def product() -> mx.array:
            return mx.quantized_matmul(a, *weights, bits=bits) if weights else a @ b

        mx.eval(a, b, *weights, product())
        times: list[float] = []
        while sum(times) < SECONDS_A_SIZE:
            began = time.perf_counter()
            mx.eval(product())
            times.append(time.perf_counter() - began)
        return 2 * n**3 / min(times) / 1e9

    with mx.stream(mx.cpu):
        return blas.name, blas.problem, [gflops(n) for n in SIZES], gflops(1024, bits=4)


def in_another_process(choice: str | None) -> Measured:
    environment = {**os.environ, "TUNEBOOK_BLAS": choice or ""}
    done = subprocess.run(
        [sys.executable, __file__, "--measure"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    name, problem, speeds, quantized = json.loads(done.stdout)
    return name, problem, speeds, quantized


def can_be_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
