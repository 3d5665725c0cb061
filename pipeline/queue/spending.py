"""What the queue may send: it is announced and agreed to first, each model has a price, the limit of the run holds.

A refusal holds for as long as the process does, but stops no job that runs: its results are still collected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from pipeline import done
from pipeline.decision import Repair, Run
from pipeline.errors import BudgetExceeded, Refused
from pipeline.ledger import ID_TAKEN
from pipeline.queue import budget, estimates
from pipeline.queue.context import Context
from pipeline.queue.estimates import Planned, Price
from pipeline.queue.work import Work

Key = tuple[str, str]  # a trial and one of its parts


@dataclass
class Spending:
    """What this process may submit, of the parts of all trials of its run."""

    context: Context
    planned_usd: dict[str, float] = field(default_factory=dict)  # expected for what this process was to submit of each
    unconfirmed: Refused | None = None  # the newest spending was not agreed to: of it, this process submits nothing
    unpriced: BudgetExceeded | None = None  # a limit cannot be kept for lack of a price: the same
    _told: set[Key] = field(default_factory=set)  # the parts of what was announced
    _agreed: set[Key] = field(default_factory=set)  # those of what was agreed to, asked for or not
    _committed: list[float | None] | None = None

    def announce(self, owing: Iterable[Work], works: Iterable[Work]) -> None:
        """Before any of *owing* is sent, and when parts came that nobody knew of: what all of it may cost.

        Asked of parts that were looked at and owe answers, so that whatever else lies in their folders, a file
        manager's own say, is no agreement. Told once: who agrees to a part in this command agrees to have its rows
        answered, however many attempts that takes (codex/decisions/0016). *works* are all parts of the run.
        """
        due = {_key(work): work for work in owing if self.chosen(work)}
        if due.keys() <= self._told:
            return
        self._told |= due.keys()
        planned = Planned()
        expected: dict[str, float] = {}
        owed = {key: work for key, work in due.items() if key not in self._agreed}
        for (slug, _), work in owed.items():
            price = Price.of(self.context.workspace.config, self.context.workspace.trials[slug])
            estimate = estimates.of_requests(work.owed_requests())
            planned = planned.with_part(estimate, price, slug)
            if usd := estimate.usd(price):
                expected[slug] = expected.get(slug, 0.0) + usd[1]
        self.planned_usd |= expected
        try:
            self._refuse_unpriced(works)
            self.context.hands.allow_spending(replace(planned, sent=self._sent_usd(owed)))
            self._agreed |= owed.keys()
            self.unconfirmed = None
        except BudgetExceeded as error:
            self.unpriced = error
        except Refused as refused:
            # Kept for every trial that comes after the one that asked; running jobs are still collected.
            self.unconfirmed = refused

    def chosen(self, work: Work) -> bool:
        """Whether the trial of *work* is one that this invocation was to submit."""
        return not self.context.options.trials or work.paths.slug in self.context.options.trials

    def awaits_consent(self, work: Work) -> bool:
        """Whether *work* is part of what was not agreed to."""
        return self.unconfirmed is not None and _key(work) not in self._agreed

    def count_anew(self) -> None:
        """Have the next `check` read again what is committed: jobs may have ended since, and have their real cost."""
        self._committed = None

    def check(self, planned: float | None, what: str) -> None:
        """Take *planned* US dollars as committed. Raises BudgetExceeded, naming *what*, when the limit has no room."""
        workspace = self.context.workspace
        if self._committed is None:
            self._committed = list(budget.committed(workspace))
        budget.check(workspace.config, self._committed, planned, what, workspace.paths.config)
        self._committed.append(planned)

    def _sent_usd(self, owed: Collection[Key]) -> float | None:
        """What this command has sent so far, by any of its workers, may cost at most; None when that is not known.

        Not of parts that are *owed*: their rows count with those.
        """
        since = self.context.options.since
        books = (book for slug, part, book in self.context.workspace.ledgers() if (slug, part) not in owed)
        return estimates.total(
            attempt.estimate.get("usd")
            for book in books
            for attempt in book.attempts
            if since is not None and attempt.intended_at >= since and not attempt.adopted and attempt.state != ID_TAKEN
        )

    def _refuse_unpriced(self, works: Iterable[Work]) -> None:
        """Raise BudgetExceeded when a limit cannot be kept for lack of a price: before anything is sent or agreed to.

        Looked for in all that is to be sent and all that was: what was sent counts against the limit too.
        """
        workspace = self.context.workspace
        if workspace.config["budget"]["max_usd"] is None:
            return
        to_send: dict[str, bool] = {}
        for work in works:
            to_send[work.paths.slug] = to_send.get(work.paths.slug, False) or not work.settled
        unpriced = [trial for slug, trial in workspace.trials.items() if self._without_price(slug, to_send.get(slug))]
        budget.refuse_unpriced(workspace.config, unpriced, workspace.paths.config, f"doit resume rid={workspace.rid}")

    def _without_price(self, slug: str, to_send: bool | None) -> bool:
        """Whether what is to be sent of it, or was sent, has no price; *to_send* is None where no part is known."""
        workspace = self.context.workspace
        price = Price.of(workspace.config, workspace.trials[slug])
        if price.input is not None:
            return False
        if to_send is None and workspace.index(slug) is None:  # under `doit -n` another worker may just be building it
            to_send = isinstance(done.decide("build", workspace, slug), Run | Repair)
        chosen = slug in (self.context.options.trials or workspace.trials)
        sent = (attempt for trial, _, book in workspace.ledgers() if trial == slug for attempt in book.attempts)
        return (chosen and bool(to_send)) or any(budget.spent(attempt, price) is None for attempt in sent)


def _key(work: Work) -> Key:
    return work.paths.slug, work.part.part
