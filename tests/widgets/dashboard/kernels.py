"""A kernel driven as a front end drives it: code and widget messages in, what it publishes out, each with its time."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

Message = dict[str, Any]


@dataclass
class RunningKernel:
    client: BlockingKernelClient

    def start(self, code: str) -> None:
        """Have a cell executed; `watch` sees what comes of it."""
        self.client.execute(code)

    def watch(self, *, seconds: float, until: Callable[[Message], bool] = lambda _: False) -> list[Message]:
        """What the kernel publishes until one message is as wanted. Raises TimeoutError when none is in time."""
        seen: list[Message] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.1)
            except Empty:
                continue
            message["at"] = time.monotonic()
            seen.append(message)
            if message["msg_type"] == "error":
                raise RuntimeError("\n".join(message["content"]["traceback"]))
            if until(message):
                return seen
        raise TimeoutError(
            f"Not seen within {seconds} s; the last messages: {[each['msg_type'] for each in seen[-9:]]}"
        )

    def run(self, code: str, *, seconds: float = 30) -> list[Message]:
        """Everything a cell publishes until it is done."""
        identity = self.client.execute(code)
        return self.watch(seconds=seconds, until=lambda message: is_idle_after(message, identity))

    def ask(self, kind: str, content: Mapping[str, Any], *, seconds: float) -> Message:
        """Send a request and return its reply. Raises queue.Empty when there is none in time."""
        request = self.client.session.msg(kind, dict(content))
        self.client.shell_channel.send(request)
        while True:
            reply = self.client.get_shell_msg(timeout=seconds)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return reply

    def press(self, comm: str, content: Mapping[str, Any], *, subshell: str | None = None) -> None:
        """Send what a page's `model.send(content)` sends; JupyterLab names a subshell in it, other clients do not."""
        data = {"method": "custom", "content": dict(content)}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def new_subshell(self) -> str:
        request = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(request)
        return self.client.get_control_msg(timeout=10)["content"]["subshell_id"]


@contextmanager
def running_kernel(folder: Path, environment: Mapping[str, str]) -> Iterator[RunningKernel]:
    """A Python kernel in `folder`, with `environment` added to ours; it is stopped when the block ends."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, **environment}, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield RunningKernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def is_idle_after(message: Message, identity: str) -> bool:
    """Whether a message says that the request of this id has been dealt with."""
    is_status = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
    return is_status and message["parent_header"].get("msg_id") == identity


def comm_of_view(message: Message) -> str | None:
    """The id of the live view a message opens; None for another message."""
    if message["msg_type"] != "comm_open":
        return None
    state = message["content"]["data"].get("state", {})
    return message["content"]["comm_id"] if "sealed" in state or "_esm" in state else None
