"""The queue itself: every part of every trial, from its first intent to its settled results.

One pass looks at each unsettled part and takes the one step that is possible: resolve an unclear
intent by asking, poll a running job, bring ended results home, merge them, or submit what is still
owed while slots are free. All state is on disk (ledger, raw files, results), so a pass may be cut
off anywhere and the next one, in this process or another, goes on. Passes of several processes
exclude each other by a lock; a new attempt is only ever made after the last one's end was recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pipeline import disk, done, fingerprints, ledger, lock
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
from pipeline.ledger import Attempt, Ledger
from pipeline.parts import Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import Accepted, IdTaken, Job, JobPhase, Provider, Submission
from pipeline.queue import attempts, budget, merge
from pipeline.queue.budget import Price
from pipeline.queue.merge import ReadRow, Tally
from pipeline.queue.recovery import Ladder, ResultsLost
from pipeline.workspace import Workspace

# How often in a row the provider may be out of reach before a wait is given up (with the provider's own
# retries below that, minutes to an hour).
_PATIENCE = 5
ID_TAKEN = "ID_TAKEN"  # the recorded state of an attempt whose ids belonged to something else


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
class Work:
    """One part on its way. *settled* once results.jsonl is in place and right."""

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
        return f"{self.paths.slug}/{self.part.part}"


@dataclass
class Queue:
    """Drives all trials of a run. `submit` and `download` of each trial call it; there is one per process."""

    workspace: Workspace
    hands: Collaborators
    options: Options = field(default_factory=Options)
    _works: dict[tuple[str, str], Work] = field(default_factory=dict)
    _provider: Provider | None = None
    _failures_in_a_row: int = 0
    _stopped_spending: TrialmakeError | None = None
    _announced: bool = False

    # --- what the phases ask for ---------------------------------------------------------------

    def submit(self, slug: str) -> None:
        """Return when every part of *slug* has a job the provider accepted, or its results.

        Raises NotReady (with wait=0), BudgetExceeded, Refused, Stopped or what the provider said.
        """
        self._drive(slug, self._accepted, "submitted")

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
                    self._guarded(work, self._advance)
            for work in order:
                if not work.settled and work.error is None and not work.in_flight:
                    if self._slots_free() <= 0:
                        work.waiting_for = "a free slot"
                    elif self._stopped_spending is None:
                        self._guarded(work, self._submit_owed)
            self._failures_in_a_row = 0
        except Unreachable as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _PATIENCE or not self.options.wait:
                raise
            self.hands.say(f"{error.what} Asking again in {self.options.poll_seconds:g} s.")

    def _guarded(self, work: Work, step: Callable[[Work], None]) -> None:
        """Take one step; trouble of one part is kept with it, so that the others go on."""
        try:
            self.hands.check_stop()
            step(work)
        except (AuthError, Unreachable):
            raise  # nobody else would get through either
        except QuotaFull as error:
            work.waiting_for = f"the account's quota ({error.what})"
        except (ProviderError, Refused, ContractBroken, NotReady) as error:
            work.error = error
            self.hands.say(f"{work.name}: {error.what}")
        except BudgetExceeded as error:
            self._stopped_spending = error

    # --- one part, one step --------------------------------------------------------------------

    def _advance(self, work: Work) -> None:
        """Everything that needs no new money: unclear intents, polling, collecting, merging."""
        book = self._ledger(work)
        work.in_flight = False
        if self._already_settled(work):
            return
        attempt = book.last
        if attempt is None:
            self._settle_from_raw(work, book)
            return
        if not attempt.accepted:
            self._submit_attempt(work, attempt)
            work.in_flight = True
            return
        if attempt.ended is None:
            self._poll(work, attempt)
            if (attempt := self._ledger(work).last or attempt).ended is None:
                work.in_flight = True
                return
        self._bring_home(work)

    def _submit_owed(self, work: Work) -> None:
        """Submit the first attempt, or a new one for the rows still owed; an intent is on disk before any call."""
        book = self._ledger(work)
        last = book.last
        if last is not None and (not last.accepted or last.ended is None):
            return
        number = 1 if last is None else last.number + 1
        if last is None:
            requests, sha256, rows = work.paths.part_requests(work.part.part), work.part.sha256, work.part.rows
        else:
            ids = attempts.ids_of(work.paths.part_requests(work.part.part))
            owed = set(self._tally(work, book, ids).owed(ids))
            requests, written = attempts.write_requests(work.paths, work.part, number, owed)
            sha256, rows = written.sha256, len(owed)
        trial = self.workspace.trials[work.paths.slug]
        submission = attempts.submission(
            self.workspace.rid, work.paths, work.part, number, trial.model, requests, sha256, rows
        )
        price = Price.of(self.workspace.config, trial)
        planned = budget.estimate(requests)
        usd = planned.usd(price)
        budget.check(self.workspace.config, self._committed(), None if usd is None else usd[2], work.name)
        provider = self.provider()
        estimate = budget.ledger_estimate(planned, price)
        ledger.intend(work.files.ledger, number, submission, sha256, provider.binding(), estimate)
        again = f" (attempt {number}, {rows:,} rows still owed)" if number > 1 else ""
        self.hands.say(f"{work.name}: submitting {rows:,} requests as {submission.job_id}{again}")
        attempt = self._ledger(work).last
        assert attempt is not None
        self._submit_attempt(work, attempt)
        work.in_flight = True

    def _submit_attempt(self, work: Work, attempt: Attempt) -> None:
        """Make the intent true: the same ids as often as it takes, so at most one job."""
        path = attempts.requests_of(work.paths, work.part, attempt.number)
        if not path.exists() and attempt.number > 1:
            self._restore_requests(work, attempt)
        if self.workspace.fingerprints.sha256(path) != attempt.requests_sha256:
            raise Refused(
                f"{work.part.part}: {path.name} is not what the intent of {attempt.job_id} was made for.",
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
            display_name=attempts.display_name(self.workspace.rid, work.paths, work.part, attempt.number),
        )
        provider = self.provider()
        ledger.check_binding(attempt, provider.binding(), str(work.files.ledger))
        try:
            accepted = provider.submit(submission)
        except IdTaken as taken:
            # Something else has one of the ids. This attempt's job never was; the next attempt has other ids.
            job = Job(
                attempt.job_id,
                ID_TAKEN,
                JobPhase.GONE,
                attempt.model,
                attempt.input_dataset_id,
                attempt.output_dataset_id,
                message=taken.what,
            )
            ledger.accept(work.files.ledger, attempt.number, Accepted(job, adopted=False))
            ledger.end(work.files.ledger, attempt.number, job)
            self.hands.say(f"{work.name}: {taken.what}")
            return
        self._note_breadcrumb(work, accepted.job.output_dataset_id or submission.output_dataset_id)
        ledger.accept(work.files.ledger, attempt.number, accepted)
        if accepted.adopted:
            known = f"which the provider had already{self._older(accepted.job)}"
            self.hands.say(f"{work.name}: adopted {submission.job_id}, {known}")
        if accepted.job.phase.terminal:
            ledger.end(work.files.ledger, attempt.number, accepted.job)

    def _poll(self, work: Work, attempt: Attempt) -> None:
        provider = self.provider()
        ledger.check_binding(attempt, provider.binding(), str(work.files.ledger))
        job = provider.find(attempt.job_id)
        if job is None:
            job = Job(
                attempt.job_id,
                "NOT_FOUND",
                JobPhase.GONE,
                attempt.model,
                attempt.input_dataset_id,
                attempt.output_dataset_id,
                message="the provider has no such job any more",
            )
        if job.phase.terminal:
            ledger.end(work.files.ledger, attempt.number, job)
            return
        work.waiting_for = job.state.lower().replace("_", " ")
        if job.state != attempt.state:
            ledger.observe(work.files.ledger, attempt.number, job.state)
        self._check_deadline(work, attempt, job)

    def _bring_home(self, work: Work) -> None:
        """The last attempt has ended: collect every attempt's files, merge, and settle what is settled."""
        book = self._ledger(work)
        provider = self.provider() if any(not self._holds(work, attempt) for attempt in book.attempts) else None
        for attempt in book.attempts:
            if attempt.lost or self._holds(work, attempt):
                continue
            assert provider is not None
            self._collect(work, attempt, provider)
        book = self._ledger(work)
        last = book.last
        assert last is not None
        self._refuse_hopeless(work, last)
        self._settle(work, book)

    def _collect(self, work: Work, attempt: Attempt, provider: Provider) -> None:
        if attempt.ended is JobPhase.FAILED or attempt.state == ID_TAKEN:
            ledger.collect(work.files.ledger, attempt.number, {}, "no results: the job failed")
            return
        ledger.check_binding(attempt, provider.binding(), str(work.files.ledger))
        ladder = self._ladder(provider)
        try:
            collected = ladder.climb(work.files, attempt, [attempt.output_dataset_id])
        except ResultsLost as lost:
            ledger.lose(work.files.ledger, attempt.number, lost.tried)
            self.hands.say(
                f"{work.name}: the results of attempt {attempt.number} are lost; tried: {'; '.join(lost.tried)}"
            )
            return
        for step in collected.tried:
            self.hands.say(f"{work.name}: {step}")
        ledger.collect(work.files.ledger, attempt.number, collected.files, collected.by)

    def _settle(self, work: Work, book: Ledger) -> None:
        """Write the results when nothing is owed, or when what is owed will not be asked again."""
        ids = attempts.ids_of(work.paths.part_requests(work.part.part))
        counted = self._tally(work, book, ids)
        owed = counted.owed(ids)
        if owed and self._may_ask_again(work, book, owed):
            work.waiting_for = f"a new attempt for {len(owed):,} rows"
            return
        left = counted.conflicts & set(owed)
        self._set_aside_damaged(work)
        merged = merge.write_results(work.files, work.part, ids, counted, self.hands.read_row)
        self.workspace.fingerprints.remember(work.files.results, merged.written)
        work.settled = True
        if left:
            work.error = ContractBroken(
                f"{len(left)} rows were answered twice with different content, e.g. {min(left)}.",
                where=str(work.files.conflicts),
                kept="Both answers are kept aside; the rows count as missing.",
                hint="raise queue.max_attempts in experiment.yaml to ask again, then doit resume",
            )
        if merged.failed:
            self.hands.say(f"{work.name}: {merged.failed:,} of {merged.rows:,} rows have no answer")

    def _settle_from_raw(self, work: Work, book: Ledger) -> None:
        """No ledger, but raw files of attempts: enough when they answer everything (a ledger may get lost)."""
        numbers = sorted(
            int(folder.name[1:]) for folder in work.files.root.glob("a[0-9]*") if folder.name[1:].isdigit()
        )
        if not numbers:
            return
        ids = attempts.ids_of(work.paths.part_requests(work.part.part))
        counted = merge.tally(work.files, ids, dict.fromkeys(numbers, ids), self.hands.read_row)
        if not counted.owed(ids):
            self._settle(work, book)

    def _set_aside_damaged(self, work: Work) -> None:
        """Keep what stands where the results belong: it is not them, or the part would be settled."""
        path = work.files.results
        kind = fingerprints.kind(path)
        if kind is not None and not (kind == "file" and path.stat().st_size == 0):
            self.hands.say(f"{work.name}: {path.name} is damaged; kept as {disk.set_aside(path, 'damaged').name}")

    # --- judgements ------------------------------------------------------------------------------

    def _may_ask_again(self, work: Work, book: Ledger, owed: list[str]) -> bool:
        settings = self.workspace.config["queue"]
        last = book.last
        if last is None or last.number >= settings["max_attempts"]:
            return False
        requeue = self.options.requeue or settings["requeue"]
        if requeue == "ask":
            raise Refused(
                f"{len(owed)} of {work.part.rows} rows of {work.part.part} are still owed after attempt {last.number} "
                f"({last.state}).",
                kept="The rows that were answered are kept. Nothing was sent again.",
                hint=f"doit resume rid={self.workspace.rid} requeue=auto asks for exactly these rows; "
                "requeue=never leaves them missing",
            )
        return requeue == "auto"

    def _refuse_hopeless(self, work: Work, last: Attempt) -> None:
        """A job that failed because its input is wrong would fail again."""
        if last.ended is JobPhase.FAILED and "INVALID_ARGUMENT" in last.message:
            raise ProviderError(
                f"the provider refused the input of {work.part.part}: {last.message}",
                where=last.job_id,
                kept="Nothing was answered and nothing is sent again; the ledger keeps the refusal.",
                hint="fix prompts, decoding or items and start a new run",
            )

    def _check_deadline(self, work: Work, attempt: Attempt, job: Job) -> None:
        hours = self.workspace.config["queue"]["job_deadline_hours"]
        started = attempt.accepted_at or self.hands.now()
        deadline = started + timedelta(hours=hours)
        if job.expires_at is not None:
            deadline = max(deadline, job.expires_at + timedelta(hours=1))
        if self.hands.now() > deadline:
            raise ProviderError(
                f"{work.part.part}: the job has been {job.state} since {started:%Y-%m-%d %H:%M} UTC and has not ended.",
                where=attempt.job_id,
                kept="It may still finish; nothing was sent again.",
                hint="ask the provider about this job; an unsupported model can wait for ever. Then doit resume",
            )

    def _already_settled(self, work: Work) -> bool:
        """Whether results.jsonl is what the manifest recorded, or else holds exactly the part's rows."""
        recorded = self.workspace.manifest(work.paths.slug).stage("downloaded")
        entries = {entry["job_key"]: entry for entry in recorded.artifacts.get("parts", [])}
        entry = entries.get(work.part.part)
        if entry is not None and entry.get("sha256") and work.files.results.is_file():
            work.settled = self.workspace.fingerprints.sha256(work.files.results) == entry["sha256"]
        elif work.files.results.is_file() and not work.files.results.is_symlink():
            work.settled = merge.verify(work.files.results, work.part) is not None
        return work.settled

    def _accepted(self, work: Work) -> bool:
        if work.settled:
            return True
        last = self._ledger(work).last
        return last is not None and last.accepted

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

    def provider(self) -> Provider:
        """The provider, connected when it is first needed: a run that needs nothing connects to nothing."""
        if self._provider is None:
            self._provider = self.hands.connect()
        return self._provider

    def _gather(self) -> None:
        """List the parts of every trial that has been built, once."""
        for slug in self.options.trials or self.workspace.trials:
            index = self.workspace.index(slug)
            refused = index is None or isinstance(done.decide("build", self.workspace, slug), done.Refuse)
            if index is None or refused:
                continue
            for part in index.parts:
                self._works.setdefault((slug, part.part), Work(self.workspace.trial_paths(slug), part))

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

    def _ledger(self, work: Work) -> Ledger:
        return self.workspace.ledger(work.paths.slug, work.part.part)

    def _ladder(self, provider: Provider) -> Ladder:
        repair = self.workspace.config["repair"]
        return Ladder(
            provider, self.hands.read_row, self.workspace.fingerprints, repair["external_url"], repair["firectl"]
        )

    def _holds(self, work: Work, attempt: Attempt) -> bool:
        if attempt.collected is None:
            return False
        folder = work.files.attempt(attempt.number)
        return all(
            (folder / name).is_file() and self.workspace.fingerprints.sha256(folder / name) == facts["sha256"]
            for name, facts in attempt.collected.items()
        )

    def _tally(self, work: Work, book: Ledger, ids: list[str]) -> Tally:
        asked = {
            attempt.number: ids
            if attempt.number == 1
            else attempts.ids_of(attempts.requests_of(work.paths, work.part, attempt.number))
            for attempt in book.attempts
        }
        return merge.tally(work.files, ids, asked or {1: ids}, self.hands.read_row)

    def _restore_requests(self, work: Work, attempt: Attempt) -> None:
        """Write a later attempt's requests anew: they follow from the attempts before it."""
        ids = attempts.ids_of(work.paths.part_requests(work.part.part))
        book = self._ledger(work)
        before = Ledger(tuple(entry for entry in book.attempts if entry.number < attempt.number))
        attempts.write_requests(work.paths, work.part, attempt.number, set(self._tally(work, before, ids).owed(ids)))

    def _committed(self) -> Iterator[float | None]:
        for work in self._works.values():
            price = Price.of(self.workspace.config, self.workspace.trials[work.paths.slug])
            for attempt in self._ledger(work).attempts:
                yield budget.spent(attempt, price)

    def _slots_free(self) -> int:
        limit: int = self.workspace.config["queue"]["max_concurrent_jobs"]
        return limit - sum(work.in_flight for work in self._works.values())

    def _note_breadcrumb(self, work: Work, output_dataset_id: str) -> None:
        """Add the output dataset's id to the breadcrumb: one a line, oldest first."""
        path = work.files.output_ids
        try:
            known = disk.read_bytes(path).decode().split()
        except FileNotFoundError:
            known = []
        if output_dataset_id not in known:
            disk.make_folder(path.parent)
            disk.write_bytes(path, "".join(f"{name}\n" for name in [*known, output_dataset_id]).encode())

    def _older(self, job: Job) -> str:
        created = datetime.fromisoformat(self.workspace.record.created_at)
        if job.created_at is not None and job.created_at < created:
            return f" (created {job.created_at:%Y-%m-%d %H:%M} UTC, before this run)"
        return ""

    def _progress(self, works: list[Work], word: str, reached: int) -> str:
        waiting = sorted({work.waiting_for for work in works if not work.settled and work.waiting_for})
        more = f"; waiting for: {', '.join(waiting[:4])}" if waiting else ""
        return f"{works[0].paths.slug}: {reached} of {len(works)} parts {word}{more}"
