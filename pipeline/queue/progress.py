"""How far a trial's parts are, as a line for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_SHOWN = 4  # reasons to wait that a line names


@dataclass(frozen=True)
class Progress:
    """The parts of one trial between two passes. *rows_done* counts what running jobs say and what is settled."""

    trial: str
    word: str  # what is waited for: `submitted` or `finished`
    parts: int
    reached: int
    running: int
    rows: int
    rows_done: int
    waiting_for: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line, without the count of rows while nothing is known of it."""
        rows = f", {self.rows_done:,} of {self.rows:,} rows" if self.rows_done else ""
        return f"{self.steady}{rows}"

    @property
    def steady(self) -> str:
        """The line without what changes at each look: where lines pile up, only a new one is worth showing."""
        shown = ", ".join(self.waiting_for[:_SHOWN])
        more = f"; waiting for: {shown}" if shown else ""
        return f"{self.trial}: {self.reached} of {self.parts} parts {self.word}{more}"

    def as_json(self) -> dict[str, Any]:
        """The same as an event."""
        return {"event": "progress", **asdict(self)}
