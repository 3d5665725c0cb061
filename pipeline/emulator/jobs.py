"""The life of a job as a function of its record and the clock.

    VALIDATING -> PENDING -> CREATING -> RUNNING -> WRITING_RESULTS -> COMPLETED

The timetable is drawn up when the job is created; the worker's real work (validating, answering) can
only delay a step, never hurry one. So nothing has to happen at the right moment for a state to be
right, and an emulator that was dead for a while shows what a service would show by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.records import NEVER, Counts, Job

VALIDATING, PENDING, CREATING, RUNNING, WRITING = "VALIDATING", "PENDING", "CREATING", "RUNNING", "WRITING_RESULTS"
STAGES = (VALIDATING, PENDING, CREATING, RUNNING, WRITING)
COMPLETED, EXPIRED, EARLY_STOPPED, FAILED = "COMPLETED", "EXPIRED", "EARLY_STOPPED", "FAILED"
CANCELLED, DELETING = "CANCELLED", "DELETING_CLEANING_UP"
WITH_RESULTS = (COMPLETED, EXPIRED, EARLY_STOPPED)
TERMINAL = (*WITH_RESULTS, FAILED, CANCELLED)

_PREFIX = "JOB_STATE_"
_STATUS_CODES = {FAILED: "INTERNAL", EXPIRED: "DEADLINE_EXCEEDED", CANCELLED: "CANCELLED"}
_SHARES = dict(zip(STAGES, (0.2, 0.1, 0.1, 0.45, 0.15), strict=True))  # of job_seconds
_TICK = 60.0  # seconds: the real service's steps come on about 60 s ticks


@dataclass(frozen=True)
class Timetable:
    """When each stage begins, when the last one ends, and how."""

    starts: dict[str, float]
    ends_at: float
    end_state: str
    end_message: str
    share: float


@dataclass(frozen=True)
class Progress:
    """What the worker has really done for a job so far: *share* of its rows, with these counts."""

    share: float = 0.0
    counts: Counts = field(default_factory=Counts)

    def by(self, timed: float) -> Counts:
        """The counts to show when *timed* of the planned time has passed: never more than was done."""
        return self.counts.share(timed / self.share) if timed < self.share else self.counts


@dataclass(frozen=True)
class View:
    """A job as a client sees it at one moment."""

    state: str
    state_name: str  # as the wire spells it
    since: float
    code: str = "OK"
    message: str = ""
    percent: int = 0
    counts: Counts = field(default_factory=Counts)
    validated_at: float | None = None
    run_started_at: float | None = None
    ended_at: float | None = None

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to this job."""
        return self.state in TERMINAL


def timetable(
    job_id: str, created_at: float, expires_at: float, durations: Mapping[str, float], switches: Mapping[str, Any]
) -> Timetable:
    """The timetable of a job created now; *switches* are its faults (`faults.py`).

    A job still running when its window closes expires there with what it has. One that never got to
    run waits on: the documentation says an unsupported model may stay pending for ever.
    """
    lasting = dict(durations)
    if stuck := switches.get("stuck"):
        lasting[stuck["in"]] += stuck.get("seconds") or NEVER
    starts, at = {}, created_at
    for stage in STAGES:
        starts[stage] = at
        at += lasting[stage]
    ends_at, end_state, message, share = at, COMPLETED, "", 1.0
    if end := switches.get("end"):
        share, end_state = float(end.get("at", 1.0)), end["state"]
        message = end.get("message", f"job {job_id} ended early")
        ends_at = starts[RUNNING] + lasting[RUNNING] * share
    if starts[RUNNING] < expires_at < ends_at:
        run_share = min(1.0, (expires_at - starts[RUNNING]) / lasting[RUNNING])
        share, end_state, message = min(share, run_share), EXPIRED, "the job's time window has passed"
        ends_at = expires_at
    # Stages that an early end cuts off never begin.
    return Timetable({stage: at for stage, at in starts.items() if at <= ends_at}, ends_at, end_state, message, share)


def durations(job_id: str, job_seconds: float, realistic: bool) -> dict[str, float]:
    """How long each stage lasts: shares of *job_seconds*, or 5 to 9 ticks of 60 s chosen by the job's id."""
    if not realistic:
        return {stage: share * job_seconds for stage, share in _SHARES.items()}
    chance = hashlib.sha256(job_id.encode()).digest()
    ticks = (1, 1, 1 + chance[0] % 2, 1 + chance[1] % 3, 1 + chance[2] % 2)
    return {stage: count * _TICK for stage, count in zip(STAGES, ticks, strict=True)}


def view(job: Job, now: float, progress: Progress | None = None) -> View | None:
    """What a client sees of *job* at *now*, None when it is gone. *progress* tells of work still going on."""
    if job.deleted_at is not None:
        if now >= (job.gone_at or 0.0):
            return None
        return _view(job, DELETING, job.deleted_at)
    if (vanish := job.switches.get("vanish")) and now >= job.starts.get(vanish, job.ends_at):
        return None
    if job.validated_at is None or (stage := _stage(job, now)) == VALIDATING:
        return _view(job, VALIDATING, job.created_at)
    validated_at = max(job.validated_at, job.starts.get(PENDING, job.ends_at))
    if job.error:
        failed = {"code": "INVALID_ARGUMENT", "message": job.error, "ended_at": validated_at}
        return _view(job, FAILED, validated_at, validated_at=validated_at, **failed)
    if stage in (PENDING, CREATING):
        return _view(job, stage, max(validated_at, job.starts[stage]), validated_at=validated_at)
    seen: dict[str, Any] = {"validated_at": validated_at, "run_started_at": job.starts[RUNNING]}
    run_end = job.starts.get(WRITING, job.ends_at)
    if job.executed_at is None or stage == RUNNING:
        if job.executed_at is not None:
            progress = Progress(1.0, job.counts)
        planned = run_end - job.starts[RUNNING]
        timed = min(1.0, (now - job.starts[RUNNING]) / planned) if planned else 1.0
        counts = progress.by(timed) if progress else Counts()
        percent = min(99, int(100 * job.share * min(timed, progress.share))) if progress else 0
        return _view(job, RUNNING, job.starts[RUNNING], percent=percent, counts=counts, **seen)
    seen["counts"] = job.counts
    if stage == WRITING:
        return _view(job, WRITING, run_end, percent=99, **seen)
    code = _STATUS_CODES.get(job.end_state, "OK")
    ended = {"code": code, "message": job.end_message, "percent": int(100 * job.share), "ended_at": job.finished_at}
    return _view(job, job.end_state, job.finished_at, **seen, **ended)


def _stage(job: Job, now: float) -> str:
    if now >= job.ends_at:
        return job.end_state
    return [stage for stage, at in job.starts.items() if now >= at][-1]


def _view(job: Job, state: str, since: float, **more: Any) -> View:
    name = job.switches.get("states", {}).get(state)
    if name is None:
        name = state if job.switches.get("bare_states") else _PREFIX + state
    return View(state, name, since, **more)
