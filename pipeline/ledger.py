"""The durable record of what a part asked of the provider: one JSON object a line, fsynced, append only.

An intent is on disk before the first network call of an attempt, with the ids that the attempt will
use; so after a crash at any moment the provider can be asked what became of it. Events in order:

    {"event":"intent","attempt":1,"job_id":"tm-...","input_dataset_id":"...","output_dataset_id":"...",
     "requests_sha256":"...","rows":40,"model":"...","binding":{...},"estimate":{...},"at":"...","crc":"..."}
    {"event":"accepted","attempt":1,"adopted":false,"state":"VALIDATING","at":"...","crc":"..."}
    {"event":"state","attempt":1,"state":"RUNNING","at":"...","crc":"..."}
    {"event":"ended","attempt":1,"state":"COMPLETED","phase":"completed","message":"","counts":{...},...}
    {"event":"collected","attempt":1,"files":{"BIJOutputSet.jsonl":{"sha256":"...","size":812}},"by":"signed links",...}
    {"event":"missing","attempt":1,"tried":["raw files: ...","signed links: ..."],...}
    {"event":"lost","attempt":1,"tried":["raw files: ...","signed links: ..."],...}

`crc` is the CRC-32 of the canonical line without it. A line that does not check (torn by a kill,
edited) is reported and skipped: ids are functions of the content, so what it said is asked again.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import disk, jsonl, schema
from pipeline.errors import Refused
from pipeline.providers.base import Accepted, Binding, Job, JobPhase, Submission

SCHEMA = "ledger.schema"
ID_TAKEN = "ID_TAKEN"  # the recorded state of an attempt whose ids belonged to something else


@dataclass(frozen=True)
class Attempt:
    """One submission of a part, as far as the ledger knows it."""

    number: int
    job_id: str
    input_dataset_id: str
    output_dataset_id: str
    requests_sha256: str
    rows: int
    model: str
    binding: Binding
    estimate: Mapping[str, Any]
    intended_at: datetime
    accepted: bool = False
    adopted: bool = False
    accepted_at: datetime | None = None
    state: str | None = None
    state_at: datetime | None = None  # when the job was first seen in *state*; None when no look of its own said so
    ended: JobPhase | None = None
    message: str = ""
    counts: Mapping[str, int | None] = field(default_factory=dict)
    collected: Mapping[str, Mapping[str, Any]] | None = None
    collected_by: str | None = None
    missing_at: datetime | None = None  # when results were first looked for in vain
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """A part's attempts, oldest first, and the numbers of lines that could not be used."""

    attempts: tuple[Attempt, ...] = ()
    damaged: tuple[int, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the end of an attempt is not known: a job may be running."""
        return any(attempt.ended is None for attempt in self.attempts)

    @property
    def first(self) -> Attempt | None:
        """The attempt that asked for the whole part; None also where the line of its intent is damaged."""
        return self.attempt(1)

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    def attempt(self, number: int) -> Attempt | None:
        """The attempt of this *number*; None where the ledger does not know it."""
        return next((attempt for attempt in self.attempts if attempt.number == number), None)


def read(path: Path) -> Ledger:
    """The ledger at *path*; empty when there is none. Raises UnreadableFile."""
    attempts: dict[int, Attempt] = {}
    damaged: list[int] = []
    try:
        for line in jsonl.lines(path):
            event = _checked(line.data)
            if event is None or not _apply(event, attempts):
                damaged.append(line.number)
    except FileNotFoundError:
        pass
    return Ledger(tuple(attempts[number] for number in sorted(attempts)), tuple(damaged))


def intend(
    path: Path,
    number: int,
    submission: Submission,
    requests_sha256: str,
    binding: Binding,
    estimate: Mapping[str, Any],
    at: datetime | None = None,
) -> None:
    """Record, before any network call, that attempt *number* is about to be submitted under these ids.

    *at* is the time by the caller's clock: a job under these ids that is older was made by somebody else.
    """
    _append(
        path,
        {
            "event": "intent",
            "attempt": number,
            "job_id": submission.job_id,
            "input_dataset_id": submission.input_dataset_id,
            "output_dataset_id": submission.output_dataset_id,
            "requests_sha256": requests_sha256,
            "rows": submission.rows,
            "model": submission.model,
            "binding": {"provider": binding.provider, "account": binding.account, "endpoint": binding.endpoint},
            "estimate": dict(estimate),
        },
        at,
    )


def accept(path: Path, number: int, accepted: Accepted, at: datetime | None = None) -> None:
    """Record that the provider has the job, *at* that time by the caller's clock: its deadline counts from then."""
    job = accepted.job
    event = {"event": "accepted", "attempt": number, "adopted": accepted.adopted, "state": job.state}
    if job.job_id:
        event["job_id"] = job.job_id
    if job.created_at is not None:
        event["remote_created_at"] = job.created_at.isoformat()
    _append(path, event, at)


def observe(path: Path, number: int, state: str, at: datetime | None = None) -> None:
    """Record a change of a running job's state, seen *at* that time by the caller's clock."""
    _append(path, {"event": "state", "attempt": number, "state": state}, at)


def end(path: Path, number: int, job: Job) -> None:
    """Record the state in which a job ended; only after this may another attempt follow."""
    counts = {key: value for key, value in vars(job.counts).items() if value is not None}
    _append(
        path,
        {
            "event": "ended",
            "attempt": number,
            "state": job.state,
            "phase": job.phase.value,
            "message": job.message,
            "counts": counts,
            **({"output_dataset_id": job.output_dataset_id} if job.output_dataset_id else {}),
        },
    )


def collect(path: Path, number: int, files: Mapping[str, Mapping[str, Any]], by: str) -> None:
    """Record which raw files of an attempt are stored; none for a job that left no results."""
    _append(path, {"event": "collected", "attempt": number, "files": dict(files), "by": by})


def miss(path: Path, number: int, tried: list[str], at: datetime) -> None:
    """Record that an attempt's results, or some of them, were not there *at* that time; a later look decides."""
    _append(path, {"event": "missing", "attempt": number, "tried": tried}, at)


def lose(path: Path, number: int, tried: list[str]) -> None:
    """Record that an attempt's results cannot be had any more, with everything that was tried."""
    _append(path, {"event": "lost", "attempt": number, "tried": tried})


def check_binding(attempt: Attempt, binding: Binding, where: str) -> None:
    """Raise Refused when the ledger was begun with another account or endpoint: its jobs would not be found.

    What is empty in the ledger was not known when a run of the earlier tool was taken over.
    """
    if any(
        begun and begun != now
        for begun, now in zip(vars(attempt.binding).values(), vars(binding).values(), strict=True)
    ):
        raise Refused(
            f"was submitted to {_name(attempt.binding)}, but this run now talks to {_name(binding)}.",
            where=where,
            kept="Nothing was sent. The jobs of the ledger are still known.",
            hint="use the account and base URL the run began with, or start a new run",
        )


def _name(binding: Binding) -> str:
    return f"account {binding.account!r} at {binding.endpoint or 'an endpoint that was not recorded'}"


def _append(path: Path, event: dict[str, Any], at: datetime | None = None) -> None:
    event = {**event, "at": (at or datetime.now(UTC)).isoformat(timespec="milliseconds")}
    event["crc"] = _crc(event)
    schema.require_none(schema.problems(event, SCHEMA), "ledger event")
    disk.make_folder(path.parent)
    disk.append_lines(path, [jsonl.dumps(event)])


def _crc(event: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(jsonl.dumps({key: value for key, value in event.items() if key != 'crc'})):08x}"


def _checked(data: bytes) -> dict[str, Any] | None:
    try:
        event = jsonl.loads(data)
    except jsonl.BadJson:
        return None
    return event if isinstance(event, dict) and event.get("crc") == _crc(event) else None


def _apply(event: Mapping[str, Any], attempts: dict[int, Attempt]) -> bool:
    """Fold one event into *attempts*; False when it speaks of an attempt whose intent is missing.

    A job that was seen in a state was accepted, also when the line that said so is damaged: such an
    attempt is polled, never created again.
    """
    number = event["attempt"]
    at = datetime.fromisoformat(event["at"])
    if event["event"] == "intent":
        attempts[number] = Attempt(
            number=number,
            job_id=event["job_id"],
            input_dataset_id=event["input_dataset_id"],
            output_dataset_id=event["output_dataset_id"],
            requests_sha256=event["requests_sha256"],
            rows=event["rows"],
            model=event["model"],
            binding=Binding(**event["binding"]),
            estimate=event["estimate"],
            intended_at=at,
        )
        return True
    if number not in attempts:
        return False
    attempt = attempts[number]
    match event["event"]:
        case "accepted":
            attempt = replace(
                attempt,
                # The service's own word: one that does not take our ids is asked under its own from now on.
                job_id=event.get("job_id", attempt.job_id),
                accepted=True,
                adopted=event["adopted"],
                accepted_at=at,
                state=event["state"],
                lost=(),
            )
        case "state":
            attempt = replace(attempt, accepted=True, state=event["state"], state_at=at)
        case "ended":
            attempt = replace(
                attempt,
                accepted=attempt.accepted or event["state"] != ID_TAKEN,  # where an id was taken there was no job
                state=event["state"],
                ended=JobPhase(event["phase"]),
                message=event["message"],
                counts=event["counts"],
                # The service's own word; of a job that was taken over the intent may not have known it.
                output_dataset_id=event.get("output_dataset_id", attempt.output_dataset_id),
            )
        case "collected":
            attempt = replace(attempt, collected=event["files"], collected_by=event["by"], missing_at=None, lost=())
        case "missing":
            attempt = replace(attempt, missing_at=at)
        case "lost":
            attempt = replace(attempt, lost=tuple(event["tried"]), missing_at=None, collected=None)
    attempts[number] = attempt
    return True
