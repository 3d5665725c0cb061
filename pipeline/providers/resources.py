"""What Fireworks' JSON says, as the queue's own values: jobs, datasets, states, counts, times.

Any field may be missing or null, an integer may be a string of digits, a state may have its short
name, its long one, or one that nobody knows yet. None of that is an error here: an unknown state
is "still running", an unreadable figure is None. What a message may show is made one readable line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.plain import readable
from pipeline.providers.base import Counts, Dataset, Job, JobPhase

Fields = Mapping[str, Any]

# The terminal states of the service's enumeration. Every other name, known (VALIDATING, PENDING,
# CREATING, RUNNING, WRITING_RESULTS, RE_QUEUEING, PAUSED, CANCELLING, ..._CLEANING_UP) or new, is running.
_TERMINAL = {
    "COMPLETED": JobPhase.COMPLETED,
    "EXPIRED": JobPhase.PARTIAL,
    "EARLY_STOPPED": JobPhase.PARTIAL,
    "CANCELLED": JobPhase.PARTIAL,  # never seen for batch jobs; finished rows would be billed, so they are looked for
    "FAILED": JobPhase.FAILED,
    "DELETING": JobPhase.GONE,
    "DELETING_CLEANING_UP": JobPhase.GONE,
    "DELETED": JobPhase.GONE,
    "ARCHIVED": JobPhase.GONE,
}

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")  # as `ledger.schema.json` has it


def phase_of(state: str) -> JobPhase:
    """What a job's *state*, as it is recorded, means for its results."""
    return _TERMINAL.get(state, JobPhase.RUNNING)


def job(fields: Fields) -> Job:
    """A batch inference job resource."""
    state = _state(fields).removeprefix("JOB_STATE_")
    return Job(
        job_id=_id(fields, "name"),
        state=state,
        phase=phase_of(state),
        model=readable(text(fields, "model")),
        input_dataset_id=readable(last_segment(text(fields, "inputDatasetId"))),
        output_dataset_id=_id(fields, "outputDatasetId"),
        message=trouble_of(fields) or readable(text(mapping(fields, "status"), "message")),
        created_at=_time(fields, "createTime"),
        expires_at=_time(fields, "expireTime"),
        counts=_counts(mapping(fields, "jobProgress")),
    )


def dataset(fields: Fields) -> Dataset:
    """A dataset resource."""
    return Dataset(
        dataset_id=readable(last_segment(text(fields, "name"))),
        state=_state(fields),
        created_at=_time(fields, "createTime"),
        source_job_id=readable(last_segment(text(fields, "sourceJobName"))),
    )


def trouble_of(fields: Fields) -> str | None:
    """What a resource's `status` complains about, None when it is content."""
    status = mapping(fields, "status")
    code = text(status, "code").upper()
    if not code or code == "OK" or code.endswith("UNSPECIFIED"):
        return None
    return readable(f"{code}: {text(status, 'message')}")


def integer(fields: Fields, name: str) -> int | None:
    """The count under *name*, also when it is written as a string; None for a negative one."""
    value = fields.get(name)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def text(fields: Fields, name: str) -> str:
    """The string under *name*, empty when there is none."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def mapping(fields: Fields, name: str) -> Fields:
    """The object under *name*, empty when there is none."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def last_segment(name: str) -> str:
    """The id in a resource name, `accounts/A/datasets/ID` or the bare `ID`."""
    return name.rpartition("/")[2]


def _id(fields: Fields, name: str) -> str:
    """The id under *name*, empty when it is none: it goes into the ledger and into paths of requests."""
    found = last_segment(text(fields, name))
    return found if is_id(found) else ""


def is_id(text: str) -> bool:
    """Whether *text* can be the id of a resource, and so a piece of a path."""
    return _ID.fullmatch(text) is not None


def _state(fields: Fields) -> str:
    return readable(text(fields, "state")).upper() or "UNSPECIFIED"


def _counts(progress: Fields) -> Counts:
    # The first total repeats the count declared at upload, the second counts what was read.
    totals = [integer(progress, "totalInputRequests"), integer(progress, "totalProcessedRequests")]
    return Counts(
        total=max((total for total in totals if total is not None), default=None),
        succeeded=integer(progress, "successfullyProcessedRequests"),
        failed=integer(progress, "failedRequests"),
        input_tokens=integer(progress, "inputTokens"),
        output_tokens=integer(progress, "outputTokens"),
        cached_tokens=integer(progress, "cachedInputTokenCount"),
    )


def _time(fields: Fields, name: str) -> datetime | None:
    # Up to nine digits of a second; Python reads six.
    shortened = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text(fields, name))
    try:
        time = datetime.fromisoformat(shortened)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
