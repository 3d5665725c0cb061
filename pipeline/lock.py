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
from typing import Any

from pipeline import disk, jsonl
from pipeline.errors import DiskTrouble, RunLocked

_LOOK = 0.2  # seconds between a worker's looks for its parent
_NAME_BYTES = 4096  # of the lock's file that are read; a holder's name has about fifty
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


def holder(path: Path) -> dict[str, Any] | None:
    """pid and time of the process that holds the lock at *path*; None when nobody does, or none can be named.

    A name alone proves nothing, since a killed process leaves its own behind. Who ends properly leaves none, and then
    the lock is not tried: even a shared one, held for a moment, could turn away a process that starts just now.
    """
    try:
        with open(path, "rb") as stream:
            if not (named := stream.read(_NAME_BYTES)):
                return None
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _named(named)
    except OSError:
        pass  # no lock was ever taken, or it may not be looked at
    return None


def _named(data: bytes) -> dict[str, Any] | None:
    """What a holder wrote of itself; None while it is just writing it."""
    try:
        me = jsonl.loads(data)
        return {"pid": int(me["pid"]), "since": str(me["since"])}
    except (jsonl.BadJson, KeyError, TypeError, ValueError):
        return None


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
    me = _named(os.pread(descriptor, _NAME_BYTES, 0))
    if me is None or not _is_alive(me["pid"]):
        return "a process that has just started"
    return f"process {me['pid']}, since {me['since']}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
