"""What doit tells us while it runs: each decision on the console, each result into the manifest.

`add_success` and `add_failure` always run in the main thread of the main process, once doit has
recorded the task; so this is the one place from which the manifest follows.
"""

from __future__ import annotations

from typing import Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from pipeline import doit_state, graph
from pipeline.done import Decision, Run
from pipeline.errors import EXIT_DONE, EXIT_ERROR, EXIT_FAILED
from pipeline.session import Session

_WIDTH = max(len(name) for name in graph.NAMES)


class Reporter(ConsoleReporter):  # type: ignore[misc] # doit ships no types
    """Trialmake's reporter; its `exit_code` is the most telling one of all failures."""

    desc = "one line per decision, manifest in step (Trialmake)"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        assert doit_state.session is not None
        self.session: Session = doit_state.session
        self.session.reporter = self
        self.exit_code = EXIT_DONE
        self.counts: dict[str, int] = {}

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Say which run this is and what differs in its config."""
        work = self.session.workspace
        self.write(f"run {work.rid} in {work.paths.root}\n")
        for change in work.config_changes:
            self.write(f"config changed: {change}\n")

    def execute_task(self, task: Any) -> None:
        """A task starts: say why, and record that it is in progress."""
        if (cell := _cell(task)) is None:
            return
        decision = self.session.decisions.get(cell) or Run("asked for")
        if decision.verb == "skip":
            decision = Run("asked for with -a, or doit's own record is missing")
        self._say(cell, decision)
        self.session.begin(*cell)

    def skip_uptodate(self, task: Any) -> None:
        """A task is current: say on what evidence."""
        if (cell := _cell(task)) is not None:
            self._say(cell, self.session.decisions[cell])

    def add_success(self, task: Any) -> None:
        """doit has recorded the task: now the manifest follows."""
        if (cell := _cell(task)) is not None:
            self.session.succeed(*cell, task.values)

    def add_failure(self, task: Any, fail: Any) -> None:
        """A task did not finish: keep the reason, show it in the error's own words."""
        if isinstance(fail, UnmetDependency):
            self._count("not reached")
            self.exit_code = self.exit_code or EXIT_FAILED
            return
        self._count("failed")
        cell = _cell(task)
        message = fail.get_msg()
        self.exit_code = max(self.exit_code, getattr(fail, "exit_code", EXIT_ERROR), key=_weight)
        if cell is not None:
            self.session.fail(*cell, message, getattr(fail, "kind", type(fail).__name__))
        self.write(f"{task.name}: {message}\n")

    def complete_run(self) -> None:
        """Sum up."""
        for message in self.runtime_errors:
            self.write(f"{message}\n")
        if not self.exit_code and not self.runtime_errors and not self.session.request.phases:
            self.session.settle_config()
        order = ("skip", "repair", "run", "refuse", "failed", "not reached")
        words = {"skip": "skipped", "repair": "repaired", "run": "built", "refuse": "refused"}
        said = [f"{self.counts[key]} {words.get(key, key)}" for key in order if self.counts.get(key)]
        self.write(f"{', '.join(said) or 'nothing to do'}\n")
        self.session.finish(self.write)

    def _say(self, cell: tuple[str, str], decision: Decision) -> None:
        phase, slug = cell
        self._count(decision.verb)
        self.write(f"{phase:<{_WIDTH}}  {slug or '-'}  {decision.verb}  {decision.reason}\n")
        self.session.log(phase, slug, decision)

    def _count(self, key: str) -> None:
        self.counts[key] = self.counts.get(key, 0) + 1


def _cell(task: Any) -> tuple[str, str] | None:
    """The (phase, trial) of a task; None for a group, which has nothing to do itself."""
    if task.has_subtask or not task.actions:
        return None
    phase, _, slug = task.name.partition(":")
    return phase, slug


def _weight(code: int) -> int:
    """Which exit code tells most: stops, then errors, then failures; 'not ready' only when nothing else is wrong."""
    order = (EXIT_DONE, 75, EXIT_FAILED, EXIT_ERROR, 76, 130, 143)
    return order.index(code) if code in order else len(order)
