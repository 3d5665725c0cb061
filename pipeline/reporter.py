"""What doit tells us while it runs: each decision on the console, each result into the manifest.

`add_success` and `add_failure` always run in the main thread of the main process, once doit has
recorded the task; so this is the one place from which the manifest follows.
"""

from __future__ import annotations

import sys
from typing import Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from pipeline import console, doit_state, graph, notes
from pipeline.decision import Decision, Refuse, Repair, Run, Skip
from pipeline.errors import (
    EXIT_BUDGET,
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_FAILED,
    EXIT_NOT_READY,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    PhaseEnd,
)
from pipeline.plain import visible
from pipeline.session import Session

Cell = tuple[str, str]

_WIDTH = max(len(name) for name in graph.NAMES)
_ORDER = ("skipped", "repaired", "built", "rebuilt", "refused", "stopped", "not ready", "failed", "not reached")
# Which exit code tells most, from least: "not ready" only counts when nothing else is wrong, a stop always does.
_WEIGHTS = (EXIT_DONE, EXIT_NOT_READY, EXIT_FAILED, EXIT_ERROR, EXIT_BUDGET, EXIT_SIGINT, EXIT_SIGTERM)
_RESULTS = ("stats", "costs", "index")  # the phases that write what a run came to
_SHOWN = 10  # failed phases named at the end
_STYLES = {"skip": console.QUIET, "run": "", "repair": console.WARNING, "refuse": console.BAD}
_TONES = {"good": console.GOOD, "bad": console.BAD, "open": ""}


class ReaderGone(KeyboardInterrupt):
    """Nobody reads our output any more (`doit | head`): the run ends as by Ctrl-C."""


def say(text: str) -> None:
    """A line on standard output. Raises ReaderGone, which nothing on the way takes for a failure of a phase."""
    try:
        console.say(text)
    except BrokenPipeError as error:
        raise ReaderGone from error


