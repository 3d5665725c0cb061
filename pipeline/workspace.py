"""An opened run: its config, its record, its trials' manifests and what is remembered of its files.

`run.json` is the run's own record: who it is (`rid`, `created_at`), the config as last accepted, its
trials, and how far the run-level phases are. A workspace opened for reading writes nothing at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config as configuration
from pipeline import disk, fingerprints, graph, jsonl, manifest, parts, paths, schema, sealed
from pipeline.config import Config
from pipeline.errors import ConfigError, DamagedArtifact, FutureVersion, Refused, UnknownRun, UnreadableFile
from pipeline.fingerprints import Facts, Fingerprints
from pipeline.identity import differences
from pipeline.manifest import LEGACY, Manifest, OlderManifest, Stage
from pipeline.paths import PartPaths, RunPaths, TrialPaths
from pipeline.trials import Trial
from pipeline.version import VERSION as TOOL_VERSION

if TYPE_CHECKING:
    from pipeline import ledger

SCHEMA = "run.schema"
RECORD_VERSION = 1


@dataclass(frozen=True)
class Record:
    """The content of `run.json`. *origin* is "legacy" for a run that the earlier tool began."""

    rid: str
    created_at: str
    tool_version: str
    config_sha256: str
    config: Mapping[str, Any]
    sources_base: str
    trials: tuple[str, ...]
    stages: Mapping[str, Stage]
    source_sha256: str | None = None  # of the config file the run was made from
    origin: str | None = None

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all; nothing when it would not change."""
        document = sealed.sealed(
            {
                **{key: value for key, value in vars(self).items() if value is not None},
                "schema_version": RECORD_VERSION,
                "trials": list(self.trials),
                "stages": {name: stage.as_json() for name, stage in self.stages.items()},
            }
        )
        found = schema.problems(document, SCHEMA)
        if found:
            raise ValueError(f"would write an invalid run record: {'; '.join(found)}")  # a bug here
        data = jsonl.dumps_pretty(document)
        try:
            if disk.read_bytes(path) == data:
                return
        except FileNotFoundError:
            pass
        disk.write_bytes(path, data)


