"""Turn every past shape of a trial's manifest into version 2: a numbered list of pure functions.

    age 0   results/run_manifest.json, flat: model_id, temps, jobs {"t0_control": "id" or ["id", ...]}, ...
    age 1   trial_manifest.json with trial{model_id, prompt_set, ...}, created_utc, run_id
    age 2   the same; lists always, job_status, null for a job that was never made
    age 3   version 2 of the earlier tool: timestamps and stage_status, but no checksum

A step takes a document of its age or of a later one, which it leaves as it is; so an upgrade may be
repeated, and a key that no step knows stays where it was. What the stages are worth is not decided
here: `evidence.py` looks at the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import graph, manifest, schema, sealed
from pipeline.errors import DamagedArtifact
from pipeline.manifest import Stage

SCHEMA = "trial_manifest.v1"

Document = dict[str, Any]

_IDENTITY = ("model_id", "prompt_set", "top_p", "top_k", "max_new_tokens")
_BLOCKS = frozenset({"temps", "prompts", "datasets", "jobs", "job_status"})  # null says no more than their absence
_STAGE_STATUS = frozenset({"pending", "in_progress", "completed", "stopped", "failed"})
_JOB_STATUS = frozenset({"pending", "submitted", "running", "completed", "failed", "expired", "downloaded"})
_PART = re.compile(r"(.+)_p([0-9]{1,5})")  # a longer number is none: lists are made as long as it says
_ZONED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})")


def upgrade(document: Mapping[str, Any], *, run_id: str, created_at: str) -> Document:
    """*document* as a version-2 manifest that is still to be sealed.

    *run_id* and *created_at* (ISO 8601) stand in where an old record has none. Raises DamagedArtifact
    when the document is no manifest of any age.
    """
    if document.get("schema_version", 1) == 1:
        _refuse_invalid(schema.problems(document, SCHEMA))
    upgraded = {key: value for key, value in document.items() if value is not None or key not in _BLOCKS}
    upgraded.pop(sealed.CHECKSUM, None)  # of an older content
    upgraded["run_id"] = upgraded.get("run_id") or run_id
    try:
        for step in STEPS:
            upgraded = step(upgraded)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A version 2 has no schema of its own for its past shape: a known key holds something of another kind.
        raise DamagedArtifact(f"no manifest of any age ({error}).") from error
    times = upgraded["timestamps"]
    created = times["created_at"] or created_at
    upgraded["timestamps"] = {**times, "created_at": created, "updated_at": times["updated_at"] or created}
    _refuse_invalid(schema.problems(sealed.sealed(upgraded), manifest.SCHEMA))
    return upgraded


def salvage(document: Mapping[str, Any], *, run_id: str, created_at: str) -> Document:
    """The upgrade of those keys of an older manifest that can be upgraded by themselves; empty when none names a trial.

    Each is held against the schema of version 1, as far as that knows it, and against that of version 2.
    """

    def sound(key: str) -> bool:
        try:
            upgrade({"jobs": {}, "model_id": "-", key: document[key]}, run_id=run_id, created_at=created_at)
        except DamagedArtifact:
            return False
        return True

    try:
        kept = {key: value for key, value in document.items() if sound(key)}
        return upgrade({"jobs": {}, **kept}, run_id=run_id, created_at=created_at)
    except DamagedArtifact:
        return {}


def part_name(group: str, number: int) -> str:
    """The key of part *number* (from 1) of *group*, as the earlier tool counted: at least two digits."""
    return group if _PART.fullmatch(group) else f"{group}_p{number:02d}"


def part_names(group: str, jobs: Collection[str | None]) -> list[str]:
    """The keys of the parts whose *jobs* stand under *group*."""
    return [part_name(group, number) for number in range(1, len(jobs) + 1)]


def group_of(part: str) -> tuple[str, int]:
    """The group and number of a part's key; the oldest keys have no number and mean the first part."""
    found = _PART.fullmatch(part)
    return (found[1], int(found[2])) if found else (part, 1)


# --- the steps, oldest first -----------------------------------------------------------------------


def name_the_trial(document: Document) -> Document:
    """1: what tells the trial apart moves from the top level into `trial`."""
    if "trial" in document:
        return {**document, "trial": {"prompt_set": None, **document["trial"]}}
    identity = {key: document.get(key) for key in _IDENTITY}
    return {**{key: value for key, value in document.items() if key not in _IDENTITY}, "trial": identity}


def list_the_parts(document: Document) -> Document:
    """2: one job and one dataset a part, always as a list."""
    lists = {
        block: {
            group: names if isinstance(names, list) else [names] for group, names in document.get(block, {}).items()
        }
        for block in ("datasets", "jobs")
    }
    return {**document, **lists}


def tell_each_status(document: Document) -> Document:
    """3: every part has a status. A key without a number is the first part; an odd word says no more than the job."""
    old = document.get("job_status", {})
    status = {}
    for group, names in document["jobs"].items():
        for number, name in enumerate(names, 1):
            part = part_name(group, number)
            status[part] = _job_status(old.get(part, old.get(group)), name)
    for key, word in old.items():
        if key not in document["jobs"] or part_name(key, 1) == key:  # else it spoke for a whole group, above
            status.setdefault(part_name(key, 1), _job_status(word, None))
    return {"job_counts": {}, **document, "job_status": status}


def record_stages(document: Document) -> Document:
    """4: times as ISO 8601 with a zone, every stage there, paths relative: the earlier tool's version 2."""
    times = document.get("timestamps", {})
    created = _time(times.get("created_at")) or _time(document.get("created_utc"))
    stages = document.get("stage_status", {})
    return {
        **document,
        "schema_version": manifest.VERSION,
        "timestamps": {**times, "created_at": created, "updated_at": _time(times.get("updated_at")) or created},
        "stage_status": {name: _stage(stages.get(name), document["run_id"]) for name in {**graph.STAGES, **stages}},
    }


STEPS: tuple[Callable[[Document], Document], ...] = (name_the_trial, list_the_parts, tell_each_status, record_stages)


# --- pieces ----------------------------------------------------------------------------------------


def _job_status(word: str | None, job: str | None) -> str:
    text = (word or "").lower().removeprefix("job_state_")
    if text in _JOB_STATUS:
        return text
    return "pending" if job is None else "submitted"


def _stage(record: Any, run_id: str) -> Document:
    if isinstance(record, str):
        record = {"status": record}
    record = {**Stage().as_json(), **(record or {})}
    status = record["status"] if record["status"] in _STAGE_STATUS else "pending"
    artifacts = dict(record["artifacts"] or {})
    if "parts" in artifacts:
        artifacts["parts"] = [{**entry, "path": _relative(entry["path"], run_id)} for entry in artifacts["parts"]]
    return {**record, "status": status, "updated_at": _time(record["updated_at"]), "artifacts": artifacts}


def _relative(path: str, run_id: str) -> str:
    """A path below the run's folder, with `/`; of a path elsewhere only what a folder name can hold."""
    text = path.replace("\\", "/")
    inside = text.rpartition(f"run_{run_id}/")[2]
    return "/".join(step for step in inside.split("/") if step not in ("", ".", "..") and not step.endswith(":"))


def _time(value: Any) -> str | None:
    """ISO 8601 with a zone (UTC where none is said); None for what is no time."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            if _ZONED.fullmatch(value):
                return value
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            return None
        return manifest.utc_text(moment)
    except (ValueError, OverflowError, OSError):
        return None


def _refuse_invalid(found: list[str]) -> None:
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise DamagedArtifact(f"no manifest of any age: {'; '.join(found[:3])}{more}.")
