"""Images from the network, for who asks for them: an address goes in, a file in the cache folder comes out.

Each address is fetched once, within a limit of size and of time for the whole of it, and kept only when what came is an
image. Only machines of the public internet are asked, whatever a name or a redirection says; no proxy, no cookie and no
password is sent.
"""

import hashlib
import socket
import ssl
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO, final
from urllib.parse import SplitResult, urljoin, urlsplit

from ..machine import runtime
from ..machine.private import make_private_folder, new_private_file
from ..machine.sealed import Damaged, digest_of_file, is_own, read_bytes
from .decoders import BadImage, check_whole
from .reach import Allows

FOLDER = "images"
MOST_BYTES = 50_000_000
SECONDS = 30  # for one image, all in all
CHUNK = 1 << 16  # bytes read at once
REDIRECTIONS = 5
REDIRECTING = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}


def is_address(reference: str) -> bool:
    """Whether this is an address of some kind rather than a path."""
    return "://" in reference


def base_name(reference: str) -> str:
    """The last piece of a path or an address: what a message may show of it."""
    try:
        path = urlsplit(reference).path if is_address(reference) else reference
    except ValueError:  # brackets that are none of an IPv6 address
        path = reference
    return PurePosixPath(path).name[:80]


def place_of(address: str) -> Path:
    """The file that `address` is kept in once it was fetched."""
    return runtime.cache_folder() / FOLDER / hashlib.sha256(address.encode()).hexdigest()[:32]


def fetched(address: str, allows: Allows) -> Path:
    """The file of an http or https address, fetched unless it is there as it was fetched. Its owner alone can read it.

    `allows` is asked about every machine before it is, those a redirection leads to among them. Raises ValueError,
    naming the file and not its host, for any other address and for what is too large, too slow, not allowed, not there
    or no image.
    """
    place, name = place_of(address), base_name(address)
    if _is_whole(place):
        return place
    try:
        make_private_folder(place.parent)
        with new_private_file(place) as partial:
            with partial.open("wb") as file:
                _Transfer(name, allows).copy(address, file)
            check_whole(partial)
            digest = digest_of_file(partial)
        with new_private_file(_digest_file(place)) as partial:
            partial.write_text(digest)
    except BadImage as error:
        raise ValueError(f"what its image {name!r} has at its address cannot be opened: it {error}.") from None
    except TimeoutError:
        raise ValueError(
            f"its image {name!r} took more than {SECONDS} seconds; download it and give its path."
        ) from None
    except (OSError, HTTPException) as error:  # no host, no answer
        raise ValueError(f"its image {name!r} could not be fetched ({type(error).__name__}).") from None
    return place


@final
class _Transfer:
    """One image on its way, with all its redirections, until its time is over."""

    def __init__(self, name: str, allows: Allows):
        self._name, self._allows = name, allows
        self._deadline = time.monotonic() + SECONDS

    def copy(self, address: str, file: BinaryIO) -> None:
        """Write what is at `address` to `file`. Raises ValueError, TimeoutError, OSError or HTTPException."""
        for _ in range(REDIRECTIONS + 1):
            next_address = self._answered(_parts(address, self._name), file)
            if next_address is None:
                return
            address = urljoin(address, next_address)
        raise ValueError(f"its image {self._name!r} leads from address to address; download it and give its path.")

    def _answered(self, parts: SplitResult, file: BinaryIO) -> str | None:
        """Write the answer of a machine to `file`, or return where it redirects to."""
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme.lower()]
        reached = socket.create_connection((self._checked(host, port), port), timeout=self._seconds_left())
        # A time for each read would begin anew with every byte, in the head and the handshake as well.
        grip = reached.dup()
        hanging_up = threading.Timer(self._seconds_left(), grip.shutdown, [socket.SHUT_RDWR])
        hanging_up.daemon = True
        connection = HTTPConnection(host, port)
        try:
            hanging_up.start()
            connection.sock = reached
            if parts.scheme.lower() == "https":
                connection.sock = ssl.create_default_context().wrap_socket(reached, server_hostname=host)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"User-Agent": "tunebook", "Accept": "image/*"})
            with connection.getresponse() as answer:
                if answer.status in REDIRECTING:
                    return answer.headers.get("Location", "")
                self._copy(answer, file)
        except (OSError, HTTPException):
            self._seconds_left()
            raise
        finally:
            hanging_up.cancel()
            grip.close()
            reached.close()
            connection.close()
        self._seconds_left()
        return None

    def _checked(self, host: str, port: int) -> str:
        """The address to connect to, and no other: a name may mean another machine when it is asked for again."""
        found = [str(where[0]) for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not all(map(self._allows, found)):
            raise ValueError(
                f"its image {self._name!r} is at a machine that is not of the public internet; download it and give "
                "its path."
            )
        return found[0]

    def _copy(self, answer: HTTPResponse, file: BinaryIO) -> None:
        if answer.status != 200:
            raise ValueError(f"its image {self._name!r} could not be fetched (HTTP status {answer.status}).")
        size = 0
        while chunk := answer.read(CHUNK):
            size += len(chunk)
            if size > MOST_BYTES:
                raise ValueError(
                    f"its image {self._name!r} is larger than {MOST_BYTES / 1e6:.0f} MB; download it and scale it."
                )
            file.write(chunk)

    def _seconds_left(self) -> float:
        """Raises TimeoutError where there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _parts(address: str, name: str) -> SplitResult:
    """The address in its parts. Raises ValueError for one of neither http nor https, or with a password in it."""
    try:
        parts = urlsplit(address)
        if parts.scheme.lower() in PORTS and parts.hostname and parts.username is None and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError(f"its image {name!r} is an address of neither http nor https; download it and give its path.")


def _digest_file(place: Path) -> Path:
    return place.with_suffix(".sha256")


def _is_whole(place: Path) -> bool:
    """Whether `place` is there, and what was fetched; version 0.1 kept no digest to tell by."""
    try:
        if not place.is_file() or not is_own(place):
            return False
        digest = _digest_file(place)
        return not digest.exists() or read_bytes(digest, most=64).decode("ascii", "replace") == digest_of_file(place)
    except Damaged:
        return False
