"""Which results of the earlier tool stand as they are, in a run that was taken over.

A finished trial is kept whole. As soon as one of its phases has to run (it never did, its file is
damaged, force=), the phases are done again in this tool's format, from the earlier tool's answers:
ours read no other. A phase that lacks what only the earlier tool had (its requests, its questions)
keeps the old result where there is one and is refused otherwise, with the missing file named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import fingerprints, graph, traces, upgrade
from pipeline.manifest import COMPLETED, LEGACY, Stage
from pipeline.workspace import Workspace

_CHAIN = ("download", "parse", "score", "stats", "costs", "report")
_ANSWERS_ONLY = ("download", "parse")  # the others need the questions too


@dataclass(frozen=True)
class Standing:
    """What a phase of a run that was taken over comes to, where its own reasons are not asked."""

    verb: Literal["skip", "run", "refuse"]
    reason: str


def standing(work: Workspace, phase: str, slug: str) -> Standing | None:
    """The standing of *phase* in trial *slug*; None in a run of our own, and where the usual reasons decide."""
    if work.record.origin != LEGACY:
        return None
    match phase:
        case "prepare":
            return _questions(work)
        case "index":
            old = any(_is_old(work, name, trial) for trial in work.trials for name in ("stats", "costs", "report"))
            return Standing("skip", "the earlier tool's reports stand as they are") if old else None
        case "archive":
            if not any(_is_old(work, name, slug) for name in _CHAIN):
                return None
            return Standing(
                "refuse", f"packs this tool's results only: doit resume rid={work.rid} force=all makes them"
            )
        case "build" | "submit":
            return _requests(work, phase, slug)
        case _:
            return _result(work, phase, slug)


def kept(work: Workspace, slug: str) -> bool:
    """Whether the trial is the earlier tool's, finished, and wanted as it is: nobody touches it."""
    return work.record.origin == LEGACY and not _open_phases(work, slug)


def _result(work: Workspace, phase: str, slug: str) -> Standing | None:
    old = _names(_stage(work, phase, slug))
    wanting = _open_phases(work, slug)
    if not wanting:
        if not _is_old(work, phase, slug):  # a download whose files were cleared away after they had been read
            return Standing("skip", "the earlier tool's answers are in predictions.csv; its result files are not here")
        return Standing("skip", f"the earlier tool's {old}")
    lacking = _lacking(work, phase, slug)
    if not _stands(work, phase, slug):
        if lacking is not None:
            return Standing("refuse", f"{lacking} is not here")
        damage = _damage(work, [phase], slug)
        return None if damage is None else Standing("run", f"{damage}; it is made anew in this tool's format")
    if lacking is not None:
        return Standing("skip", f"the earlier tool's {old}; it cannot be made anew without {lacking}")
    first = next(
        (name for name in wanting if _stage(work, name, slug).status != COMPLETED or name in work.forced), None
    )
    cause = f"{first} has to run" if first else _damage(work, wanting, slug) or "what it rests on was made anew"
    return Standing("run", f"the earlier tool's {old} is made anew in this tool's format: {cause}")


def _requests(work: Workspace, phase: str, slug: str) -> Standing | None:
    """build and submit: what the earlier tool sent is never built anew, and never sent where it has answers."""
    index = work.index(slug)
    if not _open_phases(work, slug) or (index is None and _is_old(work, "download", slug)):
        return Standing("skip", "the earlier tool's results are here")
    if index is None:
        return Standing("refuse", f"{_lacking(work, phase, slug)} is not here")
    if phase == "submit":
        return None
    for part in index.parts:
        path = work.trial_paths(slug).part_requests(part.part)
        problem = work.damage(work.trial_paths(slug).relative(path), part.sha256, part.size)
        if problem:
            return Standing("refuse", f"{problem}; restore it from what the earlier tool left in batch_inputs/")
    return Standing("skip", f"{len(index.parts)} parts, {index.rows:,} requests of the earlier tool")


def _questions(work: Workspace) -> Standing | None:
    if work.forced & {"prepare", "all"}:
        return None
    open_trials = [slug for slug in work.trials if _open_phases(work, slug)]
    if not open_trials:
        return Standing("skip", "the earlier tool's results stand; nothing needs the questions")
    lacking = _lacking_questions(work)
    if lacking is None:
        return None
    if all(_stands(work, name, slug) for slug in open_trials for name in _CHAIN[2:]):
        return Standing("skip", f"the earlier tool's scores stand; {lacking} is not here")
    return Standing("refuse", f"{lacking} is not here")


def _open_phases(work: Workspace, slug: str) -> list[str]:
    """The phases of the trial whose result is not the earlier tool's, whole and wanted; none in a finished trial.

    Answers that were parsed and cleared away need not be there again.
    """
    missing = [phase for phase in _CHAIN if not _stands(work, phase, slug)]
    cleared = missing == ["download"] and not work.forced and _stage(work, "download", slug).format is None
    return [] if cleared else missing


def _stands(work: Workspace, phase: str, slug: str) -> bool:
    """Whether the earlier tool's result is there, is what it was when it was adopted, and nobody wants it anew."""
    if not _is_old(work, phase, slug) or work.forced & {phase, "all"}:
        return False
    return _damage(work, [phase], slug) is None


def _damage(work: Workspace, phases: list[str], slug: str) -> str | None:
    """The first of the earlier tool's files of *phases* that is not what it was, and what is wrong with it."""
    for phase in phases:
        if _is_old(work, phase, slug):
            for name, facts in _stage(work, phase, slug).outputs.items():
                if problem := work.damage(name, facts["sha256"], facts["size"]):
                    return problem
    return None


def _is_old(work: Workspace, phase: str, slug: str) -> bool:
    stage = _stage(work, phase, slug)
    return stage.status == COMPLETED and stage.format == LEGACY


def _stage(work: Workspace, phase: str, slug: str) -> Stage:
    name = graph.BY_NAME[phase].stage
    assert name is not None
    return work.manifest(slug).stage(name)


def _lacking(work: Workspace, phase: str, slug: str) -> str | None:
    """What *phase* would need and only the earlier tool had."""
    if fingerprints.kind(work.trial_paths(slug).index) is None:
        document: Mapping[str, Any] = work.manifest(slug).document
        paths = work.trial_paths(slug)
        files = traces.request_files((paths.inputs, work.paths.root / "batch_inputs"), document["trial"]["prompt_set"])
        expected = {part for group, names in document["jobs"].items() for part in upgrade.part_names(group, names)}
        return traces.missing_requests(expected, files) or "a usable file of requests in batch_inputs/"
    return None if phase in _ANSWERS_ONLY else _lacking_questions(work)


def _lacking_questions(work: Workspace) -> str | None:
    if work.paths.closed_book.is_file() and work.paths.open_book.is_file():
        return None
    absent = [work.config.path(source["path"]) for source in work.config["sources"]]
    return next((str(path) for path in absent if not path.is_file()), None)


def _names(stage: Stage) -> str:
    return ", ".join(
        f"{Path(name).name}: {facts['rows']:,} rows" if facts.get("rows") is not None else Path(name).name
        for name, facts in stage.outputs.items()
    )
