"""The thread that does the work of jobs: validates their input, answers their rows, writes their output.

It goes by the timetable, so a job that waits costs nothing. A job's output is written once, whole, and
becomes known in one transaction with its counts; a kill before that leaves nothing, and the restarted
emulator does the work again with the same result. A full disk fails the job, not the thread. Memory does
not grow with the number of rows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import orjson

from pipeline import disk
from pipeline.emulator import jobs, row_faults
from pipeline.emulator.answers.completion import Answerer, JobSettings
from pipeline.emulator.input_rows import Cancelled, InputFile, InputRows, check
from pipeline.emulator.jobs import Progress
from pipeline.emulator.records import Counts, Dataset, Job, StoredFile
from pipeline.emulator.store import Store
from pipeline.errors import DiskTrouble

SUCCESS_FILE = "BIJOutputSet.jsonl"
ERROR_FILE = "error-data"
_FULL_SECONDS = 1.0  # until the database, whose disk was full, is tried again
_FLUSH_ROWS = 500  # rows between two looks at whether the job is still wanted

# The job's field names for parameters, and those of a row's body.
_PARAMETER_KEYS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "n": "n",
}


class Worker(threading.Thread):
    """Works until `stop`; *ended* is called when it dies of anything else, since jobs would then hang."""

    def __init__(self, store: Store, answerer: Answerer, ended: Callable[[], None]) -> None:
        super().__init__(name="emulator-worker", daemon=True)
        self._store = store
        self._answerer = answerer
        self._ended = ended
        self._turn = threading.Condition()
        self._wakings = 0  # how often there was news
        self._settled_at = -1  # the count of news up to which everything due has been done
        self._stopping = False
        self._under_way: tuple[str, float, Progress] | None = None

    def wake(self) -> None:
        """Look again: a job came or went, or the clock was moved."""
        with self._turn:
            self._wakings += 1
            self._turn.notify_all()

    def stop(self) -> None:
        """End after at most a few hundred rows more."""
        self._stopping = True
        self.wake()

    def settle(self, seconds: float) -> bool:
        """Wait until all that is due now is done; False when that takes longer than *seconds*."""
        with self._turn:
            news = self._wakings
            return self._turn.wait_for(lambda: self._settled_at >= news, seconds)

    def progress(self, job: Job) -> Progress | None:
        """What is done for *job*, while it is being worked on."""
        under_way = self._under_way
        if under_way and under_way[:2] == (job.id, job.created_at):
            return under_way[2]
        return None

    def run(self) -> None:
        """Do what is due, then sleep until something is."""
        try:
            while not self._stopping:
                news = self._wakings
                try:
                    delay = self._do_what_is_due()
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                        raise
                    delay = _FULL_SECONDS  # nothing was recorded: the work is done again, to the same end
                if delay is None or delay > 0:
                    with self._turn:
                        self._settled_at = news
                        self._turn.notify_all()
                        if self._wakings == news:
                            self._turn.wait(delay)
        finally:
            if not self._stopping:
                self._ended()

    def _do_what_is_due(self) -> float | None:
        """Do one piece of work; 0 when there may be more, else real seconds until there is (None: unknown)."""
        waiting = []
        for job in self._store.open_jobs():
            if job.validated_at is None:
                return self._do(self._validate, job)
            waiting.append((job.starts[jobs.RUNNING], job))
        if not waiting:
            return None
        due, job = min(waiting, key=lambda entry: entry[0])
        if due <= self._store.clock.now():
            return self._do(self._execute, job)
        return self._store.clock.real_seconds_until(due)

    def _do(self, work: Callable[[Job], None], job: Job) -> float:
        # Cancelled: deleted, or the process ends; there is nothing to keep.
        with suppress(Cancelled):
            try:
                work(job)
            except FileNotFoundError:
                now = self._store.clock.now()
                self._update(job, error="input dataset not found", validated_at=job.validated_at or now)
            except DiskTrouble as trouble:
                message = f"the emulator's disk: {trouble.what}"
                now = self._store.clock.now()
                self._update(job, executed_at=now, end_state=jobs.FAILED, end_message=message, share=0.0)
        self._under_way = None
        return 0.0

    def _validate(self, job: Job) -> None:
        error = job.switches.get("fail") or check(self._input(job), lambda: not self._wanted(job))
        self._update(job, error=error, validated_at=self._store.clock.now())

    def _execute(self, job: Job) -> None:
        if job.end_state not in jobs.WITH_RESULTS:
            self._update(job, executed_at=self._store.clock.now())
            return
        names = {"success": SUCCESS_FILE, "error": ERROR_FILE, **job.switches.get("files", {})}
        objects = {kind: self._store.new_object() for kind in ("success", "error")}
        with ExitStack() as stack:
            outputs = {
                kind: stack.enter_context(disk.replacing(self._store.object_path(name)))
                for kind, name in objects.items()
            }
            counts, touched = self._answer_rows(job, outputs["success"].write, outputs["error"].write)
        stored = [
            StoredFile(name, objects[kind], outputs[kind].written.size)
            for kind, name in names.items()
            if name is not None
        ]
        with self._store.transaction():
            updated = self._update(job, executed_at=self._store.clock.now(), counts=counts, touched=touched)
            end = updated.finished_at
            output = Dataset(
                id=job.output_dataset,
                created_at=end,
                updated_at=end,
                ready_at=end,
                visible_from=end,
                example_count=counts.succeeded,
                source_job=job.id,
                files=stored,
                external_url=job.switches.get("external_url", ""),
            )
            self._store.put_dataset(output)

    def _answer_rows(
        self, job: Job, success: Callable[[bytes], Any], error: Callable[[bytes], Any]
    ) -> tuple[Counts, dict[str, int]]:
        rows = InputRows(self._input(job))
        answered = self._answered_before(job)
        owed = rows.count - len(answered)
        wanted = int(job.share * owed)
        settings = JobSettings(job.model, job.system_prompt, _defaults(job.parameters))
        counts, touched, done = Counts(), dict[str, int](), 0
        written = row_faults.Lines()
        for row in rows.shuffled(job.id):
            if row.custom_id in answered:
                continue
            if done == wanted:
                break
            outcome = self._answerer.complete(row.custom_id, row.body, settings)
            faults = row_faults.picked(job.switches.get("rows", ()), row.number, row.custom_id)
            for fault in faults:
                touched[fault["do"]] = touched.get(fault["do"], 0) + 1
            lines = row_faults.lines(row.custom_id, outcome.response, outcome.error, faults)
            written.success += lines.success
            written.error += lines.error
            _count(counts, outcome.response, any(fault["do"] == "error" for fault in faults))
            done += 1
            if done % _FLUSH_ROWS == 0 or done == wanted:
                if not self._wanted(job):
                    raise Cancelled
                success(b"".join(line + b"\n" for line in written.success))
                error(b"".join(line + b"\n" for line in written.error))
                written = row_faults.Lines()
                self._under_way = job.id, job.created_at, Progress(done / wanted, Counts(**vars(counts)))
        return counts, touched

    def _input(self, job: Job) -> list[InputFile]:
        dataset = self._store.dataset(job.input_dataset)
        if dataset is None:
            raise FileNotFoundError(job.input_dataset)
        files = sorted(dataset.files, key=lambda file: file.name)
        return [InputFile(file.name, self._store.object_path(file.object_id)) for file in files]

    def _answered_before(self, job: Job) -> set[str]:
        """The ids that succeeded in the chain of jobs this one continues."""
        answered: set[str] = set()
        while job.continued_from and (earlier := self._store.job(job.continued_from)) is not None:
            job = earlier
            dataset = self._store.dataset(job.output_dataset)
            for file in dataset.files if dataset else []:
                if file.name != ERROR_FILE:
                    answered |= _successes(self._store.object_path(file.object_id))
        return answered

    def _wanted(self, job: Job) -> bool:
        current = self._store.job(job.id)
        return not self._stopping and _is(current, job) and current is not None and current.deleted_at is None

    def _update(self, job: Job, **changes: Any) -> Job:
        """Change the stored job; raises Cancelled when it was deleted in the meantime."""
        with self._store.transaction():
            current = self._store.job(job.id)
            if current is None or not _is(current, job) or current.deleted_at is not None:
                raise Cancelled
            for name, value in changes.items():
                setattr(current, name, value)
            self._store.update_job(current)
            return current


def _is(current: Job | None, job: Job) -> bool:
    # An id may be used again after a delete; the new job is another one.
    return current is not None and current.created_at == job.created_at


def _defaults(parameters: Mapping[str, Any]) -> dict[str, Any]:
    named = {_PARAMETER_KEYS[key]: value for key, value in parameters.items() if key in _PARAMETER_KEYS}
    extra = orjson.loads(parameters.get("extraBody") or "{}")
    return {**extra, **named}


def _count(counts: Counts, response: Mapping[str, Any] | None, spoiled: bool) -> None:
    if response is None or spoiled:
        counts.failed += 1
        return
    usage = response["usage"]
    counts.succeeded += 1
    counts.input_tokens += usage["prompt_tokens"]
    counts.output_tokens += usage["completion_tokens"]
    counts.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


def _successes(path: Path) -> set[str]:
    found = set()
    with open(path, "rb") as stream:
        for line in stream:
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # a line that a fault spoiled is no success
            if isinstance(record, dict) and record.get("response") and isinstance(record.get("custom_id"), str):
                found.add(record["custom_id"])
    return found
