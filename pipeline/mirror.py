"""What the ledgers come to: the manifest's `datasets`, `jobs`, `job_status`, `job_counts`; and `attempts.json`.

Derived anew from index and ledgers each time, so they cannot drift apart. Also what `downloaded` records of a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline import ledger
from pipeline.disk import Digest
from pipeline.ledger import Attempt, Ledger
from pipeline.parts import Index, Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import JobPhase

PENDING = "pending"
SUBMITTED = "submitted"
RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
EXPIRED = "expired"
DOWNLOADED = "downloaded"

ATTEMPTS_VERSION = 1
UNKNOWN = "unknown"  # in a ledger: an id that nothing on disk tells; the provider will not know it either


def jobs(index: Index, paths: TrialPaths) -> dict[str, Any]:
    """The four blocks for a trial; job names are those of each part's newest attempt, null before it."""
    names: dict[str, list[str | None]] = {}
    datasets: dict[str, list[str | None]] = {}
    states: dict[str, str] = {}
    counts: dict[str, dict[str, Any]] = {}
    for part in index.parts:
        files = paths.part(part.part)
        last = ledger.read(files.ledger).last
        names.setdefault(part.group, []).append(_told(last.job_id) if last else None)
        datasets.setdefault(part.group, []).append(_told(last.input_dataset_id) if last else None)
        states[part.part] = DOWNLOADED if files.results.is_file() else status(last)
        counts[part.part] = {
            "items_in": part.rows,
            "items_out": last.counts.get("succeeded") if last else None,
            "errors": last.counts.get("failed") if last else None,
        }
    return {"datasets": datasets, "jobs": names, "job_status": states, "job_counts": counts}


def states(index: Index, paths: TrialPaths) -> dict[str, str]:
    """The block `job_status` alone; of a part whose results are here no ledger is read."""
    return {part.part: _state(paths.part(part.part)) for part in index.parts}


def _state(files: PartPaths) -> str:
    return DOWNLOADED if files.results.is_file() else status(ledger.read(files.ledger).last)


def _told(name: str) -> str | None:
    """*name*, None where the earlier tool left none: the ledger has a word in its place."""
    return None if name == UNKNOWN else name


def attempts(counted: Iterable[tuple[Part, int, Ledger]]) -> dict[str, Any]:
    """`attempts.json` for parts, each with the number of its answered rows and its ledger."""
    return {
        "schema_version": ATTEMPTS_VERSION,
        "parts": [_attempts_of(part, succeeded, book) for part, succeeded, book in counted],
    }


def results(paths: TrialPaths, part: Part, written: Digest, succeeded: int, book: Ledger) -> dict[str, Any]:
    """What `downloaded` records of the `results.jsonl` of *part*, of whose rows *succeeded* have an answer."""
    return {
        "job_key": part.part,
        "path": paths.relative(paths.part(part.part).results),
        "size": written.size,
        "sha256": written.sha256,
        "rows": part.rows,
        "expected_rows": part.rows,
        "attempts": len(book.attempts),
        "missing": part.rows - succeeded,
    }


def _attempts_of(part: Part, succeeded: int, book: Ledger) -> dict[str, Any]:
    return {
        "part": part.part,
        "temp": part.temp,
        "condition": part.condition,
        "rows": part.rows,
        "succeeded": succeeded,
        "failed": part.rows - succeeded,
        "attempts": [
            {
                "attempt": attempt.number,
                "job_id": attempt.job_id,
                "model": attempt.model,
                "rows": attempt.rows,
                "state": attempt.state,
                "counts": dict(attempt.counts),
                "estimate": dict(attempt.estimate),
            }
            for attempt in book.attempts
        ],
    }


def status(attempt: Attempt | None) -> str:
    """The word for how far a part's newest attempt is."""
    if attempt is None or attempt.lost:
        return PENDING
    match attempt.ended:
        case None:
            if not attempt.accepted:
                return PENDING
            return RUNNING if attempt.state == "RUNNING" else SUBMITTED
        case JobPhase.COMPLETED:
            return COMPLETED
        case JobPhase.PARTIAL:
            return EXPIRED
        case _:
            return FAILED
