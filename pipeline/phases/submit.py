"""submit: every part handed to the provider, once. The work is the queue's; the record is the ledgers."""

from __future__ import annotations

from pipeline.phases import Outcome
from pipeline.queue.drive import Queue


def submit(queue: Queue, slug: str) -> Outcome:
    """Return when every part of trial *slug* has an accepted job or its results; raises as the queue does."""
    queue.submit(slug)
    return Outcome({})
