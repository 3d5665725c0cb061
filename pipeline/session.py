"""One invocation on one run: which run it is, what to do about each phase, doing it, and recording it.

This is where the decisions of `done.py`, the work of the phases and the manifest meet; doit's own
side is in `tasks.py`, `doit_state.py` and `reporter.py`. `perform` runs in whatever worker doit
chooses and returns plain JSON; everything that records runs in the main process.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline import disk, done, fingerprints, graph, identity, jsonl, lock, manifest, mirror, paths, repair, workspace
from pipeline.disk import StatKey, Written
from pipeline.done import Decision, Question, Refuse, Skip
from pipeline.errors import ContractBroken, NotReady, Refused, Stopped, UsageError
from pipeline.manifest import COMPLETED, FAILED, IN_PROGRESS, STOPPED, Stage
from pipeline.memory import Memory
from pipeline.paths import RunPaths
from pipeline.phases import Outcome
from pipeline.request import Request
from pipeline.version import VERSION
from pipeline.workspace import Workspace

_ASIDE = "damaged"  # how a file that is not what was recorded is renamed
_MAX_ERROR = 4000  # characters of an error kept in the manifest


class Session:
    """An opened run and what this invocation wants of it. Used by doit's tasks, backend and reporter alike."""

    def __init__(
        self,
        opened: Workspace,
        memory: Memory,
        request: Request,
        say: Callable[[str], None],
        held: ExitStack | None = None,
    ) -> None:
        self.workspace = opened
        self.memory = memory
        self.request = request
        self.say = say
        self.decisions: dict[tuple[str, str], Decision] = {}
        self.pid = os.getpid()
        self.reporter: Any = None
        self._watching = self.pid
        # Under `-n` with threads a task's start is reported by its worker.
        self._recording = threading.RLock()
        self._exit = held or ExitStack()  # what is held for as long as the invocation lasts: the run's lock
        self._started: dict[tuple[str, str], float] = {}
        self._log_waiting: list[dict[str, str]] = []
        self._log_open = False

    # --- what there is to do -----------------------------------------------------------------------

    @property
    def readonly(self) -> bool:
        """Whether this invocation only looks."""
        return self.workspace.readonly

    @cached_property
    def trials(self) -> tuple[str, ...]:
        """The slugs this invocation is about. Raises UsageError when trial= matches none."""
        pattern = self.request.trials
        slugs = tuple(self.workspace.trials)
        chosen = tuple(slug for slug in slugs if pattern is None or fnmatch.fnmatchcase(slug, pattern))
        if not chosen:
            raise UsageError(f"trial={pattern} matches no trial.", hint=f"trials are: {', '.join(slugs)}")
        return chosen

    def cells(self) -> Iterator[tuple[graph.Phase, str]]:
        """Every (phase, trial) this invocation is about, in order; the trial is empty for a run-level phase."""
        for phase in graph.PHASES:
            if self.request.phases and phase.name not in self.request.phases:
                continue
            if phase.per_trial:
                yield from ((phase, slug) for slug in self.trials)
            elif phase.name != "index" or self.trials == tuple(self.workspace.trials):
                yield phase, ""

    def decide(self, phase: str, slug: str) -> Decision:
        """What to do about one cell; a reader decides once, a writer anew each time it is asked."""
        if self.readonly and (phase, slug) in self.decisions:
            return self.decisions[phase, slug]
        decision = done.decide(phase, self.workspace, slug)
        self.decisions[phase, slug] = decision
        return decision

    def question(self, phase: str, slug: str) -> Question:
        """The files and the record of one cell."""
        return Question(graph.BY_NAME[phase], slug, self.workspace)

    # --- doing it ----------------------------------------------------------------------------------

    def perform(self, phase: str, slug: str) -> dict[str, Any]:
        """Do the work of one cell and return its record as plain JSON. Raises TrialmakeError."""
        if os.getpid() != self.pid:
            # A worker was forked before the phases ahead of this one ran: it looks again.
            self._watch_parent()
            self.workspace.refresh()
            self.decide(phase, slug)
        self.check_stop()
        decision = self.decisions.get((phase, slug))
        if isinstance(decision, Refuse):
            raise Refused(decision.reason, where=f"{phase} {slug}".strip(), kept="Nothing was changed or sent.")
        from pipeline import actions  # the phases import what they need; deciding must not

        question = self.question(phase, slug)
        self._set_aside_foreign(question)
        inputs = self._digests(question)
        started = time.monotonic()
        outcome = actions.ACTIONS[phase](self, slug, inputs)
        self._check_inputs(question, inputs)
        self._drop_identical(outcome)
        return self._record(question, outcome, inputs, time.monotonic() - started)

    def check_stop(self) -> None:
        """Raise Stopped when the user left a stop request in the run's folder."""
        if self.workspace.paths.stop_request.exists():
            raise Stopped(
                f"{paths.STOP_FILE} was found: no new work is started.",
                where=str(self.workspace.paths.root),
                kept="What was done is kept; running jobs go on at the provider.",
                hint=self.resume_command,
            )

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        return f"doit resume rid={self.workspace.rid}"

    @cached_property
    def queue(self) -> Any:
        """The run's queue, made when a phase first needs it."""
        from pipeline import actions

        return actions.make_queue(self)

    # --- recording it (main process only) ----------------------------------------------------------

    def begin(self, phase: str, slug: str) -> None:
        """Record that a cell's work starts."""
        self._started[phase, slug] = time.monotonic()
        self._change_stage(phase, slug, lambda old: replace(old, status=IN_PROGRESS, updated_at=_now(), error=None))

    def succeed(self, phase: str, slug: str, values: Mapping[str, Any]) -> None:
        """Mirror a finished cell into the manifest: what it wrote, from what, with which settings."""
        for name, key in values.get("keys", {}).items():
            facts = values["stage"]["outputs"][name]
            written = Written(facts["sha256"], facts["size"], StatKey(*key))
            self.workspace.fingerprints.remember(self.workspace.paths.root / name, written)
        stage = replace(Stage.of(values["stage"]), status=COMPLETED, updated_at=_now())
        self._started.pop((phase, slug), None)
        self._change_stage(phase, slug, lambda _old: stage)

    def fail(self, phase: str, slug: str, error: str, kind: str) -> None:
        """Record why a cell did not finish; what the provider still works on is in progress, not failed."""
        status = {NotReady.__name__: IN_PROGRESS, Stopped.__name__: STOPPED}.get(kind, FAILED)
        self._started.pop((phase, slug), None)
        self._change_stage(
            phase, slug, lambda old: replace(old, status=status, updated_at=_now(), error=error[:_MAX_ERROR])
        )

    def stopped(self) -> None:
        """Record that the cells at work were stopped."""
        for phase, slug in list(self._started):
            self.fail(phase, slug, "stopped by the user", Stopped.__name__)

    def forget(self, phase: str, slug: str) -> None:
        """Make one cell stale in the manifest; its outputs stay known, so they are not taken for foreign."""
        self._change_stage(phase, slug, lambda old: replace(old, status=manifest.PENDING, updated_at=_now()))

    def log(self, phase: str, slug: str, decision: Decision) -> None:
        """Append the decision to the log; a run in which all is skipped leaves no line."""
        entry = {"phase": phase, "trial": slug, "decision": decision.verb, "reason": decision.reason, "at": _now()}
        with self._recording:
            self._log_waiting.append(entry)
            if not isinstance(decision, Skip):
                self._log_open = True
            if self._log_open and not self.readonly:
                disk.make_folder(self.workspace.paths.decisions.parent)
                for waiting in self._log_waiting:
                    disk.append_line(self.workspace.paths.decisions, jsonl.dumps(waiting))
                self._log_waiting.clear()

    def remember(self, task: str | None = None) -> None:
        """Make what was learned of files, and doit's row of *task*, last."""
        self.memory.commit(task, self.workspace.fingerprints.fresh())

    def settle_config(self) -> None:
        """Every phase has been brought up to the config as it stands: that is now the recorded one."""
        if self.workspace.config_changes:
            self.workspace.accept_config()

    def finish(self, write: Callable[[str], Any]) -> None:
        """The last words of a run: where the reports are."""
        for slug in self.trials:
            report = self.workspace.trial_paths(slug).report_md
            if report.is_file():
                write(f"report: {report}\n")

    def at_close(self, callback: Callable[[], object]) -> None:
        """Have *callback* called when the invocation ends."""
        self._exit.callback(callback)

    def close(self) -> None:
        """End the invocation: memory stored, lock released."""
        if not self.readonly:
            self.remember()
        self.memory.close()
        self._exit.close()

    # --- pieces ------------------------------------------------------------------------------------

    def _change_stage(self, phase: str, slug: str, change: Callable[[Stage], Stage]) -> None:
        spec = graph.BY_NAME[phase]
        with self._recording:
            if not spec.per_trial:
                self.workspace.set_run_stage(phase, change(self.workspace.record.stages.get(phase, Stage())))
                return
            document = self.workspace.manifest(slug)
            if spec.stage is not None:
                document.set_stage(spec.stage, change(document.stage(spec.stage)))
            elif phase == "submit":
                # Jobs under way are part of "downloaded": in progress, stopped or failed, never completed by submit.
                stage = change(document.stage("downloaded"))
                if stage.status != COMPLETED:
                    document.set_stage("downloaded", stage)
            if phase in ("build", "submit", "download"):
                document.set_jobs(mirror.jobs(self.workspace.index(slug), self.workspace.trial_paths(slug)))
            self.workspace.save_manifest(slug)

    def _digests(self, question: Question) -> dict[str, str]:
        digests = {}
        for path in question.inputs:
            try:
                digests[question.relative(path)] = self.workspace.fingerprints.sha256(path)
            except FileNotFoundError:
                raise Refused(
                    f"{question.phase.name} needs {path.name}, which is not there.",
                    where=str(path),
                    kept="Nothing was changed.",
                    hint=f"run the phase that writes it: doit resume rid={self.workspace.rid}",
                ) from None
        return digests

    def _check_inputs(self, question: Question, before: Mapping[str, str]) -> None:
        """An input that was edited while the phase ran must not count as what it was built from."""
        for name, digest in before.items():
            if self.workspace.fingerprints.sha256(self.workspace.paths.root / name) != digest:
                raise ContractBroken(
                    f"{name} changed while {question.phase.name} was reading it.",
                    kept="The phase is not recorded as done.",
                    hint=self.resume_command,
                )

    def _set_aside_foreign(self, question: Question) -> None:
        """Move outputs that are not the recorded ones out of the way: nothing unknown is silently replaced."""
        if question.phase.stage is None and question.phase.per_trial:
            return  # build and submit look after their files by digests of their own
        recorded = question.stage.outputs
        for path in question.targets:
            kind = fingerprints.kind(path)
            if kind is None or (kind == "file" and path.stat().st_size == 0):
                continue
            known = recorded.get(question.relative(path), {}).get("sha256")
            if kind != "file" or self.workspace.fingerprints.sha256(path) != known:
                self.say(f"{path.name} is not what was recorded; kept as {disk.set_aside(path, _ASIDE).name}")

    def _drop_identical(self, outcome: Outcome) -> None:
        """What was set aside and turns out to be the very same bytes (a kill before the record) need not be kept."""
        for path, output in outcome.outputs.items():
            for aside in path.parent.glob(f"{glob.escape(path.name)}.{_ASIDE}.*"):
                if aside.is_file() and disk.sha256_of(aside)[0] == output.written.sha256:
                    disk.remove(aside)

    def _record(
        self, question: Question, outcome: Outcome, inputs: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        outputs, keys = {}, {}
        for path, output in outcome.outputs.items():
            name = question.relative(path)
            outputs[name] = {"sha256": output.written.sha256, "size": output.written.size}
            if output.rows is not None:
                outputs[name]["rows"] = output.rows
            keys[name] = list(vars(output.written.key).values())
        settings = self.settings(question.phase.name, question.slug)
        stage = Stage(
            status=COMPLETED,
            updated_at=None,
            artifacts=outcome.artifacts,
            outputs=outputs,
            inputs=dict(inputs),
            settings=settings,
            identity_version=identity.VERSION,
            config_sha256=identity.digest(settings),
            tool_version=VERSION,
            duration_s=round(seconds, 3),
        )
        return {"stage": stage.as_json(), "keys": keys}

    def settings(self, phase: str, slug: str) -> identity.Settings:
        """The settings one cell uses now."""
        if phase == "prepare":
            digests = done.source_digests(self.workspace)
            return identity.of_prepare(self.workspace.config, digests)
        trial = self.workspace.trials[slug or next(iter(self.workspace.trials))]
        return identity.of_phase(phase, self.workspace.config, trial)

    def _watch_parent(self) -> None:
        """In a worker process: end when the parent is gone, so that nobody works without the run's lock."""
        if self._watching == os.getpid():
            return
        self._watching = os.getpid()
        parent = self.pid

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.2)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