def read_record(path: Path) -> Record:
    """The record at *path*. Raises FileNotFoundError, UnreadableFile, FutureVersion or DamagedArtifact."""
    if fingerprints.kind(path) == "folder":
        raise DamagedArtifact("a folder stands in its place.", where=str(path))
    document = jsonl.read_document(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > RECORD_VERSION:
        raise FutureVersion(
            f"is of version {version}; this tool knows versions up to {RECORD_VERSION}.",
            where=str(path),
            kept="Nothing was written.",
            hint="update trialmake, or use the version that wrote this run",
        )
    if not isinstance(document, dict) or not sealed.is_intact(document) or schema_problem(document):
        raise DamagedArtifact("is not the record that was written (edited, or a damaged disk).", where=str(path))
    keys = Record.__dataclass_fields__.keys() - {"stages", "trials"}
    return Record(
        **{key: document[key] for key in keys if key in document},
        trials=tuple(document["trials"]),
        stages={name: Stage.of(stage) for name, stage in document["stages"].items()},
    )


def schema_problem(document: Mapping[str, Any]) -> bool:
    """Whether a sealed record lacks a key; its checksum says that a schema-checked writer wrote it."""
    return any(key not in document for key in schema.load(SCHEMA)["required"])


def known_runs(experiments: Path = paths.EXPERIMENTS) -> list[tuple[str, RunPaths]]:
    """(created_at, paths) of every run that can be opened, oldest first. Raises UnreadableFile or FutureVersion."""
    found = []
    for run in paths.runs(experiments):
        if not exists(run):
            continue  # half created, or the earlier tool's: it can still be named by its rid
        try:
            created = read_record(run.record).created_at
        except (FileNotFoundError, DamagedArtifact):
            created = creation_of(run)
        except UnreadableFile as error:
            # It may be the latest, so none can be chosen.
            error.hint = f"{error.hint}; or name the run you mean, as in doit resume rid=RID"
            raise
        found.append((created, run))
    return sorted(found, key=lambda entry: (entry[0], entry[1].rid))


def exists(run: RunPaths) -> bool:
    """Whether a run of this tool is there: its record, or (when that is gone) a config and something built or sent."""
    if fingerprints.kind(run.record) is not None:
        return True
    begun = any(run.root.glob("*/batch_inputs/index.json")) or was_submitted(run)
    if not begun or fingerprints.kind(run.config) is None:
        return False
    from pipeline import traces  # imported where it is needed, as all that a run in order never asks for

    return not traces.is_earlier_run(run.root)  # that one may be half taken over: it is taken over again


def was_submitted(run: RunPaths) -> bool:
    """Whether a ledger lies in the folder of *run*, whatever else is left of it."""
    return any(run.root.glob("*/results/*/ledger.jsonl"))


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
    return datetime.fromtimestamp(changed, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unknown_run(rid: str, experiments: Path = paths.EXPERIMENTS) -> UnknownRun:
    """The error for a rid without a run; its hint lists the runs there are."""
    if not experiments.is_dir() and (kind := fingerprints.kind(experiments)):
        return UnknownRun(
            f"there is no run {rid!r}: a {kind} stands where the folder of the runs belongs.",
            where=str(experiments),
            kept="Nothing was changed.",
            hint=f"move {experiments} away and put the folder of the runs there, then run the same command again",
        )
    try:
        there = [run.rid for _, run in reversed(known_runs(experiments))]
    except (FutureVersion, UnreadableFile):
        there = [run.rid for run in paths.runs(experiments)]  # when one of them began cannot be told
    config = paths.LOCAL_CONFIG if paths.LOCAL_CONFIG.exists() else "PATH"
    return UnknownRun(
        f"there is no run {rid!r} in {experiments}/.",
        kept=f"Runs there are: {', '.join(there) or 'none yet'}.",
        hint=f"doit rid={rid} config={config} starts it"
        + (f"; doit resume rid={there[0]} goes on with the latest" if there else ""),
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


class Workspace:
    """The run at *paths*, opened. *readonly*: nothing reaches the disk through it."""

    def __init__(
        self,
        run: RunPaths,
        record: Record,
        config: Config,
        *,
        readonly: bool,
        known: Mapping[str, Facts] | None = None,
        deep: bool = False,
        forced: frozenset[str] = frozenset(),
    ) -> None:
        self.paths = run
        self._root = f"{run.root}/"
        self.record = record
        self.config = config
        self.readonly = readonly
        self.forced = forced
        self.forgotten: set[str] = set()  # `phase:trial` that `doit forget` named and that leave no record to stale
        self.fingerprints = Fingerprints(run.root, known, deep=deep)
        self._trial_paths: dict[str, TrialPaths] = {}
        self._manifests: dict[str, Manifest] = {}
        self._indexes: dict[str, tuple[str, parts.Index]] = {}

    @property
    def rid(self) -> str:
        """The run's id."""
        return self.record.rid

    @cached_property
    def trials(self) -> Mapping[str, Trial]:
        """The trials by slug, in the order of the config."""
        return {trial.slug: trial for trial in self.config.trials}

    @cached_property
    def config_changes(self) -> list[str]:
        """How the frozen config differs from what the record last accepted."""
        return differences(dict(self.record.config), dict(self.config.values))

    def relative(self, path: Path) -> str:
        """*path*, which is below the run's folder, as records name it."""
        return str(path).removeprefix(self._root)  # a third of the time of Path.relative_to

    def trial_paths(self, slug: str) -> TrialPaths:
        """The files of trial *slug*."""
        if slug not in self._trial_paths:
            self._trial_paths[slug] = self.paths.trial(slug)
        return self._trial_paths[slug]

    def manifest(self, slug: str) -> Manifest:
        """The trial's manifest; a new one, in memory, when there is none. Raises as `manifest.load`.

        DamagedArtifact also for another trial's, except in a run of the earlier tool: it named things otherwise.
        """
        if slug not in self._manifests:
            path = self.trial_paths(slug).manifest
            try:
                opened = manifest.load(path, self.fingerprints)
            except FileNotFoundError:
                opened = Manifest.new(self.rid, self.trials[slug])
            if self.record.origin != LEGACY and (stranger := opened.stranger(self.rid, slug)):
                raise DamagedArtifact(f"{stranger}.", where=str(path))
            self._manifests[slug] = opened
        return self._manifests[slug]

    def adopt_manifest(self, slug: str, opened: Manifest) -> None:
        """Use *opened* from now on (an upgrade or a rebuilt one)."""
        self._manifests[slug] = opened

    def refresh(self) -> None:
        """Forget what was read of records: another process may have written them since."""
        self._manifests.clear()
        self.record = read_record(self.paths.record)

    def is_in_order(self, slug: str) -> bool:
        """Whether the trial's manifest can be worked with as it is; one that is not there yet is no fault."""
        if fingerprints.kind(self.trial_paths(slug).manifest) is None:
            return not self.submitted(slug)  # a trial that has hardly begun
        try:
            self.manifest(slug)
        except (OlderManifest, DamagedArtifact):
            return False
        return True

    def save_manifest(self, slug: str) -> None:
        """Write the trial's manifest if it changed."""
        assert not self.readonly
        self.manifest(slug).save(self.trial_paths(slug).manifest, self.fingerprints)

    def set_run_stage(self, name: str, stage: Stage) -> None:
        """Record *stage* of a run-level phase in `run.json`."""
        assert not self.readonly
        self.record = replace(self.record, stages={**self.record.stages, name: stage})
        self.record.save(self.paths.record)

    def accept_config(self) -> None:
        """Make the config as it stands the recorded one; called when every phase has been brought up to it."""
        assert not self.readonly
        digest = hashlib.sha256(disk.read_bytes(self.paths.config)).hexdigest()
        trials = tuple(self.trials)
        self.record = replace(self.record, config=self.config.values, config_sha256=digest, trials=trials)
        self.record.save(self.paths.record)

    def index(self, slug: str) -> parts.Index | None:
        """The trial's list of parts, None before build. Raises DamagedArtifact or UnreadableFile."""
        (name,) = graph.names(graph.BY_NAME["build"].targets, [slug])
        seen = self.fingerprints.look(name)
        if seen is None:
            return None
        if (kind := fingerprints.kind_of(seen)) != "file":
            raise DamagedArtifact(f"a {kind} stands in its place.", where=str(self.trial_paths(slug).index))
        digest = self.fingerprints.of(name, seen)
        cached = self._indexes.get(slug)
        if cached is None or cached[0] != digest:
            path = self.trial_paths(slug).index
            cached = self._indexes[slug] = (digest, parts.read(path, self.fingerprints))
        return cached[1]

    def ledger(self, slug: str, part: str) -> ledger.Ledger:
        """The ledger of one part, read anew each time: another process may append to it."""
        from pipeline import ledger  # a run whose results are all here reads none

        return ledger.read(self.trial_paths(slug).part(part).ledger)

    def damage(self, name: str, sha256: str | None, size: int) -> str | None:
        """What is wrong with the file *name* (relative to the run) against its record; None when it is as written."""
        seen = self.fingerprints.look(name)
        if seen is None:
            return f"{Path(name).name}: missing"
        if (kind := fingerprints.kind_of(seen)) != "file":
            return f"{Path(name).name}: a {kind} stands in its place"
        if (found := seen.st_size) != size:
            there = "empty" if found == 0 else f"{found:,} bytes"
            return f"{Path(name).name}: {there}, was {size:,} bytes when it was written"
        if sha256 is not None and self.fingerprints.of(name, seen) != sha256:
            return f"{Path(name).name}: its content is not what was written (same size, other sha256)"
        return None

    def submitted(self, slug: str) -> bool:
        """Whether any part of the trial may have been sent: an intent is enough, its outcome is asked later."""
        results = self.trial_paths(slug).results
        if not results.is_dir():
            return False
        return any(PartPaths(folder).ledger.exists() for folder in results.iterdir() if folder.is_dir())

    def sent_parts(self, slug: str) -> dict[str, str]:
        """part -> sha256 of what its first attempt sent, of every part of the trial that has an intent."""
        results = self.trial_paths(slug).results
        names = sorted(folder.name for folder in results.iterdir() if folder.is_dir()) if results.is_dir() else []
        books = {name: self.ledger(slug, name) for name in names}
        return {name: book.attempts[0].requests_sha256 for name, book in books.items() if book.attempts}


def open_run(
    run: RunPaths,
    record: Record,
    *,
    readonly: bool,
    known: Mapping[str, Facts] | None = None,
    deep: bool = False,
    forced: frozenset[str] = frozenset(),
) -> Workspace:
    """Open the run at *run*, whose *record* has been read. Raises ConfigError or Refused."""
    if record.rid != run.rid:
        raise Refused(
            f"belongs to the run {record.rid!r}, but its folder is called {run.root.name!r}.",
            where=str(run.record),
            kept="Nothing was changed.",
            hint=f"rename the folder back to run_{record.rid}: job ids are made from the run's id",
        )
    base = _sources_base(run, record)
    try:
        digest = hashlib.sha256(disk.read_bytes(run.config)).hexdigest()
    except FileNotFoundError:
        digest = record.config_sha256  # a writer has restored it; for a reader the record holds the same values
    # The recorded one was checked when it was recorded.
    config = Config(record.config, base) if digest == record.config_sha256 else _edited(run, base)
    return Workspace(run, record, config, readonly=readonly, known=known, deep=deep, forced=forced)


def base_of(config: Path) -> Path:
    """The folder that the paths in *config* are relative to: its own, or, for a run's frozen file, the original's."""
    run = RunPaths(config.parent)
    if config.name != run.config.name:
        return config.parent
    try:
        return _sources_base(run, read_record(run.record))
    except (FileNotFoundError, DamagedArtifact):
        return config.parent  # no run's folder


def _sources_base(run: RunPaths, record: Record) -> Path:
    return Path(os.path.normpath(run.root / record.sources_base))


def _edited(run: RunPaths, base: Path) -> Config:
    try:
        return configuration.read_frozen(run.config, base=base)
    except ConfigError as error:
        raise ConfigError(
            error.what,
            where=error.where,
            kept=f"{run.record.name} holds the config as it was last accepted.",
            hint="mend the file, or delete it to get that config back; then run the same command again",
        ) from error


def relative_base(base: Path, root: Path) -> str:
    """The folder of a config's paths as the record names it: relative to the run's, so that both can move."""
    return Path(os.path.relpath(base.resolve(), root.resolve())).as_posix()
