"""The queue's loop: all parts of all trials of a run, one pass after the other, until a trial has what it needs.

A pass looks at each unsettled part (`work.py` takes the steps that are possible), then submits what is
owed while slots are free and the budget lasts. Passes of several processes exclude each other by a
lock. Trouble of one part is kept with it; the others go on.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pipeline import adopted, done, lock
from pipeline.decision import Refuse
from pipeline.errors import (
    AuthError,
    BudgetExceeded,
    ContractBroken,
    DamagedArtifact,
    NotReady,
    ProviderError,
    QuotaFull,
    Refused,
    Unreachable,
)
from pipeline.parts import Index
from pipeline.queue import estimates
from pipeline.queue.context import Context
from pipeline.queue.estimates import Price
from pipeline.queue.outage import Outage
from pipeline.queue.progress import Pace, Progress, duration
from pipeline.queue.spending import Spending
from pipeline.queue.work import Work
from pipeline.workspace import Workspace


@dataclass
class Queue:
    """Drives all trials of a run. `submit` and `download` of each trial call it; there is one per process."""

    context: Context
    _works: dict[tuple[str, str], Work] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)  # trials that need nothing
    _counted: dict[str, list[Work]] = field(default_factory=dict)  # their parts, listed when shown
    _pace: Pace = field(default_factory=Pace)
    # Under `doit -n -P thread` the trials' phases share one queue.
    _listing: threading.Lock = field(default_factory=threading.Lock)
    _outage: Outage = field(default_factory=Outage)  # passes in a row in which nobody answered; none of them rests
    # What the pass at hand has met.
    _unanswered: int = 0
    _silence: Unreachable | None = None  # why it ended before every part was looked at
    _quota_full: bool = False
    _not_ready: bool = False  # an uploaded data set kept it waiting: no second one does
    _over_budget: BudgetExceeded | None = None
    _spending: Spending = field(init=False)

    def __post_init__(self) -> None:
        self._spending = Spending(self.context)

    @property
    def workspace(self) -> Workspace:
        """The run."""
        return self.context.workspace

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
        self._gather(slug)
        try:
            while True:
                self.context.hands.check_stop()
                # Held for one pass and what follows from it, so that workers of `doit -n` take turns.
                with lock.waiting(self.workspace.paths.queue_lock):
                    self._pass(slug)
                    works = self._of(slug)
                    missing = [work for work in works if not reached(work)]
                    if not missing:
                        return
                    self._raise_what_cannot_go_on(missing)
                self.context.hands.show(self._progress(slug, word, reached))
                if not self.context.options.wait:
                    away = any(work.outage.times for work in missing)
                    raise NotReady(
                        f"{len(missing)} of {len(works)} parts of {slug} are not {word} yet"
                        f"{', and the provider is out of reach' if away else ''}.",
                        kept="Everything that arrived is stored; running jobs go on at the provider.",
                        hint=f"doit resume rid={self.workspace.rid}",
                    )
                self.context.hands.sleep(self.context.options.poll_seconds)
        finally:
            self.context.hands.show(None)

    def _pass(self, first: str) -> None:
        """One look at every unsettled part: running ones first, which frees slots; *first*'s parts before others."""
        self._unanswered, self._quota_full, self._over_budget = 0, False, None
        self._not_ready, self._silence = False, None
        self._spending.count_anew()
        now = self.context.hands.now()
        todo = [work for work in self._works.values() if not work.settled and work.error is None]
        todo = [work for work in todo if not work.outage.resting(now)]
        todo.sort(key=lambda work: (work.outage.times, work.paths.slug != first))
        for slug in {work.paths.slug for work in todo}:
            self.workspace.fingerprints.work_in(slug)
        try:
            for work in todo:
                self._guarded(work, work.advance)
            owing = [work for work in todo if work.owing and work.error is None and self._may_send(work)]
            self._spending.announce(owing, self._works.values())
            self._over_budget = self._spending.unpriced
            for work in owing:
                if self._slots_free() <= 0:
                    work.waiting_for = "a free slot"
                elif self._spending.awaits_consent(work):
                    work.waiting_for = "your confirmation"
                elif self._quota_full:
                    work.waiting_for = "the account's quota"
                elif self._spending.unpriced is not None:
                    work.waiting_for = "a known price"
                elif self._not_ready:
                    work.waiting_for = "its turn: the service is slow with data sets"
                elif self._over_budget is None:
                    self._guarded(work, partial(work.submit_owed, self._spending.check))
        except Unreachable as error:
            self._silence = error
            self._outage.note(error, self.context.hands.now(), self.context.options)
            endless = self._outage.endless(self.context.options)
            if endless or not self.context.options.wait or not self._worth_waiting(error):
                raise

    def _guarded(self, work: Work, step: Callable[[], None]) -> None:
        """Take one step; trouble of one part is kept with it, so that the others go on.

        Raises what no other part would be spared: no key, no connection for the second time or while nothing is there
        to be had.
        """
        try:
            self.context.hands.check_stop()
            step()
            if not work.owing:  # what is owed was not asked for yet
                work.outage.over()
                self._outage.over()
        except Unreachable as error:
            if not self._worth_waiting(error):
                raise  # the user learns of a wrong address now, not after all patience
            self._unanswered += not error.refused  # what is refused to one part, others may well get
            rest = work.outage.note(error, self.context.hands.now(), self.context.options)
            silent = "the storage, which refuses its links" if error.refused else "the provider, which is out of reach"
            work.waiting_for = silent
            if work.outage.endless(self.context.options):
                work.error = error
            again = f" Asking again {'soon' if rest < 60 else f'in {duration(rest)}'}."
            if work.error or not self.context.options.wait:
                again = ""
            if work.error or work.outage.times.bit_count() == 1:  # said after 1, 2, 4, 8 ... times: a night is long
                self.context.hands.say(f"{work.name}: {error.what}{again}")
            if self._unanswered > 1:
                raise
        except AuthError:
            raise
        except QuotaFull as error:
            self._quota_full = True
            work.waiting_for = f"the account's quota ({error.what})"
        except BudgetExceeded as error:
            # For this pass: what running jobs really cost may leave room for it.
            self._over_budget = error
            work.waiting_for = "room in the budget"
        except (ProviderError, Refused, ContractBroken, NotReady) as error:
            if error is self.context.closed:
                raise
            work.error = error
            self._not_ready = self._not_ready or isinstance(error, NotReady)
            self.context.hands.say(f"{work.name}: {error.what}")

    def _raise_what_cannot_go_on(self, missing: list[Work]) -> None:
        """When the trial cannot get further, raise the error that explains most."""
        unconfirmed = all(self._spending.awaits_consent(work) and work.owing and not work.in_flight for work in missing)
        if self._spending.unconfirmed is not None and unconfirmed:
            raise self._spending.unconfirmed
        stuck = [work for work in missing if work.error is not None]
        if len(stuck) < len(missing):
            if any(self._may_move(work) for work in self._works.values()):
                return
            if self._over_budget is not None:
                raise self._over_budget
            # What is missing waits for slots that jobs with trouble hold.
            stuck = stuck or [work for work in self._works.values() if work.error is not None]
            if not stuck and self._silence is not None:
                raise self._silence
            if not stuck:
                raise self._not_to_be_sent(missing)
        first = stuck[0].error
        assert first is not None
        if len(stuck) > 1:
            first = copy.copy(first)  # other trials tell of it too
            first.what = f"{first.what} ({len(stuck)} parts have trouble; this is the first)"
        raise first

    def _may_send(self, work: Work) -> bool:
        """Whether this invocation was to submit what *work* owes."""
        begun = self.context.options.begins or bool(work.book.attempts)
        return begun and self._spending.chosen(work)

    def _not_to_be_sent(self, missing: list[Work]) -> Refused:
        """Why nothing comes of *missing*, of which no attempt is known: this invocation was not to submit them."""
        return Refused(
            f"{len(missing)} of {len(self._of(missing[0].paths.slug))} parts are in no job that is known, e.g. "
            f"{missing[0].name}.",
            where=str(missing[0].files.root),
            kept="Nothing was sent.",
            hint=f"run submit first: doit resume rid={self.workspace.rid}",
        )

    def _may_move(self, work: Work) -> bool:
        waiting = work.in_flight or work.outage.times or (work.owing and (self._quota_full or self._not_ready))
        return not work.settled and work.error is None and bool(waiting)

    # --- small questions -------------------------------------------------------------------------

    def _worth_waiting(self, error: Unreachable) -> bool:
        """Whether the service has, or will have, something for this run; or took a job of it and names the time."""
        works = self._works.values()
        if error.wait is not None:
            return any(work.accepted for work in works)
        return any(work.accepted and not work.settled and work.error is None for work in works)

    def _gather(self, wanted: str) -> None:
        """List the parts of every trial that has been built. Raises Refused when *wanted* may not be submitted."""
        with self._listing:
            # A new mapping each time: another thread may be going through the old one.
            works = dict(self._works)
            listed = {slug for slug, _ in works}
            for slug in self.workspace.trials:
                if slug != wanted and (slug in listed or slug in self._finished):
                    continue
                if adopted.kept(self.workspace, slug):
                    continue  # the earlier tool's results stand as they are: nothing is owed, nothing rewritten
                if slug != wanted and done.all_here(self.workspace, slug):
                    self._finished.add(slug)
                    continue
                index = self.workspace.index(slug)
                found = self._list(slug, index)
                for work in found:
                    # Most parts of a run that is repaired: neither their ledgers nor their rows need be read.
                    work.settled = work.settling.stands()
                self._finished.discard(slug)
                if slug == wanted or not all(work.settled for work in found):
                    decision = done.stale_requests(self.workspace, slug) or done.decide("build", self.workspace, slug)
                    if slug == wanted and (index is None or isinstance(decision, Refuse)):
                        raise Refused(decision.reason, where=slug, kept="Nothing was sent.")
                    if isinstance(decision, Refuse):
                        continue  # what is stale may just be built anew; then its own phase submits it
                for work in found:
                    before = works.setdefault((slug, work.part.part), work)
                    if before is not work and work.settling.as_recorded() is False:
                        # Settled by a pass for another trial, to other bytes than were recorded: `perform` took them
                        # for damage and set them aside. From the raw files they come back, and nothing is sent.
                        before.settled = False
            self._works = works

    def _list(self, slug: str, index: Index | None, *, settled: bool = False) -> list[Work]:
        paths = self.workspace.trial_paths(slug)
        return [Work(self.context, paths, part, settled) for part in (index.parts if index is not None else ())]

    def _idle(self) -> Iterator[Work]:
        """The parts of finished trials, for who counts them."""
        for slug in tuple(self._finished):
            if slug not in self._counted:
                with suppress(DamagedArtifact):  # since a moment; its own phase says so
                    self._counted[slug] = self._list(slug, self.workspace.index(slug), settled=True)
            yield from self._counted.get(slug, ())

    def _of(self, slug: str) -> list[Work]:
        return [work for (trial, _), work in self._works.items() if trial == slug]

    def _slots_free(self) -> int:
        limit: int = self.workspace.config["queue"]["max_concurrent_jobs"]
        return limit - sum(work.in_flight for work in self._works.values())

    def _progress(self, slug: str, word: str, reached: Callable[[Work], bool]) -> Progress:
        works = [work for work in (*self._works.values(), *self._idle()) if self._spending.chosen(work)]
        rows = sum(work.part.rows for work in works)
        done_rows = _rows_done(works)
        tokens, usd = self._used(works)
        return Progress(
            trial=slug,
            trials=len({work.paths.slug for work in works}),
            word=word,
            parts=len(works),
            reached=sum(map(reached, works)),
            running=sum(work.in_flight for work in works),
            rows=rows,
            rows_done=done_rows,
            waiting_for=tuple(sorted({work.waiting_for for work in works if not work.settled and work.waiting_for})),
            tokens=tokens,
            usd=usd,
            usd_expected=self._expected(works),
            seconds_left=self._pace.left(self.context.hands.now(), done_rows, rows),
        )

    def _expected(self, works: list[Work]) -> float | None:
        """What all *works* come to: each trial, since its model has its own price, by its rows so far, or as planned.

        None when a price is not known, or when of a trial nothing was counted and nothing planned.
        """
        by_trial: dict[str, list[Work]] = defaultdict(list)
        for work in works:
            by_trial[work.paths.slug].append(work)
        return estimates.total(self._expected_of(slug, parts) for slug, parts in by_trial.items())

    def _expected_of(self, slug: str, parts: list[Work]) -> float | None:
        _, usd = self._used(parts)
        done_rows = _rows_done(parts)
        if usd and done_rows:
            return usd * sum(work.part.rows for work in parts) / done_rows
        return None if usd is None else self._spending.planned_usd.get(slug)

    def _used(self, works: list[Work]) -> tuple[int, float | None]:
        """Tokens that the service counted so far, and their price, None where one is not known."""
        tokens, costs = 0, []
        for work in works:
            price = Price.of(self.workspace.config, self.workspace.trials[work.paths.slug])
            for read, written, cached in work.used():
                tokens += read + written
                costs.append(price.usd(read, written, cached))
        return tokens, estimates.total(costs)


def _rows_done(works: list[Work]) -> int:
    """The rows that running jobs say are done, and those of what is settled."""
    return sum(
        work.part.rows if work.settled else (work.counts.succeeded or 0) + (work.counts.failed or 0) for work in works
    )
