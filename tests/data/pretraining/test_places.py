"""Where the images of documents may be: in their folder, or at an address where that is allowed."""

import http.server
import threading

import pytest

from tests.data.pretraining.documents import DOG, encoded, with_this_machine
from tests.makers.tiny_vision import noise_images
from tunebook.data import images, remote_images


def test_a_path_or_a_link_may_not_lead_out_of_the_folder(folder, tmp_path):
    noise_images(1)[0].save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "inside.png").symlink_to(folder / "0.png")
    for value in ("../outside.png", str(tmp_path / "outside.png"), "link.png", "sub/../../outside.png"):
        with pytest.raises(ValueError, match=r"'(outside|link)\.png' lies outside") as error:
            images.refer(value, folder=folder)
        assert str(tmp_path) not in str(error.value)
    for value in ("0.png", "inside.png", str(folder / "0.png"), "sub/../0.png"):
        assert images.size_of(images.refer(value, folder=folder)) == (40, 40)


@pytest.fixture
def server(folder, monkeypatch, tmp_path):
    """The address of `folder`, and the paths it was asked for."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_is_fetched_once_and_only_when_that_is_allowed(model, folder, server):
    address, asked = server
    rows = [{"text": "a <image> dog", "images": [f"{address}/0.png?key=secret"]}]
    with pytest.raises(ValueError, match=r"'0\.png' is an address"):
        encoded(model, rows, folder)
    assert asked == []
    for _ in range(2):
        [row] = encoded(model, rows, folder, reach=with_this_machine(folder)).rows
    assert asked == ["/0.png?key=secret"]
    [local] = encoded(model, [DOG], folder).rows
    assert row.tokens.tolist() == local.tokens.tolist()
    assert images.opened(row.images[0]).tobytes() == images.opened(local.images[0]).tobytes()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("gone.png", r"'gone\.png' could not be fetched"), ("page.png", "a page of HTML"), ("2.png", "larger than 0 MB")],
)
def test_what_cannot_be_fetched_is_reported_and_not_kept(folder, server, monkeypatch, path, complaint):
    (folder / "page.png").write_text("<html></html>")
    if path == "2.png":
        monkeypatch.setattr(remote_images, "MOST_BYTES", 100)
    address, _ = server
    with pytest.raises(ValueError, match=complaint) as error:
        images.refer(f"{address}/{path}", with_this_machine())
    assert address not in str(error.value)
    assert not remote_images.place_of(f"{address}/{path}").exists()


@pytest.mark.parametrize("address", ["file:///etc/hostname.png", "ftp://host/a.png"])
def test_only_http_is_fetched(address):
    with pytest.raises(ValueError, match="neither http nor https"):
        images.refer(address, remote=True)
