"""When the provider is out of reach, for one part or for a whole pass: how long it is left alone, and when that ends.

It is left alone for as long as it asked, else longer after each try. Nothing is lost by waiting while
jobs run there; but who waits for ever is never told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import Unreachable
from pipeline.queue.context import Options

_TRIES = 5  # at least so many before an outage is given up, and so many refusals
_DOUBLINGS = 30  # of any poll: a longer row of tries has no number of its own
_LONGEST_REST = 600.0  # seconds between two tries of our own choosing
_LONGEST_ASKED = 3600.0  # seconds that the service may ask for
_A_TRY = timedelta(minutes=10)  # the most that one try takes; what went by beyond it, this machine slept


@dataclass
class Outage:
    """How often in a row there was no answer, for how long, and until when nobody asks again."""

    times: int = 0
    _refusals: int = 0  # in a row, by somebody who answers
    _lasted: timedelta = timedelta(0)
    _last: datetime | None = None
    _rest: timedelta = timedelta(0)

    def note(self, error: Unreachable, now: datetime, options: Options) -> float:
        """Count one more; how many seconds the provider is left alone now."""
        doubled = options.poll_seconds * 2.0 ** min(self.times, _DOUBLINGS)
        seconds = max(min(_LONGEST_REST, doubled), min(error.wait or 0.0, _LONGEST_ASKED))
        self.times += 1
        self._refusals = self._refusals + 1 if error.refused else 0
        if self._last is not None:
            # By neither a clock that was set nor a closed lid does an outage get longer.
            rest = max(self._rest, timedelta(seconds=options.poll_seconds))
            self._lasted += min(max(now - self._last, timedelta(0)), rest + _A_TRY)
        self._last, self._rest = now, timedelta(seconds=seconds)
        return seconds

    def over(self) -> None:
        """There was an answer."""
        self.times, self._refusals, self._lasted, self._last = 0, 0, timedelta(0), None

    def resting(self, now: datetime) -> bool:
        """Whether the provider is to be left alone; not where a clock was set back since."""
        return self._last is not None and timedelta(0) <= now - self._last < self._rest

    def endless(self, options: Options) -> bool:
        """Whether it has lasted so long that the user has to know."""
        silent = self.times >= _TRIES and self._lasted >= timedelta(seconds=options.outage_seconds)
        return silent or self._refusals >= _TRIES
