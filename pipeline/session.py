"""One invocation on one run: what to do about each phase, doing it, and recording it (`opening.py` makes one).

This is where the decisions of `done.py`, the work of the phases and the manifest meet; doit's own
side is in `tasks.py`, `doit_state.py` and `reporter.py`. `perform` runs in whatever worker doit
chooses and returns plain JSON; everything that records runs in the main process.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline import disk, done, fingerprints, graph, identity, jsonl, manifest, paths
from pipeline.decision import Decision, Question, Refuse, Skip
from pipeline.disk import StatKey, Written
from pipeline.errors import (
    ContractBroken,
    DamagedArtifact,
    NotReady,
    QuotaFull,
    Refused,
    Stopped,
    TrialmakeError,
    Unreachable,
    UsageError,
)
from pipeline.manifest import COMPLETED, FAILED, IN_PROGRESS, LEGACY, STOPPED, Stage
from pipeline.memory import Memory
from pipeline.phases import Outcome
from pipeline.request import Request
from pipeline.version import VERSION
from pipeline.workspace import Workspace

_ASIDE = "damaged"  # how a file that is not what was recorded is renamed
# The record of a cell that ended with an error of this class; of all others it is "failed".
_STATUS_OF = {
    NotReady.__name__: IN_PROGRESS,
    QuotaFull.__name__: IN_PROGRESS,
    Unreachable.__name__: IN_PROGRESS,
    Stopped.__name__: STOPPED,
}
_MAX_ERROR = 4000  # characters of an error kept in the manifest


class Session:
    """An opened run and what this invocation wants of it. Used by doit's tasks, backend and reporter alike."""

    def __init__(
        self, opened: Workspace, memory: Memory, request: Request, say: Callable[[str], None], exits: ExitStack
    ) -> None:
        self.workspace = opened
        self.memory = memory
        self.request = request
        self.say = say
        self.decisions: dict[tuple[str, str], Decision] = {}
        self.pid = os.getpid()
        self.reporter: Any = None
        self.forgetting = False
        self.has_workers = False  # whether phases are done by workers (`-n`), not by this process alone
        # Under `-n` with threads a task's start is reported by its worker.
        self._recording = threading.RLock()
        self._exit = exits
        self._started: dict[tuple[str, str], float] = {}
        self._stopping = False
        self._looks_once = False
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

    def look_once(self) -> None:
        """All phases are about to be asked after: from now on each file is looked at once, while none is at work."""
        self._looks_once = True
        self.workspace.fingerprints.look_once()

    def question(self, phase: str, slug: str) -> Question:
        """The files and the record of one cell."""
        return Question(graph.BY_NAME[phase], slug, self.workspace)

    # --- doing it ----------------------------------------------------------------------------------

    def perform(self, phase: str, slug: str) -> dict[str, Any]:
        """Do the work of one cell and return its record as plain JSON. Raises TrialmakeError."""
        if os.getpid() != self.pid:
            # A worker was forked before the phases ahead of this one ran: it looks again.
            self.workspace.fingerprints.look_anew()
            self.workspace.refresh()
            self.decide(phase, slug)
        self.check_stop()
        decision = self.decisions.get((phase, slug))
        if isinstance(decision, Refuse):
            raise Refused(decision.reason, kept="Nothing was changed or sent.")
        from pipeline import actions  # the phases import what they need; deciding must not

        question = self.question(phase, slug)
        inputs = self._digests(question)
        started = time.monotonic()
        with self._foreign_set_aside(question):
            outcome = actions.ACTIONS[phase](self, slug, inputs)
            self._check_inputs(question, inputs)
        return self._record(question, outcome, inputs, time.monotonic() - started)

    def check_stop(self) -> None:
        """Raise Stopped when the user left a stop request in the run's folder, or this process is being stopped."""
        if self._stopping:
            raise Stopped("the run is being stopped.", kept="What was done is kept.", hint=self.resume_command)
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
        if slug and not self.has_workers:
            self.workspace.fingerprints.work_in(slug)
        else:
            self.workspace.fingerprints.look_anew()
        self._started[phase, slug] = time.monotonic()
        self._change_stage(phase, slug, lambda old: replace(old, status=IN_PROGRESS, updated_at=_now(), error=None))

    def succeed(self, phase: str, slug: str, values: Mapping[str, Any]) -> None:
        """Mirror a finished cell into the manifest: what it wrote, from what, with which settings."""
        for name, key in values.get("keys", {}).items():
            facts = values["stage"]["outputs"][name]
            written = Written(facts["sha256"], facts["size"], StatKey(*key))
            self.workspace.fingerprints.remember(self.workspace.paths.root / name, written)
        stage = replace(Stage.of(values["stage"]), status=COMPLETED, updated_at=_now())
        self._change_stage(phase, slug, lambda _old: stage)
        self.memory.forgive(_task(phase, slug))
        self._end(phase, slug)

    def fail(self, phase: str, slug: str, error: str, kind: str) -> None:
        """Record why a cell did not finish; what can simply be gone on with is in progress, not failed."""
        status = _STATUS_OF.get(kind, FAILED)
        self._change_stage(
            phase, slug, lambda old: replace(old, status=status, updated_at=_now(), error=error[:_MAX_ERROR])
        )
        self._end(phase, slug)

    def stopped(self) -> None:
        """Record that the cells at work were stopped; what threads of `-n` still come to is not recorded any more."""
        with self._recording:
            for phase, slug in list(self._started):
                self.fail(phase, slug, "stopped by the user", Stopped.__name__)
            self._stopping = True

    def forget(self, phase: str, slug: str) -> None:
        """Make one cell stale; its outputs stay known, so they are not taken for foreign. submit never is."""
        if graph.BY_NAME[phase].per_trial and not slug:
            return  # a group: its cells are forgotten one by one
        if phase == "build":
            self.memory.forget(_task(phase, slug))  # it has no record beside its files
        elif phase != "submit":
            self._change_stage(phase, slug, lambda old: replace(old, status=manifest.PENDING, updated_at=_now()))

    def log(self, phase: str, slug: str, decision: Decision) -> None:
        """Log the decision; a run in which all is skipped leaves no line. Skips wait for another, or for the end."""
        entry = {"phase": phase, "trial": slug, "decision": decision.verb, "reason": decision.reason, "at": _now()}
        with self._recording:
            self._log_waiting.append(entry)
            if not isinstance(decision, Skip):
                self._log_open = True
                self._write_log()

    def remember(self) -> None:
        """Make what was learned of files last."""
        self.memory.commit(self.workspace.fingerprints.fresh())

    def settle_config(self) -> None:
        """Every phase has been brought up to the config as it stands: that is now the recorded one."""
        if self.workspace.config_changes and not self.request.phases and self.trials == tuple(self.workspace.trials):
            self.workspace.accept_config()

    def local_config_note(self) -> str | None:
        """What to say when `./experiment.yaml`, which only new runs are made from, is not what this run lives by."""
        local = paths.LOCAL_CONFIG
        try:
            if not local.exists() or self._made_from(local):
                return None
            found = configuration.read(local, environment=configuration.environment())
        except TrialmakeError as error:
            said = error.what.splitlines()[0]
        else:
            changes = identity.differences(dict(self.workspace.config.values), dict(found.values))
            if not changes:
                return None
            said = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
        return (
            f"{local} differs from what this run lives by: {said}\n"
            f"  This run goes on with {self.workspace.paths.config}. For a new run: doit rid=NEW config={local}"
        )

    def environment_note(self) -> str | None:
        """What to say when the environment sets what acts on new runs only, and this run lives by something else."""
        variables = configuration.set_here()
        if not variables:
            return None
        work = self.workspace
        try:
            found = configuration.read(work.paths.config, base=work.config.base, environment=variables)
        except TrialmakeError:
            return None  # it was not said to this run
        changes = identity.differences(dict(work.config.values), dict(found.values))
        if not changes:
            return None
        return f"{', '.join(variables)} acts on new runs only; this one lives by {work.paths.config}"

    def recorded_outputs(self, phase: str, slug: str) -> dict[str, str]:
        """file -> sha256 of what one cell wrote when it last finished; empty when it never did."""
        question = self.question(phase, slug)
        if phase == "build":
            with suppress(DamagedArtifact):
                if self.workspace.index(slug) is not None:
                    return {
                        question.relative(question.trial.index): self.workspace.fingerprints.sha256(
                            question.trial.index
                        )
                    }
        return {name: facts["sha256"] for name, facts in question.stage.outputs.items()}

    def reports(self) -> list[Path]:
        """The reports there are, of the trials this invocation is about."""
        written = (self.workspace.trial_paths(slug).report_md for slug in self.trials)
        return [report for report in written if report.is_file()]

    def at_close(self, callback: Callable[[], object]) -> None:
        """Have *callback* called when the invocation ends."""
        self._exit.callback(callback)

    def close(self) -> None:
        """End the invocation: memory stored, lock released."""
        with self._exit:
            if not self.readonly:
                self._write_log()
                self.remember()

    # --- pieces ------------------------------------------------------------------------------------

    def _end(self, phase: str, slug: str) -> None:
        self._started.pop((phase, slug), None)
        if self._looks_once and not self._started:
            self.workspace.fingerprints.look_again()

    def _write_log(self) -> None:
        """Append what waits to the log, at once: each append is made durable, which takes longer than a decision."""
        if self._log_open and self._log_waiting:
            disk.make_folder(self.workspace.paths.decisions.parent)
            disk.append_line(self.workspace.paths.decisions, b"\n".join(map(jsonl.dumps, self._log_waiting)))
            self._log_waiting.clear()

    def _change_stage(self, phase: str, slug: str, change: Callable[[Stage], Stage]) -> None:
        spec = graph.BY_NAME[phase]
        with self._recording:
            if self._stopping:
                return
            if not spec.per_trial:
                self.workspace.set_run_stage(phase, change(self.workspace.record.stages.get(phase, Stage())))
                return
            document = self.workspace.manifest(slug)
            if spec.stage is not None:
                document.set_stage(spec.stage, change(document.stage(spec.stage)))
            elif phase == "submit":
                # Jobs under way are part of "downloaded": in progress, stopped or failed, never completed by submit.
                old = document.stage("downloaded")
                stage = change(old)
                if COMPLETED not in (old.status, stage.status):
                    document.set_stage("downloaded", stage)
            if phase in ("build", "submit", "download"):
                from pipeline import mirror  # the ledgers are read where something was done

                # A damaged index is about to be written anew by build; the jobs are mirrored then.
                with suppress(DamagedArtifact):
                    if (index := self.workspace.index(slug)) is not None:
                        document.set_jobs(mirror.jobs(index, self.workspace.trial_paths(slug)))
            self.workspace.save_manifest(slug)

    def _made_from(self, local: Path) -> bool:
        """Whether the run was created from *local* and its prompt files as they are now: no YAML need be read."""
        record = self.workspace.record
        if hashlib.sha256(disk.read_bytes(local)).hexdigest() != record.source_sha256:
            return False
        prompts = (prompt for conditions in record.config["prompt_sets"].values() for prompt in conditions.values())
        try:
            return all(
                disk.read_bytes(local.parent / prompt["file"]).rstrip(b"\n") == prompt["text"].encode().rstrip(b"\n")
                for prompt in prompts
                if "file" in prompt
            )
        except FileNotFoundError:
            return False

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
            try:
                now = self.workspace.fingerprints.sha256(self.workspace.paths.root / name)
            except FileNotFoundError:
                now = None
            if now != digest:
                raise ContractBroken(
                    f"{name} {'vanished' if now is None else 'changed'} while {question.phase.name} was reading it.",
                    kept="The phase is not recorded as done.",
                    hint=self.resume_command,
                )

    @contextmanager
    def _foreign_set_aside(self, question: Question) -> Iterator[None]:
        """For this block, move outputs that are not the recorded ones away: nothing unknown is silently replaced.

        What the block then writes anew to the last byte (a kill had come before the record) is not kept twice.
        """
        moved = []
        for path, known in self._expected(question).items():
            kind = fingerprints.kind(path)
            if kind is None or (kind == "file" and path.stat().st_size == 0):
                continue
            if kind != "file" or self.workspace.fingerprints.sha256(path) != known:
                moved.append(disk.set_aside(path, _ASIDE))
            elif question.stage.format == LEGACY:
                aside = disk.set_aside(path, LEGACY)
                self.say(f"the earlier tool's {question.relative(path)} is kept as {aside.name}")
        folders = {path.parent for path in self._expected(question)}
        try:
            yield
        finally:
            for aside in sorted(entry for folder in folders for entry in folder.glob(f"*.{_ASIDE}.*")):
                original = aside.with_name(aside.name.split(f".{_ASIDE}.")[0])
                if self._same_content(aside, original):
                    disk.remove(aside)
                elif aside in moved:
                    self.say(f"{question.relative(original)} was not what was recorded; kept as {aside.name}")

    def _same_content(self, one: Path, other: Path) -> bool:
        if not fingerprints.kind(one) == fingerprints.kind(other) == "file":
            return False
        return disk.sha256_of(one)[0] == self.workspace.fingerprints.sha256(other)

    def _expected(self, question: Question) -> dict[Path, str | None]:
        """The files the phase is about to write -> the sha256 they are known by."""
        if question.phase.name != "build":
            stage, root = question.stage, self.workspace.paths.root
            recorded = {root / name: facts["sha256"] for name, facts in stage.outputs.items()}
            # Without a sha256 a part's results are the earlier tool's, which the queue reads as they are.
            listed = (part for part in stage.artifacts.get("parts", ()) if "sha256" in part)
            parts = {root / part["path"]: part["sha256"] for part in listed}
            return {**dict.fromkeys(question.targets), **recorded, **parts}
        # build's own record is the index; of what was sent, the ledgers know too.
        trial = question.trial
        known = self.sent_parts(question.slug)
        index_sha256 = None
        try:
            index = self.workspace.index(question.slug) if fingerprints.kind(trial.index) == "file" else None
        except DamagedArtifact:
            index = None
        if index is not None:
            index_sha256 = self.workspace.fingerprints.sha256(trial.index)
            known.update({part.part: part.sha256 for part in index.parts})
        return {trial.index: index_sha256, **{path: known.get(path.stem) for path in trial.all_part_requests()}}

    def sent_parts(self, slug: str) -> dict[str, str]:
        """part -> sha256 of what its first attempt sent, of every part of the trial that has an intent."""
        results = self.workspace.trial_paths(slug).results
        names = sorted(folder.name for folder in results.iterdir() if folder.is_dir()) if results.is_dir() else []
        books = {name: self.workspace.ledger(slug, name) for name in names}
        return {name: book.attempts[0].requests_sha256 for name, book in books.items() if book.attempts}

    def _record(
        self, question: Question, outcome: Outcome, inputs: Mapping[str, str], seconds: float
    ) -> dict[str, Any]:
        outputs, keys = {}, {}
        for path, output in outcome.outputs.items():
            name = question.relative(path)
            outputs[name] = {"sha256": output.written.sha256, "size": output.written.size}
            if output.rows is not None:
                outputs[name]["rows"] = output.rows
            keys[name] = list(output.written.key)
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


def _now() -> str:
    return manifest.utc_now()


def _task(phase: str, slug: str) -> str:
    return f"{phase}:{slug}"
