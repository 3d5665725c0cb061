"""What the command line shows of runs: which there are, how far each is, and why a phase is current or not.

Plain data first (for `--json` and for tests), text made from it second. Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pipeline import done, fingerprints, graph, lock, mirror, paths, traces
from pipeline.errors import DamagedArtifact, FutureVersion, UnreadableFile, UsageError
from pipeline.paths import RunPaths
from pipeline.plain import columns
from pipeline.record import read_record
from pipeline.runs import exists, original_of, unknown_run
from pipeline.session import Session

Document = dict[str, Any]

# What a decision already says; another recorded stage (failed, stopped, in progress) is worth showing.
_IMPLIED = {"skip": "completed", "run": "pending"}


def runs() -> list[Document]:
    """Every run there is, newest first; one that cannot be opened as it stands says why, after the others.

    Raises UnknownRun when something else stands where the folder of the runs belongs.
    """
    if not paths.EXPERIMENTS.is_dir() and fingerprints.kind(paths.EXPERIMENTS) is not None:
        raise unknown_run("latest")
    found, troubled = [], []
    for run in paths.runs():
        try:
            record = read_record(run.record)
        except (FileNotFoundError, DamagedArtifact, FutureVersion, UnreadableFile) as error:
            if trouble := _trouble(run, error):
                troubled.append({"rid": run.rid, "folder": run.root.as_posix(), "trouble": trouble})
            continue
        if record.rid != run.rid:
            trouble = f"it is the run {record.rid!r}, renamed; call the folder run_{record.rid} again"
            if original_of(run, record) is not None:
                trouble = f"it is a copy of the run {record.rid!r}, or a link to it"
            troubled.append({"rid": run.rid, "folder": run.root.as_posix(), "trouble": trouble})
            continue
        found.append(
            {
                "rid": run.rid,
                "folder": run.root.as_posix(),
                "trouble": None,
                "created_at": record.created_at,
                "name": record.config["name"],
                "provider": record.config["provider"],
                "trials": list(record.trials),
            }
        )
    return [*sorted(found, key=lambda run: (str(run["created_at"]), str(run["rid"])), reverse=True), *troubled]


def status(session: Session) -> Document:
    """How far a run is: the decision of every cell, the recorded stage, and the jobs by state; who works on it now."""
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
    jobs = {slug: dict(Counter(_job_states(session, slug).values())) for slug in session.trials}
    return {
        "rid": work.rid,
        "folder": work.paths.root.as_posix(),
        "created_at": work.record.created_at,
        "config_changes": work.config_changes,
        "at_work": lock.holder(work.paths.lock),
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


def _job_states(session: Session, slug: str) -> Mapping[str, str]:
    """Part -> how far its newest job is, by the ledgers: the manifest mirrors them later, or after a kill never.

    Without a list of parts that can be used only the manifest is left to tell.
    """
    with suppress(DamagedArtifact):
        if (index := session.workspace.index(slug)) is not None:
            return mirror.states(index, session.workspace.trial_paths(slug))
    recorded: Mapping[str, str] = session.workspace.manifest(slug).document["job_status"]
    return recorded


def _trouble(run: RunPaths, error: Exception) -> str | None:
    """Why *run* is not listed like the others; None for a folder that holds no run at all."""
    if isinstance(error, FutureVersion):
        return "written by a newer version of this tool"
    if isinstance(error, UnreadableFile):
        return f"its record {error.what.rstrip('.')}"
    if exists(run):
        state = "gone" if isinstance(error, FileNotFoundError) else "damaged"
        if fingerprints.kind(run.config) is None:
            return f"its record is {state} and {run.config.name} is gone; bring one of them back"
        return f"its record is {state}; doit resume mends it"
    if traces.is_earlier_run(run):
        return "the earlier tool's; doit resume takes it over"
    return f"its record and {run.config.name} are gone; bring one of them back" if traces.is_ours(run) else None


def _explained(session: Session, spec: graph.Phase, slug: str) -> Document:
    question = session.question(spec.name, slug)
    decision = session.decide(spec.name, slug)
    checks = []
    for reason in (done.earlier_tool, *done.REASONS[spec.name]):
        found = reason(question)
        said = None if found is None else {"decision": found.verb, "reason": found.reason}
        if reason is not done.earlier_tool or found is not None:
            checks.append({"check": reason.__name__, "asks": (reason.__doc__ or "").splitlines()[0], "found": said})
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


def _files(session: Session, recorded: Mapping[str, str | None]) -> list[Document]:
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
    rows = []
    for run in found:
        if run["trouble"]:
            rows.append((run["rid"], "-", "-", "-", run["trouble"]))
            continue
        trials = len(run["trials"])
        created = run["created_at"][:16].replace("T", " ")
        rows.append((run["rid"], created, run["provider"], f"{trials} trial{'s' * (trials > 1)}", run["name"]))
    yield from columns(rows)


def status_text(document: Document) -> Iterator[str]:
    """The run, then one line a cell, then the jobs of each trial."""
    yield f"run {document['rid']} in {document['folder']}, created {document['created_at']}"
    if holder := document["at_work"]:
        yield f"process {holder['pid']} works on it now, since {holder['since']}"
    yield from (f"config changed: {change}" for change in document["config_changes"])
    rows = []
    for cell in document["cells"]:
        stage = cell["stage"]
        recorded = "" if stage in (None, _IMPLIED.get(cell["decision"])) else f"[{stage}] "
        rows.append((cell["phase"], cell["trial"] or "-", cell["decision"], f"{recorded}{cell['reason']}"))
    yield from columns(rows)
    for slug, jobs in document["jobs"].items():
        counted = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items())) or "none"
        yield f"jobs of {slug}: {counted}"


def explain_text(explained: list[Document]) -> Iterator[str]:
    """The decision, each check with its answer, each file with its digest then and now."""
    for cell in explained:
        yield f"{cell['phase']}  {cell['trial'] or '-'}  {cell['decision']}  {cell['reason']}"
        checks = []
        for check in cell["checks"]:
            found = check["found"]
            checks.append(("", "no" if found is None else "yes", f"{check['asks']} ({check['check']})"))
        yield from columns(checks)
        for kind in ("inputs", "outputs"):
            yield from (f"  {kind[:-1]}  {_file(file)}" for file in cell[kind])


def _file(file: Document) -> str:
    if file["now"] == file["recorded"]:
        return f"{file['path']}  {file['now'][:12]}, as recorded"
    recorded = f"was {file['recorded'][:12]}" if file["recorded"] else "no digest recorded"
    return f"{file['path']}  {'GONE' if file['now'] is None else 'CHANGED to ' + file['now'][:12]}, {recorded}"
