"""machine/sealed.py: whatever becomes of a file on the disk, it is told from the one that was written."""

import json
import os
import random
import shutil

import pytest

from tunebook.machine import sealed
from tunebook.machine.sealed import Damaged, OpenFile, SealedFolder, seal, sealed_json, unsealed

DOCUMENT = {"progress": {"step": 3, "rates": [[1, 0.5]]}, "loss": float("inf"), "text": "ünï", "none": None}


def test_a_document_comes_back_as_it_was_and_says_that_it_had_a_seal(tmp_path):
    file = tmp_path / "state.json"
    file.write_text(sealed_json(DOCUMENT))
    assert unsealed(file) == (DOCUMENT, True)
    file.write_text(json.dumps(DOCUMENT))
    assert unsealed(file) == (DOCUMENT, False)


def test_no_flipped_bit_of_a_document_gives_another_one(tmp_path):
    """It is refused, or it is one in white space; of the key of the digest, it is a key nobody asked for."""
    file, whole = tmp_path / "state.json", sealed_json(DOCUMENT).encode()
    for place in range(len(whole)):
        for bit in range(8):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                document, is_sealed = unsealed(file)
            except Damaged:
                continue
            assert document == DOCUMENT or (not is_sealed and document.keys() > DOCUMENT.keys())


def test_what_is_no_document_is_damage_of_one_kind(tmp_path):
    file = tmp_path / "state.json"
    for content in (b"", b"[]", b"3", b"null", b"\xff\xfe{}", b"[" * 200_000, b"1" * 10_000, b'{"a": {"b"'):
        file.write_bytes(content)
        with pytest.raises(Damaged, match=r"^state\.json"):
            unsealed(file)
    file.unlink()
    for make in (lambda: None, file.mkdir, lambda: (file.rmdir(), os.mkfifo(file)), lambda: _link(file, "nowhere")):
        make()
        with pytest.raises(Damaged, match=r"^state\.json cannot be read"):
            unsealed(file)


def test_a_document_larger_than_any_that_is_written_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sealed, "MOST_JSON_BYTES", 100)
    (tmp_path / "a.json").write_text(json.dumps({"a": "x" * 200}))
    with pytest.raises(Damaged, match="longer than 100 bytes"):
        unsealed(tmp_path / "a.json")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "entry"
    folder.mkdir()
    generator = random.Random(0)
    (folder / "tokens").write_bytes(generator.randbytes(5000))
    (folder / "facts").write_bytes(generator.randbytes(80))
    seal(folder)
    return folder


def whole(folder):
    opened = SealedFolder(folder)
    opened.check()
    return opened.read("facts"), opened.open("tokens").read(0, 5000)


DAMAGES = {
    "a bit": lambda file, content: file.write_bytes(bytes([content[0] ^ 4]) + content[1:]),
    "a byte more": lambda file, content: file.write_bytes(content + b"\0"),
    "cut": lambda file, content: file.write_bytes(content[:-3]),
    "zeros": lambda file, content: file.write_bytes(bytes(len(content))),
    "empty": lambda file, content: file.write_bytes(b""),
    "gone": lambda file, content: file.unlink(),
    "a folder": lambda file, content: (file.unlink(), file.mkdir()),
    "a pipe": lambda file, content: (file.unlink(), os.mkfifo(file)),
    "a link to nothing": lambda file, content: _link(file, "nowhere"),
    "a link to itself": lambda file, content: _link(file, file.name),
    "another file": lambda file, content: file.with_name("model-2").write_bytes(b"planted"),
}


@pytest.mark.parametrize("name", ["tokens", "facts", "seal.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_with_any_damage_is_no_longer_taken(folder, name, damage):
    before = whole(folder)
    file = folder / name
    DAMAGES[damage](file, file.read_bytes())
    with pytest.raises(Damaged):
        whole(folder)
    assert len(before) == 2


def test_a_folder_copied_or_moved_as_a_whole_is_the_same(folder, tmp_path):
    before = whole(folder)
    (folder / ".DS_Store").touch()  # the Finder's
    shutil.copytree(folder, tmp_path / "copy")
    os.rename(folder, tmp_path / "moved")
    assert whole(tmp_path / "copy") == whole(tmp_path / "moved") == before


def test_a_large_file_is_digested_again_when_it_was_touched_and_not_otherwise(folder, monkeypatch):
    monkeypatch.setattr(sealed, "LARGE_BYTES", 1000)
    read, digest = [], sealed.digest_of_file
    monkeypatch.setattr(sealed, "digest_of_file", lambda path: (read.append(path.name), digest(path))[1])
    SealedFolder(folder).check()
    assert read == ["facts"]
    status = (folder / "tokens").stat()
    content = (folder / "tokens").read_bytes()
    (folder / "tokens").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(folder / "tokens", ns=(status.st_atime_ns, status.st_mtime_ns))  # as copying with times does
    with pytest.raises(Damaged, match="tokens changed"):
        SealedFolder(folder).check()


def test_a_file_cut_short_while_it_is_read_is_an_error_and_not_the_end_of_the_process(folder):
    file = OpenFile(folder / "tokens")
    os.truncate(folder / "tokens", 10)
    with pytest.raises(Damaged, match="was cut short"):
        file.read(4096, 5000)


def test_what_another_user_made_is_not_taken(folder, monkeypatch):
    if os.geteuid() == 0:
        os.chown(folder / "facts", 12345, 12345)
    else:
        monkeypatch.setattr(sealed.os, "geteuid", lambda: 12345)
    with pytest.raises(Damaged, match=r"facts.* belongs to another user"):
        SealedFolder(folder)


def _link(file, target):
    file.unlink(missing_ok=True)
    file.symlink_to(target)
