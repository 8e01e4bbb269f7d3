"""How the processes of a run find one another: each introduces itself over the engine, then all connect to the first.

The lines carry signs of life and a sentence now and then (`watch.py`); nothing of the model or its rows.
"""

import json
import os
import secrets
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .watch import Peer

ANSWER_SECONDS = 20.0  # in which the others connect, and are connected
ONE_SECONDS = 3.0  # for one address of the first process

Exchange = Callable[[Any], list[Any]]  # a plain value of this process -> those of all


class NoLine(RuntimeError):
    """A process cannot be reached by another apart from the engine."""


def introduced(rank: int, exchange: Exchange) -> tuple[Peer, list[tuple[Peer, socket.socket]]]:
    """(this process, the lines it has): to all others for the first, to the first for each of the others.

    Raises NoLine where they cannot be made.
    """
    me = Peer(rank, socket.gethostname(), os.getpid(), _space())
    listener = socket.create_server(("", 0), backlog=128) if rank == 0 else None
    token = secrets.token_hex(16) if rank == 0 else ""
    port = listener.getsockname()[1] if listener is not None else 0
    said = exchange([me.host, me.pid, me.space, token, port, _addresses()])
    peers = [Peer(number, *each[:3]) for number, each in enumerate(said)]
    _, _, _, token, port, addresses = said[0]
    try:
        if listener is not None:
            with listener:
                lines = _accepted(listener, token, peers)
        else:
            lines = [(peers[0], _connected(addresses, port, token, rank))]
    except OSError as error:
        lines, problem = [], f"rank {rank} ({me.host}): {error}"
    else:
        problem = None
    problems = [each for each in exchange(problem) if each is not None]
    if problems:
        raise NoLine(
            f"The processes cannot reach one another beside MLX's engine: {'; '.join(problems)}. They need a free TCP "
            "port of the first one's machine; a firewall may close it."
        )
    return me, lines


def _accepted(listener: socket.socket, token: str, peers: Sequence[Peer]) -> list[tuple[Peer, socket.socket]]:
    listener.settimeout(ANSWER_SECONDS)
    found: dict[int, socket.socket] = {}
    while len(found) < len(peers) - 1:
        connection, _ = listener.accept()
        connection.settimeout(ONE_SECONDS)
        try:
            words = connection.makefile("r", encoding="ascii", errors="replace").readline(200).split()
        except OSError:
            words = []
        if len(words) == 2 and secrets.compare_digest(words[0], token) and words[1].isdecimal():
            found[int(words[1])] = connection
        else:
            connection.close()  # somebody else's
    return [(peers[rank], found[rank]) for rank in sorted(found)]


def _connected(addresses: Sequence[str], port: int, token: str, rank: int) -> socket.socket:
    tried = []
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), timeout=ONE_SECONDS)
            connection.sendall(f"{token} {rank}\n".encode())
        except OSError as error:
            tried.append(f"{address} ({error.strerror or error})")
        else:
            return connection
    raise OSError(f"none of the addresses of rank 0 answers on port {port}: {', '.join(tried)}")


def _addresses() -> list[str]:
    """Where this process may be reached, what the launcher named first."""
    named = []
    if (hosts := os.environ.get("MLX_HOSTFILE")) and (rank := os.environ.get("MLX_RANK")):
        named += _of_hostfile(Path(hosts), int(rank))
    if (address := os.environ.get("NCCL_HOST_IP")) is not None:
        named.append(address)
    if (address := os.environ.get("MLX_JACCL_COORDINATOR")) is not None:
        named.append(address.rpartition(":")[0])
    with suppress(OSError):
        named += socket.gethostbyname_ex(socket.gethostname())[2]
    return [*dict.fromkeys([*named, "127.0.0.1"])]


def _of_hostfile(path: Path, rank: int) -> list[str]:
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        return [str(entry).rpartition(":")[0] for entry in json.loads(path.read_text())[rank]]
    return []


def _space() -> str:
    """Of process ids: this machine's, and on Linux this container's."""
    machine = f"{socket.gethostname()} {uuid.getnode()}"
    with suppress(OSError):
        return f"{machine} {os.readlink('/proc/self/ns/pid')}"
    return machine
