"""Opening a manifest that is old, damaged or gone, without losing a job or believing too much.

    an older manifest      copied to trial_manifest.json.backup.<time>.json, then upgraded
    a damaged one          copied to trial_manifest.json.corrupt.<time>, then rebuilt
    one that is gone       rebuilt, when something was submitted
    unreadable, or newer   the error says so; not one byte is written

Rebuilt means: jobs from ledgers, breadcrumbs and what the old text still shows; stages from what the
files themselves prove (`evidence.py`). For a reader all of this happens in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline import (
    disk,
    evidence,
    fingerprints,
    graph,
    ledger,
    lock,
    manifest,
    mirror,
    parts,
    restore,
    traces,
    upgrade,
    workspace,
)
from pipeline.errors import DamagedArtifact, UsageError
from pipeline.manifest import COMPLETED, LEGACY, PENDING, Manifest, OlderManifest, Stage
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.restore import BACKUP, CORRUPT
from pipeline.trials import Trial
from pipeline.workspace import Workspace

Say = Callable[[str], None]

_NAMES = frozenset(pattern.rpartition("/")[2] for pattern in traces.MANIFESTS)
_SHOWN = 3  # manifests named in a message


@dataclass(frozen=True)
class Place:
    """A manifest and what is known around it.

    *fresh* makes the manifest of a trial that has done nothing yet, from what was saved of an older one.
    """

    path: Path
    paths: TrialPaths
    run_id: str
    created_at: str
    fresh: Callable[[Mapping[str, Any]], Manifest]
    index: Index | None
    requests: tuple[Path, ...]
    earlier: bool  # whether the earlier tool's artifacts may stand here
    slug: str | None = None  # the trial whose manifest it must be, where a run of ours says so


@dataclass(frozen=True)
class Opening:
    """What a manifest becomes when it is opened. *keep*: under which tag the original is kept first, if it is."""

    manifest: Manifest
    keep: str | None
    said: tuple[str, ...]


# --- manifests -------------------------------------------------------------------------------------


def open_manifest(work: Workspace, slug: str, *, say: Say) -> None:
    """Make the trial's manifest one that can be worked with; nothing happens to one that is.

    Raises UnreadableFile, FutureVersion, or DiskTrouble when the original cannot be kept; then nothing
    has changed.
    """
    if work.is_in_order(slug):
        return
    path = work.trial_paths(slug).manifest
    opening = examine(_in_run(work, slug))
    if work.readonly:
        say(f"{slug}: this command only looks; what follows is written by doit resume rid={work.rid}")
    else:
        _put(path, opening)  # before it is said that the original is kept
    for sentence in opening.said:
        say(f"{slug}: {sentence}")
    work.adopt_manifest(slug, opening.manifest)


def check(path: Path) -> list[str]:
    """What opening the manifest at *path* would do, in sentences; writes nothing.

    Raises as `open_manifest`, and UsageError where *path* is none and is not where one belongs.
    """
    opening = _asked_for(_around(path))
    return list(opening.said) or [
        f"{path.name}: a valid version {manifest.VERSION} manifest; opening it changes nothing."
    ]


def migrate(path: Path) -> list[str]:
    """Upgrade or rebuild the manifest at *path* if that is needed, and say what was done.

    Raises as `check`, and RunLocked while another process works on the run it belongs to.
    """
    place = _around(path)
    run = place.paths.run
    if fingerprints.kind(run.record) is None:
        return _migrate(place)
    with lock.only_writer(run.lock, f"run {run.rid}"):
        return _migrate(_around(path))


def _migrate(place: Place) -> list[str]:
    opening = _asked_for(place)
    if not opening.said:
        return [f"{place.path.name}: a valid version {manifest.VERSION} manifest; nothing was changed."]
    return [*opening.said, *_put(place.path, opening)]


def _asked_for(place: Place) -> Opening:
    """`examine` of what somebody named: nothing but a manifest's file gives way to a rebuilt manifest."""
    opening = examine(place)
    if opening.keep == CORRUPT and place.path.name not in _NAMES:
        raise UsageError(
            "is no manifest, and not called like one.",
            where=str(place.path),
            kept="Nothing was changed.",
            hint=f"name a {place.paths.manifest.name}",
        )
    return opening


def examine(place: Place) -> Opening:
    """What the manifest at *place* would become; reads only. Raises UnreadableFile or FutureVersion."""
    opening = recover(place)
    return replace(opening, said=(*opening.said, _judge(opening.manifest, place))) if opening.said else opening


