"""A disk that fails on demand, by the seam `disk.observer`, and what must hold after it did."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import disk

FULL, BROKEN, READ_ONLY, QUOTA, FILES = errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EMFILE
ERRORS = [pytest.param(number, id=errno.errorcode[number]) for number in (FULL, BROKEN, READ_ONLY, QUOTA, FILES)]


class FaultyDisk:
    """While entered, records each operation as `OPERATION NAME` and raises at operation number *fail_at* (from 0)."""

    def __init__(self, fail_at: int | None = None, error: int = FULL) -> None:
        self.fail_at = fail_at
        self.error = error
        self.operations: list[str] = []
        self.fired = False

    def __enter__(self) -> "FaultyDisk":
        assert disk.observer is None
        disk.observer = self._observe
        return self

    def __exit__(self, *_: object) -> None:
        disk.observer = None

    def _observe(self, operation: str, path: Path) -> None:
        self.operations.append(f"{operation} {path.name}")
        if len(self.operations) - 1 == self.fail_at:
            self.fired = True
            raise OSError(self.error, os.strerror(self.error))


def operations(action: Callable[[], object]) -> list[str]:
    """What *action* does to the disk, in order."""
    with FaultyDisk() as watched:
        action()
    return watched.operations


def leftovers(folder: Path) -> list[str]:
    """Temporary files anywhere below *folder*."""
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith(".tmp"))
