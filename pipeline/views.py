"""What the command line shows of runs: which there are, how far each is, and why a phase is current or not.

Plain data first (for `--json` and for tests), text made from it second. Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import done, graph, workspace
from pipeline.errors import UsageError
from pipeline.session import Session

Document = dict[str, Any]


def runs() -> list[Document]:
    """Every run that can be opened, newest first."""
    found = []
    for created_at, run in reversed(workspace.known_runs()):
        record = workspace.read_record(run.record)
        found.append(
            {
                "rid": run.rid,
                "created_at": created_at,
                "name": record.config["name"],
                "provider": record.config["provider"],
                "trials": list(record.trials),
                "folder": run.root.as_posix(),
            }
        )
    return found


def status(session: Session) -> Document:
    """How far a run is: the decision of every cell, the recorded stage, and the jobs by state."""
    work = session.workspace
    cells = []
    for phase, slug in session.cells():
        decision = session.decide(phase.name, slug)
        stage = session.question(phase.name, slug).stage if phase.stage or not phase.per_trial else None
        cells.append(
            {
                "phase": phase.name,
                "trial": slug,
                "decision": decision.verb,
                "reason": decision.reason,
                "stage": stage.status if stage else None,
                "updated_at": stage.updated_at if stage else None,
                "duration_s": stage.duration_s if stage else None,
            }
        )
    jobs = {slug: dict(Counter(work.manifest(slug).document["job_status"].values())) for slug in session.trials}
    return {
        "rid": work.rid,
        "created_at": work.record.created_at,
        "config_changes": work.config_changes,
        "cells": cells,
        "jobs": jobs,
    }


def explain(session: Session, phase: str | None, trial: str | None) -> list[Document]:
    """For each chosen cell every reason that was looked at, and its inputs and outputs with their digests."""
    if phase is not None and phase not in graph.BY_NAME:
        raise UsageError(f"there is no phase {phase!r}.", hint=f"phases are: {', '.join(graph.NAMES)}")
    if trial is not None and trial not in session.workspace.trials:
        raise UsageError(f"there is no trial {trial!r}.", hint=f"trials are: {', '.join(session.workspace.trials)}")
    explained = []
    for spec, slug in session.cells():
        if phase in (None, spec.name) and (trial in (None, slug) or not slug):
            explained.append(_explained(session, spec, slug))
    return explained


def _explained(session: Session, spec: graph.Phase, slug: str) -> Document:
    question = session.question(spec.name, slug)
    decision = session.decide(spec.name, slug)
    checks = []
    for reason in done.REASONS[spec.name]:
        found = reason(question)
        said = None if found is None else {"decision": found.verb, "reason": found.reason}
        checks.append({"check": reason.__name__, "asks": (reason.__doc__ or "").strip(), "found": said})
        if found is not None:
            break  # later checks may need what this one found missing
    stage = question.stage if spec.stage or not spec.per_trial else None
    return {
        "phase": spec.name,
        "trial": slug,
        "decision": decision.verb,
        "reason": decision.reason,
        "checks": checks,
        "settings": dict(stage.settings) if stage else {},
        "inputs": _files(session, stage.inputs if stage else {}),
        "outputs": _files(session, {name: facts["sha256"] for name, facts in stage.outputs.items()} if stage else {}),
    }


def _files(session: Session, recorded: Mapping[str, str]) -> list[Document]:
    files = []
    for name, digest in sorted(recorded.items()):
        try:
            now: str | None = session.workspace.fingerprints.sha256(session.workspace.paths.root / name)
        except FileNotFoundError:
            now = None
        files.append({"path": name, "recorded": digest, "now": now})
    return files


# --- as text ---------------------------------------------------------------------------------------


def runs_text(found: list[Document]) -> Iterator[str]:
    """One line a run."""
    if not found:
        yield "no runs yet; `doit` starts one"
    for run in found:
        yield f"{run['rid']}  {run['created_at'][:16]}  {run['provider']}  {len(run['trials'])} trials  {run['name']}"


def status_text(document: Document) -> Iterator[str]:
    """The run, then one line a cell, then the jobs of each trial."""
    yield f"run {document['rid']}, created {document['created_at']}"
    yield from (f"config changed: {change}" for change in document["config_changes"])
    for cell in document["cells"]:
        stage = f" [{cell['stage']}]" if cell["stage"] else ""
        yield f"{cell['phase']:<9} {cell['trial'] or '-'}  {cell['decision']}{stage}  {cell['reason']}"
    for slug, jobs in document["jobs"].items():
        counted = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items())) or "none"
        yield f"jobs of {slug}: {counted}"


def explain_text(explained: list[Document]) -> Iterator[str]:
    """The decision, each check with its answer, each file with its digest then and now."""
    for cell in explained:
        yield f"{cell['phase']} {cell['trial'] or '-'}: {cell['decision']} - {cell['reason']}"
        for check in cell["checks"]:
            found = check["found"]
            answer = "no" if found is None else f"{found['decision']}: {found['reason']}"
            yield f"  {check['check']}: {answer}"
        for kind in ("inputs", "outputs"):
            for file in cell[kind]:
                same = "same" if file["now"] == file["recorded"] else "gone" if file["now"] is None else "CHANGED"
                now = "" if same != "CHANGED" else f" -> {file['now'][:12]}"
                yield f"  {kind[:-1]} {file['path']}: {file['recorded'][:12]}{now} {same}"
