"""doit's commands as this project needs them: entry points that replace or add to doit's own.

    doit [run]   go on with the latest run, or start one          doit resume   never starts one
    doit list    looks only, writes nothing                       doit forget   also in the manifest
    doit plan    what would run and why, touching nothing

Errors end with one clear message and their exit code.
"""

from __future__ import annotations

import atexit
import difflib
import gc
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from doit import cmd_forget, cmd_help, cmd_info, cmd_list, cmd_run
from doit.cmd_base import Command, opt_codec
from doit.cmdparse import CmdParseError

from pipeline import command_line, console, doit_state, opening, request, stopping, tasks
from pipeline.errors import EXIT_ERROR, EXIT_FAILED, TrialmakeError, UsageError
from pipeline.plain import lacking
from pipeline.reporter import ReaderGone, say
from pipeline.session import Session

# doit's options for another database, file checker or reporter are not offered: the record of a run hangs on ours.
_STATE_OPTIONS = (opt_codec,)
_RUN_OPTIONS = tuple(option for option in cmd_run.Run.cmd_options if option is not cmd_run.opt_reporter)
_OBJECTS_PER_COLLECTION = 10_000  # of new ones; Python itself looks for cycles among 700
_CHOICES = "\n".join(["name=value, in any place:", "", *(f"{name}={what}" for name, what in request.VARIABLES.items())])
_NOTHING_LOST = "What was done is kept; running jobs go on at the provider."


class Ours(Command):  # type: ignore[misc] # doit ships no types
    """A command whose options are refused in one sentence: doit shows all its own as it knows them inside."""

    def parse_execute(self, words: list[str]) -> int:
        """Execute with the options in *words*."""
        # What was made by now, all by imports, stays; and seldom looking for cycles saves a no-op a twentieth.
        if not gc.get_freeze_count():  # a second time it would keep for ever what an earlier command left in cycles
            gc.freeze()
            atexit.register(gc.freeze)  # nor is anything searched that goes with the process
        gc.set_threshold(_OBJECTS_PER_COLLECTION)
        try:
            return int(super().parse_execute(words) or 0)
        except CmdParseError as error:
            said = str(error)
        return _guarded(lambda: self._refuse_option(said, words))

    def _refuse_option(self, said: str, words: list[str]) -> NoReturn:
        hint = f"doit help {self.name} lists the options; runs are chosen by name=value: rid=, trial=, limit= ..."
        if unknown := re.match(r".*?option (\S+) not (?:recognized|a unique prefix)", said):
            known = [f"--{option.long}" for option in self.cmdparser.options if option.long]
            close = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.7)
            nearest = f"; did you mean {close[0]}?" if close else "."
            raise UsageError(f"doit {self.name} has no option {unknown[1]}{nearest}", hint=hint)
        if typed := re.match(r"Error parsing parameter '(\w+)'", said):
            option = next(option for option in self.cmdparser.options if option.name == typed[1])
            wanted = "a whole number" if option.type is int else f"a {option.type.__name__}"
            said = f"{f'-{option.short}' if option.short else f'--{option.long}'} wants {wanted}"
        said = said.partition(" (parsing options")[0].removeprefix("Error parsing Command: ")
        raise UsageError(f"doit {' '.join([self.name, *words])}: {said}.", hint=hint)


class Run(Ours, cmd_run.Run):  # type: ignore[misc] # doit ships no types
    """`doit`: build everything that is missing or out of date."""

    name = "run"
    doc_purpose = "build what is missing or out of date in the latest run (or rid=X); start a run if there is none"
    doc_usage = "[name=value ...] [PHASE | PHASE:TRIAL ...]"
    doc_description = _CHOICES
    base_options = _STATE_OPTIONS
    cmd_options = _RUN_OPTIONS
    may_create = True

    def execute(self, params: Any, args: list[str]) -> int:
        """Open the run for writing, let doit work, turn every ending into an exit code."""
        with stopping.sigterm_raises():
            return _guarded(lambda: self._write(params, args))

    def _write(self, params: Any, args: list[str]) -> int:
        asked = tasks.variables()
        command_line.check_names(args)
        typed_in = Path.cwd()
        command_line.enter(params)
        if asked.config is not None and Path.cwd() != typed_in:
            asked = replace(asked, config=typed_in / asked.config)
        _check_workers(params)
        opened = opening.for_writing(asked, say, may_create=self.may_create)
        doit_state.session = opened
        try:
            return self._work(opened, params, args)
        except KeyboardInterrupt as stop:
            return _stopped(opened, stop)
        finally:
            if os.getpid() == opened.pid:
                doit_state.closing(opened.close)

    def _work(self, opened: Session, params: Any, args: list[str]) -> int:
        command_line.check_trials(args, opened)
        result = int(super().execute(params, args) or 0)
        if opened.reporter is None:  # doit refused the command line
            return result
        if not result and not args:
            opened.settle_config()
        opened.reporter.sum_up()
        return int(opened.reporter.exit_code or result)

    @wraps(cmd_run.Run._execute)  # doit reads from the signature which settings it hands over
    def _execute(self, **settings: Any) -> int:
        """Let doit work, as many workers as the command line or DOIT_CONFIG of the dodo.py say."""
        _check_workers(settings)
        assert doit_state.session is not None
        doit_state.session.selected = lambda: self.control.selected_tasks
        if settings["num_process"]:
            doit_state.session.share_work()
        with stopping.workers_watched() if settings["num_process"] else nullcontext():
            return int(super()._execute(**settings) or 0)


