"""What `done.py` is asked (one phase of one trial), and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline import adopted, graph
from pipeline.adopted import Standing
from pipeline.manifest import Stage
from pipeline.paths import TrialPaths
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Decision:
    """What to do about one phase; *reason* is shown to the person who waits."""

    reason: str
    verb: ClassVar[str]


class Skip(Decision):
    """The work is on disk and current."""

    verb = "skip"


class Run(Decision):
    """The work was not done yet, or something it depends on has changed."""

    verb = "run"


class Repair(Decision):
    """The work was done and its result is damaged or gone."""

    verb = "repair"


class Refuse(Decision):
    """Doing the work could lose results or pay twice; a person decides."""

    verb = "refuse"


@dataclass(frozen=True)
class Question:
    """One phase of one trial (of the run, for a run-level phase) in a workspace."""

    phase: graph.Phase
    slug: str
    workspace: Workspace

    @property
    def trial(self) -> TrialPaths:
        """The trial's files."""
        return self.workspace.trial_paths(self.slug)

    @property
    def stage(self) -> Stage:
        """What is recorded of the phase."""
        if self.phase.stage is None:
            return self.workspace.record.stages.get(self.phase.name, Stage())
        return self.workspace.manifest(self.slug).stage(self.phase.stage)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files the phase reads; none where the earlier tool's result is kept, or there is nothing to read."""
        if self.standing is not None and self.standing.verb != "run":
            return ()
        return graph.files(self.phase.inputs, self.workspace.paths, self._trials)

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files the phase always writes; the earlier tool's, where they are kept."""
        if self.standing is not None and self.standing.verb == "skip":
            return tuple(self.workspace.paths.root / name for name in self.stage.outputs)
        return graph.files(self.phase.targets, self.workspace.paths, self._trials)

    @property
    def standing(self) -> Standing | None:
        """What the phase comes to in a run of the earlier tool."""
        return adopted.standing(self.workspace, self.phase.name, self.slug)

    @property
    def slugs(self) -> list[str]:
        """The trials whose files the phase reads and writes."""
        return [self.slug] if self.phase.per_trial else list(self.workspace.trials)

    @property
    def _trials(self) -> list[TrialPaths]:
        return [self.workspace.trial_paths(slug) for slug in self.slugs]

    def relative(self, path: Path) -> str:
        """*path* as records name it."""
        return self.workspace.relative(path)
