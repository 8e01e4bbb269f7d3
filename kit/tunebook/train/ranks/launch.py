"""How several processes are started so that they find one another, as `mlx.launch` does it or by itself.

For processes on this machine an environment each comes out; for several machines the command line of `mlx.launch`,
which logs in there. What a hosts file says goes in, and is looked at before anything is started. No MLX.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

FIRST_PORT, LAST_PORT = 32_323, 33_323  # of which a ring takes some; the first is mlx.launch's own
_EXAMPLE = '[{"ssh": "127.0.0.1", "ips": ["10.0.0.1"]}, {"ssh": "studio.local", "ips": ["10.0.0.2"]}]'


def environments(size: int, hostfile: Path) -> list[dict[str, str]]:
    """What each of `size` processes on this machine finds the others by; writes `hostfile`, which they read."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(size)]
        ports = [each.getsockname()[1] for each in sockets]
    hostfile.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    return [{"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hostfile)} for rank in range(size)]


def threads_of_each(size: int) -> dict[str, str]:
    """The share of this machine's cores that each of `size` processes takes for its products."""
    share = str(max(1, (os.cpu_count() or 1) // size))
    return {name: os.environ.get(name, share) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def read_hosts(path: Path) -> str:
    """What the hosts file of `mlx.launch` at `path` says. Raises ValueError for one by which no run could begin."""
    try:
        content = path.read_text()
        hosts = _hosts(content)
    except OSError as error:
        raise ValueError(f"hosts is {str(path)!r}, which cannot be read ({error.strerror}).") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"hosts is {str(path)!r}, which is no hosts file of mlx.launch ({error}); it is a list with an entry for "
            f"each process, such as {_EXAMPLE}."
        ) from error
    first = hosts[0]
    if not any(_is_here(address) for address in (first["ssh"], *first["ips"])):
        raise ValueError(
            f"The first of the hosts in {path} is {first['ssh']}, which is not this machine: the first process writes "
            'the run, which is looked after from here. Put this machine first, as {"ssh": "127.0.0.1", "ips": [...]}.'
        )
    return content


def count_of(hosts: str) -> int:
    """How many processes there will be by what a hosts file says."""
    return len(_hosts(hosts))


def launching(command: Sequence[str], hostfile: Path) -> list[str]:
    """The command line by which `mlx.launch` starts `command` on every host of `hostfile`."""
    launcher = shutil.which(
        "mlx.launch", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    )
    if launcher is None:
        raise FileNotFoundError("mlx.launch, which comes with MLX, is not beside this Python and not in PATH.")
    port = _free_port(sum(max(1, len(host["ips"])) for host in _hosts(hostfile.read_text())))
    options = ["--hostfile", str(hostfile), "--starting-port", str(port), "--env", "PYTHONUNBUFFERED=1"]
    return [launcher, *options, "--env", "PYTHONFAULTHANDLER=1", "--", *command]


def _hosts(content: str) -> list[dict[str, Any]]:
    """Raises ValueError, KeyError or TypeError, with what is wrong, for what is no hosts file."""
    plain = json.loads(content)
    entries = plain["hosts"] if isinstance(plain, dict) else plain
    if not isinstance(entries, list) or not entries:
        raise ValueError("there is no host in it")
    hosts = [{"ssh": entry["ssh"], "ips": entry.get("ips", [])} for entry in entries]
    for host in hosts:
        if not isinstance(host["ssh"], str) or not all(isinstance(address, str) for address in host["ips"]):
            raise ValueError(f"{host} is no host")
    return hosts


def _is_here(address: str) -> bool:
    """Whether an address or a name is one of this machine's."""
    for family, kind, protocol, _, place in _found(address):
        with socket.socket(family, kind, protocol) as tried:
            try:
                tried.bind((place[0], 0))
            except OSError:
                continue
            return True
    return False


def _found(address: str) -> list[Any]:
    try:
        return socket.getaddrinfo(address.rpartition("@")[2], None, type=socket.SOCK_STREAM)
    except OSError:
        return []


def _free_port(count: int) -> int:
    """The first of so many ports in a row that nobody here listens on; mlx.launch's own where there are none."""
    for first in range(FIRST_PORT, LAST_PORT, count):
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("", port)))
            except OSError:
                continue
            return first
    return FIRST_PORT
