"""One part on its way, from its first intent to its settled results; each call takes the one step that is possible.

All state is on disk (ledger, raw files, results), so a step may be cut off anywhere and the next one,
in this process or another, goes on. A new attempt is only made after the last one's end was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial

from pipeline import disk, ledger
from pipeline.errors import ProviderError, Refused, TrialmakeError
from pipeline.ledger import Attempt, Ledger
from pipeline.parts import Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import Accepted, IdTaken, Job, JobPhase, Provider, Submission
from pipeline.queue import attempts, budget
from pipeline.queue.budget import Price
from pipeline.queue.context import Context
from pipeline.queue.recovery import Ladder, ResultsLost
from pipeline.queue.settling import Settling

ID_TAKEN = "ID_TAKEN"  # the recorded state of an attempt whose ids belonged to something else

CheckBudget = Callable[[float | None, str], None]


@dataclass
class Work:
    """One part on its way. *settled* once results.jsonl is in place and right."""

    context: Context
    paths: TrialPaths
    part: Part
    settled: bool = False
    error: TrialmakeError | None = None
    in_flight: bool = False
    waiting_for: str = ""

    @property
    def files(self) -> PartPaths:
        """The part's files."""
        return self.paths.part(self.part.part)

    @property
    def name(self) -> str:
        """The part as messages name it."""
        return self.settling.name

    @cached_property
    def settling(self) -> Settling:
        """The judgements on this part."""
        return Settling(self.context, self.paths, self.part)

    @property
    def book(self) -> Ledger:
        """The part's ledger, read anew each time: another process may append to it."""
        return self.context.ledger(self.paths.slug, self.part.part)

    @property
    def accepted(self) -> bool:
        """Whether the provider accepted the newest attempt, or the results are here."""
        last = None if self.settled else self.book.last
        return self.settled or (last is not None and last.accepted)

    # --- steps ---------------------------------------------------------------------------------

    def advance(self) -> None:
        """Everything that needs no new money: unclear intents, polling, collecting, settling."""
        self.in_flight = False
        if self.settling.in_place():
            self.settled = True
            return
        book = self.book
        attempt = book.last
        if attempt is None:
            if self.settling.raw_answers_all():
                self._settle(book)
            return
        if not attempt.accepted:
            self._submit(attempt)
            self.in_flight = True
            return
        if attempt.ended is None:
            self._poll(attempt)
            if (attempt := self.book.last or attempt).ended is None:
                self.in_flight = True
                return
        self._bring_home()

    def submit_owed(self, check_budget: CheckBudget) -> None:
        """Submit the first attempt, or a new one for the rows still owed; an intent is on disk before any call."""
        book = self.book
        last = book.last
        if last is not None and (not last.accepted or last.ended is None):
            return
        number = 1 if last is None else last.number + 1
        if last is None:
            requests, sha256, rows = self.paths.part_requests(self.part.part), self.part.sha256, self.part.rows
        else:
            owed = set(self.settling.owed(book))
            requests, written = attempts.write_requests(self.paths, self.part, number, owed)
            sha256, rows = written.sha256, len(owed)
        work = self.context.workspace
        trial = work.trials[self.paths.slug]
        submission = attempts.submission(work.rid, self.paths, self.part, number, trial.model, requests, sha256, rows)
        price = Price.of(work.config, trial)
        planned = budget.estimate(requests)
        usd = planned.usd(price)
        check_budget(None if usd is None else usd[2], self.name)
        provider = self.context.provider()
        estimate = budget.ledger_estimate(planned, price)
        ledger.intend(self.files.ledger, number, submission, sha256, provider.binding(), estimate)
        again = f" (attempt {number}, {rows:,} rows still owed)" if number > 1 else ""
        self._say(f"submitting {rows:,} requests as {submission.job_id}{again}")
        attempt = self.book.last
        assert attempt is not None
        self._submit(attempt)
        self.in_flight = True

    def _submit(self, attempt: Attempt) -> None:
        """Make the intent true: the same ids as often as it takes, so at most one job."""
        path = attempts.requests_of(self.paths, self.part, attempt.number)
        if not path.exists() and attempt.number > 1:
            self._restore_requests(attempt)
        if self.context.workspace.fingerprints.sha256(path) != attempt.requests_sha256:
            raise Refused(
                f"{self.part.part}: {path.name} is not what the intent of {attempt.job_id} was made for.",
                where=str(path),
                kept="Nothing was sent.",
                hint="restore the requests the run was submitted with, or start a new run",
            )
        # The ledger's own ids, so that an intent of an older version of the tool is kept too.
        submission = Submission(
            job_id=attempt.job_id,
            input_dataset_id=attempt.input_dataset_id,
            output_dataset_id=attempt.output_dataset_id,
            requests=path,
            rows=attempt.rows,
            model=attempt.model,
            display_name=attempts.display_name(self.context.workspace.rid, self.paths, self.part, attempt.number),
        )
        try:
            accepted = self._provider_of(attempt).submit(submission)
        except IdTaken as taken:
            # Something else has one of the ids. This attempt's job never was; the next attempt has other ids.
            job = _absent(attempt, ID_TAKEN, taken.what)
            ledger.accept(self.files.ledger, attempt.number, Accepted(job, adopted=False))
            ledger.end(self.files.ledger, attempt.number, job)
            self._say(taken.what)
            return
        self._note_breadcrumb(accepted.job.output_dataset_id or submission.output_dataset_id)
        ledger.accept(self.files.ledger, attempt.number, accepted)
        if accepted.adopted:
            self._say(f"adopted {submission.job_id}, which the provider had already{self._older(accepted.job)}")
        if accepted.job.phase.terminal:
            ledger.end(self.files.ledger, attempt.number, accepted.job)

    def _poll(self, attempt: Attempt) -> None:
        job = self._provider_of(attempt).find(attempt.job_id)
        if job is None:
            job = _absent(attempt, "NOT_FOUND", "the provider has no such job any more")
        if job.phase.terminal:
            ledger.end(self.files.ledger, attempt.number, job)
            return
        self.waiting_for = job.state.lower().replace("_", " ")
        if job.state != attempt.state:
            ledger.observe(self.files.ledger, attempt.number, job.state)
        self._check_deadline(attempt, job)

    def _bring_home(self) -> None:
        """The last attempt has ended: collect every attempt's files, and settle what can be settled."""
        for attempt in self.book.attempts:
            if not (attempt.lost or self._holds(attempt)):
                self._collect(attempt)
        book = self.book
        last = book.last
        assert last is not None
        self.settling.refuse_hopeless(last)
        owed = len(self.settling.owed(book))
        if owed and self.settling.may_ask_again(last, owed):
            self.waiting_for = f"a new attempt for {owed:,} rows"
            return
        self._settle(book)

    def _collect(self, attempt: Attempt) -> None:
        if attempt.ended is JobPhase.FAILED or attempt.state == ID_TAKEN:
            ledger.collect(self.files.ledger, attempt.number, {}, "no results: the job failed")
            return
        repair = self.context.workspace.config["repair"]
        ladder = Ladder(
            partial(self._provider_of, attempt),
            self.context.hands.read_row,
            self.context.workspace.fingerprints,
            repair["external_url"],
            repair["firectl"],
        )
        try:
            collected = ladder.climb(self.files, attempt, set(self.settling.asked(attempt.number)))
        except ResultsLost as lost:
            ledger.lose(self.files.ledger, attempt.number, lost.tried)
            self._say(f"the results of attempt {attempt.number} are lost; tried: {'; '.join(lost.tried)}")
            return
        for step in collected.tried:
            self._say(step)
        ledger.collect(self.files.ledger, attempt.number, collected.files, collected.by)

    def _settle(self, book: Ledger) -> None:
        self.error = self.settling.write(book)
        self.settled = True

    # --- what the steps need ---------------------------------------------------------------------

    def _provider_of(self, attempt: Attempt) -> Provider:
        provider = self.context.provider()
        ledger.check_binding(attempt, provider.binding(), str(self.files.ledger))
        return provider

    def _check_deadline(self, attempt: Attempt, job: Job) -> None:
        hours = self.context.workspace.config["queue"]["job_deadline_hours"]
        now = self.context.hands.now()
        started = attempt.accepted_at or now
        deadline = started + timedelta(hours=hours)
        if job.expires_at is not None:
            deadline = max(deadline, job.expires_at + timedelta(hours=1))
        if now > deadline:
            raise ProviderError(
                f"{self.part.part}: the job has been {job.state} since {started:%Y-%m-%d %H:%M} UTC and has not ended.",
                where=attempt.job_id,
                kept="It may still finish; nothing was sent again.",
                hint="ask the provider about this job; an unsupported model can wait for ever. Then doit resume",
            )

    def _holds(self, attempt: Attempt) -> bool:
        if attempt.collected is None:
            return False
        folder = self.files.attempt(attempt.number)
        return all(
            (folder / name).is_file() and self.context.workspace.fingerprints.sha256(folder / name) == facts["sha256"]
            for name, facts in attempt.collected.items()
        )

    def _restore_requests(self, attempt: Attempt) -> None:
        """Write a later attempt's requests anew: they follow from the attempts before it."""
        before = Ledger(tuple(entry for entry in self.book.attempts if entry.number < attempt.number))
        attempts.write_requests(self.paths, self.part, attempt.number, set(self.settling.owed(before)))

    def _note_breadcrumb(self, output_dataset_id: str) -> None:
        """Add the output dataset's id to the breadcrumb: one a line, oldest first."""
        path = self.files.output_ids
        try:
            known = disk.read_bytes(path).decode().split()
        except FileNotFoundError:
            known = []
        if output_dataset_id not in known:
            disk.make_folder(path.parent)
            disk.write_bytes(path, "".join(f"{name}\n" for name in [*known, output_dataset_id]).encode())

    def _older(self, job: Job) -> str:
        created = datetime.fromisoformat(self.context.workspace.record.created_at)
        if job.created_at is not None and job.created_at < created:
            return f" (created {job.created_at:%Y-%m-%d %H:%M} UTC, before this run)"
        return ""

    def _say(self, text: str) -> None:
        self.context.hands.say(f"{self.name}: {text}")


def _absent(attempt: Attempt, state: str, message: str) -> Job:
    """The end of an attempt whose job is not there."""
    return Job(
        attempt.job_id,
        state,
        JobPhase.GONE,
        attempt.model,
        attempt.input_dataset_id,
        attempt.output_dataset_id,
        message=message,
    )
