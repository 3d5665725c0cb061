"""What `done.py` is asked (one phase of one trial), and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline import graph
from pipeline.manifest import LEGACY, Stage
from pipeline.paths import TrialPaths
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.adopted import Standing


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
    def input_names(self) -> tuple[str, ...]:
        """The files the phase reads; none where the earlier tool's result is kept, or there is nothing to read."""
        if (standing := self.standing) is not None and standing.verb != "run":
            return ()
        return graph.names(self.phase.inputs, self.slugs)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The files the phase always writes; the earlier tool's, where they are kept."""
        if (standing := self.standing) is not None and standing.verb == "skip":
            return tuple(self.stage.outputs)
        return graph.names(self.phase.targets, self.slugs)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """`input_names` as paths."""
        return tuple(map(self.workspace.paths.root.joinpath, self.input_names))

    @property
    def targets(self) -> tuple[Path, ...]:
        """`target_names` as paths."""
        return tuple(map(self.workspace.paths.root.joinpath, self.target_names))

    @property
    def standing(self) -> Standing | None:
        """What the phase comes to in a run of the earlier tool; None in one of our own."""
        if self.workspace.record.origin != LEGACY:
            return None
        from pipeline import adopted  # not needed to decide on a run of our own

        return adopted.standing(self.workspace, self.phase.name, self.slug)

    @property
    def slugs(self) -> list[str]:
        """The trials whose files the phase reads and writes."""
        return [self.slug] if self.phase.per_trial else list(self.workspace.trials)

    def relative(self, path: Path) -> str:
        """*path* as records name it."""
        return self.workspace.relative(path)


def base(name: str) -> str:
    """The last part of a file's *name*, as messages show it."""
    return name.rpartition("/")[2]
