"""The steps of a run, one module each, in the order the data flows: prepare to archive.

A phase is given paths, settings and its collaborators, writes its own artifacts and says what it
wrote. Phases do not call each other and decide nothing about skipping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.disk import Written


@dataclass(frozen=True)
class Output:
    """A file a phase wrote; *rows* where the format has rows."""

    written: Written
    rows: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a phase did: its files, and the facts the manifest keeps under the names people know."""

    outputs: Mapping[Path, Output]
    artifacts: Mapping[str, Any] = field(default_factory=dict)
