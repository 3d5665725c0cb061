"""How far an invocation's parts are: a line for people, and the same as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipeline import plain

_SHOWN = 4  # reasons to wait that a line names


@dataclass(frozen=True)
class Progress:
    """The parts of all chosen trials between two passes; *trial* is the one whose phase waits.

    *rows_done* counts what running jobs say and what is settled, *tokens* and *usd* what the service counted so
    far. None: not known (no price, or too early to tell).
    """

    trial: str
    trials: int
    word: str  # what is waited for: `submitted` or `finished`
    parts: int
    reached: int
    running: int
    rows: int
    rows_done: int
    waiting_for: tuple[str, ...]
    tokens: int = 0
    usd: float | None = None
    usd_expected: float | None = None
    seconds_left: float | None = None

    @property
    def line(self) -> str:
        """One line, without what is not known yet."""
        known = [self._name, *self.figures(), *([self.left] if self.left else [])]
        return "; ".join([", ".join(known), *([self.waits] if self.waits else [])])

    @property
    def steady(self) -> str:
        """The line without what changes at each look: where lines pile up, only a new one is worth showing."""
        return f"{self._name}; {self.waits}" if self.waits else self._name

    @property
    def whose(self) -> str:
        """Whose parts these are."""
        return self.trial if self.trials == 1 else f"{self.trials} trials"

    @property
    def parts_said(self) -> str:
        """How many parts are where the wait wants them."""
        return f"{self.reached:,} of {self.parts:,} parts {self.word}"

    @property
    def waits(self) -> str:
        """What is waited for; empty when nothing is."""
        return f"waiting for: {', '.join(self.waiting_for[:_SHOWN])}" if self.waiting_for else ""

    @property
    def left(self) -> str:
        """The time left; empty while it is not known."""
        return "" if self.seconds_left is None else f"{duration(self.seconds_left)} left"

    def figures(self) -> Iterator[str]:
        """Rows, tokens and money, as far as they are known."""
        if self.rows_done:
            yield f"{self.rows_done:,} of {self.rows:,} rows"
        if self.tokens:
            yield f"{self.tokens:,} tokens"
        if self.usd_expected:
            yield f"{plain.usd(self.usd or 0.0)} of about {plain.usd(self.usd_expected)}"

    def as_json(self) -> dict[str, Any]:
        """The same as an event."""
        return {"event": "progress", **asdict(self)}

    @property
    def _name(self) -> str:
        return f"{self.whose}: {self.parts_said}"


@dataclass
class Pace:
    """How fast rows come in, as far as this process has seen."""

    _began: tuple[datetime, int] | None = None

    def left(self, now: datetime, done: int, rows: int) -> float | None:
        """Seconds until all *rows* are there if it goes on like this; None until some came while we looked."""
        if self._began is None:
            self._began = now, done
        at, before = self._began
        if done <= before:
            return None
        return (now - at).total_seconds() * (rows - done) / (done - before)


def duration(seconds: float) -> str:
    """About how long, in words: nobody plans by seconds while jobs take hours."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return "under a minute"
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60:02} min" if minutes < 600 else f"about {round(minutes / 60)} h"
