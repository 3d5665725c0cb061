"""What every part of a run's queue works with: the run, the options, and what was handed in from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline import ledger
from pipeline.errors import TrialmakeError
from pipeline.providers.base import Provider
from pipeline.queue.estimates import Planned
from pipeline.queue.merge import ReadRow
from pipeline.queue.progress import Progress
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """How the queue behaves in this invocation."""

    wait: bool = True
    requeue: str | None = None  # overrides queue.requeue of the config
    poll_seconds: float = 30.0
    second_look_seconds: float = 0.0  # at least so long after a first look is what is gone believed to be gone
    outage_seconds: float = 0.0  # at least so long is a provider that is out of reach waited for while jobs run
    since: datetime | None = None  # when the command began: what it sent since counts with what is agreed to
    trials: tuple[str, ...] = ()  # submit these only; jobs of the others are looked after all the same
    begins: bool = True  # whether a part that was never submitted may be, or only what follows on an attempt


@dataclass
class Collaborators:
    """What the queue is handed: the provider (connected when first needed), output, clock and stop request."""

    connect: Callable[[], Provider]
    read_row: ReadRow
    say: Callable[[str], None]
    check_stop: Callable[[], None]
    allow_spending: Callable[[Planned], None]
    show: Callable[[Progress | None], None]  # None: the wait is over
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass
class Context:
    """A run, how to drive it, and one connected provider for all of its parts."""

    workspace: Workspace
    hands: Collaborators
    options: Options
    closed: TrialmakeError | None = None  # why there is no provider
    _provider: Provider | None = field(default=None, repr=False)

    def provider(self) -> Provider:
        """The provider, connected when it is first needed: a run that needs nothing connects to nothing.

        Raises Refused when the run's jobs are another account's or endpoint's: all of them, before any call.
        """
        if self._provider is None:
            try:
                provider = self.hands.connect()
                binding = provider.binding()
                for slug, part, book in self.workspace.ledgers():
                    for attempt in book.attempts:
                        where = self.workspace.trial_paths(slug).part(part).ledger
                        ledger.check_binding(attempt, binding, str(where))
            except TrialmakeError as error:
                self.closed = error
                raise
            self._provider = provider
        return self._provider