class Reporter(ConsoleReporter):  # type: ignore[misc] # doit ships no types
    """Trialmake's reporter; its `exit_code` is the most telling one of all failures."""

    desc = "one line per decision, manifest in step (Trialmake)"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        assert doit_state.session is not None
        self.session: Session = doit_state.session
        self.session.reporter = self
        self.exit_code = EXIT_DONE
        self._decided: dict[Cell, Decision] = {}
        self._before: dict[Cell, dict[str, str]] = {}
        self._counts: dict[str, int] = {}
        self._same_bytes = 0
        self._failed: list[str] = []
        self._reports: list[str] = []  # trials whose report was found current, or made so
        self._slug_width = max(map(len, self.session.workspace.trials), default=1)

    def write(self, text: str, style: str = "", *, at_once: bool = True) -> None:
        """Show *text*; control characters of what others wrote are shown as escapes.

        Not *at_once*: where nobody sits at a terminal it comes with what is shown next.
        """
        console.draw()
        # `doit -o FILE` closes it with the last phase; the last words are for who waits.
        stream = sys.stdout if self.outstream.closed else self.outstream
        try:
            stream.write(console.painted(text, style) if stream.isatty() else visible(text))
            if at_once:
                stream.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error

    def initialize(self, _tasks: dict[str, Any], _selected_tasks: list[str]) -> None:
        """Say which run this is and what differs in its config."""
        work = self.session.workspace
        self.write(f"run {work.rid} in {work.paths.root}\n")
        for change in work.config_changes:
            self.write(f"config changed: {change}\n")
        # Who has just named the config knows that it is another one.
        local = notes.on_local_config(work) if self.session.request.config is None else None
        for note in (local, notes.on_environment(work)):
            if note:
                self.write(f"{note}\n")

    def execute_task(self, task: Any) -> None:
        """A task starts: say why, and record that it is in progress."""
        if (cell := _cell(task)) is None:
            return
        decision = self.session.decisions[cell]
        if isinstance(decision, Skip):
            decision = Run("asked for with -a")
        self._say(cell, decision)
        if not isinstance(decision, Refuse):
            self._before[cell] = self.session.recorded_outputs(*cell)
            self.session.begin(*cell)

    def skip_uptodate(self, task: Any) -> None:
        """A task is current: say on what evidence."""
        if (cell := _cell(task)) is not None:
            self._say(cell, self.session.decisions[cell])
            self._count("skipped")
            self._current(cell)

    def add_success(self, task: Any) -> None:
        """doit has recorded the task: now the manifest follows."""
        if (cell := _cell(task)) is None:
            return
        self.session.succeed(*cell, task.values)
        before, after = self._before[cell], self.session.recorded_outputs(*cell)
        repaired = isinstance(self._decided[cell], Repair)
        self._count("repaired" if repaired else "rebuilt" if before else "built")
        self._same_bytes += bool(before and before == after and not repaired)
        self._current(cell)

    def add_failure(self, task: Any, fail: Any) -> None:
        """A task did not finish: keep the reason, show it in the error's own words."""
        cell = _cell(task)
        if isinstance(fail, UnmetDependency):
            if cell is not None:
                self._count("not reached")
            self._weigh(EXIT_FAILED if self.exit_code == EXIT_DONE else EXIT_DONE)
            return
        ending, message = getattr(fail, "ending", PhaseEnd.FAILED), fail.get_msg()
        self._weigh(getattr(fail, "exit_code", EXIT_ERROR))
        refused = cell is not None and isinstance(self.session.decisions.get(cell), Refuse)
        if cell is not None and not refused:
            self.session.fail(*cell, message, ending)
        self._count(ending)
        self._failed.append(f"{ending}: {task.name}: {_first_line(message)}")
        if not refused:  # else the decision has just said it
            self.write(f"{task.name}: ", console.BAD)
            self.write(f"{message}\n")

    def complete_run(self) -> None:
        """doit is done, or was interrupted; the command sums up, which knows how it ended."""
        for message in self.runtime_errors:
            self.write(f"{message}\n")

    def sum_up(self) -> None:
        """The last words: what was done, what failed, what the results are, what to do next, where the reports are."""
        said = [f"{self._counts[key]} {key}" for key in _ORDER if self._counts.get(key)]
        same = f" ({self._same_bytes} to the same bytes)" if self._same_bytes else ""
        if said:
            self.write(f"{', '.join(said)}{same}\n", console.STRONG)
        if len(self._failed) > 1:  # a single one stands just above
            for line in self._failed[:_SHOWN]:
                self.write(f"  {line}\n")
            if len(self._failed) > _SHOWN:
                self.write(f"  and {len(self._failed) - _SHOWN} more\n")
        reports = [path for path in self.session.reports() if path.parent.parent.name in self._reports]
        results = self._results()
        going_on = self._next()
        if self.exit_code == EXIT_DONE and going_on:
            self.write(f"Next: {going_on}\n")
        for report in reports:
            self.write(f"report: {report}\n")
        if self.exit_code != EXIT_DONE and going_on:
            self.write(f"Next: {going_on}\n")
        if self.session.request.json:
            event = {
                "event": "end",
                "exit_code": self.exit_code,
                "phases": self._counts,
                "results": results,
                "reports": [report.as_posix() for report in reports],
                "next": going_on,
            }
            self.write(f"{console.as_json(event, pretty=False)}\n")

    def _results(self) -> dict[str, Any] | None:
        """Say what the finished trials came to; None while there are none."""
        if not self._reports:
            return None
        news = any(phase in _RESULTS and not isinstance(made, Skip) for (phase, _), made in self._decided.items())
        if not news and len(self._reports) > _SHOWN and not self.session.request.json:
            return None  # finding out that nothing is to be done should not take half its time reading what was found
        from pipeline.ending import ending

        found = ending(self.session.workspace, self._reports)
        if not found.asked:
            return None
        for line, tone in found.lines():
            self.write(f"{line}\n", _TONES[tone])
        return found.as_json()

    def _next(self) -> str | None:
        """The command that goes on from here; a stop says it itself."""
        resume = self.session.resume_command
        match self.exit_code:
            case code if code == EXIT_NOT_READY:
                return f"{resume} goes on, now or later"
            case code if code == EXIT_DONE:
                if self.session.leaves_work():
                    return f"{resume} does the phases that were not chosen"
                shown = self.session.workspace.paths.index_html.is_file()
                return f"python -m pipeline open {self.session.workspace.rid}" if shown else None
            case code if code in (EXIT_SIGINT, EXIT_SIGTERM):
                return None
        return f"mend what is named above, then {resume}"

    def _say(self, cell: Cell, decision: Decision) -> None:
        phase, slug = cell
        self._decided[cell] = decision
        place = f"{phase:<{_WIDTH}}  {slug or '-':<{self._slug_width}}"
        line = console.folded(visible(f"{place}  {decision.verb:<6}  {decision.reason}"))
        # Each flush is a system call, and a no-op tells of nothing else; a worker would tell its copy of what waits.
        at_once = self.session.has_workers or not isinstance(decision, Skip)
        self.write(f"{line}\n", _STYLES[decision.verb], at_once=at_once)
        self.session.log(phase, slug, decision)

    def _current(self, cell: Cell) -> None:
        if cell[0] == "report":
            self._reports.append(cell[1])

    def _count(self, key: str) -> None:
        self._counts[key] = self._counts.get(key, 0) + 1

    def _weigh(self, code: int) -> None:
        self.exit_code = max(self.exit_code, code, key=_WEIGHTS.index)


def _cell(task: Any) -> Cell | None:
    """The (phase, trial) of a task; None for a group, which has nothing to do itself."""
    if task.has_subtask or not task.actions:
        return None
    phase, _, slug = task.name.partition(":")
    return phase, slug


def _first_line(message: str) -> str:
    lines = message.strip().splitlines()
    return lines[0] if lines else ""
