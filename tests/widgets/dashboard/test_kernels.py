"""What the dashboard rests on in a kernel: messages that reach an awaited cell, on more than one ipykernel.

Which messages are heard while a cell runs has changed with every release of ipykernel 7; these tests are to notice.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest

from tests.browser import rehearsal
from tests.widgets.dashboard.kernels import Message, RunningKernel, comm_of_view, is_idle_after, running_kernel

RUN = """
from rehearsal import Rehearsal
from tunebook_widgets import Dashboard
trainer = Rehearsal(steps={steps}, seconds={seconds}, eval_steps=1000)
Dashboard(trainer).show()
print("ended:", await trainer.train_async(), trainer._step)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[RunningKernel]:
    folder = tmp_path_factory.mktemp("kernel")
    shutil.copy(Path(rehearsal.__file__), folder)
    with running_kernel(folder, {"TUNEBOOK_UI": "widget"}) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def releases() -> list[str]:
    """ipykernel's releases, the newest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", "ipykernel", "--disable-pip-version-check"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Available versions: (.*)", asked.stdout)
    if found is None:
        pytest.skip(f"no package registry answers: {(asked.stderr or 'no versions were listed').strip()[-200:]}")
    return found[1].split(", ")


def test_a_stop_reaches_an_awaited_run_from_a_client_that_names_no_subshell(kernel):
    assert _steps_until_stopped(kernel, subshell=None) < 50


@pytest.mark.parametrize("age", [0, 1], ids=["newest", "one-before"])
def test_a_stop_as_jupyterlab_sends_it_reaches_an_awaited_run_on_two_releases_of_ipykernel(releases, tmp_path, age):
    release = releases[age]
    paths = [os.environ.get("PYTHONPATH", "")]
    if release != version("ipykernel"):
        target = tmp_path / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        installed = subprocess.run([*command, f"ipykernel=={release}"], capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"ipykernel {release} could not be installed: {installed.stderr.strip()[-200:]}")
        paths.insert(0, str(target))
    shutil.copy(Path(rehearsal.__file__), tmp_path)
    with running_kernel(tmp_path, {"TUNEBOOK_UI": "widget", "PYTHONPATH": os.pathsep.join(paths)}) as kernel:
        assert _printed(kernel.run("import ipykernel; print(ipykernel.__version__)")) == release
        assert _steps_until_stopped(kernel, subshell=kernel.new_subshell()) < 50


def test_what_a_page_loaded_again_asks_is_answered_while_a_cell_is_awaited_and_the_cell_stays_busy(kernel):
    comm = _begin(kernel, steps=400, seconds=0.02)
    info = kernel.ask("kernel_info_request", {}, seconds=2)
    comms = kernel.ask("comm_info_request", {"target_name": "jupyter.widget"}, seconds=2)
    kernel.press(comm, {"command": "stop"})
    states = [
        message["content"]["execution_state"]
        for message in kernel.watch(seconds=5, until=_says("ended: stopped"))
        if message["msg_type"] == "status"
    ]
    assert info["content"]["status"] == "ok"
    assert comm in comms["content"]["comms"]
    assert states[-1] == "busy"
    assert _printed(kernel.run("print('as before')")) == "as before"


def test_below_a_view_no_page_draws_stands_a_table_until_one_does(kernel):
    comm = _begin(kernel, steps=400, seconds=0.05)
    seen = kernel.watch(seconds=8, until=lambda message: "<table>" in _html(message))
    kernel.press(comm, {"ready": True})
    kernel.watch(seconds=3, until=lambda message: "shown here live" in _html(message))
    kernel.press(comm, {"command": "stop"})
    kernel.watch(seconds=5, until=_says("ended: stopped"))
    assert "of 400" in _html(seen[-1])
    assert seen[-1]["at"] - seen[0]["at"] > 2


def test_where_html_is_asked_for_a_table_is_renewed_at_most_once_a_second(kernel):
    kernel.run("import os; os.environ['TUNEBOOK_UI'] = 'html'")
    messages = kernel.run(RUN.format(steps=50, seconds=0.05))
    kernel.run("os.environ['TUNEBOOK_UI'] = 'widget'")
    tables = [message["header"]["date"].timestamp() for message in messages if "<progress" in _html(message)]
    assert 2 <= len(tables) <= 2 + tables[-1] - tables[0]  # the first stands before any second has passed
    assert min(after - before for before, after in pairwise(tables[1:])) > 0.9
    assert not [message for message in messages if message["msg_type"] == "comm_open"]
    assert "image/png" in [kind for message in messages for kind in message["content"].get("data", {})]


def test_without_anywidget_a_notebook_says_how_to_install_it(kernel):
    block = "import sys; sys.modules['anywidget'] = None\n"
    unblock = "del sys.modules['anywidget']"
    messages = kernel.run(block + RUN.format(steps=3, seconds=0.01))
    kernel.run(unblock)
    assert any("%pip install anywidget" in _html(message) for message in messages)
    assert "ended: finished 3" in _printed(messages)


def _begin(kernel: RunningKernel, *, steps: int, seconds: float) -> str:
    """Start an awaited run and return the comm of its live view, once a step was told of."""
    identity = kernel.client.execute(RUN.format(steps=steps, seconds=seconds))
    opened = kernel.watch(seconds=20, until=lambda message: comm_of_view(message) is not None)
    comm = comm_of_view(opened[-1])
    assert comm is not None
    assert not is_idle_after(opened[-1], identity)
    kernel.watch(
        seconds=10,
        until=lambda message: message["msg_type"] == "comm_msg" and "state" in message["content"]["data"]["state"],
    )
    return comm


def _steps_until_stopped(kernel: RunningKernel, *, subshell: str | None) -> int:
    """Steps of 20 ms a run took that was stopped from the page as soon as it had begun."""
    comm = _begin(kernel, steps=400, seconds=0.02)
    kernel.press(comm, {"command": "stop"}, subshell=subshell)
    told = kernel.watch(seconds=20, until=_says("ended:"))[-1]["content"]["text"]
    kind, steps = re.findall(r"ended: (\w+) (\d+)", told)[0]
    assert kind == "stopped"
    return int(steps)


def _says(words: str):
    return lambda message: message["msg_type"] == "stream" and words in message["content"]["text"]


def _printed(messages: list[Message]) -> str:
    return "".join(each["content"]["text"] for each in messages if each["msg_type"] == "stream").strip()


def _html(message: Message) -> str:
    return message["content"].get("data", {}).get("text/html", "") if "display" in message["msg_type"] else ""
