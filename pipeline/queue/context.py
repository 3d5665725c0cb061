"""What every part of a run's queue works with: the run, the options, and what was handed in from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.ledger import Ledger
from pipeline.providers.base import Provider
from pipeline.queue.merge import ReadRow
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """How the queue behaves in this invocation."""

    wait: bool = True
    requeue: str | None = None  # overrides queue.requeue of the config
    poll_seconds: float = 30.0
    trials: tuple[str, ...] = ()  # drive these only; all when empty


@dataclass
class Collaborators:
    """What the queue is handed: the provider (connected when first needed), output, clock and stop request."""

    connect: Callable[[], Provider]
    read_row: ReadRow
    say: Callable[[str], None]
    check_stop: Callable[[], None]
    allow_spending: Callable[[float | None, int], None]
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass
class Context:
    """A run, how to drive it, and one connected provider for all of its parts."""

    workspace: Workspace
    hands: Collaborators
    options: Options
    _provider: Provider | None = field(default=None, repr=False)

    def provider(self) -> Provider:
        """The provider, connected when it is first needed: a run that needs nothing connects to nothing."""
        if self._provider is None:
            self._provider = self.hands.connect()
        return self._provider

    def ledger(self, slug: str, part: str) -> Ledger:
        """The ledger of one part, read anew each time."""
        return self.workspace.ledger(slug, part)
