"""The emulator's clock: real time, scaled, plus what tests have added to it.

Everything with a date or a duration reads this clock, so a test expires a link or a job by moving
it instead of waiting. It never goes back while the process lives, whatever the machine's clock does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since the epoch as the emulator sees them. *origin* is the real time the store was made."""

    origin: float
    speed: float
    advanced: float
    real: Callable[[], float] = time.time
    _latest: float = field(default=0.0, repr=False)

    def now(self) -> float:
        """The virtual time."""
        self._latest = max(self._latest, self.origin + (self.real() - self.origin) * self.speed + self.advanced)
        return self._latest

    def advance(self, seconds: float) -> None:
        """Move the clock forward by *seconds* virtual seconds; the caller makes it durable."""
        self.advanced += seconds

    def real_seconds_until(self, moment: float) -> float:
        """How long to sleep until the virtual *moment*, 0 when it has passed."""
        return max(0.0, (moment - self.now()) / self.speed)
