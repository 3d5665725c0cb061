"""doit's commands as this project needs them: entry points that replace or add to doit's own.

    doit [run]   go on with the latest run, or start one          doit resume   never starts one
    doit list    looks only, writes nothing                       doit forget   also in the manifest

Errors end with one clear message and their exit code; SIGTERM ends like Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from doit import cmd_forget, cmd_list, cmd_run
from doit.cmd_base import Command

from pipeline import console, doit_state, session, tasks
from pipeline.errors import EXIT_SIGINT, EXIT_SIGTERM, TrialmakeError
from pipeline.session import Session


class _Terminated(KeyboardInterrupt):
    """SIGTERM, on the same way out as Ctrl-C."""


def _on_sigterm(_signal: int, _frame: object) -> None:
    raise _Terminated


class Run(cmd_run.Run):  # type: ignore[misc] # doit ships no types
    """`doit`: build everything that is missing or out of date."""

    name = "run"
    doc_purpose = "build what is missing or out of date in the latest run (or rid=X); start a run if there is none"
    may_create = True

    def execute(self, params: Any, args: list[str]) -> int:
        """Open the run for writing, let doit work, turn every ending into an exit code."""
        previous = signal.signal(signal.SIGTERM, _on_sigterm)
        try:
            return _guarded(lambda: self._write(params, args))
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _write(self, params: Any, args: list[str]) -> int:
        opened = session.open_for_writing(tasks.variables(), console.say, may_create=self.may_create)
        doit_state.session = opened
        try:
            result = super().execute(params, args)
            return opened.reporter.exit_code if opened.reporter is not None and result else int(result or 0)
        except KeyboardInterrupt as stop:
            opened.stopped()
            word, code = ("SIGTERM", EXIT_SIGTERM) if isinstance(stop, _Terminated) else ("Ctrl-C", EXIT_SIGINT)
            console.warn(
                f"stopped by {word}. What was done is kept; running jobs go on at the provider.\n"
                f"Next: {opened.resume_command}"
            )
            return code
        finally:
            if os.getpid() == opened.pid:
                doit_state.closing(opened.close)


class Resume(Run):
    """`doit resume rid=X`: the same for a run that exists."""

    name = "resume"
    doc_purpose = (
        "go on with the latest run (or rid=X): skip what is done, repair what is damaged, rebuild what is stale"
    )
    may_create = False


class List(cmd_list.List):  # type: ignore[misc] # doit ships no types
    """`doit list`: looks only."""

    name = "list"

    def execute(self, params: Any, args: list[str]) -> int:
        """List without writing anything."""
        return _guarded(lambda: _reading(lambda: super(List, self).execute(params, args)))


class Plan(Command):  # type: ignore[misc] # doit ships no types
    """`doit plan rid=X`: what would run and why, what would be sent and cost; touches nothing."""

    name = "plan"
    doc_purpose = "show what would run and why, how many requests would be sent and what they may cost"
    doc_usage = "[rid=X] [force=..] [trial=..] [json=1]"

    def execute(self, _params: Any, _args: list[str]) -> int:
        """Print the plan."""
        return _guarded(lambda: _reading(_print_plan))


def _print_plan() -> int:
    from pipeline import plan

    opened = tasks.load()
    planned = plan.plan(opened)
    if opened.request.json:
        console.say(plan.as_json(planned).decode().rstrip())
    else:
        for line in plan.as_text(planned):
            console.say(line)
    return 0


class Forget(cmd_forget.Forget):  # type: ignore[misc] # doit ships no types
    """`doit forget PHASE`: in doit's memory and in the manifests."""

    name = "forget"
    doc_purpose = "make phases stale, so that the next run does them again (submit excepted: nothing is paid twice)"

    def execute(self, params: Any, args: list[str]) -> int:
        """Forget the named tasks of the named or latest run."""
        return _guarded(lambda: self._write(params, args))

    def _write(self, params: Any, args: list[str]) -> int:
        opened = session.open_for_writing(tasks.variables(), console.say, may_create=False)
        doit_state.session = opened
        try:
            result = super().execute(params, args)
            for phase, slug in _named(opened, args, everything=params.get("forget_all", False)):
                opened.forget(phase, slug)
            return int(result or 0)
        finally:
            doit_state.closing(opened.close)


def _named(opened: Session, names: list[str], *, everything: bool) -> list[tuple[str, str]]:
    """The cells that task names stand for: a phase for all its trials, `phase:trial` for one."""
    chosen = []
    for phase, slug in opened.cells():
        if everything or phase.name in names or f"{phase.name}:{slug}" in names:
            chosen.append((phase.name, slug))
    return chosen


def _reading(work: Callable[[], Any]) -> int:
    opened = session.open_for_reading(tasks.variables(), console.warn)
    doit_state.session = opened
    try:
        return int(work() or 0)
    finally:
        doit_state.closing(opened.close)


def _guarded(work: Callable[[], int]) -> int:
    """Run a command; an error the user can mend is one message, not a traceback."""
    try:
        return work()
    except TrialmakeError as error:
        console.warn(f"ERROR: {error}")
        return error.exit_code
    except BrokenPipeError:
        # `doit | head`: the reader has gone. What ran is recorded; nothing more can be said.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
        return 1
