"""Images from a network: only public machines are asked, and none for longer or for more than the limits."""

import io
import socket
import threading
import time

import pytest
from PIL import Image

from tunebook.data import remote_images
from tunebook.data.images import refer
from tunebook.data.reach import Reach, is_public


def here(host):
    return host == "127.0.0.1"


def png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A function that has a machine speak to whoever asks: each piece at once, or a byte every tenth of a second."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    listening, ends = [], threading.Event()

    def serve(*pieces, drips=False):
        door = socket.create_server(("127.0.0.1", 0))
        listening.append(door)

        def speak(guest):
            with guest:
                guest.recv(65536)
                for piece in pieces:
                    for part in [piece[i : i + 1] for i in range(len(piece))] if drips else [piece]:
                        guest.sendall(part)
                        if drips and ends.wait(0.1):
                            return

        def answer():
            while True:
                try:
                    guest, _ = door.accept()
                    speak(guest)
                except OSError:
                    if ends.is_set():
                        return

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{door.getsockname()[1]}/a.png"

    yield serve
    ends.set()
    for door in listening:
        door.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
    ],
)
def test_an_address_that_is_not_of_the_public_internet_is_none(host):
    assert not is_public(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_of_the_public_internet_is_one(host):
    assert is_public(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "localhost", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_asked_however_it_is_written(host, served):
    port = served(OK + b"\r\n" + png()).split(":")[2].split("/")[0]
    with pytest.raises(ValueError, match=r"'a\.png' (is at a machine that is not|could not be fetched)"):
        refer(f"http://{host}:{port}/a.png", remote=True)


def test_a_redirection_is_checked_as_the_first_address_was(served):
    private = "http://169.254.169.254/latest/meta-data/a.png"
    for target in (private, "file:///etc/hostname", "ftp://127.0.0.1/a.png", "//10.0.0.1/a.png"):
        address = served(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        with pytest.raises(ValueError, match=r"not of the public internet|neither http nor https"):
            refer(address, Reach(remote=True, allows=here))


def test_a_redirection_to_an_allowed_machine_is_followed_but_not_for_ever(served):
    address = served(OK + b"Connection: close\r\n\r\n" + png())
    to_it = served(f"HTTP/1.1 301 Moved\r\nLocation: {address}\r\nContent-Length: 0\r\n\r\n".encode())
    assert refer(to_it, Reach(remote=True, allows=here)).source.read_bytes() == png()
    ring = served(b"HTTP/1.1 302 Found\r\nLocation: /again.png\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ValueError, match="from address to address"):
        refer(ring, Reach(remote=True, allows=here))


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"Content-Length: 900\r\n\r\n" + bytes(900),),
        (OK + b"X-Long: " + b"a" * 900,),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 200,),
        (OK + b"\r\n" + bytes(900),),
    ],
    ids=["body", "head", "chunks", "without a length"],
)
def test_a_machine_that_drips_bytes_is_left_when_the_time_is_over(pieces, served, monkeypatch):
    monkeypatch.setattr(remote_images, "SECONDS", 0.6)
    address, began = served(*pieces, drips=True), time.monotonic()
    with pytest.raises(ValueError, match=r"'a\.png' took more than 0\.6 seconds"):
        refer(address, Reach(remote=True, allows=here))
    assert time.monotonic() - began < 5
    assert not remote_images.place_of(address).exists()


def test_a_machine_that_says_nothing_is_left_too(served, monkeypatch):
    monkeypatch.setattr(remote_images, "SECONDS", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as door, pytest.raises(ValueError, match="took more than"):
        refer(f"http://127.0.0.1:{door.getsockname()[1]}/a.png", Reach(remote=True, allows=here))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (OK + b"Connection: close\r\n\r\n" + png()[:45], "damaged or cut short"),
        (OK + b"Content-Length: 5000\r\n\r\n" + png()[:45], "could not be fetched|damaged or cut short"),
        (OK + b"Connection: close\r\n\r\n%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"no HTTP at all\r\n\r\n", "could not be fetched"),
    ],
)
def test_what_is_no_whole_image_is_not_kept(answer, complaint, served):
    address = served(answer)
    with pytest.raises(ValueError, match=complaint):
        refer(address, Reach(remote=True, allows=here))
    assert not remote_images.place_of(address).exists()


@pytest.mark.parametrize("address", ["http://me:word@127.0.0.1/a.png", "http://[::1/a.png", "http://:80/a.png"])
def test_an_address_with_a_password_or_none_at_all_is_refused(address):
    with pytest.raises(ValueError, match="neither http nor https"):
        refer(address, Reach(remote=True, allows=here))
