"""A remembered digest is trusted exactly as long as nothing about the file changed."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
from faulty_disk import operations

from pipeline import disk, fingerprints
from pipeline.errors import UnreadableFile
from pipeline.fingerprints import Fingerprints


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def hashed(monkeypatch):
    """The files that are really read."""
    names = []
    real = hashlib.file_digest

    def digest(stream, name):
        names.append(os.path.basename(stream.name))
        return real(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return names


def test_a_file_is_read_once(path, tmp_path, hashed):
    known = Fingerprints(tmp_path)
    assert [known.sha256(path) for _ in range(3)] == [sha(b"one")] * 3
    assert hashed == ["file"]


def test_memory_handed_over_is_trusted_and_with_deep_it_is_not(path, tmp_path, hashed):
    """The remembered digest is wrong on purpose, to see who is believed."""
    told = {"file": ["f" * 64, *disk.StatKey.of(path.stat())]}
    assert Fingerprints(tmp_path, told).sha256(path) == "f" * 64
    assert hashed == []
    assert Fingerprints(tmp_path, told, deep=True).sha256(path) == sha(b"one")
    assert hashed == ["file"]


@pytest.mark.parametrize("change", ["content", "size", "touched", "replaced", "restored"])
def test_any_change_makes_it_read_again(path, tmp_path, hashed, change):
    os.utime(path, ns=(10**18, 10**18))
    known = Fingerprints(tmp_path)
    known.sha256(path)
    data = b"one"
    match change:
        case "content":
            data = b"two"
            path.write_bytes(data)
        case "size":
            data = b"one more"
            path.write_bytes(data)
        case "touched":
            os.utime(path)
        case "replaced" | "restored":
            other = path.with_name("other")
            other.write_bytes(b"one")
            os.utime(other, ns=(10**18, 10**18))
            other.rename(path)
    assert known.sha256(path) == sha(data)
    assert len(hashed) == 2


def test_a_writer_spares_the_reading(path, tmp_path, hashed):
    known = Fingerprints(tmp_path)
    known.remember(path, disk.write_bytes(path, b"new"))
    assert known.sha256(path) == sha(b"new")
    assert hashed == []
    path.write_bytes(b"not")
    os.utime(path, ns=(1, 1))
    assert known.sha256(path) == sha(b"not")


def test_only_what_is_new_goes_to_the_memory_and_only_once(path, tmp_path):
    known = Fingerprints(tmp_path, {"old": ["a" * 64, 1, 2, 3, 4]})
    known.sha256(path)
    known.sha256(path)
    assert [(name, facts[0]) for name, facts in known.fresh()] == [("file", sha(b"one"))]
    assert list(known.fresh()) == []


def test_names_are_relative_to_the_run_so_that_a_moved_folder_keeps_its_memory(tmp_path):
    root = tmp_path / "run_r"
    (root / "trial").mkdir(parents=True)
    beside = tmp_path / "run_r2"
    beside.write_bytes(b"x")
    (root / "trial" / "f").write_bytes(b"y")
    known = Fingerprints(root)
    known.sha256(root / "trial" / "f")
    known.sha256(beside)
    assert dict(known.fresh()).keys() == {"trial/f", str(beside)}


def test_a_file_beside_the_run_is_found_by_a_relative_path_too(tmp_path, monkeypatch):
    """Question files lie there, and a config in the current folder names them without one."""
    monkeypatch.chdir(tmp_path)
    Path("quiz.jsonl").write_bytes(b"q")
    root = Path("experiments") / "run_r"
    root.mkdir(parents=True)
    (root / "f").write_bytes(b"y")
    known = Fingerprints(root)
    assert known.sha256(Path("quiz.jsonl")) == sha(b"q")
    assert known.sha256(root / "f") == sha(b"y")
    assert dict(known.fresh()).keys() == {"quiz.jsonl", "f"}


def test_looking_writes_nothing(path, tmp_path):
    assert operations(lambda: Fingerprints(tmp_path).sha256(path)) == []


def test_absent_and_unreadable_are_told_apart(tmp_path):
    known = Fingerprints(tmp_path)
    with pytest.raises(FileNotFoundError):
        known.sha256(tmp_path / "none")
    with pytest.raises(UnreadableFile):
        known.sha256(tmp_path)


def test_what_stands_at_a_path(path, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    found = {name: fingerprints.kind(tmp_path / name) for name in (*os.listdir(tmp_path), "none", "file/below", ".")}
    assert found == {
        "file": "file", "link": "symlink", "dangling": "symlink", "fifo": "special", "socket": "special",
        "none": None, "file/below": None, ".": "folder",
    }  # fmt: skip


def test_what_cannot_be_looked_at_is_not_absent(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UnreadableFile):
        fingerprints.kind(loop / "file")


def test_what_was_found_valid_is_remembered_for_this_content_alone(path, tmp_path):
    """The word of one content must not stand for another, nor for the same content in another file."""
    known = Fingerprints(tmp_path)
    assert not known.vouches(path, "a" * 64)
    known.vouch(path, "a" * 64)
    again = Fingerprints(tmp_path, dict(known.fresh()))
    assert again.vouches(path, "a" * 64)
    assert not again.vouches(path, "b" * 64)
    assert not again.vouches(path.with_name("other"), "a" * 64)
    assert again.sha256(path) == sha(b"one")
    assert not Fingerprints(tmp_path, dict(again.fresh()), deep=True).vouches(path, "a" * 64)
