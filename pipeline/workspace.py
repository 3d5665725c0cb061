"""An opened run: its config, its record, its trials' manifests and what is remembered of its files.

A workspace opened for reading writes nothing at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import config as configuration
from pipeline import disk, fingerprints, graph, manifest, parts, runs
from pipeline.config import Config
from pipeline.errors import ConfigError, DamagedArtifact, Refused
from pipeline.fingerprints import Facts, Fingerprints
from pipeline.identity import differences
from pipeline.manifest import LEGACY, Manifest, OlderManifest, Stage
from pipeline.paths import PartPaths, RunPaths, TrialPaths
from pipeline.record import Record, read_record, sources_base
from pipeline.trials import Trial

if TYPE_CHECKING:
    from pipeline.ledger import Attempt, Ledger


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
        asks_again: bool = False,
    ) -> None:
        self.paths = run
        self._root = f"{run.root}/"
        self.record = record
        self.config = config
        self.readonly = readonly
        self.forced = forced
        self.asks_again = asks_again  # whether rows without an answer are to be asked for anew, though all was done
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
        """How the frozen config differs from what the record last accepted; a key that it held is not shown."""
        changes = differences(dict(self.record.config), dict(self.config.values))
        if changes:
            from pipeline import config_checks  # most configs are as they were accepted

            for problem in config_checks.keys(self.record.config):
                place = problem.partition(":")[0].partition("[")[0]
                others = [change for change in changes if not change.startswith(place)]
                changes = others if others == changes else [*others, f"{place}: changed"]
        return changes

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

    def ledger(self, slug: str, part: str) -> Ledger:
        """The ledger of one part, read anew each time: another process may append to it."""
        from pipeline import ledger  # a run whose results are all here reads none

        return ledger.read(self.trial_paths(slug).part(part).ledger)

    def ledgers(self) -> Iterator[tuple[str, str, Ledger]]:
        """(trial, part, ledger) of everything this run ever submitted, also of trials its config no longer has."""
        for slug in (*self.trials, *self.gone_trials()):
            for path in self.trial_paths(slug).ledgers():
                yield slug, path.parent.name, self.ledger(slug, path.parent.name)

    def gone_trials(self) -> list[str]:
        """The trials that were sent and that the config no longer has, by whatever is left of their submissions."""
        return sorted(self.paths.sent_trials() - self.trials.keys())

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
        """Whether any part of the trial may have been sent: an intent is enough, its outcome is asked later.

        Where the ledgers are lost, whatever else a submission leaves shows it as well.
        """
        results = self.trial_paths(slug).results
        if not results.is_dir():
            return False
        if any(PartPaths(folder).shows_submission() for folder in results.iterdir() if folder.is_dir()):
            return True
        groups = self.manifest(slug).document["jobs"].values() if slug in self.trials else ()
        return any(job is not None for group in groups for job in group)

    def items_asked(self) -> Mapping[str, str]:
        """name -> sha256 of the items that a submitted trial was built from; empty where no list of parts tells."""
        for slug in (*self.trials, *self.gone_trials()):
            with suppress(DamagedArtifact):
                if self.submitted(slug) and (index := self.index(slug)) is not None and index.inputs:
                    return index.inputs
        return {}

    def first_attempts(self, slug: str) -> dict[str, Attempt]:
        """part -> the first attempt that its ledger knows, of every part of the trial that has an intent."""
        results = self.trial_paths(slug).results
        names = sorted(folder.name for folder in results.iterdir() if folder.is_dir()) if results.is_dir() else []
        books = {name: self.ledger(slug, name) for name in names}
        return {name: book.attempts[0] for name, book in books.items() if book.attempts}

    def sent_parts(self, slug: str) -> dict[str, str]:
        """part -> sha256 of what its first attempt sent, of every part whose ledger knows that one.

        A later attempt asked for some of its rows, and so sent other bytes.
        """
        attempts = self.first_attempts(slug).items()
        return {part: first.requests_sha256 for part, first in attempts if first.number == 1}


def open_run(
    run: RunPaths,
    record: Record,
    *,
    readonly: bool,
    known: Mapping[str, Facts] | None = None,
    deep: bool = False,
    forced: frozenset[str] = frozenset(),
    asks_again: bool = False,
) -> Workspace:
    """Open the run at *run*, whose *record* has been read. Raises ConfigError or Refused."""
    if (original := runs.original_of(run, record)) is not None:
        raise Refused(
            f"is a copy of the run {record.rid!r}, which is there too, or a link to it.",
            where=str(run.root),
            kept="Nothing was changed.",
            hint=f"doit resume rid={record.rid} goes on with the run itself; to go on with the copy instead, put it in "
            f"place of {original.root}: job ids are made from the run's id",
        )
    if record.rid != run.rid:
        raise Refused(
            f"belongs to the run {record.rid!r}, but its folder is called {run.root.name!r}.",
            where=str(run.record),
            kept="Nothing was changed.",
            hint=f"rename the folder back to run_{record.rid}: job ids are made from the run's id",
        )
    base = sources_base(run, record)
    try:
        digest = hashlib.sha256(disk.read_bytes(run.config)).hexdigest()
    except FileNotFoundError:
        digest = record.config_sha256  # a writer has restored it; for a reader the record holds the same values
    # The recorded one was checked when it was recorded.
    config = Config(record.config, base) if digest == record.config_sha256 else _edited(run, record, base)
    return Workspace(
        run, record, config, readonly=readonly, known=known, deep=deep, forced=forced, asks_again=asks_again
    )


def _edited(run: RunPaths, record: Record, base: Path) -> Config:
    try:
        return configuration.read_frozen(run.config, base=base, record=record.config)
    except ConfigError as error:
        raise ConfigError(
            error.what,
            where=error.where,
            kept=f"{run.record.name} holds the config as it was last accepted.",
            hint="mend the file, or delete it to get that config back; then run the same command again",
        ) from error
