"""Locks between processes: one writer per run, one pass of the queue at a time.

flock, because it goes away with its process however that dies. A forked child would keep it alive,
so children close their copies at once, and end when the holder is gone: nobody works without the
lock. The lock file holds who has it, for the message of the other.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline import disk, jsonl
from pipeline.errors import DiskTrouble, RunLocked

_LOOK = 0.2  # seconds between a worker's looks for its parent
_REMEDY = "free space on the run's disk, or make its folder writable"

_held: set[int] = set()
_holder_pid = 0  # the process that opened what is in _held
_blocked_before: set[int] = set()  # which signals were, while a child is forked


def _block_signals() -> None:
    """A Ctrl-C while the child forgets the lock would be lost, and leave one that holds it and watches nobody."""
    _blocked_before.update(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)))


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked_before)
    _blocked_before.clear()


def _forget_in_child() -> None:
    if _held:
        # Closing the child's copy leaves the parent's lock alone and lets it end with the parent.
        while _held:
            os.close(_held.pop())
        threading.Thread(target=_end_with, args=(_holder_pid,), daemon=True).start()
    _unblock_signals()


def _end_with(parent: int) -> None:
    """End this process when *parent* is gone, at whatever it is: all that is written is written whole or not at all."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_forget_in_child)


@contextmanager
def only_writer(path: Path, what: str) -> Iterator[None]:
    """Be the one writer of *what* for this block.

    Raises RunLocked naming the holder, at once, or DiskTrouble where no lock can be had.
    """
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLocked(
                f"another process works on {what}: {_holder(descriptor)}.",
                where=str(path),
                kept="Nothing was changed by this one.",
                hint="wait until it ends, or stop it; then run the same command again",
            ) from None
        me = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        with _explained(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, jsonl.dumps(me) + b"\n", 0)
        _hold(descriptor)
        owner = os.getpid()
        try:
            yield
        finally:
            if os.getpid() == owner:
                with suppress(OSError):  # a name that stays behind only makes a message less clear
                    os.ftruncate(descriptor, 0)


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold the lock at *path* for this block, waiting for whoever has it. Raises DiskTrouble where none can be had."""
    with _opened(path) as descriptor:
        _hold(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _hold(descriptor: int) -> None:
    global _holder_pid
    _holder_pid = os.getpid()
    _held.add(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    disk.make_folder(path.parent)
    with _explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    owner = os.getpid()
    try:
        yield descriptor
    finally:
        _held.discard(descriptor)
        # A forked child that leaves this block has it closed already; the number may be another file's by now.
        if os.getpid() == owner:
            os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskTrouble(
            f"cannot be locked ({error.strerror}).",
            where=str(path),
            kept="Nothing was changed or sent.",
            hint=f"{disk.remedy(path, error, _REMEDY)}, then run the same command again",
        ) from error


def _holder(descriptor: int) -> str:
    """Who has the lock; a name that a killed process left there is not the one of who has just taken it."""
    try:
        me = jsonl.loads(os.pread(descriptor, 4096, 0))
        os.kill(int(me["pid"]), 0)
        return f"process {me['pid']}, since {me['since']}"
    except PermissionError:  # another user's, and alive
        return f"process {me['pid']}, since {me['since']}"
    except (jsonl.BadJson, KeyError, TypeError, ValueError, ProcessLookupError):
        return "a process that has just started"
