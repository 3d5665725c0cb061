"""An empty folder in memory, where there is some: hundreds of fsyncs of small files would wait for a disk."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GOING = 10.0  # seconds in which an emulator whose owner was stopped is gone, even on a loaded machine
_FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def quick_folder() -> Iterator[Path]:
    """The folder; it is gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="trialmake-test-", dir=_FAST_DISK))
    try:
        yield folder
    finally:
        end = time.monotonic() + _GOING
        while folder.exists() and time.monotonic() < end:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                time.sleep(0.1)
    assert not folder.exists(), "something still writes there"
