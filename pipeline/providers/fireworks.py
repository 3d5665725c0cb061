"""Fireworks' batch API behind `base.Provider`.

Every create goes out once under an id of ours. When its answer is lost, late, a server error or
"exists already", the id is asked for: what stands there is compared and adopted, or, when the
service says there is nothing, created again under the same id. So a submission leads to at most one
job, however often it is repeated. Files go up and come down as streams, the latter by links that
are asked for anew at each try and never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline import disk, paths
from pipeline.errors import ConfigError, Refused, Unreachable
from pipeline.plain import readable
from pipeline.providers import resources
from pipeline.providers.account import DATASETS, JOBS, NOTHING_SPENT, Account
from pipeline.providers.base import Accepted, Binding, Capabilities, Dataset, IdTaken, Job, JobPhase, Submission
from pipeline.providers.http import Answer, Api, Pace, Patience, Trouble, date_of
from pipeline.providers.links import LinkPolicy
from pipeline.providers.resources import Fields, last_segment
from pipeline.providers.storage import Cap, Links
from pipeline.providers.uploads import READY_SECONDS, UPLOAD_THRESHOLD, Uploads, signed_links
from pipeline.secret import Secret

_DISPLAY_NAME = 63  # characters
_CLOCKS = timedelta(minutes=5)  # how far the service's clock and ours may be apart

# What a setting for all rows of a job says when it changes none of them: nothing was set, or the plain default.
_UNSET: tuple[object, ...] = (None, "", "{}", 0, {}, [])
_PLAIN = {"n": 1, "topP": 1, "temperature": 1}


@dataclass(frozen=True)
class Health:
    """What the service says of us: *model_known* is None when it does not know the model's name."""

    account: str
    running_jobs: int
    model_known: bool | None
    clock_skew_s: float | None


