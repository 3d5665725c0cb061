"""The phases of a run: their order, what each reads and what it writes.

doit's `file_dep` and `targets`, the decisions and the plan all come from this table. The files of
a phase are the same on the first and on every later run; what build lists (parts) and what the
queue keeps (ledgers, raw files) are looked at by the predicates in `done.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pipeline.paths import RunPaths, TrialPaths

Files = Callable[[RunPaths, TrialPaths], tuple[Path, ...]]


@dataclass(frozen=True)
class Phase:
    """One step. *stage* is its key in the manifest's `stage_status`; None for a phase that records itself elsewhere."""

    name: str
    doc: str
    stage: str | None
    inputs: Files
    targets: Files
    per_trial: bool = True
    by_default: bool = True
    after: tuple[str, ...] = ()  # phases that must come first although no file says so


def _none(_run: RunPaths, _trial: TrialPaths) -> tuple[Path, ...]:
    return ()


PHASES: tuple[Phase, ...] = (
    Phase(
        "prepare",
        "read the question files into one format",
        None,
        _none,
        lambda run, _: (run.closed_book, run.open_book),
        per_trial=False,
    ),
    Phase(
        "build",
        "write the requests, in parts of one temperature and condition",
        None,
        lambda run, _: (run.closed_book, run.open_book),
        lambda _, trial: (trial.index,),
    ),
    Phase("submit", "hand every part to the provider, once", None, lambda _, trial: (trial.index,), _none),
    Phase(
        "download",
        "wait for the jobs and collect every answer",
        "downloaded",
        lambda _, trial: (trial.index,),
        lambda _, trial: (trial.combined, trial.attempts),
        after=("submit",),
    ),
    Phase(
        "parse",
        "turn the answers into predictions.csv",
        "parsed",
        lambda _, trial: (trial.combined, trial.index),
        lambda _, trial: (trial.predictions, trial.usage),
    ),
    Phase(
        "score",
        "judge every answer by its benchmark's official rules",
        "scored",
        lambda run, trial: (trial.predictions, run.closed_book, run.open_book),
        lambda _, trial: (trial.scores,),
    ),
    Phase(
        "stats",
        "compare the conditions",
        "stats",
        lambda _, trial: (trial.scores,),
        lambda _, trial: (trial.significance,),
    ),
    Phase(
        "costs",
        "count tokens and money",
        "costs",
        lambda _, trial: (trial.usage, trial.attempts, trial.scores),
        lambda _, trial: (trial.costs,),
    ),
    Phase(
        "report",
        "write the report",
        "report",
        lambda run, trial: (
            run.closed_book,
            run.open_book,
            trial.index,
            trial.attempts,
            trial.predictions,
            trial.scores,
            trial.significance,
            trial.costs,
        ),
        lambda _, trial: (trial.report_md, trial.report_html),
    ),
    Phase(
        "archive",
        "pack artifacts, config and raw files with checksums",
        "archived",
        lambda run, trial: (
            run.config,
            run.closed_book,
            run.open_book,
            trial.index,
            trial.combined,
            trial.predictions,
            trial.scores,
            trial.significance,
            trial.costs,
            trial.report_md,
            trial.report_html,
        ),
        lambda _, trial: (trial.archive, trial.checksums),
        by_default=False,
    ),
    Phase(
        "index",
        "put the trials side by side",
        None,
        lambda _, trial: (trial.significance, trial.costs, trial.attempts, trial.report_md),
        lambda run, _: (run.aggregate_report, run.index_html),
        per_trial=False,
        after=("report",),
    ),
)

BY_NAME = {phase.name: phase for phase in PHASES}
NAMES = tuple(phase.name for phase in PHASES)
STAGES = {phase.stage: phase.name for phase in PHASES if phase.stage}


def names(of: Files, slugs: Sequence[str]) -> tuple[str, ...]:
    """The files *of* gives, relative to the run's folder: for one trial, or (a run-level phase) for all of them.

    As text, since a decision looks at thousands of files and making a Path takes longer than the look.
    """
    if len(slugs) == 1:
        return _names(of, slugs[0])
    return tuple(dict.fromkeys(name for slug in slugs for name in _names(of, slug)))


def sources(phase: Phase, slugs: Sequence[str]) -> Iterator[tuple[str, Phase, str]]:
    """Each file *phase* reads that another phase writes: its name, that phase, and for which trial it does."""
    for pattern in _patterns(phase.inputs):
        if (writer := _writers().get(pattern)) is not None:
            for slug in slugs if writer.per_trial else ("",):
                yield pattern.replace(_ANY_TRIAL, slug), writer, slug


_ANY_TRIAL = "*"  # stands for the slug of a trial, which cannot hold it


@lru_cache(1 << 14)  # asked for six times of each phase of each trial
def _names(of: Files, slug: str) -> tuple[str, ...]:
    return tuple([name.replace(_ANY_TRIAL, slug) for name in _patterns(of)])


@cache
def _patterns(of: Files) -> tuple[str, ...]:
    run = RunPaths(Path())
    return tuple(str(path) for path in of(run, run.trial(_ANY_TRIAL)))


@cache
def _writers() -> dict[str, Phase]:
    return {pattern: phase for phase in PHASES for pattern in _patterns(phase.targets)}
