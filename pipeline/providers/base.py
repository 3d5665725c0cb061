"""What the queue needs from a batch-inference service, and nothing more.

Ids are chosen by the client, so submitting is idempotent: `submit` may be called any number of
times with the same `Submission` and leads to at most one job. Whatever a provider cannot tell it
raises (`Unreachable`); it never answers "no" for "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from pipeline.errors import Refused


class IdTaken(Refused):
    """One of an attempt's ids stands for something else. Nothing was created; a new attempt has new ids."""


class JobPhase(Enum):
    """What a job's state means for the queue."""

    RUNNING = "running"  # also every state name this version does not know: an own deadline guards that
    COMPLETED = "completed"  # terminal; single rows may still have failed
    PARTIAL = "partial"  # terminal; ended early (expired, stopped), finished rows are kept and billed
    FAILED = "failed"  # terminal; no results
    GONE = "gone"  # terminal; deleted or being deleted

    @property
    def terminal(self) -> bool:
        """Whether the service will do no more work for this job."""
        return self is not JobPhase.RUNNING


# A count of tokens above it, of a request or of a job, is none: a million requests of a million tokens come to less,
# and sums of millions of such counts still fit the 64 bits that JSON is written with.
MOST_TOKENS = 2**40


@dataclass(frozen=True)
class Counts:
    """Rows and tokens as the service counts them; None where it does not say."""

    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True)
class Job:
    """A job as the service describes it. *state* is the service's own word without its prefix, upper case."""

    job_id: str
    state: str
    phase: JobPhase
    model: str
    input_dataset_id: str
    output_dataset_id: str
    message: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True)
class Submission:
    """One attempt of one part, under ids of our own choice (without account prefix).

    *intended_at* is when the ledger's intent was written, None when that is not known: before it, nobody had the ids.
    """

    job_id: str
    input_dataset_id: str
    output_dataset_id: str
    requests: Path
    rows: int
    model: str
    display_name: str
    intended_at: datetime | None = None


@dataclass(frozen=True)
class Accepted:
    """The job the service has for a submission; *adopted* when it was there before this call created one."""

    job: Job
    adopted: bool


@dataclass(frozen=True)
class Dataset:
    """A remote dataset, as `orphans` lists it."""

    dataset_id: str
    state: str
    created_at: datetime | None
    source_job_id: str


@dataclass(frozen=True)
class Binding:
    """Whose jobs these are: a ledger is only ever continued with the binding it began with.

    *endpoint* is the API's base URL, or `emulator:<store id>` (a port changes, the store does not).
    """

    provider: str
    account: str
    endpoint: str


@dataclass(frozen=True)
class Capabilities:
    """What a service can do: for whoever chooses one; the queue asks them all alike."""

    own_job_ids: bool
    error_file: bool
    partial_results: bool
    max_rows: int | None
    max_bytes: int | None
    max_id_length: int


class Provider(Protocol):
    """A batch-inference service. Every method may raise Unreachable, AuthError or ProviderError."""

    capabilities: Capabilities

    def binding(self) -> Binding:
        """Account and endpoint this provider talks to; may ask the service for the account once."""

    def submit(self, submission: Submission) -> Accepted:
        """Create dataset and job under the given ids, or adopt what stands there already.

        The adopted job may be in any phase, ended or GONE too: it is this attempt's one job. Waits
        until the input dataset is ready; raises NotReady when that takes too long (nothing is
        spent, calling again goes on), QuotaFull when the account runs too many jobs, IdTaken when
        something else has one of the ids, Refused when only a person can tell whose job it is.
        """

    def find(self, job_id: str) -> Job | None:
        """The job of that id, or None when the service says there is none."""

    def download(self, output_dataset_id: str, folder: Path) -> list[Path] | None:
        """Fetch the output dataset's files into *folder* under our own names; None when it does not exist.

        Asks for fresh signed links, streams each file to a temporary name and renames it when its
        transfer ended properly. What the files hold is the caller's to check. The names are
        `paths.raw_file`'s; several files of one kind are kept apart, not joined.
        """

    def external_url(self, output_dataset_id: str) -> str | None:
        """The dataset's `externalUrl`, when it has one."""

    def download_external(self, url: str, folder: Path) -> list[Path]:
        """Fetch *url* without a key, if scheme, host and address are allowed. Raises Refused otherwise."""

    def jobs(self, prefix: str) -> Iterator[Job]:
        """The account's jobs whose id starts with *prefix*."""

    def datasets(self, prefix: str) -> Iterator[Dataset]:
        """The account's datasets whose id starts with *prefix*."""

    def delete_job(self, job_id: str) -> None:
        """Stop and remove a job; one that is gone already is fine."""

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a dataset; one that is gone already is fine."""

    def close(self) -> None:
        """Close idle connections; the provider stays usable."""