class Resume(Run):
    """`doit resume rid=X`: the same for a run that exists."""

    name = "resume"
    doc_purpose = (
        "go on with the latest run (or rid=X): skip what is done, repair what is damaged, rebuild what is stale"
    )
    may_create = False


class List(Ours, cmd_list.List):  # type: ignore[misc] # doit ships no types
    """`doit list`: looks only."""

    name = "list"
    base_options = _STATE_OPTIONS

    def execute(self, params: Any, args: list[str]) -> int:
        """List without writing anything."""
        return _guarded(lambda: self._look(params, args))

    def _look(self, params: Any, args: list[str]) -> int:
        command_line.enter(params)
        return _reading(lambda: self._list(params, args))

    def _list(self, params: Any, args: list[str]) -> int:
        work = tasks.load().workspace
        if sys.stdout.isatty():  # for a person; a program reads the lines of tasks alone
            say(f"run {work.rid} in {work.paths.root}")
        return int(super().execute(params, args) or 0)


class Plan(Ours):
    """`doit plan rid=X`: what would run and why, what would be sent and cost; touches nothing."""

    name = "plan"
    doc_purpose = "show what would run and why, how many requests would be sent and what they may cost"
    doc_usage = "[rid=X] [force=..] [trial=..] [json=1]"

    def execute(self, _params: Any, args: list[str]) -> int:
        """Print the plan."""
        return _guarded(lambda: _plan(args))


def _plan(words: list[str]) -> int:
    try:
        command_line.check_names(words)
        if words:
            raise UsageError(
                f"doit plan takes no {words[0]}: it shows all that would run.", hint="trial=, only= choose"
            )
        return _reading(_print_plan)
    except TrialmakeError as error:
        if tasks.variables().json:
            say(console.as_json(error.as_json()))
        raise


def _print_plan() -> int:
    from pipeline import plan

    opened = tasks.load()
    planned = plan.plan(opened)
    if opened.request.json:
        say(console.as_json(plan.as_json(planned)))
    else:
        for line in plan.as_text(planned):
            say(line)
    return 0


class Info(Ours, cmd_info.Info):  # type: ignore[misc] # doit ships no types
    """`doit info PHASE:TRIAL`: doit's own, for the tasks there are."""

    name = "info"
    base_options = _STATE_OPTIONS

    def execute(self, params: Any, args: list[str]) -> int:
        """Show one task without writing anything."""
        return _guarded(lambda: self._look(params, args))

    def _look(self, params: Any, args: list[str]) -> int:
        if len(args) != 1:
            raise UsageError("doit info wants one task, as in doit info parse:TRIAL.", hint=command_line.PHASES_ARE)
        command_line.check_names(args)
        command_line.enter(params)
        return _reading(lambda: self._show(params, args))

    def _show(self, params: Any, args: list[str]) -> int:
        command_line.check_trials(args, tasks.load())
        return int(super().execute(params, args) or 0)


class _NotHere(Ours):
    """A command of doit's that has no meaning here; *said* and *hint* tell where to go instead."""

    doc_usage = ""
    said: ClassVar[str]
    hint: ClassVar[str]

    def execute(self, _params: Any, _args: list[str]) -> int:
        """Say where to look instead."""
        return _guarded(self._refuse)

    def _refuse(self) -> NoReturn:
        raise UsageError(self.said, hint=self.hint)


