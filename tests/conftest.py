"""What several test modules share. Small on purpose: builders live in the modules named after what they build."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real questions and answers; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip("the real data sets are not on this machine (TRIALMAKE_SHARED_DATA)")
    return folder
