"""One part on its way, from its first intent to its settled results; each call takes the one step that is possible.

All state is on disk (ledger, raw files, results), so a step may be cut off anywhere and the next one,
in this process or another, goes on. A new attempt is only made after the last one's end was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from pipeline import disk, ledger
from pipeline.errors import ProviderError, Refused, TrialmakeError
from pipeline.ledger import ID_TAKEN, Attempt, Ledger
from pipeline.parts import Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import Counts, IdTaken, Job, JobPhase, Submission
from pipeline.queue import attempts, estimates
from pipeline.queue.attempts import NOT_FOUND
from pipeline.queue.context import Context
from pipeline.queue.estimates import Price
from pipeline.queue.merge import Tally
from pipeline.queue.outage import Outage
from pipeline.queue.recovery import Ladder, ResultsLost
from pipeline.queue.settling import Settling

_LONGEST_WINDOW = timedelta(hours=72)  # the most that the service gives a job
_SLACK = timedelta(hours=1)  # after a job's window closed

CheckBudget = Callable[[float | None, str], None]


@dataclass
class Work:
    """One part on its way. *settled* once results.jsonl is in place and right."""

    context: Context
    paths: TrialPaths
    part: Part
    settled: bool = False
    owing: bool = False  # whether a first or a new attempt is to be submitted
    in_flight: bool = False  # whether an attempt's end, or what it brought, is not known: it holds a slot
    error: TrialmakeError | None = None
    waiting_for: str = ""
    counts: Counts = field(default_factory=Counts)  # of the running job, when last asked
    outage: Outage = field(default_factory=Outage)  # while the provider is out of reach for this part
    _told: bool = False
    _used: tuple[tuple[int, int, int], ...] | None = None  # once settled, it does not change any more

    @property
    def files(self) -> PartPaths:
        """The part's files."""
        return self.settling.files

    @property
    def name(self) -> str:
        """The part as messages name it."""
        return f"{self.paths.slug}/{self.part.part}"

    @cached_property
    def settling(self) -> Settling:
        """The judgements on this part."""
        return Settling(self.context, self.paths, self.part)

    @property
    def book(self) -> Ledger:
        """The part's ledger, read anew each time: another process may append to it."""
        return self.context.workspace.ledger(self.paths.slug, self.part.part)

    @property
    def accepted(self) -> bool:
        """Whether the provider accepted the newest attempt, or the results are here."""
        last = None if self.settled else self.book.last
        return self.settled or (last is not None and last.accepted)

    def used(self) -> tuple[tuple[int, int, int], ...]:
        """Tokens read, written and cached that the service counted so far, attempt by attempt."""
        if self._used is not None:
            return self._used
        counted = [vars(self.counts) if attempt.ended is None else attempt.counts for attempt in self.book.attempts]
        used = tuple(
            (counts.get("input_tokens") or 0, counts.get("output_tokens") or 0, counts.get("cached_tokens") or 0)
            for counts in counted
        )
        if self.settled:
            self._used = used
        return used

    @property
    def place(self) -> str:
        """The piece of its ids that says which part they are of."""
        return attempts.place_digest(self.context.workspace.rid, self.paths.slug, self.part.part)

    def job_id(self, number: int) -> str | None:
        """The id that attempt *number* would have; None while it is not known what it would ask.

        What the first asks is known from the list of parts, whatever became of the file.
        """
        work = self.context.workspace
        if number == 1:
            sha256 = self.part.sha256
        else:
            requests = attempts.requests_of(self.paths, self.part, number)
            if not requests.exists():
                return None
            sha256 = work.fingerprints.sha256(requests)
        model = work.trials[self.paths.slug].model
        return attempts.job_id(work.rid, self.paths.slug, self.part.part, number, sha256, model)

    @property
    def _next(self) -> int:
        """The number of the attempt that would follow."""
        last = self.book.last
        return 1 if last is None else last.number + 1

    # --- steps ---------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take every step that needs no new money: ask about unclear intents, poll, collect, settle."""
        self.waiting_for = ""
        self.owing = False
        book = self.book
        self._refuse_others(book)
        self.settled = self.settling.in_place(book)
        self.in_flight = book.open and not self.settled
        if self.settled:
            return
        self._look_over(book)
        if not book.attempts and self._settle_from_raw():
            return
        known = {attempt.number for attempt in book.attempts}
        for number in range(1, max(known | self.settling.left_behind(), default=0) + 1):
            if not self._pursue(number):
                return
        self.in_flight = False
        if self.book.attempts:
            self._judge()
        else:
            self.owing = True

    def owed_requests(self) -> Path:
        """The requests of the attempt that is owed: the part's, or (written down) the rows that have no answer yet."""
        number = self._next
        if number > 1:
            self.settling.write_requests(number)  # anew: a file that stands there is of an attempt that never was
        return attempts.requests_of(self.paths, self.part, number)

    def submit_owed(self, check_budget: CheckBudget) -> None:
        """Submit the first attempt, or a new one for the rows still owed; an intent is on disk before any call."""
        number = self._next
        self.owed_requests()
        self._intend(number, check_budget)
        attempt = self.book.attempt(number)
        assert attempt is not None
        again = f" (attempt {number}, {attempt.rows:,} rows still owed)" if number > 1 else ""
        self._say(f"submitting {attempt.rows:,} requests as {attempt.job_id}{again}")
        self.owing = False
        self.in_flight = True
        self._ask(attempt)

    def adopt(self, number: int) -> None:
        """Take over a job that the provider has under the id of attempt *number*, as if it had just been submitted.

        Raises Refused when the part's requests, from which all its attempts follow, are not as they were built.
        """
        requests = attempts.requests_of(self.paths, self.part, 1)
        if self.context.workspace.damage(self.paths.relative(requests), self.part.sha256, self.part.size) is not None:
            raise self._changed(requests)
        attempt = self.book.attempt(number) or self._recall(number)
        if attempt is not None and not attempt.accepted and self.context.provider().find(attempt.job_id) is not None:
            self._submit(attempt)

    def _look_over(self, book: Ledger) -> None:
        """Say once what is wrong with the ledger's lines."""
        if book.damaged and not self._told:
            self._told = True
            numbers = ", ".join(map(str, book.damaged))
            self._say(f"ledger.jsonl: damaged or torn line {numbers}; what it said is asked for by its id")

    def _refuse_others(self, book: Ledger) -> None:
        """Raise Refused when the ledger speaks of other requests, of another model or another trial."""
        model = self.context.workspace.trials[self.paths.slug].model
        if (first := book.first) is None:
            sent_as = attempts.sent_otherwise(self.paths, self.part, model)
        else:
            sent_as = first.job_id if first.requests_sha256 != self.part.sha256 else None
        if sent_as is not None:
            raise Refused(
                f"the requests of {self.part.part} are not those that were submitted as {sent_as}.",
                where=str(self.paths.part_requests(self.part.part)),
                kept="Nothing was sent. Ledger and results are as they were.",
                hint="restore batch_inputs/ as it was submitted, or start a new run",
            )
        for attempt in book.attempts:
            if problem := attempts.stranger(attempt, self.paths, self.part.part, model):
                raise Refused(
                    f"{self.part.part}: {problem}.",
                    where=str(self.files.root),
                    kept="Nothing was sent. Ledger and results are as they were.",
                    hint=f"then doit resume rid={self.context.workspace.rid}; or start a new run",
                )

    def _settle_from_raw(self) -> bool:
        """Settle from raw files when they answer everything although there is no ledger (it may get lost)."""
        if not self.settling.left_behind():
            return False
        counted = self.settling.tally(Ledger())
        if counted.owed(self.settling.ids()):
            return False
        self._settle(counted)
        return True

    def _pursue(self, number: int) -> bool:
        """Whether attempt *number* has ended and its rows are here, as far as they can be had.

        In order, since what a later attempt asked for follows from what the earlier ones brought.
        """
        attempt = self.book.attempt(number) or self._recall(number)
        if attempt is not None and attempt.ended is None:
            self.in_flight = True
            self._ask(attempt)
            attempt = self.book.attempt(number)
            if attempt is None or attempt.ended is None:
                return False
        if attempt is None or attempt.lost or self._holds(attempt):
            return True
        return self._collect(attempt)

    def _recall(self, number: int) -> Attempt | None:
        """Put an attempt that was made back into the ledger; its ids follow from its content."""
        if not self.settling.asked(number):
            return None  # nothing was owed when it would have been made
        self._intend(number, lambda _usd, _what: None)
        self._say(f"attempt {number} is not in the ledger any more, but it was made: asking for it by its id")
        return self.book.attempt(number)

    def _intend(self, number: int, check_budget: CheckBudget) -> None:
        """Record that attempt *number* is about to be submitted, and under which ids."""
        work = self.context.workspace
        trial = work.trials[self.paths.slug]
        rows = len(self.settling.asked(number))
        requests = attempts.requests_of(self.paths, self.part, number)
        sha256 = work.fingerprints.sha256(requests)
        if number == 1 and sha256 != self.part.sha256:
            raise self._changed(requests)
        submission = attempts.submission(work.rid, self.paths, self.part, number, trial.model, requests, sha256, rows)
        price = Price.of(work.config, trial)
        planned = estimates.of_requests(requests)
        usd = planned.usd(price)
        check_budget(None if usd is None else usd[2], self.name)
        binding = self.context.provider().binding()
        estimate = estimates.ledger_estimate(planned, price)
        ledger.intend(self.files.ledger, number, submission, sha256, binding, estimate, self.context.hands.now())

    def _ask(self, attempt: Attempt) -> None:
        """Learn what became of an attempt whose end is not known."""
        if attempt.accepted:
            self._poll(attempt)
        elif self._was_made(attempt) and self.context.provider().find(attempt.job_id) is None:
            # It had a job. Creating one now under the same id would pay for it a second time.
            self._not_found(attempt)
        else:
            self._submit(attempt)

    def _was_made(self, attempt: Attempt) -> bool:
        later = any(other.number > attempt.number for other in self.book.attempts)
        return later or attempt.number in self.settling.left_behind()

    def _submit(self, attempt: Attempt) -> None:
        """Make the intent true: the same ids as often as it takes, so at most one job."""
        self.settling.asked(attempt.number)  # writes a later attempt's requests anew if they are gone
        path = attempts.requests_of(self.paths, self.part, attempt.number)
        if self.context.workspace.fingerprints.sha256(path) != attempt.requests_sha256:
            raise self._changed(path)
        # The ledger's own ids, so that an intent of an older version of the tool is kept too.
        submission = Submission(
            job_id=attempt.job_id,
            input_dataset_id=attempt.input_dataset_id,
            output_dataset_id=attempt.output_dataset_id,
            requests=path,
            rows=attempt.rows,
            model=attempt.model,
            display_name=attempts.display_name(self.context.workspace.rid, self.paths, self.part, attempt.number),
            intended_at=attempt.intended_at,
        )
        try:
            accepted = self.context.provider().submit(submission)
        except IdTaken as taken:
            # Something else has one of the ids. This attempt's job never was; the next attempt has other ids.
            self._end(attempt, _absent(attempt, ID_TAKEN, taken.what))
            self._say(taken.what)
            return
        self._note_breadcrumb(accepted.job.output_dataset_id or submission.output_dataset_id)
        ledger.accept(self.files.ledger, attempt.number, accepted, self.context.hands.now())
        if accepted.job.job_id != submission.job_id:
            self._say(f"the provider calls this job {accepted.job.job_id}, not {submission.job_id}")
        if accepted.adopted:
            self._say(f"adopted {submission.job_id}, which the provider had already{self._older(accepted.job)}")
        if accepted.job.phase.terminal:
            self._end(attempt, accepted.job)

    def _poll(self, attempt: Attempt) -> None:
        job = self.context.provider().find(attempt.job_id)
        if job is None:
            self._not_found(attempt)
            return
        if job.phase.terminal:
            self._end(attempt, job)
            return
        self.waiting_for = job.state.lower().replace("_", " ")
        self.counts = job.counts
        if job.state != attempt.state:
            ledger.observe(self.files.ledger, attempt.number, job.state)
        self._check_deadline(attempt, job)

    def _not_found(self, attempt: Attempt) -> None:
        """A job that is gone is paid for again. So it must be gone in two looks, a pause apart."""
        looked = self._looked(attempt.state_at if attempt.state == NOT_FOUND else None)
        if looked:
            self._end(attempt, _absent(attempt, NOT_FOUND, "the provider has no such job any more"))
            return
        if looked is None:
            ledger.observe(self.files.ledger, attempt.number, NOT_FOUND, self.context.hands.now())
        self.waiting_for = "a second look at a job the provider does not find"

    def _end(self, attempt: Attempt, job: Job) -> None:
        ledger.end(self.files.ledger, attempt.number, job)

    def _judge(self) -> None:
        """Every attempt has ended and is here: settle, or have what is still owed asked again."""
        book = self.book
        counted = self.settling.tally(book)
        owed = len(counted.owed(self.settling.ids()))
        ended = self.settling.was_the_end(book, self.part.rows - len(counted.answers))
        if owed and not ended and self.settling.may_ask_again(book, owed):
            self.owing = True
            self.waiting_for = f"a new attempt for {owed:,} rows"
        else:
            self._settle(counted)

    def _collect(self, attempt: Attempt) -> bool:
        """Whether it is clear what *attempt* brought, and recorded.

        Rows that are gone are paid for again. So they must be missing in two looks, a pause apart.
        """
        counted = (attempt.counts.get("succeeded") or 0) + (attempt.counts.get("failed") or 0)
        if attempt.state == ID_TAKEN or (attempt.ended is JobPhase.FAILED and not counted):
            ledger.collect(self.files.ledger, attempt.number, {}, "no results: the job failed")
            return True
        looked = self._looked(attempt.missing_at)
        if looked is False:
            return self._look_again()
        repair = self.context.workspace.config["repair"]
        ladder = Ladder(
            self.context.provider,
            self.context.hands.read_row,
            self.context.workspace.fingerprints,
            repair["external_url"],
            repair["firectl"],
            self._combined(),
            check_stop=self.context.hands.check_stop,
        )
        try:
            collected = ladder.climb(self.files, attempt, set(self.settling.asked(attempt.number)))
        except ResultsLost as lost:
            if not looked:
                ledger.miss(self.files.ledger, attempt.number, lost.tried, self.context.hands.now())
                return self._look_again()
            ledger.lose(self.files.ledger, attempt.number, lost.tried)
            self._say(f"the results of attempt {attempt.number} are lost; tried: {'; '.join(lost.tried)}")
            return True
        if not (collected.whole or looked):
            ledger.miss(self.files.ledger, attempt.number, collected.tried, self.context.hands.now())
            return self._look_again()
        for step in collected.tried:
            self._say(step)
        ledger.collect(self.files.ledger, attempt.number, collected.files, collected.by)
        return True

    def _combined(self) -> Path | None:
        """The trial's combined results, when they are what the download recorded."""
        work, path = self.context.workspace, self.paths.combined
        name = work.relative(path)
        recorded = work.manifest(self.paths.slug).stage("downloaded").outputs.get(name)
        if not recorded or work.damage(name, recorded["sha256"], recorded["size"]) is not None:
            return None
        return path

    def _look_again(self) -> bool:
        self.in_flight = True  # so the wait goes on
        self.waiting_for = "a second look at results the provider does not have"
        return False

    def _looked(self, first: datetime | None) -> bool | None:
        """Whether a pause has passed since a *first* look; None when there was none (one in the future is none)."""
        now = self.context.hands.now()
        if first is None or first > now:
            return None
        options = self.context.options
        return now - first >= timedelta(seconds=max(options.poll_seconds, options.second_look_seconds))

    def _settle(self, counted: Tally) -> None:
        self.error = self.settling.write(counted)
        self.settled = True

    # --- what the steps need ---------------------------------------------------------------------

    def _check_deadline(self, attempt: Attempt, job: Job) -> None:
        hours = self.context.workspace.config["queue"]["job_deadline_hours"]
        now = self.context.hands.now()
        started = attempt.accepted_at or attempt.intended_at  # the line that says when may be damaged
        deadline = started + timedelta(hours=hours)
        if job.expires_at is not None:
            # Capped: a window that never closes, a wrong clock's or a placeholder, must not make us wait for ever.
            deadline = max(deadline, min(job.expires_at, started + _LONGEST_WINDOW) + _SLACK)
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

    def _changed(self, requests: Path) -> Refused:
        return Refused(
            f"{self.part.part}: {requests.name} is not what was built or sent.",
            where=str(requests),
            kept="Nothing was sent.",
            hint="restore the requests the run was built with (doit forget build && doit), or start a new run",
        )

    def _note_breadcrumb(self, output_dataset_id: str) -> None:
        """Add the output dataset's id to the breadcrumb: one a line, oldest first."""
        path, known = self.files.output_ids, attempts.breadcrumbs(self.files)
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