class DumpDB(_NotHere):
    """`doit dumpdb`: there is none to dump."""

    name = "dumpdb"
    doc_purpose = "(not used here: manifests hold what doit would remember)"
    said = "doit keeps no database of its own here: what is done stands in each trial's trial_manifest.json."
    hint = "python -m pipeline status RID --json shows it all"


class _Declaring(_NotHere):
    doc_purpose = "(not used here: what is done is seen by looking at the files)"
    said = "phases cannot be ignored or marked as done: what is done is seen by looking at the files."
    hint = "to leave phases out: doit to=PHASE, only=PHASE or trial=NAME"


class Ignore(_Declaring):
    """`doit ignore`: no phase can be."""

    name = "ignore"


class ResetDep(_Declaring):
    """`doit reset-dep`: no phase can be declared done."""

    name = "reset-dep"


class Strace(_NotHere):
    """`doit strace`: it would do a phase as a reader."""

    name = "strace"
    doc_purpose = "(not used here: what a phase reads and writes is told by info)"
    said = "doit strace would do a phase outside the run's lock, and its record."
    hint = "doit info PHASE:TRIAL lists what it reads and writes"


class Forget(Ours, cmd_forget.Forget):  # type: ignore[misc] # doit ships no types
    """`doit forget PHASE`: the manifests' records of it become stale."""

    name = "forget"
    base_options = _STATE_OPTIONS
    doc_purpose = "make phases stale, so that the next run does them again (submit excepted: nothing is paid twice)"

    def execute(self, params: Any, args: list[str]) -> int:
        """Forget the named tasks of the named or latest run."""
        return _guarded(lambda: self._write(params, args))

    def _write(self, params: Any, args: list[str]) -> int:
        command_line.check_names(args)
        command_line.enter(params)
        opened = opening.for_writing(tasks.variables(), say, may_create=False)
        doit_state.session = opened
        opened.forgetting = True  # doit now names each task to its backend
        try:
            command_line.check_trials(args, opened)
            say(f"run {opened.workspace.rid} in {opened.workspace.paths.root}")
            result = int(super().execute(params, args) or 0)
            if not result and any(name.partition(":")[0] == "submit" for name in args):
                say("submit stays: what was handed to the provider stands in the ledgers and is never paid twice")
            return result
        finally:
            doit_state.closing(opened.close)


class Help(cmd_help.Help):  # type: ignore[misc] # doit ships no types
    """`doit help`: doit's own, whose reader may go before its end (`doit help run | head`)."""

    name = "help"

    def execute(self, params: Any, args: list[str]) -> int:
        """Show the help."""
        return _guarded(lambda: int(super(Help, self).execute(params, args) or 0))


def _reading(work: Callable[[], Any]) -> int:
    # Not even the bytecode of dodo.py: whoever only looks leaves no trace.
    sys.dont_write_bytecode = True
    opened = opening.for_reading(tasks.variables(), console.warn)
    doit_state.session = opened
    try:
        return int(work() or 0)
    finally:
        doit_state.closing(opened.close)


def _stopped(opened: Session, stop: KeyboardInterrupt) -> int:
    """Record that the work was stopped, say how to go on, and give the exit code."""
    with stopping.undisturbed():
        opened.stopped()
        if isinstance(stop, ReaderGone):
            raise stop
        if opened.reporter is not None:
            opened.reporter.sum_up()
        word, code = stopping.ending(stop)
        console.warn(f"stopped by {word}. {_NOTHING_LOST}\nNext: {opened.resume_command}")
        return code


def _check_workers(settings: Any) -> None:
    """Raise UsageError where doit would start no worker, do nothing and say that all is well."""
    if settings["num_process"] < 0:
        raise UsageError(f"-n {settings['num_process']}: expected 0 or more.")
    if settings["par_type"] not in ("process", "thread"):  # doit looks only where it starts workers
        raise UsageError(f"-P {settings['par_type']}: expected process or thread.")


def _guarded(work: Callable[[], int]) -> int:
    """Run a command; an error the user can mend is one message, not a traceback."""
    try:
        console.show_anything()
        code = work()
        sys.stdout.flush()  # here, where a reader that has gone is understood, and not when Python ends
        return code
    except TrialmakeError as error:
        console.warn(f"ERROR: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        console.warn(lacking(error.name))
        return EXIT_ERROR
    except (BrokenPipeError, ReaderGone):
        console.say_no_more()  # `doit | head`: what ran is recorded
        return EXIT_FAILED
    except KeyboardInterrupt as stop:
        # While the run was being opened: nothing had begun.
        console.warn("stopped before anything was done.")
        return stopping.ending(stop)[1]
