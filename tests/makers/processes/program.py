"""A program, given as text, in a process that has imported the kit already: `python -c` in a tenth of the time.

done = run_program("import sys; print(sys.argv[1])", "hello")     # done.returncode, done.stdout, done.stderr
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tests.makers.processes.without_torch
from tests.makers.processes.forked import Forked
from tunebook import FastModel, Trainer, objectives, scores

assert tests.makers.processes.without_torch
IMPORTED = (FastModel, Trainer, objectives, scores)  # for the processes that begin here


def run_program(code: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)`, in this folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "code.py").write_text(code)
        out, errors = place / "out", place / "errors"
        process = Forked(__name__, [str(place / "code.py"), *arguments], os.environ, out=out, errors=errors)
        try:
            process.communicate(timeout)
        finally:
            process.kill()
            process.wait()
        code_of_end = process.returncode
        assert code_of_end is not None
        said = [file.read_text(errors="replace") if file.exists() else "" for file in (out, errors)]
        return subprocess.CompletedProcess([code, *arguments], code_of_end, *said)


def main(arguments: list[str]) -> None:
    """Run the program in the file that `arguments` begin with, with the others as its own."""
    file, *sys.argv[1:] = arguments
    exec(compile(Path(file).read_text(), "<program>", "exec"), {"__name__": "__main__"})
