"""Pushing to the hub, in a child process against a server of our own that keeps what it is sent."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.export.hub_server import FakeHub
from tests.makers.tiny import tiny_model_folder

TOKEN = "hf_averysecrettoken0123456789"

CHILD = """
import json, sys
from hashlib import sha256
from pathlib import Path

from tunebook import FastModel
from tunebook.export import hub

sent = {}
plain = hub.HfApi.upload_folder

def upload_folder(api, *, folder_path, **options):
    for path in Path(folder_path).rglob("*"):
        sent[str(path.relative_to(folder_path))] = sha256(path.read_bytes()).hexdigest()
    return plain(api, folder_path=folder_path, **options)

hub.HfApi.upload_folder = upload_folder
model, _ = FastModel.from_pretrained(sys.argv[1], max_seq_length=128)
FastModel.get_peft_model(model, r=4)
said = []
for name, repository, options in json.loads(sys.argv[2]):
    sent.clear()
    try:
        address = getattr(model, name)(repository, token=sys.argv[3], **options)
        said.append({"address": address, "sent": dict(sent)})
    except (ValueError, ConnectionError, RuntimeError) as error:
        said.append({"error": f"{type(error).__name__}: {error}", "sent": dict(sent)})
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the child lives: its home, its scratch folder, its base model."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model_folder(folder / "private-place" / "little")
    return folder


def push(place, hub, *calls):
    """(what each call returned or raised, everything the child wrote to its terminal)."""
    (place / "tmp").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(place / "hf"),
        "HOME": str(place),
        "TMPDIR": str(place / "tmp"),
        "HF_HUB_DISABLE_XET": "1",  # the server speaks LFS, which every client falls back to
        "no_proxy": "127.0.0.1",
    }
    environment.pop("HF_TOKEN", None)
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(place / "private-place" / "little"), json.dumps(calls), TOKEN],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.fixture(scope="module")
def pushed(place):
    """(the server, what was said, what was printed) of one push of each kind."""
    calls = [
        ("push_to_hub", "ada/tuned", {}),
        ("push_to_hub", "ada/tuned", {"format": "peft"}),
        ("push_to_hub_merged", "ada/tuned", {"save_method": "merged_8bit"}),
        ("push_to_hub_gguf", "ada/tuned", {"quantization_method": ["f16"]}),
        ("push_to_hub", "ada/for-all", {}),
    ]
    with FakeHub({"ada/for-all": False}) as hub:
        yield hub, *push(place, hub, *calls)


def test_the_files_the_hub_received_are_byte_for_byte_those_exported(pushed):
    hub, said, _ = pushed
    received = {name: hashlib.sha256(content).hexdigest() for name, content in hub.files.items()}
    sent = {}
    for call in said[:4]:
        assert call["address"] == f"{hub.address}/ada/tuned", call
        sent |= call["sent"]
    assert received == sent
    assert {"adapters.safetensors", "adapter_model.safetensors", "model.safetensors", "little.f16.gguf"} <= set(sent)
    assert {"README.md", "tokenizer.json", "little.f16.Modelfile"} <= set(sent)


def test_the_token_is_in_the_headers_and_nowhere_on_the_disk_or_the_screen(pushed, place):
    hub, _, printed = pushed
    assert ("POST", "/api/repos/create", f"Bearer {TOKEN}") in hub.calls
    assert TOKEN not in printed
    files = [path for path in place.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert not [name for name, content in hub.files.items() if TOKEN.encode() in content]
    assert not list((place / "tmp").glob("tunebook-*/*"))


def test_a_repository_is_private_unless_asked_otherwise(pushed):
    assert pushed[0].private["ada/tuned"] is True


def test_nothing_that_is_pushed_names_a_folder_of_this_machine(pushed):
    for name, content in pushed[0].files.items():
        assert b"private-place" not in content, name
    assert "ada/tuned" in pushed[0].files["README.md"].decode()


def test_a_repository_that_is_public_already_gets_nothing_that_was_to_be_private(pushed):
    hub, said, _ = pushed
    assert "ada/for-all exists and is public, and private=True was asked for" in said[4]["error"]
    assert not said[4]["sent"]
    assert not [path for _, path, _ in hub.calls if "for-all" in path and ("preupload" in path or "commit" in path)]
