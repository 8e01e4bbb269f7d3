"""causes.py: why a process ended is told from what the system says of it and from what it wrote."""

import signal

import pytest

from tunebook.jobs.causes import Evidence, cause_of, cause_of_launched, cause_of_several, tail_of

METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: {}\n"
)
MEMORY = METAL.format("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)")
WATCHDOG = METAL.format("Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)")
# What Python says behind it, with PYTHONFAULTHANDLER.
FRAMES = 'Fatal Python error: Aborted\n\nThread 0x01 (most recent call first):\n  File "loop.py", line 3 in step\n'
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n{}\n'


def said(code, wrote="", **facts):
    return cause_of(Evidence(**{"code": code, "wrote": wrote, "began": True, **facts}))


@pytest.mark.parametrize(
    ("code", "wrote", "facts", "words", "may_pass"),
    [
        (-signal.SIGABRT, MEMORY + FRAMES, {}, ("Memory ran out on the GPU", "per_device_train_batch_size"), True),
        (-signal.SIGABRT, WATCHDOG + FRAMES, {}, ("display", "gradient_checkpointing"), True),
        (-signal.SIGABRT, "terminate called\n  what():  CUDA error: launch failed\n", {}, ("driver", "launch"), True),
        (-signal.SIGABRT, "terminate called\n  what():  a bug\n", {}, ("aborted: a bug",), True),
        (-signal.SIGKILL, "", {"system_kills": 1}, ("ran out of memory", "per_device_train_batch_size"), True),
        (-signal.SIGKILL, "", {}, ("SIGKILL", "by someone"), True),
        (-signal.SIGSEGV, "", {}, ("crashed (SIGSEGV)", "doctor"), True),
        (-signal.SIGTERM, "", {}, ("asked to end (SIGTERM)",), False),
        (7, "", {}, ("exit code 7",), True),
        (1, TRACEBACK.format("ValueError: row 3 is bad"), {}, ("ValueError: row 3 is bad", "child.err"), False),
        (1, TRACEBACK.format("a.b.DiskFull: x"), {"began": False}, ("DiskFull: x", "before its first"), False),
        (2, "OtherModel: the model differs", {"began": False}, ("before its first step", "the model differs"), False),
        (1, TRACEBACK.format("RuntimeError: " + WATCHDOG), {}, ("display",), True),
        (1, TRACEBACK.format("MemoryError: Memory ran out; lower it"), {}, ("lower it",), False),
        (-signal.SIGKILL, "", {"silence": "idle", "silent_seconds": 3600.0}, ("60 minutes", "hangs"), True),
        (-signal.SIGKILL, "", {"silence": "stopped", "silent_seconds": 120.0}, ("120 seconds", "Pause"), True),
    ],
)
def test_each_end_has_its_sentence(code, wrote, facts, words, may_pass):
    cause = said(code, wrote, **facts)
    assert [word for word in words if word not in cause.sentence] == []
    assert cause.may_pass is may_pass
    assert "\n" not in cause.sentence


def test_only_what_this_process_wrote_is_looked_at(tmp_path):
    file = tmp_path / "child.err"
    file.write_text(MEMORY)
    start = file.stat().st_size
    with file.open("a") as more:
        more.write("nothing much\n")
    assert "driver" not in said(-signal.SIGABRT, tail_of(file, start)).sentence
    assert tail_of(file, start) == "nothing much\n"
    assert tail_of(tmp_path / "none") == ""


RANK = "Rank 1 (studio.local, process 7)"
LOST = TRACEBACK.format("tunebook.train.ranks.group.RankLost: " + RANK + " {}.")
WITHOUT_A_WORD = LOST.format("ended without a word: it was killed")
SILENT = LOST.format("has given no sign of life for 12 seconds: it is stopped")
LEFT = LOST.format("left the run: ValueError: row 3 is bad")
BAD_ROW = TRACEBACK.format("ValueError: row 3 is bad")
DIFFER = TRACEBACK.format("a.RanksDiffer: These processes cannot train one model together")
WARN = (
    "\x1b[33m[WARN] Node with rank 1 exited with code {} \x1b[0m\n\x1b[33m[WARN] Node with rank 0 was killed \x1b[0m\n"
)


@pytest.mark.parametrize(
    ("each", "begins", "words", "may_pass"),
    [
        ([(1, WITHOUT_A_WORD), (-signal.SIGKILL, "")], f"{RANK} went down.", ("killed (SIGKILL)",), True),
        ([(1, WITHOUT_A_WORD), (-signal.SIGABRT, MEMORY)], f"{RANK} went down.", ("Memory ran out",), True),
        ([(1, SILENT), (-signal.SIGKILL, "")], RANK, ("no sign of life for 12 seconds",), True),
        ([(-signal.SIGKILL, ""), (1, SILENT.replace("1 (", "0 ("))], "Rank 0 (studio", ("no sign of life",), True),
        ([(1, LEFT), (1, BAD_ROW)], f"{RANK} went down.", ("ValueError: row 3 is bad",), False),
        ([(1, WITHOUT_A_WORD), (1, WITHOUT_A_WORD)], RANK, ("ended without a word",), True),
        ([(1, DIFFER), (1, DIFFER)], "It failed", ("RanksDiffer",), False),
        ([None, (1, BAD_ROW)], "Rank 1 went down.", ("ValueError",), False),
        ([(70, f"{RANK} is lost. This process ends itself: MLX's engine does not let go of it.")] * 2, RANK, (), True),
        ([(-signal.SIGKILL, "")], "Its process was killed", (), True),
    ],
)
def test_of_several_the_one_that_went_down_is_told_of_by_its_name(each, begins, words, may_pass):
    known = [None if one is None else Evidence(code=one[0], wrote=one[1], began=True) for one in each]
    cause = cause_of_several(known)
    assert cause.sentence.startswith(begins)
    assert [word for word in words if word not in cause.sentence] == []
    assert cause.may_pass is may_pass


@pytest.mark.parametrize(
    ("code", "wrote", "words", "may_pass"),
    [
        (0, WITHOUT_A_WORD + WARN.format(-9), (f"{RANK} went down.", "killed (SIGKILL)"), True),
        (0, BAD_ROW + LEFT + WARN.format(1), (f"{RANK} went down.", "ValueError: row 3 is bad"), False),
        (0, BAD_ROW + WARN.format(1), ("Rank 1 went down.", "ValueError: row 3 is bad"), False),
        (2, "usage: mlx.launch\nmlx.launch: error: the hostfile is malformed", ("the hostfile is malformed",), False),
        (-signal.SIGKILL, "", ("killed (SIGKILL)",), True),
    ],
)
def test_of_those_that_mlx_launch_started_its_words_tell_which_went_down(code, wrote, words, may_pass):
    cause = cause_of_launched(Evidence(code=code, wrote=wrote, began=True))
    assert [word for word in words if word not in cause.sentence] == []
    assert cause.may_pass is may_pass
