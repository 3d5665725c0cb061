"""What the emulator remembers of a dataset and of a job: plain values, stored as JSON.

Times are seconds of the virtual clock. Nothing here says what state something is in; that is a
function of the record and the time (`Dataset.is_ready`, `jobs.view`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

# A dataset that is never ready and a job that never moves on: ten years of the virtual clock.
NEVER = 10 * 365 * 86400.0


@dataclass
class StoredFile:
    """A file of a dataset. *object_id* names its bytes in the store; *name* is the client's and never a path."""

    name: str
    object_id: str
    size: int


@dataclass
class Counts:
    """Rows and tokens of a job, as `jobProgress` shows them."""

    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def share(self, part: float) -> Counts:
        """These counts scaled down, for a job that is under way."""
        return Counts(*(int(value * part) for value in asdict(self).values()))


@dataclass
class Dataset:
    """An input dataset, or the output of a job (*source_job* set)."""

    id: str
    created_at: float
    updated_at: float
    example_count: int
    display_name: str = ""
    format: str = "FORMAT_UNSPECIFIED"
    source: str = ""  # which one of the data sources was set at creation, e.g. userUploaded
    source_value: Any = None
    external_url: str = ""
    source_job: str = ""
    registered: dict[str, int] = field(default_factory=dict)  # file name -> announced size, of a signed upload
    files: list[StoredFile] = field(default_factory=list)
    arrived: list[StoredFile] = field(default_factory=list)  # of a signed upload that is not validated yet
    ready_at: float | None = None  # None before an upload ended
    visible_from: float = 0.0  # an output dataset exists from the end of its job on
    switches: dict[str, Any] = field(default_factory=dict)

    def is_ready(self, now: float) -> bool:
        """Whether a job may read it."""
        return self.ready_at is not None and now >= self.ready_at

    def to_json(self) -> bytes:
        """The record as the store keeps it."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes) -> Dataset:
        """The record the store kept."""
        values = orjson.loads(data)
        for key in ("files", "arrived"):
            values[key] = [StoredFile(**file) for file in values[key]]
        return cls(**values)


@dataclass
class Job:
    """A batch inference job: what was asked, its timetable, and what the worker has done for it."""

    id: str
    created_at: float
    expires_at: float
    model: str
    input_dataset: str
    output_dataset: str
    example_count: int  # as declared for the input dataset
    starts: dict[str, float]  # stage -> when it begins, in order
    ends_at: float
    end_state: str
    end_message: str
    share: float  # of the rows that are done at the end
    display_name: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    precision: str = "BF16"
    continued_from: str = ""
    system_prompt: str = ""
    max_job_duration: str = ""
    placement: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)
    validated_at: float | None = None
    error: str = ""  # why validation failed it
    executed_at: float | None = None
    counts: Counts = field(default_factory=Counts)
    touched: dict[str, int] = field(default_factory=dict)  # row fault -> rows it hit
    deleted_at: float | None = None
    gone_at: float | None = None  # when the clean-up after a delete ends

    @property
    def finished_at(self) -> float:
        """When the last stage ends: as planned, or later when the work took longer."""
        return max(self.ends_at, self.executed_at or 0.0)

    @property
    def open(self) -> bool:
        """Whether the worker still has something to do for it."""
        return self.executed_at is None and not self.error and self.deleted_at is None

    def to_json(self) -> bytes:
        """The record as the store keeps it."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        """The record the store kept."""
        values = orjson.loads(data)
        values["counts"] = Counts(**values["counts"])
        return cls(**values)
