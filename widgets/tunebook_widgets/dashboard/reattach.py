"""A page that is loaded again during a run: have the kernel answer what it asks, so that it finds the live view.

Before JupyterLab shows a widget it asks the kernel `kernel_info_request` and `comm_info_request`. ipykernel 7.4 lets
only messages to widgets through to a cell that is being awaited (`Kernel.shell_main`) and keeps these two until the
cell has ended; the page says "Loading widget..." for as long. While a run is awaited, they are answered at once.
Everything else goes the way it always does. In a synchronous cell nothing is heard, and nothing can be done.
"""

import asyncio
import threading
from typing import Any

from ipykernel._version import version_info
from ipykernel.kernelbase import Kernel

ANSWERED = ("kernel_info_request", "comm_info_request")
FIRST_VERSION = (7, 4)  # of ipykernel: the first to hear widgets in an awaited cell; before, the way in was another


class Reattach:
    """Stands between the kernel's main shell and its messages from `begin` to `end`; both may be called again."""

    def __init__(self):
        self._kernel: Kernel | None = None

    def begin(self) -> None:
        if self._kernel is not None or version_info[:2] < FIRST_VERSION or not Kernel.initialized():
            return
        kernel = Kernel.instance()
        outside = threading.current_thread() is not threading.main_thread()
        if outside or kernel.shell_channel_thread is None:  # None: a kernel inside another program
            return
        self._kernel = kernel
        kernel.shell_channel_thread.manager.set_on_recv_callback(self._receive)

    def end(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.shell_channel_thread.manager.set_on_recv_callback(kernel.shell_main)

    async def _receive(self, subshell_id: str | None, frames: list[Any]) -> None:
        kernel = Kernel.instance()
        if subshell_id is None and kernel._main_asyncio_lock.locked():
            session: Any = kernel.session
            identities, parts = session.feed_identities(frames, copy=False)
            # Only looked at: a message that is deserialized twice is refused as a replay of itself.
            if session.unpack(parts[1].bytes)["msg_type"] in ANSWERED:  # signature, header, ...
                await _answer(kernel, identities, session.deserialize(parts, content=True, copy=False))
                return
        await kernel.shell_main(subshell_id, frames)


async def _answer(kernel: Kernel, identities: list[bytes], message: dict[str, Any]) -> None:
    """Reply, and publish the `idle` a page waits for; then `busy` again, for the cell is still running."""
    stream = kernel.shell_channel_thread.manager.get_subshell_to_shell_channel_socket(None)
    running = kernel.get_parent("shell")
    kernel._publish_status("busy", "shell", parent=message)
    await asyncio.ensure_future(kernel.shell_handlers[message["header"]["msg_type"]](stream, identities, message))
    kernel._publish_status("idle", "shell", parent=message)
    kernel._publish_status("busy", "shell", parent=running)
