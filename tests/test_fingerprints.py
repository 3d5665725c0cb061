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


@pytest.fixture
def looking(tmp_path, monkeypatch):
    """Fingerprints that look once at `a/file` and `b/file`, both just looked at; and a clock that can be set."""
    clock = [100.0]
    monkeypatch.setattr(fingerprints.time, "monotonic", lambda: clock[0])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(b"")
    known = Fingerprints(tmp_path)
    known.look_once()
    assert sizes(known) == (0, 0)
    return known, clock


def sizes(known):
    return tuple(known.look(f"{folder}/file").st_size for folder in ("a", "b"))


def grow(tmp_path):
    for folder in ("a", "b"):
        with open(tmp_path / folder / "file", "ab") as stream:
            stream.write(b"x")


def test_a_look_holds_where_nothing_is_at_work(looking, tmp_path):
    known, _ = looking
    grow(tmp_path)
    assert sizes(known) == (0, 0)
    known.work_in("a")
    assert sizes(known) == (1, 0)
    grow(tmp_path)
    assert sizes(known) == (2, 0)
    known.look_again()
    grow(tmp_path)
    assert sizes(known) == (3, 0)  # looked at once more after the work
    grow(tmp_path)
    assert sizes(known) == (3, 0)


def test_a_look_ends_with_work_in_two_places_anywhere_or_of_long(looking, tmp_path):
    known, clock = looking
    grow(tmp_path)
    known.work_in("a")
    known.work_in("b")
    assert sizes(known) == (1, 1)
    grow(tmp_path)
    assert sizes(known) == (2, 2)
    known.look_again()
    assert sizes(known) == (2, 2)
    known.look_anew()
    grow(tmp_path)
    assert sizes(known) == (3, 3)
    known.look_again()
    assert sizes(known) == (3, 3)
    grow(tmp_path)
    known.work_in("a")
    clock[0] += 3600
    known.look_again()
    assert sizes(known) == (4, 4)


def test_an_answer_lives_as_long_as_the_looks_it_follows_from(looking):
    known, clock = looking
    asked = iter(range(99))

    def answers():
        return tuple(known.once(f"{folder}/how many", lambda: next(asked)) for folder in ("a", "b"))

    assert answers() == answers() == (0, 1)
    known.work_in("a")
    assert [answers(), answers()] == [(2, 1), (3, 1)]
    known.look_again()
    assert answers() == answers() == (4, 1)
    known.look_anew()
    assert [answers(), answers()] == [(5, 6), (7, 8)]
    known.look_again()
    assert answers() == answers() == (9, 10)
    known.work_in("a")
    clock[0] += 3600
    known.look_again()
    assert answers() == (11, 12)