class Fireworks:
    """One account at Fireworks, or at whatever speaks its API under *base_url*.

    *endpoint* is what a ledger binds to when the base URL is not stable. The account is asked for
    when it is None. Raises ConfigError for a base URL that is none or would show the key on the way.
    """

    capabilities = Capabilities(
        own_job_ids=True,
        error_file=True,
        partial_results=True,
        max_rows=None,
        max_bytes=80 << 30,  # the current guide; older copies of the page say less
        max_id_length=63,
    )

    def __init__(
        self,
        base_url: str,
        key: Secret,
        account: str | None = None,
        *,
        endpoint: str | None = None,
        pace: Pace = Pace(),  # noqa: B008 - frozen
        cap: Cap = Cap(),  # noqa: B008 - frozen
        upload_threshold: int = UPLOAD_THRESHOLD,
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        policy = LinkPolicy(base_url)
        if not policy.base.keeps_secrets:
            raise ConfigError(
                f"the base URL {base_url!r} would send the API key over the network in clear.", hint="use https"
            )
        self._pace = pace
        self._cap = cap
        self._api = Api(base_url, key, pace)
        self._links = Links(policy, pace)
        self._account = Account(self._api, account)
        self._uploads = Uploads(self._account, self._links, pace, upload_threshold, ready_seconds)
        self._endpoint = endpoint or self._api.base_url

    def look(self, model: str) -> Health:
        """Whether key, account and *model* are usable, for `doctor`; raises as every call does."""
        running = sum(not job.phase.terminal for job in self.jobs(""))
        answer = self._api.call("GET", f"/v1/{model}")
        said = date_of(answer.headers.get("Date"))
        skew = (said - datetime.now(UTC)).total_seconds() if said else None
        return Health(self._account.name, running, None if answer.status == 404 else answer.ok, skew)

    def close(self) -> None:
        """Close idle connections; the provider stays usable."""
        self._api.close()
        self._links.close()

    def binding(self) -> Binding:
        """Account and endpoint; asks the service for the account when none was given."""
        return Binding("fireworks", self._account.name, self._endpoint)

    # Submitting

    def submit(self, submission: Submission) -> Accepted:
        """See `base.Provider.submit`."""
        job = self._account.job(submission.job_id)
        if job is not None:
            return Accepted(self._ours(job, submission, adopted=True), adopted=True)
        self._provide_dataset(submission)
        try:
            job, adopted = self._create_job(submission)
        except _Removed:
            return Accepted(_removed(submission), adopted=True)
        return Accepted(self._ours(job, submission, adopted), adopted)

    def find(self, job_id: str) -> Job | None:
        """The job, or None when the service says there is none."""
        fields = self._account.job(job_id)
        return None if fields is None else resources.job(fields)

    def _provide_dataset(self, submission: Submission) -> None:
        """Make the input dataset stand READY under its id, with this submission's file."""
        dataset_id = submission.input_dataset_id
        document = {
            "datasetId": dataset_id,
            "dataset": {
                "userUploaded": {},
                "exampleCount": str(submission.rows),  # required, and refused one level higher
                "displayName": submission.display_name[:_DISPLAY_NAME],
            },
        }
        fields, _ = self._create(
            f"creating dataset {dataset_id}",
            lambda: self._api.call("POST", self._account.path(DATASETS), document=document, once=True),
            lambda: self._account.dataset(dataset_id),
            kept=NOTHING_SPENT,
        )
        count = resources.integer(fields, "exampleCount")
        if count not in (None, 0, submission.rows) or resources.text(fields, "sourceJobName"):
            raise IdTaken(
                f"dataset {dataset_id} is there already and holds something else "
                f"({count} rows, not {submission.rows}).",
                kept=NOTHING_SPENT,
                hint="remove that dataset, or let a new attempt use new ids",
            )
        if resources.dataset(fields).state != "READY":
            self._uploads.upload(submission.requests, dataset_id)

    def _create_job(self, submission: Submission) -> tuple[Fields, bool]:
        document = {
            "model": submission.model,
            "inputDatasetId": self._account.full_name(DATASETS, submission.input_dataset_id),
            "outputDatasetId": self._account.full_name(DATASETS, submission.output_dataset_id),
            "displayName": submission.display_name[:_DISPLAY_NAME],
        }
        query = {"batchInferenceJobId": submission.job_id}
        return self._create(
            f"creating job {submission.job_id}",
            lambda: self._api.call("POST", self._account.path(JOBS), query=query, document=document, once=True),
            lambda: self._account.job(submission.job_id),
            kept=f"Job {submission.job_id} may exist and cost money; the next try asks for it by this id first.",
            refused=lambda: self._require_free_output(submission),
        )

    def _create(
        self,
        doing: str,
        post: Callable[[], Answer],
        look: Callable[[], Fields | None],
        kept: str,
        refused: Callable[[], None] = lambda: None,
    ) -> tuple[Fields, bool]:
        """The resource under an id of ours, and whether it was there before.

        *kept* says what is at stake while the answer is unknown; *refused* may explain a refusal better.
        """
        patience = Patience(self._pace)
        unclear = False  # a request of ours went unanswered: what is found then is ours
        while True:
            answer: Answer | None = None
            try:
                answer = post()
                if answer.ok:
                    return answer.fields, False
                trouble = Trouble(f"{doing}: the service {answer.said}, and yet shows none.", answer)
            except Trouble as failed:
                trouble, unclear = failed, True
            if trouble.answer is not None and trouble.answer.about_quota:
                raise self._account.refusal(trouble.answer, doing)
            try:
                found = look()
            except Unreachable as silent:
                silent.kept = kept
                raise
            if found is not None:
                return found, not unclear
            if answer is not None:
                refused()
                if answer.status != 409:
                    raise self._account.refusal(answer, doing)
            patience.pause(trouble, kept)

    def _require_free_output(self, submission: Submission) -> None:
        fields = self._account.dataset(submission.output_dataset_id)
        if fields is not None:
            source = resources.dataset(fields).source_job_id
            # Named after a digest of what we ask. So unless it says otherwise (another job wrote it, a user uploaded
            # it) it is ours; its rows are looked at by their ids.
            if source == submission.job_id or not (source or isinstance(fields.get("userUploaded"), dict)):
                raise _Removed
            raise IdTaken(
                f"output dataset {submission.output_dataset_id} is there already, "
                f"{f'written by job {source}' if source else 'not written by a job'}.",
                kept=f"It was not touched. {NOTHING_SPENT}",
                hint="let a new attempt use new ids, or remove that dataset",
            )

    def _ours(self, fields: Fields, submission: Submission, adopted: bool) -> Job:
        """The job, when it asks for what *submission* asks. A field the service leaves out proves nothing."""
        job = resources.job(fields)
        kept = "It was neither adopted nor changed, and no other job was created."
        # A job that reads our data set, named after its content, is ours wherever it writes: the service may have
        # named its output itself. A new attempt would be paid for beside it.
        reads_ours = job.input_dataset_id == submission.input_dataset_id
        for what, there, ours in (
            ("reads dataset", job.input_dataset_id, submission.input_dataset_id),
            ("writes dataset", "" if reads_ours else job.output_dataset_id, submission.output_dataset_id),
        ):
            if there and there != ours:
                raise IdTaken(
                    f"job {submission.job_id} is there already and {what} {there}, not {ours}.",
                    kept=kept,
                    hint="let a new attempt use new ids, or see whose job it is",
                )
        # Not asked of a job younger than our intent: nobody else had its id, so it shows the service's own words.
        may_be_foreign = adopted and not _made_since(submission.intended_at, job)
        renamed = job.model not in ("", submission.model) and not job.model.endswith(f"/{submission.model}")
        if may_be_foreign and renamed:
            # The ids hold a digest of the model and match. So this is likely our job with the model under
            # another name, and asking for a new attempt would pay for it twice: a person decides.
            raise Refused(
                f"job {submission.job_id} is there with our data sets, but with model {job.model}, "
                f"not {submission.model}.",
                kept=kept,
                hint="see who made that job; delete it, or start a new run",
            )
        if may_be_foreign and (settings := _settings_for_all_rows(fields)):
            raise Refused(
                f"job {submission.job_id} is there with our data sets, but sets {', '.join(settings)} for all rows; "
                "ours leave that to each row.",
                kept=kept,
                hint="see who made that job; delete it, or start a new run",
            )
        return replace(job, job_id=job.job_id or submission.job_id)

    # Downloading

    def download(self, output_dataset_id: str, folder: Path) -> list[Path] | None:
        """See `base.Provider.download`."""
        dataset_id = last_segment(output_dataset_id)
        path = self._account.path(DATASETS, dataset_id, "getDownloadEndpoint")
        targets: dict[str, Path] = {}
        stored: set[str] = set()
        doubted: set[str] = set()
        patience = Patience(self._pace, self._cap.seconds)
        while True:
            answer = self._api.call("GET", path)  # any body here, even `{}`, is answered with 400
            if not (answer.ok or answer.says_absent or answer.says_not_yet):
                raise self._account.refusal(answer, f"asking for the files of dataset {dataset_id}")
            try:
                if answer.says_not_yet:
                    raise Trouble(f"dataset {dataset_id}: the service {answer.said}.", answer)
                if answer.says_absent:
                    # Rows that do not exist are paid for again, so the dataset itself must say so too.
                    if self._account.dataset(dataset_id) is None:
                        return None
                    raise Trouble(f"dataset {dataset_id} is there, but the service knows no files of it.")
                links = signed_links(answer)
                if not links:
                    raise Trouble(f"dataset {dataset_id}: the service lists no files.")
                disk.make_folder(folder)
                for key in sorted(links.keys() - stored):
                    target = targets.setdefault(key, _free_target(key, folder, targets))
                    self._links.fetch(links[key], target, self._cap, doubted)
                    stored.add(key)
            except Trouble as trouble:
                patience.pause(trouble, "The results stay at the service; files that were whole are kept.")
            else:
                return [targets[key] for key in sorted(stored)]

    def external_url(self, output_dataset_id: str) -> str | None:
        """The dataset's `externalUrl`, when it has one; often a `gs://` name, which no one can fetch."""
        fields = self._account.dataset(last_segment(output_dataset_id))
        return (resources.text(fields, "externalUrl") or None) if fields else None

    def download_external(self, url: str, folder: Path) -> list[Path]:
        """See `base.Provider.download_external`."""
        doubted: set[str] = set()
        patience = Patience(self._pace, self._cap.seconds)
        while True:
            try:
                disk.make_folder(folder)
                target = paths.raw_file(folder, errors=False)
                self._links.fetch(url, target, self._cap, doubted)
            except Trouble as trouble:
                patience.pause(trouble, "Nothing was stored.")
            else:
                return [target]

    # Looking around and cleaning up

    def jobs(self, prefix: str) -> Iterator[Job]:
        """The account's jobs whose id starts with *prefix*."""
        for fields in self._account.listed(JOBS):
            if (job := resources.job(fields)).job_id.startswith(prefix):
                yield job

    def datasets(self, prefix: str) -> Iterator[Dataset]:
        """The account's datasets whose id starts with *prefix*."""
        for fields in self._account.listed(DATASETS):
            if (dataset := resources.dataset(fields)).dataset_id.startswith(prefix):
                yield dataset

    def delete_job(self, job_id: str) -> None:
        """Stop and remove a job; one that is gone already is fine."""
        self._account.delete(JOBS, job_id)

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a dataset; one that is gone already is fine."""
        self._account.delete(DATASETS, dataset_id)


class _Removed(Exception):
    """The job was there and wrote its output before somebody removed it: there is nothing to create."""


def _settings_for_all_rows(fields: Fields) -> list[str]:
    """The names of what a job sets beside its rows, which may change what every row asks."""
    settings = {**resources.mapping(fields, "inferenceParameters"), "systemPrompt": fields.get("systemPrompt")}
    return sorted(readable(name) for name, value in settings.items() if value not in (*_UNSET, _PLAIN.get(name)))


def _made_since(intended_at: datetime | None, job: Job) -> bool:
    """Whether *job* was created after our intent, by the service's clock; False when it cannot be told."""
    return intended_at is not None and job.created_at is not None and job.created_at >= intended_at - _CLOCKS


def _removed(submission: Submission) -> Job:
    """A job that is gone, and whose output is not."""
    return Job(
        job_id=submission.job_id,
        state="NOT_FOUND",
        phase=JobPhase.GONE,
        model=submission.model,
        input_dataset_id=submission.input_dataset_id,
        output_dataset_id=submission.output_dataset_id,
        message="the job was removed after it had written its output",
    )


def _free_target(key: str, folder: Path, taken: dict[str, Path]) -> Path:
    """Our own name for the file that the service calls *key*; the service's names never become paths."""
    errors = "error" in last_segment(key).lower()
    number = 1
    while (target := paths.raw_file(folder, errors=errors, number=number)) in taken.values():
        number += 1
    return target
