"""Processes of one run on this machine, as `mlx.launch -n N` starts them, but with ports of their own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def started(size: int, folder: Path, command: Sequence[str], **environment: str) -> list[subprocess.Popen[str]]:
    """`size` processes of `command`, in Python; their output is read by whoever waits for them."""
    variables = {**os.environ, **environment}
    if size == 1:
        return [_process(command, variables)]
    hosts = folder / f"hosts of {size}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
    return [_process(command, {**variables, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}) for rank in range(size)]


def processes_of(commands: Sequence[Sequence[str]]) -> list[subprocess.Popen[str]]:
    """A process of each command, which find one another by themselves."""
    return [_process(command, dict(os.environ)) for command in commands]


def ended(processes: Sequence[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str]]:
    """(exit code, all it wrote) of each, which are killed where they take longer than `seconds` together."""
    try:
        found = []
        for process in processes:
            wrote, _ = process.communicate(timeout=seconds)
            found.append((process.returncode, wrote))
        return found
    finally:
        for process in processes:
            process.kill()


def _process(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
