"""gguf/writer.py: a file is written whole or not at all."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook.gguf import write_gguf
from tunebook.machine.atomic import DiskFull


def test_a_write_stopped_by_a_file_size_limit_leaves_the_old_file_and_no_litter(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "out" / "model.gguf", "q8_0").path
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))
    try:
        with pytest.raises(DiskFull, match="or your share of it"):
            write_gguf(folder, path, "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


FULL_DISK = """
import sys
from pathlib import Path
from tunebook.machine.atomic import DiskFull
from tunebook.gguf import read_gguf, write_gguf
folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
path = disk / "model.gguf"
write_gguf(folder, path, "q4_0")
before = path.read_bytes()
for attempt in (lambda: write_gguf(folder, path, "f32"), lambda: read_gguf(path, disk / "back")):
    try:
        attempt()
    except DiskFull as error:
        print("DiskFull:", error)
assert path.read_bytes() == before and list(disk.iterdir()) == [path]
"""


def test_a_full_disk_is_reported_as_such_and_leaves_the_old_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk of one's own needs Linux with user namespaces")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    done = subprocess.run(
        [*inside, f"{mount} && {sys.executable} {tmp_path / 'full_disk.py'} {folder} {disk}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DiskFull:") == 2, done.stdout
