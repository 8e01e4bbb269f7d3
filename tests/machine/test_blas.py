"""blas.py: each claim is checked in a process of its own, because a process binds MLX to a BLAS once and for good."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")

LOAD = """
import json, time
import numpy as np
from tunebook.machine.blas import load_fast_blas
blas = load_fast_blas()
import mlx.core as mx
"""
SPEED = """
def gflops(n=512):
    a = mx.random.normal((n, n)); mx.eval(a)
    times, end = [], time.perf_counter() + 0.5  # the best of half a second: other processes share the cores
    while time.perf_counter() < end:
        began = time.perf_counter(); mx.eval(a @ a); times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times) / 1e9
"""


def test_products_are_at_least_three_times_faster_than_with_the_wheels_own_blas(tmp_path):
    code = LOAD + SPEED + "print(json.dumps(gflops()))"
    assert _python(code, tmp_path) > 3 * _python(code, tmp_path, TUNEBOOK_BLAS="off")


def test_products_of_every_type_agree_with_numpy(tmp_path):
    worst = _python(
        LOAD
        + """
rng = np.random.default_rng(0)
worst = {}
for dtype in ("float32", "float64", "complex64"):
    for m, k, n in [(1, 7, 5), (33, 1, 64), (130, 257, 65)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
        if dtype == "complex64":
            a += 1j * rng.standard_normal((m, k)).astype("float32")
        ours = mx.matmul(mx.array(a, dtype=getattr(mx, dtype)), mx.array(b, dtype=getattr(mx, dtype)).T, stream=mx.cpu)
        difference = np.abs(np.array(ours) - np.einsum("ik,jk->ij", a, b)).max()
        worst[dtype] = max(worst.get(dtype, 0), float(difference))
print(json.dumps(worst))
""",
        tmp_path,
    )
    assert worst["float32"] < 1e-4  # 257 terms of size 1 at 6e-8 each
    assert worst["complex64"] < 1e-4
    assert worst["float64"] < 1e-12


def test_linear_algebra_still_works(tmp_path):
    worst = _python(
        LOAD
        + """
x = np.random.default_rng(0).standard_normal((40, 40)).astype("float32")
spd = x @ x.T + np.eye(40, dtype="float32")
a, p = mx.array(x), mx.array(spd)
with mx.stream(mx.cpu):
    u, s, vt = mx.linalg.svd(a)
    q, r = mx.linalg.qr(a)
    factor = mx.linalg.cholesky(p)
    rebuilt = [(u * s) @ vt, q @ r, factor @ factor.T, mx.linalg.inv(mx.linalg.inv(p)), p @ mx.linalg.inv(p) + p]
    wanted = [x, x, spd, spd, spd + np.eye(40)]
    spectrum = np.sort(np.array(mx.linalg.eigvalsh(p))) / np.linalg.eigvalsh(spd) - 1
differences = [float(np.abs(np.array(got) - want).max() / np.abs(want).max()) for got, want in zip(rebuilt, wanted)]
print(json.dumps(differences + [float(np.abs(spectrum).max())]))
""",
        tmp_path,
    )
    assert max(worst) < 1e-3


def test_the_private_copy_exports_nothing_but_the_three_products(tmp_path):
    copy = Path(_python(LOAD + "print(json.dumps(str(blas.path)))", tmp_path))
    exported = _python(
        f"""
import ctypes, json
library = ctypes.CDLL({str(copy)!r})
exported = []
for name in ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm", "cblas_zgemm", "sgemm_", "scipy_cblas_sgemm", "claqz0_",
             "gotoblas", "scipy_gotoblas", "exec_blas", "openblas_cancel"):
    try:
        library[name]
        exported.append(name)
    except AttributeError:
        pass
print(json.dumps(exported))
""",
        tmp_path,
    )
    assert exported == ["cblas_sgemm", "cblas_dgemm", "cblas_cgemm"]


def test_nothing_but_mlx_is_bound_to_the_private_copy(tmp_path):
    """Read from the loader's own log. NumPy is imported after the BLAS, the order in which it could be taken over."""
    code = LOAD.replace("import numpy as np\n", "") + "import numpy, numpy.linalg; print(json.dumps(str(blas.path)))"
    bindings = _run(code, tmp_path, LD_DEBUG="bindings").stderr
    to_the_copy = [line for line in bindings.splitlines() if "blas/libtunebook_openblas-" in line.partition(" to ")[2]]
    strangers = [line for line in to_the_copy if "blas/libtunebook_openblas-" not in line.partition(" to ")[0]]
    assert len(strangers) == 3
    assert all("/libmlx.so" in line.partition(" to ")[0] for line in strangers)