# --- opening ---------------------------------------------------------------------------------------


def open_for_reading(request: Request, say: Callable[[str], None]) -> Session:
    """The named or latest run, to look at; before the first run, what it would be. Creates nothing."""
    run = _existing(request)
    if run is None:
        if request.rid is not None and request.config is None:
            raise workspace.unknown_run(request.rid)
        settings = _new_config(request)
        would_be = RunPaths.of(request.rid or _default_rid())
        record = _would_be_record(would_be, settings)
        opened = Workspace(would_be, record, settings, readonly=True, forced=request.forced)
        return Session(opened, Memory(would_be.database, readonly=True), request, say)
    return _open(run, request, say, readonly=True)


def open_for_writing(request: Request, say: Callable[[str], None], *, may_create: bool) -> Session:
    """The named or latest run, locked; created first where that is asked for. Raises UnknownRun, RunLocked, ..."""
    run = _existing(request)
    if run is None:
        if not may_create or (request.rid is not None and request.config is None):
            raise workspace.unknown_run(request.rid or "latest")
        run = RunPaths.of(request.rid or _default_rid())
        settings = _new_config(request)
        with lock.only_writer(run.lock, f"run {run.rid}"):
            workspace.create(run, settings, manifest.utc_now())
        say(f"new run {run.rid} from {_config_path(request)}")
    elif request.config is not None or request.limit is not None:
        word = "config=" if request.config is not None else "limit="
        raise UsageError(
            f"{word} starts a new run, but run {run.rid} exists and lives by its frozen {run.config}.",
            hint=f"doit resume rid={run.rid}, or another rid for a new run",
        )
    return _open(run, request, say, readonly=False)


