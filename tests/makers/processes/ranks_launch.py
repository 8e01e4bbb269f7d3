"""Processes of one run on this machine, as `mlx.launch -n N` starts them, but forked and with ports of their own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.makers.processes.forked import Forked

CHILD = "tests.makers.processes.ranks_child"
Process = Forked | subprocess.Popen[str]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def started(size: int, folder: Path, arguments: Sequence[str]) -> list[Forked]:
    """`size` processes of `tests.makers.processes.ranks_child`; what they write lies in `folder`."""
    places: list[dict[str, str]] = [{}]
    if size > 1:
        hosts = folder / f"hosts of {size}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
        places = [{"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)} for rank in range(size)]
    logs = [folder / f"{rank} of {size}.log" for rank in range(size)]
    return [
        Forked(CHILD, arguments, {**os.environ, **place}, out=log, errors=log)
        for place, log in zip(places, logs, strict=True)
    ]


def processes_of(commands: Sequence[Sequence[str]]) -> list[subprocess.Popen[str]]:
    """A process of each command of Python's, which find one another by themselves."""
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]


def ended(processes: Sequence[Process], seconds: float) -> list[tuple[int, str]]:
    """(exit code, all it wrote) of each, which are killed where they take longer than `seconds` together."""
    try:
        found = []
        for process in processes:
            wrote, _ = process.communicate(timeout=seconds)
            assert process.returncode is not None
            found.append((process.returncode, wrote))
        return found
    finally:
        for process in processes:
            process.kill()
