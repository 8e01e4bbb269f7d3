"""machine/gpu_facts.py: what a report says of a machine, and what it leaves out."""

import socket
from pathlib import Path

import mlx.core as mx
import pytest

from tunebook.machine import gpu_facts as facts
from tunebook.machine.gpu_facts import asked, gpu_facts, refused_allocation, without_names


def test_versions_chip_and_limits_are_there_and_go_into_json():
    found = gpu_facts()
    assert found["versions"]["mlx"] == mx.__version__
    assert found["chip"]["cores"] >= 1
    assert found["chip"]["ram_gb"] > 0.5
    assert set(found["limits"]) <= {"usable_gb", *facts.SHOWN_OF_A_DEVICE}


def test_what_tells_one_card_from_another_is_left_out(monkeypatch):
    metal = {
        "device_name": "Apple Paravirtual device",
        "max_buffer_length": 2**31,
        "uuid": "GPU-1b2c",
        "total_memory": 1,
    }
    monkeypatch.setattr(mx, "device_info", lambda: metal)
    found = gpu_facts()
    assert "GPU-1b2c" not in str(found)
    assert found["limits"]["max_buffer_length"] == 2**31
    assert found["chip"]["is_virtual"]


def test_of_a_linux_kernel_the_release_is_told_and_not_who_built_it(monkeypatch):
    monkeypatch.setattr(facts, "operating_system", lambda: "Linux 6.5.0-14-adas-lab, glibc 2.36 (x86_64)")
    assert gpu_facts()["versions"]["system"] == "Linux 6.5.0, glibc 2.36 (x86_64)"
    monkeypatch.setattr(facts, "operating_system", lambda: "macOS 15.2 (arm64)")
    assert gpu_facts()["versions"]["system"] == "macOS 15.2 (arm64)"


@pytest.mark.parametrize(("value", "relaxed"), [("1", True), ("0", False), (None, False)])
def test_whether_the_watchdog_waits_longer_is_said_and_not_what_the_variable_holds(monkeypatch, value, relaxed):
    monkeypatch.delenv(facts.WATCHDOG, raising=False)
    if value is not None:
        monkeypatch.setenv(facts.WATCHDOG, value)
    assert gpu_facts()["watchdog_relaxed"] is relaxed


@pytest.mark.parametrize(
    "said",
    [
        "[metal::malloc] Attempting to allocate 1125899906842624 bytes which is greater than the maximum allowed "
        "buffer size of 3758096384 bytes.",
        "[malloc] Unable to allocate 1125899906842624 bytes.",
        "cudaMallocAsync(&ptr, size, stream) failed: out of memory",
    ],
)
def test_an_allocation_that_mlx_refuses_is_known_for_what_it_is(said):
    def refuse():
        raise RuntimeError(said)

    assert asked(refuse) == (True, "memory")


def test_an_allocation_that_is_not_refused_or_refused_in_other_words_is_told_too():
    def refuse():
        raise RuntimeError("no")

    assert asked(lambda: None) == (False, None)
    assert asked(refuse) == (True, None)


def test_on_this_machine_a_petabyte_is_refused_or_not_asked_for():
    found = refused_allocation()
    if mx.default_device().type == mx.DeviceType.cpu:
        assert found == {"tried": False, "refused": None, "known": None}
    else:
        assert found == {"tried": True, "refused": True, "known": "memory"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("cannot open /Users/ada/notebooks/a b.py", "cannot open (left out)"),
        ("~/runs/one is gone", "(left out)"),  # a name may hold blanks: rather too much than too little
        (r"C:\Users\ada\x.py", "(left out)"),
        ("in /tmp/x: no", "in (left out): no"),
        ("Linux 6.1, glibc 2.36 (x86_64)", None),
        ("32 tokens/s, 1/2 and 3 / 4", None),
        ("attention: blocks", None),
        ("Apple M3 Max", None),
    ],
)
def test_paths_are_left_out_and_other_text_is_not(said, kept):
    assert without_names({"list": [said, 1, None]}) == {"list": [said if kept is None else kept, 1, None]}


def test_the_user_and_the_host_are_left_out_as_words(monkeypatch):
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "adas-mac.local")
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_names("by ada on adas-mac.local or adas-mac, adapters") == (
        "by (left out) on (left out) or (left out), adapters"
    )
