"""The run as doit sees it: one task per phase and trial, a group per phase.

`file_dep` and `targets` are the artifacts of `graph.py`, `uptodate` is the decision of `done.py`, the
action is the session's. The graph is the same on the first and on every later run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from inspect import Signature
from typing import Any

from doit.doit_cmd import get_var
from doit.exceptions import InvalidDodoFile, TaskFailed

from pipeline import console, doit_state, graph, opening, request
from pipeline.decision import Skip
from pipeline.doit_state import Checker
from pipeline.errors import TrialmakeError, UnreadableFile
from pipeline.session import Session


class PhaseFailed(TaskFailed):  # type: ignore[misc] # doit ships no types
    """A phase that did not finish, with the exit code its error asks for and no traceback."""

    def __init__(self, error: TrialmakeError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code
        self.ending = error.ending

    def get_msg(self) -> str:
        """The error's own words."""
        return str(self.message)


def namespace() -> dict[str, Any]:
    """What a dodo.py needs: doit's settings and the creator of all tasks, for the run of this invocation."""
    opened = load()
    opened.look_once()

    def task_phases() -> Iterator[dict[str, Any]]:
        """prepare, build, submit, download, parse, score, stats, costs, report, archive, index"""
        yield from create(opened)

    return {"DOIT_CONFIG": doit_config(opened), "task_phases": task_phases}


def load() -> Session:
    """The session of this invocation, opened for what the command is about to do (see `commands.py`)."""
    if doit_state.session is None:
        # A command of doit's own (info, clean, help TASK): it can only look.
        try:
            doit_state.session = opening.for_reading(variables(), console.warn)
        except TrialmakeError as error:
            raise InvalidDodoFile(str(error)) from error
    return doit_state.session


def variables() -> request.Request:
    """The `name=value` words of doit's command line, checked."""
    return request.parse({name: value for name, value in _command_line().items() if value is not None})


def doit_config(opened: Session) -> dict[str, Any]:
    """doit's own settings for this run."""
    default = [phase.name for phase, _ in opened.cells() if opened.request.phases or phase.by_default]
    return {
        "backend": "trialmake",
        "reporter": "trialmake",
        "dep_file": str(opened.workspace.paths.database),
        "check_file_uptodate": Checker,
        "default_tasks": list(dict.fromkeys(default)),
        "continue": True,  # other trials go on when one fails
        "forget_disable_default": True,
        "verbosity": 2,
    }


def create(opened: Session) -> Iterator[dict[str, Any]]:
    """Every task: cells of one phase are subtasks named after their trial, run-level phases plain tasks."""
    slugs: dict[graph.Phase, list[str]] = {}
    for phase, slug in opened.cells():
        slugs.setdefault(phase, []).append(slug)
    known = {phase.name for phase in slugs}
    for phase, cells in slugs.items():
        if not phase.per_trial:
            yield {"basename": phase.name, **_task(opened, phase, "", known)}
            continue
        yield {"basename": phase.name, "name": None, "doc": phase.doc, "uptodate": [_group(opened, phase, cells)]}
        for slug in cells:
            yield {"basename": phase.name, "name": slug, **_task(opened, phase, slug, known)}


def _task(opened: Session, phase: graph.Phase, slug: str, known: Set[str]) -> dict[str, Any]:
    question, root = opened.question(phase.name, slug), opened.workspace.paths.root
    return {
        "doc": phase.doc,
        "actions": [(_perform, [opened, phase.name, slug])],
        "file_dep": [f"{root}/{name}" for name in question.input_names],
        "targets": [f"{root}/{name}" for name in question.target_names],
        "task_dep": [f"{name}:{slug}" if phase.per_trial else name for name in phase.after if name in known],
        "uptodate": [Current(opened, phase.name, slug)],
        "io": {"capture": False},  # progress is shown as it comes; captured output mixes under threads
    }


def _perform(opened: Session, phase: str, slug: str) -> dict[str, Any] | PhaseFailed:
    from pipeline.performing import perform  # imports what does the work; deciding must not

    try:
        return perform(opened, phase, slug)
    except TrialmakeError as error:
        return PhaseFailed(error)


@dataclass(frozen=True)
class Current:
    """doit's `uptodate` of one cell; shown by `doit info`, so it reads as the decision."""

    session: Session
    phase: str
    slug: str

    __signature__ = Signature()  # doit asks for it at each call; inspecting takes a tenth of a no-op

    def __call__(self) -> bool:
        """Whether the cell can be skipped. For a reader, what cannot be looked at is said and counts as not done."""
        try:
            return isinstance(self.session.decide(self.phase, self.slug), Skip)
        except UnreadableFile as error:
            if not self.session.readonly:
                raise
            console.warn(f"{self.phase} {self.slug}: {error}")
            return False

    def __repr__(self) -> str:
        decision = self.session.decisions.get((self.phase, self.slug))
        return f"{decision.verb}: {decision.reason}" if decision else self.phase


def _group(opened: Session, phase: graph.Phase, slugs: list[str]) -> Callable[[], bool]:
    def current() -> bool:
        # While tasks run, a group has nothing to do itself; asked only by `list`, it speaks for its subtasks.
        return not opened.readonly or all(Current(opened, phase.name, slug)() for slug in slugs)

    return current


def _command_line() -> Mapping[str, str]:
    # doit keeps the words privately and hands them out by name; unknown names must be seen too.
    from doit import doit_cmd

    words: Mapping[str, str] | None = doit_cmd._CMDLINE_VARS
    return words if words is not None else {name: get_var(name) for name in request.NAMES}
