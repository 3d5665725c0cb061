"""What one invocation asks for: the `name=value` words of the command line, checked.

doit passes any `name=value` on and ignores names it does not know, so a mistyped `rdi=X` would
silently mean the latest run. Here an unknown name or a value of the wrong kind is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import graph, paths
from pipeline.errors import UsageError

VARIABLES = {
    "rid": "NAME: the run; default: the latest",
    "config": "PATH: start a new run from this file, under the name in rid=",
    "force": "PHASE,.. or all: run them although nothing changed (submit never)",
    "trial": "NAME or pattern: these trials only",
    "from": "PHASE: from this one on",
    "to": "PHASE: up to this one",
    "only": "PHASE,..: these only",
    "wait": "0: collect what is ready and end",
    "verify": "deep: read every recorded file anew",
    "yes": "1: agree to spending where nobody can be asked",
    "limit": "NUMBER: a new run of at most so many items per source",
    "requeue": "auto, ask or never: whether rows still owed are asked again",
    "json": "1: the plan, the progress and the end as JSON",
    "poll": "SECONDS: how often jobs are asked for their state",
}
NAMES = tuple(VARIABLES)


@dataclass(frozen=True)
class Request:
    """The choices of one invocation; None and empty mean: not chosen."""

    rid: str | None = None
    config: Path | None = None
    forced: frozenset[str] = frozenset()
    trials: str | None = None
    phases: frozenset[str] = frozenset()
    wait: bool = True
    deep: bool = False
    yes: bool = False
    limit: int | None = None
    requeue: str | None = None
    json: bool = False
    poll_seconds: float | None = None

    @property
    def asks_again(self) -> bool:
        """Whether rows that a finished run has no answer to are looked for anew, which a plain resume leaves be."""
        return self.requeue == "auto" or "download" in self.forced


def parse(variables: Mapping[str, str]) -> Request:
    """The request that *variables* make. Raises UsageError with the nearest valid spelling."""
    for name in variables:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
            nearest = f"; did you mean {close[0]}=?" if close else ""
            raise UsageError(f"there is no variable {name}={nearest}", hint=f"variables are: {', '.join(NAMES)}")
    rid = variables.get("rid")
    if rid is not None and not paths.is_rid(rid):
        raise UsageError(f"rid={rid}: a run's id has letters, digits, '.', '_' and '-' only, at most 64.")
    config = variables.get("config")
    forced, phases = _forced(variables), _selected(variables)
    if phases and (outside := forced - phases - {"all"}):
        chosen = ", ".join(name for name in graph.NAMES if name in phases)
        raise UsageError(
            f"force={','.join(sorted(outside))} is not among the chosen phases: {chosen}.",
            hint="choose it too with from=, to= or only=, or leave force= out",
        )
    return Request(
        rid=rid,
        config=Path(config) if config else None,
        forced=forced,
        trials=variables.get("trial"),
        phases=phases,
        wait=_flag(variables, "wait", True),
        deep=_choice(variables, "verify", ("deep",)) == "deep",
        yes=_flag(variables, "yes", False),
        limit=_number(variables, "limit"),
        requeue=_choice(variables, "requeue", ("auto", "ask", "never")),
        json=_flag(variables, "json", False),
        poll_seconds=_seconds(variables, "poll"),
    )


def _forced(variables: Mapping[str, str]) -> frozenset[str]:
    forced = frozenset(_phases(variables, "force", also=("all",)))
    if "submit" in forced:
        raise UsageError(
            "submit cannot be forced: what was handed to the provider is never paid twice.",
            hint="force=download collects the results anew; a new run asks anew",
        )
    return forced


def _selected(variables: Mapping[str, str]) -> frozenset[str]:
    """The phases chosen by from=, to= and only=; empty when none of them is given, never when they leave none."""
    names = graph.NAMES
    only, start, stop = (_phases(variables, name) for name in ("only", "from", "to"))
    if len(start) > 1 or len(stop) > 1:
        raise UsageError("from= and to= take one phase each.")
    if not start and not stop:
        return frozenset(only)
    first, last = start[0] if start else names[0], stop[0] if stop else names[-1]
    span = set(names[names.index(first) : names.index(last) + 1])
    if not span:
        raise UsageError(f"from={first} comes after to={last}.", hint=f"the order is: {', '.join(names)}")
    for phase in graph.PHASES:
        if not phase.by_default and phase.name not in (*only, *start, *stop):
            span.discard(phase.name)
    if only and not span & set(only):
        raise UsageError(
            f"only={','.join(only)} leaves nothing of {first} to {last}.", hint=f"the order is: {', '.join(names)}"
        )
    return frozenset(span & set(only) if only else span)


def _phases(variables: Mapping[str, str], name: str, also: tuple[str, ...] = ()) -> list[str]:
    words = [word.strip() for word in variables.get(name, "").split(",") if word.strip()]
    if name in variables and not words:
        raise UsageError(f"{name}= names no phase.", hint=f"phases are: {', '.join((*graph.NAMES, *also))}")
    allowed = (*graph.NAMES, *also)
    for word in words:
        if word not in allowed:
            close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.4)
            nearest = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(
                f"{name}={word}: there is no such phase{nearest}", hint=f"phases are: {', '.join(allowed)}"
            )
    return words


def _flag(variables: Mapping[str, str], name: str, default: bool) -> bool:
    text = variables.get(name)
    if text is None:
        return default
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{name}={text}: expected 1 or 0.")


def _choice(variables: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    text = variables.get(name)
    if text is not None and text not in allowed:
        raise UsageError(f"{name}={text}: expected {' or '.join(allowed)}.")
    return text


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name)
    if text is None:
        return None
    # Other scripts have digits too, and int() refuses some of them and any number of 4,300 digits.
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise UsageError(f"{name}={text}: expected a whole number of at least 1.")
    return int(text)


def _seconds(variables: Mapping[str, str], name: str) -> float | None:
    text = variables.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86400:
        raise UsageError(f"{name}={text}: expected seconds, above 0.")
    return seconds
