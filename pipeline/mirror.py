"""The manifest's picture of the ledgers: `datasets`, `jobs`, `job_status` and `job_counts`.

Derived anew from index and ledgers each time, so the two cannot drift apart.
"""

from __future__ import annotations

from typing import Any

from pipeline.ledger import Attempt
from pipeline.providers.base import JobPhase
from pipeline.workspace import Workspace

PENDING = "pending"
SUBMITTED = "submitted"
RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
EXPIRED = "expired"
DOWNLOADED = "downloaded"


def jobs(workspace: Workspace, slug: str) -> dict[str, Any]:
    """The four blocks for trial *slug*; job names are those of each part's newest attempt, null before it."""
    index = workspace.index(slug)
    names: dict[str, list[str | None]] = {}
    datasets: dict[str, list[str | None]] = {}
    status: dict[str, str] = {}
    counts: dict[str, dict[str, Any]] = {}
    for part in index.parts if index else ():
        last = workspace.ledger(slug, part.part).last
        names.setdefault(part.group, []).append(last.job_id if last else None)
        datasets.setdefault(part.group, []).append(last.input_dataset_id if last else None)
        results = workspace.trial_paths(slug).part(part.part).results
        status[part.part] = DOWNLOADED if results.is_file() else _status(last)
        counts[part.part] = {
            "items_in": part.rows,
            "items_out": last.counts.get("succeeded") if last else None,
            "errors": last.counts.get("failed") if last else None,
        }
    return {"datasets": datasets, "jobs": names, "job_status": status, "job_counts": counts}


def _status(attempt: Attempt | None) -> str:
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