def recover(place: Place) -> Opening:
    """`examine`, before the stages are judged by the files."""
    name = place.path.name
    if fingerprints.kind(place.path) is None:
        return _rebuilt(place, {}, f"{name} is gone", keep=None)
    try:
        opening = Opening(manifest.load(place.path), None, ())
    except OlderManifest as older:
        try:
            opening = _upgraded(place, older.document)
        except DamagedArtifact as damage:
            saved = upgrade.salvage(older.document, run_id=place.run_id, created_at=place.created_at)
            return _rebuilt(place, _legible(place.path), f"{name}: {damage.what}", keep=CORRUPT, saved=saved)
    except DamagedArtifact as damage:
        return _rebuilt(place, _legible(place.path), f"{name}: {damage.what}", keep=CORRUPT)
    if place.slug is not None and (stranger := opening.manifest.stranger(place.run_id, place.slug)):
        return _rebuilt(place, {}, f"{name} {stranger}", keep=CORRUPT)  # its jobs are not ours
    return opening


def moved(opened: Manifest, paths: TrialPaths) -> Manifest:
    """*opened*, whose trial of the earlier tool now lies at *paths*: its stages are what the files there bear out."""
    for name in graph.STAGES:
        opened.set_stage(name, replace(opened.stage(name), outputs={}, format=None))
    _judge(opened, replace(alone(paths.manifest, paths, str(opened.document["run_id"])), earlier=True))
    return opened


def _upgraded(place: Place, older: dict[str, Any]) -> Opening:
    document = upgrade.upgrade(older, run_id=place.run_id, created_at=place.created_at)
    age = "version 2 without a checksum" if older.get("schema_version") == manifest.VERSION else "version 1"
    said = f"{place.path.name} is the earlier tool's ({age}): upgraded; the original is kept as {BACKUP}."
    return Opening(Manifest(document), BACKUP, (said,))


def _rebuilt(
    place: Place,
    legible: Mapping[str, Sequence[str | None]],
    reason: str,
    keep: str | None,
    saved: Mapping[str, Any] = MappingProxyType({}),
) -> Opening:
    opened = place.fresh(saved)
    jobs = _jobs(place, legible)
    opened.set_jobs(jobs)
    known = sum(name is not None for names in jobs["jobs"].values() for name in names)
    kept = f" The original is kept as {keep}." if keep else ""
    said = f"{reason.rstrip('.')}; rebuilt from what is on disk, with {known} job names.{kept}"
    return Opening(opened, keep, (said,))


def _judge(opened: Manifest, place: Place) -> str:
    """Let every stage claim what the files prove, and nothing else; a record of outputs is checked by its predicate."""
    proven: dict[str, Stage] = {}
    if place.index is not None and (own := evidence.downloaded(place.paths, place.index)) is not None:
        proven["downloaded"] = own
    elif place.earlier:
        proven = evidence.adopted(place.paths, place.requests, opened.document)
    for name in graph.STAGES:
        old = opened.stage(name)
        if old.outputs:
            continue
        if name in proven:
            artifacts = {**old.artifacts, **proven[name].artifacts}
            opened.set_stage(name, replace(proven[name], artifacts=artifacts, updated_at=manifest.utc_now()))
        elif old.status == COMPLETED:
            opened.set_stage(name, replace(old, status=PENDING))
    done = [name for name in graph.STAGES if opened.stage(name).status == COMPLETED]
    return f"stages that the files bear out: {', '.join(done) or 'none'}."


def _put(path: Path, opening: Opening) -> list[str]:
    """Keep the original, then save; a disk that takes the first and not the second leaves the original in place."""
    said = []
    if opening.keep is not None:
        said.append(f"the original is {restore.keep(path, opening.keep).name}.")
    opening.manifest.save(path)
    return said


def _legible(path: Path) -> dict[str, list[str | None]]:
    return traces.legible_jobs(disk.read_bytes(path)) if fingerprints.kind(path) == "file" else {}


# --- what is known around a manifest ---------------------------------------------------------------


def _in_run(work: Workspace, slug: str) -> Place:
    paths = work.trial_paths(slug)
    index: Index | None = None
    with suppress(DamagedArtifact):
        index = work.index(slug)
    return Place(
        path=paths.manifest,
        paths=paths,
        run_id=work.rid,
        created_at=work.record.created_at,
        # The run knows its trial better; of an older manifest the keys that nobody knows stay.
        fresh=lambda saved: Manifest(
            {**saved, **Manifest.new(work.rid, work.trials[slug], work.record.created_at).document}
        ),
        index=index,
        requests=_requests(paths, index),
        earlier=work.record.origin == LEGACY,
        slug=None if work.record.origin == LEGACY else slug,
    )


def _around(path: Path) -> Place:
    """The place of the manifest at *path*, in its run when there is one, else as far as its folder tells."""
    given, path = path, path.absolute()
    if fingerprints.kind(path) is None:
        raise _no_manifest(given)
    paths = TrialPaths(path.parent.parent if path.parent.name == "results" else path.parent)
    run = paths.run
    if fingerprints.kind(run.record) is not None:
        work = workspace.open_run(run, restore.open_record(run, readonly=True, say=lambda _: None), readonly=True)
        if path == work.trial_paths(paths.slug).manifest and paths.slug in work.trials:
            return _in_run(work, paths.slug)  # here even a folder stands in a manifest's place, and gives way
    if path.is_dir():
        raise _folder(given)
    # A flat folder of the oldest kind is run and trial at once.
    named = [RunPaths(folder).rid for folder in (paths.root, run.root) if folder.name.startswith("run_")]
    return alone(path, paths, named[0] if named else run.rid or "unknown")


