"""Remote jobs and data sets with a run's prefix that no ledger of the run owns: whose they are, adopt, delete.

An id says its run's name, a digest of its place (run, trial, part), its attempt and a digest of what
it asked for. So an orphan is one of

    wanted    what this run would submit itself, now: the next `doit resume` finds it too. Adopt it.
    stale     of a part of this run, but asking for something else (an earlier build under this rid)
    unclear   of a later attempt, and what that would ask follows from attempts that are not here yet
    foreign   of no part of this run: another run whose name begins alike, or a trial that is gone

Only what is stale is ever deleted, and only on request: the others were paid for by this run, or are
somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.errors import DamagedArtifact, Refused
from pipeline.queue import attempts
from pipeline.queue.attempts import Name
from pipeline.queue.context import Context
from pipeline.queue.work import Work

WANTED, STALE, UNCLEAR, FOREIGN = "wanted", "stale", "unclear", "foreign"
_KINDS = {"job": 0, "dataset": 1}


@dataclass(frozen=True)
class Orphan:
    """A remote *kind* (`job` or `dataset`); *part* is `trial/part` where its place is one of this run's."""

    kind: str
    id: str
    state: str
    created_at: datetime | None
    verdict: str
    part: str | None
    attempt: int

    def as_json(self) -> dict[str, Any]:
        """The orphan as a document."""
        created = self.created_at.isoformat() if self.created_at else None
        return {**vars(self), "created_at": created}

    @property
    def line(self) -> str:
        """The orphan in one line."""
        whose = f"{self.part} attempt {self.attempt}" if self.part else "no part of this run"
        return f"{self.verdict:<8} {self.kind:<8} {self.id}  {self.state}  {whose}"


def find(context: Context) -> list[Orphan]:
    """The orphans, jobs first. Reads ledgers and asks the provider; changes nothing."""
    prefix = attempts.run_prefix(context.workspace.rid)
    provider = context.provider()
    listed = [("job", job.job_id, job.state, job.created_at) for job in provider.jobs(prefix)]
    listed += [("dataset", entry.dataset_id, entry.state, entry.created_at) for entry in provider.datasets(prefix)]
    # Read after the lists: a resume that is at work meanwhile writes its intent before the service has the job.
    owned = {
        name
        for _, _, book in context.workspace.ledgers()
        for attempt in book.attempts
        for name in (attempt.job_id, attempt.input_dataset_id, attempt.output_dataset_id)
    }
    works = _works(context)
    found = []
    for kind, remote_id, state, created_at in listed:
        # A longer name of another run may begin with this one's: then the rest is not of our making.
        if remote_id in owned or (name := attempts.parse(remote_id, prefix)) is None:
            continue
        work = works.get(name.place)
        verdict = FOREIGN if work is None else _verdict(work, name)
        part = None if work is None else work.name
        found.append(Orphan(kind, remote_id, state, created_at, verdict, part, name.attempt))
    return sorted(found, key=lambda orphan: (_KINDS[orphan.kind], orphan.id))


def adopt(context: Context, orphans: list[Orphan]) -> list[Orphan]:
    """Write the wanted jobs among *orphans* into their ledgers, as attempts of ours; those that were adopted.

    Earlier attempts come first, since a later one's requests follow from them.
    """
    works = {work.name: work for work in _works(context).values()}
    wanted = [orphan for orphan in orphans if orphan.kind == "job" and orphan.verdict == WANTED]
    adopted = []
    for orphan in sorted(wanted, key=lambda orphan: (orphan.part or "", orphan.attempt)):
        assert orphan.part is not None
        works[orphan.part].adopt(orphan.attempt)
        adopted.append(orphan)
    return adopted


def delete(context: Context, orphans: list[Orphan]) -> list[Orphan]:
    """Delete the stale ones among *orphans* at the provider, jobs before their data sets; those that were deleted.

    Raises Refused when there are only others.
    """
    stale = [orphan for orphan in orphans if orphan.verdict == STALE]
    if orphans and not stale:
        raise Refused(
            "none of these may be deleted: this run wants them or may want them, or they are another run's.",
            kept="Nothing was deleted.",
            hint=f"python -m pipeline orphans {context.workspace.rid} --adopt takes over what is wanted",
        )
    provider = context.provider()
    for orphan in stale:
        (provider.delete_job if orphan.kind == "job" else provider.delete_dataset)(orphan.id)
    return stale


def _works(context: Context) -> dict[str, Work]:
    """Place digest -> part, for all parts of all trials that are built."""
    return {work.place: work for work in _parts(context)}


def _parts(context: Context) -> Iterator[Work]:
    for slug in context.workspace.trials:
        try:
            index = context.workspace.index(slug)
        except DamagedArtifact as error:
            error.hint = error.hint or f"doit resume rid={context.workspace.rid} writes it anew"
            raise
        for part in index.parts if index else ():
            yield Work(context, context.workspace.trial_paths(slug), part)


def _verdict(work: Work, name: Name) -> str:
    if work.book.attempt(name.attempt) is not None:
        return STALE  # that attempt has another id
    if work.job_id(name.attempt) == name.job_id:
        return WANTED
    return STALE if name.attempt == 1 else UNCLEAR
