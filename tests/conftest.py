"""What several test modules share. Small on purpose: builders live in the modules named after what they build."""

import gc
import json
import os
import signal
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from quick_folder import quick_folder

from pipeline import yaml_text

# Hundreds of runs begin by freezing the same config, and writing YAML takes longest of what they do then.
_dump = yaml_text.dump


@lru_cache
def _dumped(values: str) -> str:
    return _dump(json.loads(values))


yaml_text.dump = lambda value: _dumped(json.dumps(value))

# With all libraries loaded, looking for garbage as often as Python does by itself is a tenth of the time.
gc.set_threshold(100_000, 50, 50)

# A shell starts its background jobs deaf to Ctrl-C, and so would be every command that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Each file is one worker's; the longest ones come first, as one that starts last keeps the other workers waiting.
_FIRST = (
    *("test_doit", "test_queue_crash", "test_resume_table", "test_report", "test_queue_states", "test_queue_submit"),
    *("test_waiting", "test_legacy", "test_phase_stats", "test_queue_ladder", "test_doit_stops", "test_kills"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files, not the tests within one."""
    items.sort(key=lambda item: _FIRST.index(item.path.stem) if item.path.stem in _FIRST else len(_FIRST))


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
