"""An empty folder in memory, where there is some: hundreds of fsyncs of small files would wait for a disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def quick_folder() -> Iterator[Path]:
    """The folder; it is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="trialmake-test-", dir=_FAST_DISK) as folder:
        yield Path(folder)
