"""`.doit.db` is a memory: losing it costs a reading of the files, and it never says anything wrong."""

import os
import random
import sqlite3
import subprocess
import sys

import pytest

from pipeline.errors import DiskTrouble
from pipeline.memory import Memory

KNOWN = {
    **{f"{trial}/results/f{n}": [f"{n:064x}", n, 10**18 + n, 2**62, 2**64 - n] for trial in "ab" for n in range(1, 20)},
    "é|'; drop table x; --": ["a" * 64, 0, 0, 0, 0],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".doit.db"


def write(path, known=KNOWN, forgotten=("build:t",)):
    memory = Memory(path, readonly=False)
    memory.commit(known.items())
    for task in forgotten:
        memory.forget(task)
    memory.close()


def read(path, readonly=True):
    memory = Memory(path, readonly=readonly)
    memory.close()
    return memory


def state(folder):
    """Names, bytes and times of everything in *folder*."""
    return {
        name: (entry.read_bytes() if entry.is_file() else None, entry.stat().st_mtime_ns)
        for name in os.listdir(folder)
        for entry in [folder / name]
    }


@pytest.mark.parametrize("readonly", [True, False])
def test_what_was_committed_is_remembered(path, readonly):
    write(path)
    memory = read(path, readonly)
    assert memory.fingerprints == KNOWN
    assert memory.forgotten == {"build:t"}
    assert memory.set_aside is None


def test_a_file_that_changed_is_remembered_as_it_is_now(path):
    write(path)
    newer = {"b/results/f3": ["b" * 64, 9, 9, 9, 9], "b/results/new": ["c" * 64, 1, 1, 1, 1]}
    write(path, newer, ())
    assert read(path).fingerprints == {**KNOWN, **newer}


def test_a_commit_writes_the_folders_it_is_about_and_no_others(path):
    write(path)
    with sqlite3.connect(path) as connection:
        connection.execute("update folders set crc = 0 where name = 'a'")
    connection.close()
    write(path, {"b/results/new": ["c" * 64, 1, 1, 1, 1]}, ())
    there = {name: facts for name, facts in KNOWN.items() if not name.startswith("a/")}
    assert read(path).fingerprints == {**there, "b/results/new": ["c" * 64, 1, 1, 1, 1]}


def test_the_rows_of_earlier_versions_are_dropped(path):
    """They held one file each; reading them took longer than looking at the files."""
    with sqlite3.connect(path) as connection:
        connection.execute("create table fingerprints (path text, sha256 text)")
        connection.execute("insert into fingerprints values ('a/results/f1', 'x')")
    connection.close()
    assert read(path).fingerprints == read(path, readonly=False).fingerprints == {}
    with sqlite3.connect(path) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    connection.close()
    assert tables == {"folders", "forgotten"}


def test_forgotten_tasks_are_forgiven_when_they_were_done_again(path):
    write(path, {}, ("build:a", "build:b"))
    memory = Memory(path, readonly=False)
    memory.forgive("build:a")
    memory.forgive("build:never forgotten")
    memory.close()
    assert read(path).forgotten == {"build:b"}


# --- looking leaves no trace ----------------------------------------------------------------------


def test_looking_creates_nothing(path):
    memory = read(path)
    assert (memory.fingerprints, memory.forgotten, memory.set_aside) == ({}, set(), None)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("what", ["whole", "damaged", "empty", "folder", "in use", "hot journal"])
def test_looking_changes_nothing(path, what):
    write(path)
    expected = len(KNOWN)
    holder = None
    match what:
        case "damaged":
            path.write_bytes(b"x" * 5000)
            expected = 0
        case "empty":
            path.write_bytes(b"")
            expected = 0
        case "folder":
            path.unlink()
            path.mkdir()
            expected = 0
        case "in use":
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute("begin immediate")
        case "hot journal":
            leave_in_the_middle_of_a_transaction(path)
            expected = None  # a reader may not roll back: it may know nothing, but nothing wrong
    before = state(path.parent)
    memory = read(path)
    assert state(path.parent) == before
    assert memory.set_aside is None
    assert expected is None or len(memory.fingerprints) == expected
    assert memory.fingerprints.items() <= KNOWN.items()
    memory.commit([("new", ["c" * 64, 1, 1, 1, 1])])
    memory.forget("parse:t")
    assert state(path.parent) == before
    if holder:
        holder.close()


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma cache_size = 1")
connection.execute("begin")
rows = [(f"f{n}", b"d" * 100, 0) for n in range(5000)]
connection.executemany("insert or replace into folders values (?, ?, ?)", rows)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_in_the_middle_of_a_transaction(path):
    size = path.stat().st_size
    killed = subprocess.run([sys.executable, "-c", KILLED, path])
    assert killed.returncode == -9
    assert path.with_name(".doit.db-journal").stat().st_size > 0
    assert path.stat().st_size > size, "the transaction did not reach the file: nothing to roll back"


# --- kill and damage ------------------------------------------------------------------------------


def test_a_kill_in_the_middle_leaves_what_was_committed(path):
    write(path)
    leave_in_the_middle_of_a_transaction(path)
    memory = read(path, readonly=False)
    assert memory.set_aside is None
    assert memory.fingerprints == KNOWN


@pytest.mark.parametrize(
    "content",
    [b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 3000, b"{}", None],
    ids=["text", "header", "json", "folder"],
)
def test_a_damaged_memory_is_kept_aside_and_begun_anew(path, content):
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        path.with_name(".doit.db-journal").write_bytes(b"of the damaged one")
    memory = Memory(path, readonly=False)
    memory.commit(KNOWN.items())
    memory.close()
    assert memory.set_aside.name.startswith(".doit.db.damaged.2")
    if content is not None:
        assert memory.set_aside.read_bytes() == content
        assert not path.with_name(".doit.db-journal").exists()
    assert len(read(path).fingerprints) == len(KNOWN)


def test_a_database_of_something_else_is_kept_aside(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table folders (name text)")
    connection.close()
    memory = read(path, readonly=False)
    assert memory.set_aside is not None
    assert memory.fingerprints == {}


@pytest.mark.parametrize("readonly", [True, False])
def test_no_flipped_bit_makes_it_say_something_wrong(tmp_path, readonly):
    """SQLite keeps no checksums. A wrong digest would make intact files look damaged: fetched, even paid, anew."""
    path = tmp_path / "good.db"
    write(path)
    good = path.read_bytes()
    chosen = random.Random(7)
    used = [n for n in range(len(good)) if good[n]]
    for number in range(150 if readonly else 30):
        data = bytearray(good)
        data[chosen.choice(used)] ^= 1 << chosen.randrange(8)
        flipped = tmp_path / f"{number}.db"
        flipped.write_bytes(data)
        memory = read(flipped, readonly)
        assert memory.fingerprints.items() <= KNOWN.items()


# --- trouble is not damage ------------------------------------------------------------------------


def test_a_memory_in_use_is_not_taken_for_a_damaged_one(path, monkeypatch):
    """Locked says nothing about the content: moving it aside would take it from the process that works with it."""
    write(path)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *words, **options: real(*words, timeout=0, **options))
    holder = real(path, isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(DiskTrouble, match="database is locked"):
        Memory(path, readonly=False)
    holder.close()
    assert os.listdir(path.parent) == [".doit.db"]
    assert len(read(path).fingerprints) == len(KNOWN)


def test_a_disk_that_takes_nothing_is_trouble_and_what_was_known_stays(path):
    write(path)
    memory = Memory(path, readonly=False)
    pages = memory._connection.execute("pragma page_count").fetchone()[0]
    memory._connection.execute(f"pragma max_page_count = {pages}")
    more = [(f"new{n}", ["e" * 64, n, n, n, n]) for n in range(1000)]
    with pytest.raises(DiskTrouble) as trouble:
        memory.commit(more)
    memory.close()
    assert "full" in str(trouble.value)
    assert "Artifacts and manifests are not affected." in str(trouble.value)
    assert read(path).fingerprints == KNOWN


def test_a_folder_that_is_not_there_is_trouble(tmp_path):
    with pytest.raises(DiskTrouble, match="unable to open database file"):
        Memory(tmp_path / "nowhere" / ".doit.db", readonly=False)
    assert read(tmp_path / "nowhere" / ".doit.db").fingerprints == {}
