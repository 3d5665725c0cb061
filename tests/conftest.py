"""What several test modules share. Small on purpose: builders live in the modules named after what they build."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from quick_folder import quick_folder

# With all libraries loaded, looking for garbage as often as Python does by itself is a tenth of the time.
gc.set_threshold(100_000, 50, 50)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """An empty folder for tests that write many small files durably; in memory where there is some."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real questions and answers; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip("the real data sets are not on this machine (TRIALMAKE_SHARED_DATA)")
    return folder