def test_programs_that_limit_the_threads_of_every_blas_pass_the_copy_by(tmp_path):
    pytest.importorskip("threadpoolctl")
    pytest.importorskip("sklearn")
    code = LOAD + (
        "from threadpoolctl import threadpool_info\nfrom sklearn.cluster import KMeans\n"
        "KMeans(2, n_init=1).fit(np.arange(8.0)[:, None])\n"
        "print(json.dumps([str(blas.path), [library['filepath'] for library in threadpool_info()]]))"
    )
    copy, seen = _python(code, tmp_path)
    assert seen
    assert copy not in seen


def test_the_copy_is_made_once_and_then_costs_a_moment(tmp_path):
    where = LOAD + "print(json.dumps([str(blas.path), blas.path.stat().st_mtime_ns]))"
    path, made = _python(where, tmp_path)
    seconds = """
import json, time
began = time.process_time()
from tunebook.machine.blas import load_fast_blas
load_fast_blas()
print(json.dumps(time.process_time() - began))
"""
    in_turn = [(_python(seconds, tmp_path), _python(seconds, tmp_path, TUNEBOOK_BLAS="off")) for _ in range(4)]
    loading, not_loading = map(min, zip(*in_turn, strict=True))
    assert loading - not_loading < 0.2
    assert _python(where, tmp_path) == [path, made]
    assert [file.name for file in Path(path).parent.iterdir()] == [Path(path).name]  # no leftovers


def test_a_copy_that_was_damaged_is_not_loaded_but_made_again(tmp_path):
    where = LOAD + "print(json.dumps(str(blas.path)))"
    path = Path(_python(where, tmp_path))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:100_000] + bytes(1000) + whole[101_000:]):
        path.write_bytes(damaged)
        assert _python(where, tmp_path) == str(path)
        assert path.read_bytes() == whole


def test_mlx_imported_first_keeps_its_own_blas_and_the_report_says_so(tmp_path):
    late = "import mlx.core\n" + LOAD + SPEED + "print(json.dumps([gflops(), blas.problem, blas.fix]))"
    speed, problem, fix = _python(late, tmp_path)
    assert "before tunebook" in problem
    assert "restart" in fix
    assert speed * 3 < _python(LOAD + SPEED + "print(json.dumps(gflops()))", tmp_path)


@pytest.mark.parametrize("library", ["/no/such/lib.so", "libc.so.6"])
def test_a_library_that_cannot_serve_is_reported_and_mlx_still_multiplies(tmp_path, library):
    code = LOAD + "print(json.dumps([blas.problem, (mx.ones((2, 3)) @ mx.ones((3, 2))).tolist()]))"
    problem, product = _python(code, tmp_path, TUNEBOOK_BLAS=library)
    assert library in problem
    assert product == [[3, 3], [3, 3]]


def test_a_cache_that_cannot_be_written_leads_to_the_systems_openblas_or_to_a_report():
    problem, path = _python(LOAD + "print(json.dumps([blas.problem, str(blas.path)]))", Path("/dev/null/cache"))
    assert "openblas" in path or "/dev/null/cache" in problem


def test_a_sitecustomize_that_imports_the_kit_starts_no_process_without_end(tmp_path):
    """Each Python that imports it writes a line first, and stops at the third."""
    site, log = tmp_path / "site", tmp_path / "log"
    site.mkdir()
    log.touch()
    (site / "sitecustomize.py").write_text(f"""
import pathlib, sys
log = pathlib.Path({str(log)!r})
log.write_text(log.read_text() + "started\\n")
if log.read_text().count("started") > 2:
    sys.exit("one process after another")
import tunebook
""")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    name = _python(LOAD + "print(json.dumps(blas.name))", tmp_path / "cache", PYTHONPATH=path)
    assert name.startswith("OpenBLAS")
    assert log.read_text().count("started") == 1


def _python(code: str, cache: Path, **environment: str):
    """What `code` prints last, read as JSON."""
    return json.loads(_run(code, cache, **environment).stdout.splitlines()[-1])


def _run(code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("TUNEBOOK_BLAS", "LD_PRELOAD")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "TUNEBOOK_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
