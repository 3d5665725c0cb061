"""What a command line cannot mean: found before anything is made, locked or run, and said with what to type instead.

doit takes any word for a task and any folder for its own; here a mistyped command would start a run, and pay.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from pipeline import graph, paths, runs
from pipeline.errors import UsageError
from pipeline.paths import RunPaths
from pipeline.session import Session

COMMANDS = ("run", "resume", "plan", "list", "forget", "info", "help")  # of doit, that mean something here
# The commands of `python -m pipeline` that are none of doit's.
OF_PROGRAM = (
    *("init", "doctor", "config", "runs", "status", "explain", "open", "compare", "power", "manifest", "orphans"),
    *("completion", "emulate"),
)
PHASES_ARE = f"phases are: {', '.join(graph.NAMES)}"


def enter(params: Any) -> None:
    """Change to the folder that doit would change to (`-f`, `-d`, `-k`), before a run is looked for or made there.

    Raises UsageError where doit would find no dodo.py, before a run is made that it could not build.
    """
    dodo = Path(params["dodoFile"])
    if params["seek_file"]:
        dodo = next((found for folder in (Path.cwd(), *Path.cwd().parents) if (found := folder / dodo).exists()), dodo)
    if not dodo.exists():
        raise UsageError(
            f"there is no {dodo.name} in {dodo.absolute().parent}, which doit runs by.",
            kept="Nothing was changed.",
            hint="change to the folder that has one; python -m pipeline init FOLDER makes such a folder",
        )
    folder = Path(params["cwdPath"] or dodo.parent)
    if not folder.is_dir():
        raise UsageError(f"-d {folder}: there is no such folder.", kept="Nothing was changed.")
    params["dodoFile"], params["cwdPath"], params["seek_file"] = str(dodo.absolute()), str(folder.absolute()), False
    os.chdir(folder)


def check_names(names: list[str]) -> None:
    """Raise UsageError for a word that can be no task, before a mistyped command starts a run."""
    for name in names:
        phase = name.partition(":")[0]
        if phase in graph.BY_NAME or any(sign in name for sign in "*?[/"):
            continue  # a task, a pattern or the path of a target: doit looks closer
        if name in COMMANDS:
            raise UsageError(f"the command comes first: doit {name} ...", hint=f"doit help {name} shows its options")
        if name in OF_PROGRAM:
            raise UsageError(f"{name} is a command of the other program.", hint=f"python -m pipeline {name}")
        if paths.is_rid(name) and runs.exists(RunPaths.of(name)):
            raise UsageError(f"a run is named by rid=, as in rid={name}.", hint=f"doit resume rid={name}")
        known = (*graph.NAMES, *COMMANDS)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise UsageError(
            f"there is no command or phase {name!r}{f'; did you mean {close[0]!r}?' if close else '.'}",
            hint=f"{PHASES_ARE}; commands: doit help",
        )


def check_trials(names: list[str], opened: Session) -> None:
    """Raise UsageError for the task of a trial that this invocation is not about, before anything is run."""
    for name in names:
        phase, _, trial = name.partition(":")
        if not trial or trial in opened.trials or any(sign in name for sign in "*?[/"):
            continue
        close = difflib.get_close_matches(trial, opened.trials, n=1, cutoff=0.3)
        nearest = f"; did you mean {phase}:{close[0]}?" if close else "."
        raise UsageError(
            f"run {opened.workspace.rid} has no trial {trial!r}{nearest}",
            kept="Nothing was changed.",
            hint=f"trials are: {', '.join(opened.trials)}",
        )