def _folder(path: Path) -> UsageError:
    """The error for a folder at *path*, with manifests in it: of a trial, of a run or of all runs."""
    patterns = [f"{above}{pattern}" for above in ("", "*/") for pattern in (*_NAMES, *traces.MANIFESTS)]
    there = sorted({found for pattern in patterns for found in path.glob(pattern)})
    shown = [str(found) for found in there[:_SHOWN]] or [f"{path}/<trial>/results/trial_manifest.json"]
    return UsageError(
        "is a folder.",
        where=str(path),
        kept="Nothing was changed.",
        hint=f"name the file: {' or '.join(shown)}{' or another' if len(there) > len(shown) else ''}",
    )


def _no_manifest(path: Path) -> UsageError:
    """The error for a *path* where nothing stands; what stands where its folder belongs is named."""
    file = next((parent for parent in path.parents if fingerprints.kind(parent) not in (None, "folder")), None)
    if file is None or file.is_dir():
        return UsageError("there is no manifest.", where=str(path), hint="name a trial_manifest.json")
    remedy = f"name {file}" if file.name in _NAMES else f"move {file} away; doit resume does again what is missing then"
    return UsageError(
        f"there is no manifest: {file} is a {fingerprints.kind(file)} and stands where its folder belongs.",
        where=str(path),
        kept="Nothing was changed.",
        hint=remedy,
    )


def alone(path: Path, paths: TrialPaths, run_id: str) -> Place:
    """The place of a manifest without a run of ours around it: only its folder tells what it is about."""
    index = parts.usable(paths.index)
    oldest = path if fingerprints.kind(path) else paths.root
    created = manifest.utc_text(datetime.fromtimestamp(oldest.lstat().st_mtime, UTC))
    return Place(
        path=path,
        paths=paths,
        run_id=run_id,
        created_at=created,
        fresh=lambda saved: Manifest({**_anonymous(paths, run_id, created), **saved}),
        index=index,
        requests=_requests(paths, index),
        earlier=index is None,
    )


def _anonymous(paths: TrialPaths, run_id: str, created_at: str) -> dict[str, Any]:
    """The document for a trial of which only its folder is known."""
    models = [trace.model for trace in traces.of_parts(paths.results).values() if trace.model]
    trial = Trial(paths.slug, models[0] if models else "unknown", "", "", {}, {}, (), 1)
    document = Manifest.new(run_id, trial, created_at).document
    return {**document, "trial": {**document["trial"], "prompt_set": None}, "samples_per_item": None}


def _requests(paths: TrialPaths, index: Index | None) -> tuple[Path, ...]:
    files = tuple(paths.part_requests(part.part) for part in index.parts) if index else ()
    return files if all(path.is_file() for path in files) else ()


# --- jobs ------------------------------------------------------------------------------------------


def _jobs(place: Place, legible: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """The manifest's four blocks. With an index the ledgers say it all: an attempt's ids follow from its content.

    Without one (the earlier tool's folder) breadcrumbs come first, then what the old text still shows.
    """
    if place.index is not None:
        return mirror.jobs(place.index, place.paths)
    shown = traces.of_parts(place.paths.results)
    told = {
        upgrade.part_name(group, number): traces.split_name(name)[1]
        for group, names in legible.items()
        for number, name in enumerate(names, 1)
    }
    blocks: dict[str, dict[str, Any]] = {"datasets": {}, "jobs": {}, "job_status": {}, "job_counts": {}}
    for part in traces.in_order({*told, *shown, *(path.parent.name for path in place.paths.ledgers())}):
        last = ledger.read(place.paths.part(part).ledger).last
        trace = shown.get(part, traces.Trace())
        job = last.job_id if last else trace.job or told.get(part)
        _at(blocks["jobs"], part, job)
        _at(blocks["datasets"], part, last.input_dataset_id if last else trace.input_dataset)
        if trace.rows is not None:
            blocks["job_status"][part] = mirror.DOWNLOADED
        elif last is None and (job or part in shown):
            blocks["job_status"][part] = mirror.SUBMITTED
        else:
            blocks["job_status"][part] = mirror.status(last)
    return blocks


def _at(groups: dict[str, list[str | None]], part: str, name: str | None) -> None:
    """Put *name* at the part's position; positions of parts that nothing is known of stay null."""
    group, number = upgrade.group_of(part)
    names = groups.setdefault(group, [])
    names += [None] * (number - len(names))
    names[number - 1] = name
