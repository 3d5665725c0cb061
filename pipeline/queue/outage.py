"""When the provider is out of reach, for one part or for a whole pass: how long it is left alone, and when that ends.

It is left alone for as long as it asked, else longer after each try. Nothing is lost by waiting while
jobs run there; but who waits for ever is never told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import Unreachable
from pipeline.queue.context import Options

_TRIES = 5  # at least so many before an outage is given up
_DOUBLINGS = 30  # of any poll: a longer row of tries has no number of its own
_LONGEST_REST = 600.0  # seconds between two tries of our own choosing
_LONGEST_ASKED = 3600.0  # seconds that the service may ask for


@dataclass
class Outage:
    """How often in a row there was no answer, since when, and until when nobody asks again."""

    times: int = 0
    _began: datetime | None = None
    _last: datetime | None = None
    _rest: timedelta = timedelta(0)
    _refused: bool = False  # the last of them, by somebody who answers

    def note(self, error: Unreachable, now: datetime, options: Options) -> float:
        """Count one more; how many seconds the provider is left alone now."""
        doubled = options.poll_seconds * 2.0 ** min(self.times, _DOUBLINGS)
        rest = min(_LONGEST_REST, doubled)
        seconds = max(rest, min(error.wait or 0.0, _LONGEST_ASKED))
        self.times += 1
        self._refused = error.refused
        self._began = min(self._began or now, now)
        self._last, self._rest = now, timedelta(seconds=seconds)
        return seconds

    def over(self) -> None:
        """There was an answer."""
        self.times, self._began, self._last = 0, None, None

    def resting(self, now: datetime) -> bool:
        """Whether the provider is to be left alone; not where a clock was set back since."""
        return self._last is not None and timedelta(0) <= now - self._last < self._rest

    def endless(self, now: datetime, options: Options) -> bool:
        """Whether it has lasted so long that the user has to know."""
        lasted = now - self._began if self._began else timedelta(0)
        longest = 0.0 if self._refused else options.outage_seconds
        return self.times >= _TRIES and lasted >= timedelta(seconds=longest)
