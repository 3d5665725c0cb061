"""What stops a command from outside: Ctrl-C, SIGTERM, and the death of a worker. All end it like Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import doit_state
from pipeline.errors import EXIT_FAILED, EXIT_SIGINT, EXIT_SIGTERM

_LOOK = 0.5  # seconds between two looks at the workers


class _Terminated(KeyboardInterrupt):
    """SIGTERM, on the same way out as Ctrl-C."""


class _WorkerDied(KeyboardInterrupt):
    """A worker of `-n` was killed, by hand or for lack of memory: doit would wait for its answer for ever."""


# The first that fits: what stopped the run, and the exit code.
_ENDINGS: dict[type[KeyboardInterrupt], tuple[str, int]] = {
    _Terminated: ("SIGTERM", EXIT_SIGTERM),
    _WorkerDied: ("the death of a worker process (killed by hand, or for lack of memory?)", EXIT_FAILED),
    KeyboardInterrupt: ("Ctrl-C", EXIT_SIGINT),
}


def ending(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What *stop* was, in words, and the exit code that tells it."""
    return next(ending for kind, ending in _ENDINGS.items() if isinstance(stop, kind))


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """For this block, SIGTERM raises as Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def workers_watched() -> Iterator[None]:
    """For this block, processes are forked (they inherit the session), and the death of one ends the wait for it."""
    import multiprocessing.process  # doit needs it now too

    multiprocessing.set_start_method("fork", force=True)

    def look(_signal: int, _frame: object) -> None:
        # Not active_children(): that forgets the dead. And while an exception is on its way, the run is
        # ending already, and its workers with it.
        workers: set[multiprocessing.process.BaseProcess] = multiprocessing.process._children  # type: ignore[attr-defined]
        if any(worker.exitcode for worker in tuple(workers)) and sys.exc_info()[0] is None:
            raise _WorkerDied

    # A timer of this process alone: a thread would be there when workers are forked.
    handler = signal.signal(signal.SIGALRM, look)
    timer = signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let the last words be written: an impatient second Ctrl-C changes nothing any more."""
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _on_sigterm(_signal: int, _frame: object) -> None:
    session = doit_state.session
    if session is not None and os.getpid() != session.pid:
        # doit ends the workers of `-n` so, some of them while they are ending by Ctrl-C: there is nobody left to tell.
        os._exit(EXIT_SIGTERM)
    raise _Terminated
