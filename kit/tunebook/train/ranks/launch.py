"""The environment each of several processes is started with, as `mlx.launch` sets it for the ring: a number, a list.

For processes on this machine. For several machines there is `mlx.launch` itself, which logs in there.
"""

import json
import socket
from contextlib import ExitStack
from pathlib import Path


def environments(size: int, hostfile: Path) -> list[dict[str, str]]:
    """What each of `size` processes on this machine finds the others by; writes `hostfile`, which they read."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(size)]
        ports = [each.getsockname()[1] for each in sockets]
    hostfile.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    return [{"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hostfile)} for rank in range(size)]
