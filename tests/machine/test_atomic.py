import errno
import subprocess
import sys

import pytest

from tunebook.machine.atomic import DiskFull, new_file, new_folder


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_folder_appears_whole_and_replaces_the_older_one(tmp_path):
    for text in ("first", "second"):
        with new_folder(tmp_path / "out") as partial:
            (partial / f"{text}.txt").write_text(text)
            assert [path.name for path in tmp_path.glob("out/*")] == ([] if text == "first" else ["first.txt"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second.txt"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("make", [new_folder, new_file])
def test_whatever_ends_the_block_leaves_what_was_there(tmp_path, make, error):
    target = tmp_path / "out"
    with make(target) as partial:
        (partial / "a" if make is new_folder else partial).write_text("old")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(error), make(target) as partial:  # noqa: PT012 - the block is what is tested
        (partial / "b" if make is new_folder else partial).write_text("new")
        raise error
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert (target / "a" if make is new_folder else target).read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_what_is_left_and_what_to_do(tmp_path, number):
    with pytest.raises(DiskFull, match=r"writing out.*GB were left.*unchanged") as told, new_file(tmp_path / "out"):
        raise OSError(number, "no room")
    assert told.value.errno == number
    assert leftovers(tmp_path) == []


def test_another_error_of_the_disk_is_not_called_full(tmp_path):
    with pytest.raises(PermissionError), new_file(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "not yours")


def test_missing_parent_folders_are_made(tmp_path):
    with new_file(tmp_path / "a" / "b" / "c.txt") as partial:
        partial.write_text("deep")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "deep"


def test_a_folder_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "out").write_text("old")
    with new_folder(tmp_path / "out") as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_processes_that_make_the_same_folder_at_once_all_succeed(tmp_path):
    program = (
        "import sys\nfrom tunebook.machine.atomic import new_folder\n"
        "for turn in range(150):\n"
        "    with new_folder(sys.argv[1]) as partial:\n"
        "        (partial / 'a').write_text(sys.argv[2])\n        (partial / 'b').write_text(sys.argv[2])\n"
    )
    makers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "out"), name]) for name in "xyz"]
    assert [maker.wait() for maker in makers] == [0, 0, 0]
    assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
