"""The runs there are in a folder of experiments: which, since when, whether begun; and making another."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pipeline import config as configuration
from pipeline import disk, fingerprints, manifest, paths
from pipeline.config import Config
from pipeline.errors import DamagedArtifact, FutureVersion, UnknownRun, UnreadableFile
from pipeline.manifest import OlderManifest
from pipeline.paths import RunPaths
from pipeline.record import Record, read_record, relative_base
from pipeline.version import VERSION as TOOL_VERSION


def known_runs(experiments: Path = paths.EXPERIMENTS) -> list[tuple[str, RunPaths]]:
    """(created_at, paths) of every run that can be opened, oldest first. Raises UnreadableFile or FutureVersion.

    A copy of a run that is there too is none: it would be as new as its original, and refused.
    """
    found = []
    for run in paths.runs(experiments):
        if not exists(run):
            continue  # half created, or the earlier tool's: it can still be named by its rid
        try:
            record = read_record(run.record)
            created = record.created_at
            if original_of(run, record) is not None:
                continue
        except (FileNotFoundError, DamagedArtifact):
            created = creation_of(run)
        except UnreadableFile as error:
            # It may be the latest, so none can be chosen.
            error.hint = f"{error.hint}; or name the run you mean, as in doit resume rid=RID"
            raise
        found.append((created, run))
    return sorted(found, key=lambda entry: (entry[0], entry[1].rid))


def named(rid: str) -> RunPaths:
    """The place of the run *rid*. Raises UnknownRun for what neither is nor could be one's name.

    `rid/trial` leads to a folder that looks like a run of the earlier tool, and was once taken over as one.
    """
    if not paths.is_rid(rid) and RunPaths.of(rid) not in paths.runs():
        raise UnknownRun(
            f"there is no run {rid!r}: a run's id has letters, digits, '.', '_' and '-' only, at most 64.",
            kept="Nothing was changed.",
            hint="python -m pipeline runs lists the runs there are",
        )
    return RunPaths.of(rid)


def exists(run: RunPaths) -> bool:
    """Whether a run of this tool is there: its record, or (when that is gone) a config and something built or sent."""
    if fingerprints.kind(run.record) is not None:
        return True
    begun = any(run.indexes()) or was_submitted(run)
    if not begun or fingerprints.kind(run.config) is None:
        return False
    from pipeline import traces  # imported where it is needed, as all that a run in order never asks for

    return not traces.is_earlier_run(run)  # that one may be half taken over: it is taken over again


def original_of(run: RunPaths, record: Record) -> RunPaths | None:
    """The run whose *record* lies in the folder of *run*, where that is there too: this one is a copy, or a link."""
    original = RunPaths.of(record.rid, run.root.parent)
    return original if record.rid != run.rid and exists(original) else None


def was_submitted(run: RunPaths) -> bool:
    """Whether a ledger lies in the folder of *run*, whatever else is left of it."""
    return any(run.ledgers())


def is_begun(run: RunPaths) -> bool:
    """Whether anything of *run* was sent or has arrived, or may have: then its config stands. Raises UnreadableFile."""
    try:
        ours = read_record(run.record).origin is None
    except (FileNotFoundError, DamagedArtifact):
        ours = False  # what it was cannot be told
    return not ours or was_submitted(run) or any(run.root.glob("*/results/*/*"))


def creation_of(run: RunPaths) -> str:
    """When a run without a readable record was created: the oldest of its manifests knows, else its config's date."""
    times = []
    for path in run.root.glob("*/results/trial_manifest.json"):
        with contextlib.suppress(DamagedArtifact, FutureVersion, OlderManifest):
            times.append(manifest.read(path)["timestamps"]["created_at"])
    if times:
        return str(min(times))
    changed = run.config.stat().st_mtime if run.config.exists() else 0.0
    return manifest.utc_text(datetime.fromtimestamp(changed, UTC))


def unknown_run(rid: str, experiments: Path = paths.EXPERIMENTS) -> UnknownRun:
    """The error for a rid without a run; its hint lists the runs there are."""
    if not experiments.is_dir() and (kind := fingerprints.kind(experiments)):
        return UnknownRun(
            f"there is no run {rid!r}: a {kind} stands where the folder of the runs belongs.",
            where=str(experiments),
            kept="Nothing was changed.",
            hint=f"move {experiments} away and put the folder of the runs there, then run the same command again",
        )
    latest = ""
    try:
        there = [run.rid for _, run in reversed(known_runs(experiments))]
        latest = f"; doit resume rid={there[0]} goes on with the latest" if there else ""
    except (FutureVersion, UnreadableFile):
        there = [run.rid for run in paths.runs(experiments)]  # when one of them began cannot be told
    config = paths.LOCAL_CONFIG if paths.LOCAL_CONFIG.exists() else "PATH"
    return UnknownRun(
        f"there is no run {rid!r} in {experiments}/.",
        kept=f"Runs there are: {', '.join(there) or 'none yet'}.",
        hint=f"doit rid={rid} config={config} starts it{latest}",
    )


def create(
    run: RunPaths, config: Config, now: str, origin: str | None = None, *, source_sha256: str | None = None
) -> Record:
    """Freeze *config* as the run's and write its record; the record comes last, so a run is whole or not there."""
    text = configuration.frozen_text(config)
    disk.make_folder(run.root)
    disk.write_bytes(run.config, text)
    record = Record(
        rid=run.rid,
        created_at=now,
        tool_version=TOOL_VERSION,
        config_sha256=hashlib.sha256(text).hexdigest(),
        config=config.values,
        sources_base=relative_base(config.base, run.root),
        trials=tuple(trial.slug for trial in config.trials),
        stages={},
        source_sha256=source_sha256,
        origin=origin,
    )
    record.save(run.record)
    return record
