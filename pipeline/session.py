"""One invocation on one run: what to do about each phase, and recording what came of it (`opening.py` makes one).

This is where the decisions of `done.py` and the manifest meet; doit's own side is in `tasks.py`,
`doit_state.py` and `reporter.py`. The work itself is `performing.py`'s, in whatever worker doit
chooses; everything that records runs in the main process.
"""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import disk, done, graph, identity, jsonl, manifest, paths
from pipeline.decision import Decision, Question, Skip
from pipeline.disk import StatKey, Written
from pipeline.errors import DamagedArtifact, PhaseEnd, Stopped, UsageError
from pipeline.manifest import COMPLETED, FAILED, IN_PROGRESS, STOPPED, Stage, utc_now
from pipeline.memory import Memory
from pipeline.request import Request
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.queue.drive import Queue

_STATUS_OF = {
    PhaseEnd.FAILED: FAILED,
    PhaseEnd.REFUSED: FAILED,
    PhaseEnd.STOPPED: STOPPED,
    PhaseEnd.NOT_READY: IN_PROGRESS,  # it can simply be gone on with
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
        self.began = datetime.now(UTC)
        self.reporter: Any = None
        self.queue: Queue | None = None  # made when a phase first needs it
        self.selected: Callable[[], Iterable[str]] = tuple  # the tasks that doit was asked for, once it has read them
        self.forgetting = False
        self.has_workers = False  # whether phases are done by workers (`-n`), not by this process alone
        self._announced: Any = None  # shared by them: of each trial, whether what it may cost was said
        # Under `-n` with threads a task's start is reported by its worker.
        self._recording = threading.RLock()
        self._exit = exits
        self._at_work: set[tuple[str, str]] = set()
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

    def submits(self) -> tuple[str, ...]:
        """The trials whose parts this invocation may submit: those of the tasks asked for, all where one is of all.

        A task that comes before submit asks for no part to be sent.
        """
        after = graph.NAMES[graph.NAMES.index("submit") :]
        tasks = [name.partition(":") for name in self.selected()]
        named = {slug for phase, _, slug in tasks if phase in after}
        return self.trials if not named or "" in named else tuple(slug for slug in self.trials if slug in named)

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

    def leaves_work(self) -> bool:
        """Whether a phase that was not chosen, and that a run without a choice would look at, has something to do."""
        chosen = self.request.phases
        left = [phase for phase in graph.PHASES if phase.by_default and chosen and phase.name not in chosen]
        cells = ((phase.name, slug) for phase in left for slug in (self.trials if phase.per_trial else ("",)))
        return any(not isinstance(done.decide(phase, self.workspace, slug), Skip) for phase, slug in cells)

    def look_once(self) -> None:
        """All phases are about to be asked after: from now on each file is looked at once, while none is at work."""
        self._looks_once = True
        self.workspace.fingerprints.look_once()

    def question(self, phase: str, slug: str) -> Question:
        """The files and the record of one cell."""
        return Question(graph.BY_NAME[phase], slug, self.workspace)

    # --- going on and stopping ---------------------------------------------------------------------

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

    # --- recording it (main process only) ----------------------------------------------------------

    def share_work(self) -> None:
        """Phases will be done by workers forked from here."""
        from multiprocessing import Array  # doit needs it now too

        self.has_workers = True
        self._announced = Array("b", len(self.workspace.trials))

    def announces(self, trials: Set[str]) -> bool:
        """Whether the caller is to say what *trials* may cost: the first of all workers that knows of one of them."""
        if self._announced is None:
            return True
        places = [place for place, slug in enumerate(self.workspace.trials) if slug in trials]
        with self._announced:
            news = not all(self._announced[place] for place in places)
            for place in places:
                self._announced[place] = True
        return news

    def begin(self, phase: str, slug: str) -> None:
        """Record that a cell's work starts."""
        if slug and not self.has_workers:
            self.workspace.fingerprints.work_in(slug)
        else:
            self.workspace.fingerprints.look_anew()
        self._at_work.add((phase, slug))
        self._change_stage(phase, slug, lambda old: replace(old, status=IN_PROGRESS, updated_at=utc_now(), error=None))

    def succeed(self, phase: str, slug: str, values: Mapping[str, Any]) -> None:
        """Mirror a finished cell into the manifest: what it wrote, from what, with which settings."""
        for name, key in values.get("keys", {}).items():
            facts = values["stage"]["outputs"][name]
            written = Written(facts["sha256"], facts["size"], StatKey(*key))
            self.workspace.fingerprints.remember(self.workspace.paths.root / name, written)
        stage = replace(Stage.of(values["stage"]), status=COMPLETED, updated_at=utc_now())
        self._change_stage(phase, slug, lambda _old: stage)
        self.memory.forgive(_task(phase, slug))
        self._end(phase, slug)

    def fail(self, phase: str, slug: str, error: str, ending: PhaseEnd) -> None:
        """Record why a cell did not finish."""
        status = _STATUS_OF[ending]
        self._change_stage(
            phase, slug, lambda old: replace(old, status=status, updated_at=utc_now(), error=error[:_MAX_ERROR])
        )
        self._end(phase, slug)

    def stopped(self) -> None:
        """Record that the cells at work were stopped; what threads of `-n` still come to is not recorded any more."""
        with self._recording:
            for phase, slug in list(self._at_work):
                self.fail(phase, slug, "stopped by the user", PhaseEnd.STOPPED)
            self._stopping = True

    def forget(self, phase: str, slug: str) -> None:
        """Make one cell stale; its outputs stay known, so they are not taken for foreign. submit never is."""
        if graph.BY_NAME[phase].per_trial and not slug:
            return  # a group: its cells are forgotten one by one
        if phase == "build":
            self.memory.forget(_task(phase, slug))  # it has no record beside its files
        elif phase != "submit":
            self._change_stage(phase, slug, lambda old: replace(old, status=manifest.PENDING, updated_at=utc_now()))

    def log(self, phase: str, slug: str, decision: Decision) -> None:
        """Log the decision; a run in which all is skipped leaves no line. Skips wait for another, or for the end."""
        entry = {"phase": phase, "trial": slug, "decision": decision.verb, "reason": decision.reason, "at": utc_now()}
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
        self._at_work.discard((phase, slug))
        if self._looks_once and not self._at_work:
            self.workspace.fingerprints.look_again()

    def _write_log(self) -> None:
        """Append what waits to the log, at once: each append is made durable, which takes longer than a decision."""
        if self._log_open and self._log_waiting:
            disk.make_folder(self.workspace.paths.decisions.parent)
            disk.append_lines(self.workspace.paths.decisions, map(jsonl.dumps, self._log_waiting))
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

    def settings(self, phase: str, slug: str) -> identity.Settings:
        """The settings one cell uses now."""
        if phase == "prepare":
            digests = done.source_digests(self.workspace)
            return identity.of_prepare(self.workspace.config, digests)
        trial = self.workspace.trials[slug or next(iter(self.workspace.trials))]
        return identity.of_phase(phase, self.workspace.config, trial)


def _task(phase: str, slug: str) -> str:
    return f"{phase}:{slug}"