def _open(run: RunPaths, request: Request, say: Callable[[str], None], *, readonly: bool) -> Session:
    with ExitStack() as held:
        if not readonly:
            # Before anything is read: what opening repairs, only the one writer may.
            held.enter_context(lock.only_writer(run.lock, f"run {run.rid}"))
        record = repair.open_record(run, readonly=readonly, say=say)
        memory = Memory(run.database, readonly=readonly)
        if memory.set_aside is not None:
            kept = memory.set_aside.name
            say(f"{run.database.name} was damaged; kept as {kept}. It is only a memory: nothing is lost.")
        opened = workspace.open_run(
            run,
            record,
            readonly=readonly,
            known=memory.fingerprints,
            deep=request.deep,
            forced=request.forced,
        )
        for slug in opened.trials:
            repair.open_manifest(opened, slug, say=say)
        if not readonly and run.stop_request.exists():
            disk.remove(run.stop_request)
            say(f"{paths.STOP_FILE} removed: going on.")
        return Session(opened, memory, request, say, held.pop_all())


def _existing(request: Request) -> RunPaths | None:
    if request.rid is not None:
        run = RunPaths.of(request.rid)
        return run if workspace.exists(run) else None
    known = workspace.known_runs()
    return known[-1][1] if known else None


def _config_path(request: Request) -> Path:
    if request.config is not None:
        return request.config
    return paths.LOCAL_CONFIG if paths.LOCAL_CONFIG.exists() else paths.resource("examples/experiment.yaml")


def _new_config(request: Request) -> configuration.Config:
    return configuration.read(_config_path(request), environment=configuration.environment(), limit=request.limit)


def _would_be_record(run: RunPaths, settings: configuration.Config) -> workspace.Record:
    return workspace.Record(
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


def _now() -> str:
    return manifest.utc_now()
