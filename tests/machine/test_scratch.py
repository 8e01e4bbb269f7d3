"""Whole or not at all, also for who is killed: leftovers are told from what is the person's, moves are gone through to
their end, and only inside the folder they are for.
"""

import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tunebook.machine import atomic, scratch
from tunebook.machine.atomic import Changes, added_files, new_file, new_folder
from tunebook.machine.exchange import exchange
from tunebook.machine.scratch import ABOUT, MOVES, NEW, digest, recover, scratch_folder


def killed(code: str, *arguments: object) -> None:
    """Run Python code in a process that ends by SIGKILL."""
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom tunebook.machine import atomic, scratch\n"
    done = subprocess.run([sys.executable, "-c", start + code, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def files_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def add(folder: Path, **texts: str) -> None:
    """Add files NAME.txt to a folder, replacing those of that name and removing none."""

    def plan(new: Path) -> Changes:
        names = [path.name for path in new.iterdir()]
        return Changes(replaces={name: digest(folder / name) for name in names}, removes={})

    with added_files(folder, plan) as draft:
        for name, text in texts.items():
            (draft.new / f"{name}.txt").write_text(text)


def test_what_killed_writers_left_is_gone_after_the_next_write_beside_it(tmp_path):
    for make in ("new_folder", "new_file"):
        killed(f"with atomic.{make}(sys.argv[1]) as p: os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "out")
    killed("os.mkdir(sys.argv[1])\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path / "out.partial-0123abcd")
    with new_file(tmp_path / "other") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_scratch_folder_of_a_writer_that_lives_is_left_alone(tmp_path):
    with new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("mine")
        with new_file(tmp_path / "other") as other:
            other.write_text("x")
        assert (partial / "a").read_text() == "mine"
    assert files_in(tmp_path) == {"out/a": "mine", "other": "x"}


def test_what_only_looks_like_a_leftover_is_the_persons(tmp_path):
    named = tmp_path / "model.partial-0123abcd"
    named.mkdir()
    (named / "weights").write_text("mine")
    said = tmp_path / "taxes.partial-0123abcd"
    said.mkdir()
    (said / ABOUT).write_text("These are my taxes.")
    link = tmp_path / "link.partial-0123abcd"
    link.symlink_to(named)
    with new_folder(tmp_path / "model") as partial:
        (partial / "a").write_text("new")
    assert files_in(tmp_path) == {
        "model/a": "new",
        "model.partial-0123abcd/weights": "mine",
        f"taxes.partial-0123abcd/{ABOUT}": "These are my taxes.",
    }
    assert link.is_symlink()


@pytest.mark.parametrize("offered", [True, False])
def test_a_kill_at_any_rename_leaves_the_old_folder_or_the_new_one(tmp_path, offered):
    """Also, after the next write or read, where a file system has no exchange and it takes two renames."""
    with new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("old")
    for moment in range(4):
        code = """
def counted(call):
    def wrapped(*a):
        result = call(*a)
        calls.append(a)
        if len(calls) > int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped
calls = []
if sys.argv[3] == "False": atomic.exchange = lambda *a: False
else: atomic.exchange = counted(atomic.exchange)
os.rename, os.replace = counted(os.rename), counted(os.replace)
with atomic.new_folder(sys.argv[1]) as p: (p / "a").write_text("new")
os.kill(os.getpid(), signal.SIGKILL)
"""
        killed(code, tmp_path / "out", moment, offered)
        if offered:
            assert files_in(tmp_path / "out") in ({"a": "old"}, {"a": "new"})
        recover(tmp_path / "out") if (tmp_path / "out").exists() else scratch.put_right(tmp_path)
        assert files_in(tmp_path) in ({"out/a": "old"}, {"out/a": "new"})


def test_a_set_among_other_files_that_was_cut_off_is_finished_by_the_next_reader(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.md").write_text("mine")
    add(folder, a="old", b="old", c="old")
    code = """
import tests.machine.test_scratch as t
real, calls = os.replace, []
def replace(*a):
    real(*a)
    calls.append(a)
    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)  # the list, and two of three files
os.replace = replace
t.add(Path(sys.argv[1]), a="new", b="new", c="new")
"""
    killed(code, folder)
    torn = files_in(folder)
    assert sorted(torn.values()) == ["mine", "new", "new", "old"]
    recover(folder)
    assert files_in(tmp_path) == {"out/notes.md": "mine", **{f"out/{name}.txt": "new" for name in "abc"}}


def test_a_file_that_was_changed_after_the_kill_is_not_overwritten_when_the_moves_are_finished(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("edited since")
    leave(tmp_path, {"into": "out", "replaces": {"a": sha256(b"old").hexdigest(), "b": None}, "removes": {}})
    recover(tmp_path / "out")
    assert files_in(tmp_path) == {"out/a": "edited since", "out/b": "planted"}


@pytest.mark.parametrize(
    "moves",
    [
        {"into": "..", "replaces": {"b": None}, "removes": {}},
        {"into": "link", "replaces": {"b": None}, "removes": {}},
        {"into": "out", "replaces": {"../b": None}, "removes": {}},
        {"into": "out", "replaces": {"link/b": None}, "removes": {}},
        {"into": "out", "replaces": {}, "removes": {"../precious": sha256(b"mine").hexdigest()}},
        {"into": "out", "replaces": {}, "removes": {"link/precious": sha256(b"mine").hexdigest()}},
        {"into": ["out"], "replaces": {}, "removes": {}},
        {"into": "out"},
        [],
    ],
)
def test_a_planted_list_of_moves_reaches_nothing_outside_its_folder(tmp_path, moves):
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home, home / "out", outside):
        folder.mkdir()
    (home / "link").symlink_to(outside)
    (home / "out" / "link").symlink_to(outside)
    (outside / "precious").write_text("mine")
    (home / "precious").write_text("mine")
    leave(home, moves)
    recover(home / "out")
    assert files_in(outside) == {"precious": "mine"}
    assert (home / "precious").exists()
    assert sorted(path.name for path in home.iterdir()) == ["link", "out", "precious"]


def leave(home: Path, moves: object) -> None:
    """A scratch folder of a dead writer, with files `a` and `b` and a list of moves."""
    with scratch_folder(home / "x") as made:
        said = (made.path / ABOUT).read_text()
    path = home / "out.partial-0123abcd"
    (path / NEW / "link").mkdir(parents=True)
    for name in ("a", "b", "link/b"):
        (path / NEW / name).write_text("planted")
    (path / ABOUT).write_text(said)
    (path / MOVES).write_text(json.dumps(moves))


def test_a_set_comes_whole_when_an_interrupt_arrives_between_its_moves(tmp_path, monkeypatch):
    (tmp_path / "notes.md").write_text("mine")
    real = os.replace

    def interrupted(*a):
        real(*a)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(scratch.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, a="new", b="new")
    assert files_in(tmp_path) == {"notes.md": "mine", "a.txt": "new", "b.txt": "new"}


def test_the_folder_a_notebook_works_in_stays_the_same_folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for text in ("old", "new"):
        add(folder, a=text)
    assert Path("a.txt").read_text() == "new"
    assert os.path.samefile(".", folder)


def test_a_set_with_nothing_else_in_its_folder_keeps_the_folders_permissions(tmp_path):
    folder = tmp_path / "out"
    add(folder, a="old")
    folder.chmod(0o750)
    before = folder.stat().st_ino
    add(folder, a="new")
    assert folder.stat().st_mode & 0o777 == 0o750
    assert folder.stat().st_ino != before  # exchanged: at no moment is it without, or with half of them


def test_writers_of_one_set_at_once_leave_one_of_theirs(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.md").write_text("mine")
    code = "import sys; from pathlib import Path; import tests.machine.test_scratch as t\n"
    code += "for _ in range(20): t.add(Path(sys.argv[1]), **dict.fromkeys('abcdef', sys.argv[2]))"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out"), name]) for name in "xy"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(set(files_in(tmp_path / "out").values())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_paths_change_places_or_it_is_said_that_they_cannot(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").write_text("x")
    if exchange(tmp_path / "one", tmp_path / "other"):
        assert (tmp_path / "one").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "missing")


def test_a_long_name_and_odd_ones_have_scratch_folders_too(tmp_path):
    for name in ("ü" * 120, "a\nb", "[v2] $(x) 'y'", "x" * 255):
        with new_folder(tmp_path / name) as partial:
            (partial / "a").write_text("new")
        assert files_in(tmp_path / name) == {"a": "new"}


def test_a_link_to_a_folder_or_a_file_stays_a_link(tmp_path):
    with new_folder(tmp_path / "real") as partial:
        (partial / "a").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link") as partial:
        (partial / "a").write_text("new")
    (tmp_path / "file").symlink_to("real/a")
    with new_file(tmp_path / "file") as partial:
        partial.write_text("newer")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "newer"
    assert atomic.names_in(tmp_path / "real") == ["a"]
