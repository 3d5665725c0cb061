"""Opening a run: the named one or the latest, to look at it or to work on it; made first where that is asked for.

Whoever writes holds the run's lock from before the first look, since what is damaged is repaired on
the way in. Whoever only looks creates nothing, not even the run it would start. What mends and what takes
over is imported where it is needed: for a run in order that would be a third of the time of looking at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from pipeline import config as configuration
from pipeline import disk, environment, fingerprints, identity, lock, manifest, paths, restore, runs, workspace
from pipeline.errors import Refused, UnknownRun, UsageError
from pipeline.manifest import LEGACY
from pipeline.memory import Memory
from pipeline.paths import RunPaths
from pipeline.record import Record, base_of, read_record
from pipeline.request import Request
from pipeline.session import Session
from pipeline.version import VERSION
from pipeline.workspace import Workspace


def for_reading(request: Request, say: Callable[[str], None]) -> Session:
    """The named or latest run, to look at; before the first run, what it would be. Creates nothing."""
    run = _existing(request)
    if run is not None and not _shapes(request, run):
        with ExitStack() as exits:
            return _open(run, request, say, exits, readonly=True)
    if request.rid is not None and request.config is None:
        raise runs.unknown_run(request.rid)
    settings = _new_config(request)
    would_be = run or RunPaths.of(request.rid or _default_rid())
    opened = Workspace(would_be, _would_be_record(would_be, settings), settings, readonly=True, forced=request.forced)
    return Session(opened, Memory(would_be.database, readonly=True), request, say, ExitStack())


def for_writing(request: Request, say: Callable[[str], None], *, may_create: bool) -> Session:
    """The named or latest run, locked; created first where that is asked for. Raises UnknownRun, RunLocked, ..."""
    run, settings = _existing(request), None
    if run is None:
        if request.rid is not None and request.config is None:
            raise runs.unknown_run(request.rid)
        if not may_create:
            raise UnknownRun(f"there is no run in {paths.EXPERIMENTS}/ yet.", hint="doit starts one")
        run, settings = RunPaths.of(request.rid or _default_rid()), _new_config(request)
    elif _shapes(request, run, may_create=may_create):
        settings = _new_config(request)
    with ExitStack() as exits:
        exits.enter_context(lock.only_writer(run.lock, f"run {run.rid}"))
        if settings is not None:
            _make(run, settings, config_path(request), say)
        opened = _open(run, request, say, exits, readonly=False)
    if run.stop_request.exists():
        disk.remove(run.stop_request)
        say(f"{paths.STOP_FILE} removed: going on.")
    return opened


def _make(run: RunPaths, settings: configuration.Config, source: Path, say: Callable[[str], None]) -> None:
    """Create *run*; of one that is there (another process may just have made it) the config can still change."""
    digest = hashlib.sha256(disk.read_bytes(source)).hexdigest()
    if not runs.exists(run):
        runs.create(run, settings, manifest.utc_now(), source_sha256=digest)
        say(f"new run {run.rid} from {source}")
    elif not runs.is_begun(run):
        record = read_record(run.record)
        if identity.differences(dict(record.config), dict(settings.values)):
            runs.create(run, settings, record.created_at, source_sha256=digest)
            say(f"run {run.rid}, of which nothing was submitted, lives by {source} as it is now")


def _shapes(request: Request, run: RunPaths, *, may_create: bool = True) -> bool:
    """Whether *request* gives the existing *run*, of which nothing was submitted, another config.

    Raises UsageError where it wants to and cannot.
    """
    if request.config is None and request.limit is None:
        return False
    # limit= alone would go by ./experiment.yaml, which may be another experiment's.
    if request.config is None or not may_create or runs.is_begun(run):
        word = "config=" if request.config is not None else "limit="
        raise UsageError(
            f"{word} starts a new run, but run {run.rid} exists and lives by its frozen {run.config}.",
            hint=f"doit resume rid={run.rid}, or another rid for a new run",
        )
    return True


def _open(run: RunPaths, request: Request, say: Callable[[str], None], exits: ExitStack, *, readonly: bool) -> Session:
    """Open the run at *run*; a writer holds its lock already, since what is damaged is repaired or moved aside."""
    if not runs.exists(run):  # then it is the earlier tool's
        from pipeline import takeover

        if readonly:
            raise takeover.refuse_unread(run)
        takeover.take_over(run, say)
    record = restore.open_record(run, readonly=readonly, say=say)
    memory = Memory(run.database, readonly=readonly)
    exits.callback(memory.close)
    if memory.set_aside is not None:
        say(f"{run.database.name} was damaged; kept as {memory.set_aside.name}. It is only a memory: nothing is lost.")
    opened = workspace.open_run(
        run,
        record,
        readonly=readonly,
        known=memory.fingerprints,
        deep=request.deep,
        forced=request.forced,
        asks_again=request.asks_again,
    )
    opened.forgotten = memory.forgotten
    if record.origin == LEGACY and not readonly:
        from pipeline import takeover

        takeover.complete(opened, say)
    for slug in opened.trials:
        if not opened.is_in_order(slug):
            from pipeline import repair

            repair.open_manifest(opened, slug, say=say)
    return Session(opened, memory, request, say, exits.pop_all())


def _existing(request: Request) -> RunPaths | None:
    """The named run, else the latest; None when there is none."""
    if request.rid is not None:
        run = RunPaths.of(request.rid)
        if runs.exists(run):
            return run
        from pipeline import traces

        if traces.is_earlier_run(run):
            return run
        if traces.is_ours(run):
            raise restore.refuse_without_config(run)
        return None
    known = [run for _, run in runs.known_runs()]
    for run in paths.runs():
        if not runs.exists(run) and runs.was_submitted(run):
            # Passed over, its work would be done, and paid, again as another run.
            raise _refuse_to_pass_over(run)
    return known[-1] if known else None


def _refuse_to_pass_over(run: RunPaths) -> Refused:
    """For *run*, of which something was submitted, and which cannot be the latest since nobody knows when it began."""
    from pipeline import traces

    if not traces.is_earlier_run(run):
        return restore.refuse_without_config(run)
    return Refused(
        "is a run of the earlier tool that was taken over in part only.",
        where=str(run.root),
        kept="Nothing was changed.",
        hint=f"doit resume rid={run.rid} takes it over; or name another run by rid=, or move this folder away",
    )


def config_path(request: Request) -> Path:
    """What a new run is made from: config=, else `./experiment.yaml`, else the bundled example."""
    if request.config is not None:
        return request.config
    # A link that leads nowhere is meant, too: passed over for the example, the wrong experiment would be run.
    there = fingerprints.kind(paths.LOCAL_CONFIG) is not None
    return paths.LOCAL_CONFIG if there else paths.resource("examples/experiment.yaml")


def _new_config(request: Request) -> configuration.Config:
    path = config_path(request)
    variables = environment.variables()
    return configuration.read(path, base=base_of(path), variables=variables, limit=request.limit, new_run=True)


def _would_be_record(run: RunPaths, settings: configuration.Config) -> Record:
    return Record(
        rid=run.rid,
        created_at=manifest.utc_now(),
        tool_version=VERSION,
        config_sha256="",
        config=settings.values,
        sources_base=".",
        trials=tuple(trial.slug for trial in settings.trials),
        stages={},
    )


def _default_rid() -> str:
    return datetime.now(UTC).strftime("r%Y%m%d%H%M%S")
