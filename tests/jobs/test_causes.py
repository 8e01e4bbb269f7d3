"""causes.py: why a process ended is told from what the system says of it and from what it wrote."""

import signal

import pytest

from tunebook.jobs.causes import Evidence, cause_of, tail_of

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
