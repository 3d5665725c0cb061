"""The queue's loop: all parts of all trials of a run, one pass after the other, until a trial has what it needs.

A pass looks at each unsettled part (`work.py` takes the step that is possible) and then submits what
is owed while slots are free and the budget lasts. Passes of several processes exclude each other by
a lock. Trouble of one part is kept with it; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from pipeline import done, lock
from pipeline.errors import (
    AuthError,
    BudgetExceeded,
    ContractBroken,
    NotReady,
    ProviderError,
    QuotaFull,
    Refused,
    TrialmakeError,
    Unreachable,
)
from pipeline.queue import budget
from pipeline.queue.budget import Price
from pipeline.queue.context import Collaborators, Context, Options
from pipeline.queue.work import Work as Work
from pipeline.workspace import Workspace

# How often in a row the provider may be out of reach before a wait is given up (with the provider's own
# retries below that, minutes to an hour).
_PATIENCE = 5


@dataclass
class Queue:
    """Drives all trials of a run. `submit` and `download` of each trial call it; there is one per process."""

    workspace: Workspace
    hands: Collaborators
    options: Options = field(default_factory=Options)
    _works: dict[tuple[str, str], Work] = field(default_factory=dict)
    _failures_in_a_row: int = 0
    _stopped_spending: TrialmakeError | None = None
    _announced: bool = False

    def __post_init__(self) -> None:
        self._context = Context(self.workspace, self.hands, self.options)

    # --- what the phases ask for ---------------------------------------------------------------

    def submit(self, slug: str) -> None:
        """Return when every part of *slug* has a job the provider accepted, or its results.

        Raises NotReady (with wait=0), BudgetExceeded, Refused, Stopped or what the provider said.
        """
        self._drive(slug, lambda work: work.accepted, "submitted")

    def download(self, slug: str) -> list[Work]:
        """Return the parts of *slug* once each has its `results.jsonl`; raises as `submit`."""
        self._drive(slug, lambda work: work.settled, "finished")
        return self._of(slug)

    # --- the loop ------------------------------------------------------------------------------

    def _drive(self, slug: str, reached: Callable[[Work], bool], word: str) -> None:
        self._gather()
        self._announce_spending()
        last_line = ""
        while True:
            self.hands.check_stop()
            # Held for one pass only, so that processes of `doit -n` take turns.
            with lock.waiting(self.workspace.paths.queue_lock):
                self._pass(slug)
            works = self._of(slug)
            open_works = [work for work in works if not reached(work)]
            if not open_works:
                return
            self._raise_what_cannot_go_on(open_works)
            line = self._progress(works, word, len(works) - len(open_works))
            if line != last_line:
                self.hands.say(line)
                last_line = line
            if not self.options.wait:
                raise NotReady(
                    f"{len(open_works)} of {len(works)} parts of {slug} are not {word} yet.",
                    kept="Everything that arrived is stored; running jobs go on at the provider.",
                    hint=f"doit resume rid={self.workspace.rid}",
                )
            self.hands.sleep(self.options.poll_seconds)

    def _pass(self, first: str) -> None:
        """One look at every unsettled part: running ones first, which frees slots; *first*'s parts before others."""
        order = sorted(self._works.values(), key=lambda work: work.paths.slug != first)
        try:
            for work in order:
                if not work.settled and work.error is None:
                    self._guarded(work, work.advance)
            for work in order:
                if not work.settled and work.error is None and not work.in_flight:
                    if self._slots_free() <= 0:
                        work.waiting_for = "a free slot"
                    elif self._stopped_spending is None:
                        self._guarded(work, partial(work.submit_owed, self._check_budget))
            self._failures_in_a_row = 0
        except Unreachable as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _PATIENCE or not self.options.wait:
                raise
            self.hands.say(f"{error.what} Asking again in {self.options.poll_seconds:g} s.")

    def _guarded(self, work: Work, step: Callable[[], None]) -> None:
        """Take one step; trouble of one part is kept with it, so that the others go on."""
        try:
            self.hands.check_stop()
            step()
        except (AuthError, Unreachable):
            raise  # nobody else would get through either
        except QuotaFull as error:
            work.waiting_for = f"the account's quota ({error.what})"
        except (ProviderError, Refused, ContractBroken, NotReady) as error:
            work.error = error
            self.hands.say(f"{work.name}: {error.what}")
        except BudgetExceeded as error:
            self._stopped_spending = error

    def _raise_what_cannot_go_on(self, open_works: list[Work]) -> None:
        """When nothing of the trial can move any more, raise the error that explains most."""
        if any(work.in_flight for work in open_works):
            return
        stuck = [work for work in open_works if work.error is not None]
        if len(stuck) == len(open_works):
            first = stuck[0].error
            assert first is not None
            if len(stuck) > 1:
                first.what = f"{first.what} ({len(stuck)} parts have trouble; this is the first)"
            raise first
        if self._stopped_spending is not None and not any(work.in_flight for work in self._works.values()):
            raise self._stopped_spending

    # --- small questions -------------------------------------------------------------------------

    def _gather(self) -> None:
        """List the parts of every trial that has been built, once."""
        for slug in self.options.trials or self.workspace.trials:
            index = self.workspace.index(slug)
            refused = index is None or isinstance(done.decide("build", self.workspace, slug), done.Refuse)
            if index is None or refused:
                continue
            for part in index.parts:
                work = Work(self._context, self.workspace.trial_paths(slug), part)
                self._works.setdefault((slug, part.part), work)

    def _announce_spending(self) -> None:
        """Once per process, before the first new submission: what all parts without an intent may cost."""
        if self._announced:
            return
        self._announced = True
        total, usd = budget.NOTHING, 0.0
        unknown = False
        for work in self._works.values():
            if work.files.root.is_dir() and any(work.files.root.iterdir()):
                continue  # submitted before, or its raw files are here
            planned = budget.estimate(work.paths.part_requests(work.part.part))
            cost = planned.usd(Price.of(self.workspace.config, self.workspace.trials[work.paths.slug]))
            total += planned
            unknown = unknown or cost is None
            usd += cost[1] if cost else 0.0
        if total.rows:
            self.hands.allow_spending(None if unknown else usd, total.rows)

    def _of(self, slug: str) -> list[Work]:
        return [work for (trial, _), work in self._works.items() if trial == slug]

    def _check_budget(self, planned: float | None, what: str) -> None:
        budget.check(self.workspace.config, self._committed(), planned, what)

    def _committed(self) -> Iterator[float | None]:
        for work in self._works.values():
            price = Price.of(self.workspace.config, self.workspace.trials[work.paths.slug])
            for attempt in work.book.attempts:
                yield budget.spent(attempt, price)

    def _slots_free(self) -> int:
        limit: int = self.workspace.config["queue"]["max_concurrent_jobs"]
        return limit - sum(work.in_flight for work in self._works.values())

    def _progress(self, works: list[Work], word: str, reached: int) -> str:
        waiting = sorted({work.waiting_for for work in works if not work.settled and work.waiting_for})
        more = f"; waiting for: {', '.join(waiting[:4])}" if waiting else ""
        return f"{works[0].paths.slug}: {reached} of {len(works)} parts {word}{more}"
