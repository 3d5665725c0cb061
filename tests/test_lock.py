"""One writer per run, whatever process it is in and however that ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from pipeline import lock
from pipeline.errors import DiskTrouble, RunLocked

HOLD = """
import sys
from pathlib import Path
from pipeline import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "run.lock"


@pytest.fixture
def another(path):
    """Start another process that holds the lock until it is told to end."""
    started = []

    def start(kind="only_writer", *words):
        words = words or (("run r1",) if kind == "only_writer" else ())
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, path, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def is_free(path):
    try:
        with lock.only_writer(path, "run r1"):
            return True
    except RunLocked:
        return False


def test_the_second_process_names_the_first_and_leaves(path, another):
    first = another()
    assert first.stdout.readline() == "held\n"
    before = path.read_bytes()
    with pytest.raises(RunLocked) as refused, lock.only_writer(path, "run r1"):
        pass
    assert f"another process works on run r1: process {first.pid}, since 20" in str(refused.value)
    assert "Nothing was changed by this one." in str(refused.value)
    assert path.read_bytes() == before
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.wait(10) == 0
    assert is_free(path)


def test_a_killed_holder_leaves_the_lock_free(path, another):
    first = another()
    first.stdout.readline()
    assert not is_free(path)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert is_free(path)


def test_the_same_process_cannot_hold_it_twice(path):
    with lock.only_writer(path, "run r1"):
        assert not is_free(path)
    assert is_free(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"pid": 1}'])
def test_a_holder_that_has_not_said_its_name_yet(path, content):
    with lock.only_writer(path, "run r1"):
        path.write_bytes(content)
        with pytest.raises(RunLocked, match="a process that has just started"), lock.only_writer(path, "run r1"):
            pass


@pytest.mark.parametrize("killed", [False, True])
def test_who_held_it_before_is_not_named(path, another, killed):
    """In the moment between taking the lock and writing one's name, the other was told of a process long gone."""
    first = another()
    first.stdout.readline()
    if killed:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    else:
        first.communicate("\n", timeout=10)
    left = path.read_bytes()
    with lock.only_writer(path, "run r1"):
        path.write_bytes(left)
        with pytest.raises(RunLocked, match="a process that has just started"), lock.only_writer(path, "run r1"):
            pass


def test_the_file_says_who_holds_it(path):
    path.parent.mkdir()
    path.write_text("something long that an earlier holder left here, which must not show through")
    with lock.only_writer(path, "run r1"):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()


def test_waiting_takes_its_turn(path, another):
    with lock.waiting(path):
        second = another("waiting")
        assert not is_free(path)
    assert second.stdout.readline() == "held\n"
    assert not is_free(path)


forking = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Child:
    """A fork of this process; it runs *work*, says so, and lives until the parent leaves the block."""

    def __init__(self, work=lambda: None):
        from_child, self._says = os.pipe()
        self._hears, to_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(to_child)
                work()
                os.write(self._says, b".")
                os.read(self._hears, 1)
                code = 0
            finally:
                os._exit(code)
        for descriptor in (self._says, self._hears):
            os.close(descriptor)
        os.read(from_child, 1)
        os.close(from_child)
        self._to_child = to_child

    def end(self):
        """Its exit code."""
        os.close(self._to_child)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@forking
@pytest.mark.parametrize("kind", ["only_writer", "waiting"])
def test_a_forked_child_does_not_keep_the_lock_alive(path, kind):
    """flock lives as long as any copy of its descriptor: a forgotten worker would lock the run for ever."""
    words = ("run r1",) if kind == "only_writer" else ()
    with getattr(lock, kind)(path, *words):
        child = Child()
        assert not is_free(path)
    try:
        assert is_free(path)
    finally:
        assert child.end() == 0


@forking
def test_a_child_that_leaves_the_block_closes_nothing_of_its_own(path, tmp_path):
    """Its copy is closed at the fork, and the number may be another file's by then."""
    block = lock.only_writer(path, "run r1")
    block.__enter__()

    def work():
        mine = [os.open(tmp_path / f"file{n}", os.O_CREAT | os.O_WRONLY) for n in range(3)]
        block.__exit__(None, None, None)
        for descriptor in mine:
            os.fstat(descriptor)

    child = Child(work)
    assert not is_free(path)
    assert child.end() == 0
    assert not is_free(path)
    block.__exit__(None, None, None)
    assert is_free(path)


@pytest.mark.parametrize("kind", ["only_writer", "waiting"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path, kind):
    (tmp_path / "run.lock").mkdir()
    words = ("run r1",) if kind == "only_writer" else ()
    with pytest.raises(DiskTrouble) as trouble, getattr(lock, kind)(tmp_path / "run.lock", *words):
        pass
    assert "run.lock: cannot be locked (Is a directory)." in str(trouble.value)
    assert "Nothing was changed or sent." in str(trouble.value)


def test_a_full_disk_is_told_and_the_lock_is_given_back(path, monkeypatch):
    def pwrite(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskTrouble, match="No space left"), lock.only_writer(path, "run r1"):
        pass
    monkeypatch.undo()
    assert is_free(path)


FORK = """
import os, signal, sys
from pathlib import Path
from pipeline import lock
with lock.only_writer(Path(sys.argv[1]), "run r1"):
    if os.fork() == 0:
        print("working", flush=True)
        while True:
            signal.pause()
    sys.stdin.readline()
"""


def test_a_worker_ends_with_the_holder_of_the_lock(path):
    """A worker that outlived a killed parent would write beside the next holder."""
    with subprocess.Popen([sys.executable, "-c", FORK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"working\n"
        holder.kill()
        assert holder.stdout.read() == b""  # the end of the file comes when the worker, too, is gone
    assert is_free(path)
