"""What a part's rows come to: are its results in place, what is owed, may it be asked again, write it down.

Nothing here talks to the provider. Rows are counted over all attempts that left anything, whether
the ledger knows them or not: what was paid for is never asked again because a record is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import disk, fingerprints
from pipeline.errors import ContractBroken, DamagedArtifact, ProviderError, Refused
from pipeline.ledger import ID_TAKEN, Attempt, Ledger
from pipeline.mirror import UNKNOWN
from pipeline.parts import IdsDigest, Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import JobPhase
from pipeline.queue import attempts, merge
from pipeline.queue.context import Context
from pipeline.queue.merge import Tally
from pipeline.workspace import Workspace


def is_untouched(work: Workspace, slug: str, part: str) -> bool:
    """Whether a part was never submitted: no attempt in its ledger, and none that left anything.

    Anything else in its folder says nothing: a file manager leaves its own there.
    """
    return not work.ledger(slug, part).attempts and not left_behind(work.trial_paths(slug).part(part))


def left_behind(files: PartPaths) -> set[int]:
    """The numbers of attempts that left raw files or a breadcrumb in the folder of a part."""
    folders = (path for path in files.root.glob("a[0-9]*") if path.name[1:].isdigit())
    numbers = {int(path.name[1:]) for path in folders if merge.raw_files(path)}
    return numbers | {attempts.number_of(crumb) for crumb in attempts.breadcrumbs(files)}


@dataclass(frozen=True)
class Settling:
    """The judgements on one part."""

    context: Context
    paths: TrialPaths
    part: Part

    @property
    def files(self) -> PartPaths:
        """The part's files."""
        return self.paths.part(self.part.part)

    # --- what is here ----------------------------------------------------------------------------

    def as_recorded(self) -> bool | None:
        """Whether results.jsonl is what the manifest recorded; None where it records nothing of it."""
        return self._is_as(self._recorded())

    def stands(self) -> bool:
        """Whether results.jsonl is what the manifest recorded, and nothing is to be added to it.

        Where rows have no answer, more may come: an attempt was made since, or what is owed is to be asked again.
        """
        recorded = self._recorded()
        if not self._is_as(recorded):
            return False
        missing: int | None = recorded.get("missing")  # an earlier version did not record how many are
        if self.context.workspace.asks_again:
            return missing == 0
        if not missing:
            return True
        book = self.context.workspace.ledger(self.paths.slug, self.part.part)
        return len(book.attempts) <= int(recorded["attempts"])

    def _recorded(self) -> Mapping[str, Any]:
        return self.context.workspace.manifest(self.paths.slug).stage("downloaded").parts.get(self.part.part, {})

    def _is_as(self, recorded: Mapping[str, Any]) -> bool | None:
        if not (sha256 := recorded.get("sha256")):
            return None
        return self.context.workspace.damage(recorded["path"], sha256, recorded["size"]) is None

    def in_place(self, book: Ledger) -> bool:
        """Whether results.jsonl is what the manifest recorded, or else what the raw files come to.

        Where these are not here as they were collected, it holds exactly the part's rows. Where rows have no answer,
        and no record says that this was the end, the attempts in the ledger are judged anew.
        """
        if self.as_recorded() is not None:
            return self.stands()
        if fingerprints.kind(self.files.results) != "file":
            return False
        answered = merge.verify(self.files.results, self.part)
        if answered is None or not book.attempts:
            return answered is not None
        return answered == self.part.rows and (not self._raw_is_whole(book) or self._is_merged(self.tally(book)))

    def _raw_is_whole(self, book: Ledger) -> bool:
        """Whether the requests and all raw files are here as the ledger has them, to compare results with."""
        workspace = self.context.workspace
        requests = self.paths.relative(self.paths.part_requests(self.part.part))
        folders = {self.files.attempt(attempt.number): attempt.collected or {} for attempt in book.attempts}
        collected = [
            workspace.damage(self.paths.relative(folder / name), facts["sha256"], facts["size"])
            for folder, files in folders.items()
            for name, facts in files.items()
        ]
        if not collected or any(collected) or any(attempt.collected is None for attempt in book.attempts):
            return False
        return workspace.damage(requests, self.part.sha256, self.part.size) is None

    def _is_merged(self, counted: Tally) -> bool:
        """Whether results.jsonl is, to the last byte, what *counted* comes to."""
        digest = disk.Digest()
        for line in merge.result_lines(self.ids(), counted, self.context.hands.read_row):
            digest.add(line)
        return disk.sha256_of(self.files.results)[0] == digest.sha256

    def ids(self) -> list[str]:
        """The part's ids, in request order."""
        return self.asked(1)

    def asked(self, number: int) -> list[str]:
        """The ids that attempt *number* asked for; a later one's requests are written anew where they are damaged."""
        path = attempts.requests_of(self.paths, self.part, number)
        if number == 1:
            return attempts.ids_of(path)
        if not (standing := self._standing_ids(path, number)):
            self.write_requests(number)
            standing = attempts.ids_of(path)
        return standing

    def _standing_ids(self, path: Path, number: int) -> list[str]:
        """The ids in the requests of attempt *number* that stand there; what is no file of requests is kept aside.

        So is one that the intent does not mean, where writing it anew gives what it does mean. Where that gives other
        bytes too, a person has to look: it is refused where it would be sent.
        """
        kind = fingerprints.kind(path)
        if kind is None or (kind == "file" and not path.stat().st_size):
            return []  # empty where nothing was owed: then it is written so again
        if kind == "file":
            with suppress(DamagedArtifact):
                ids = attempts.ids_of(path)
                if not self._would_be_mended(path, number):
                    return ids
        aside = disk.set_aside(path)
        self._say(f"the requests of attempt {number} are damaged; kept as {aside.name}, written anew")
        return []

    def _would_be_mended(self, path: Path, number: int) -> bool:
        """Whether the requests at *path* are not those of the intent of attempt *number*, and would be if written anew.

        A file that lost a whole line still reads as one of requests.
        """
        work = self.context.workspace
        attempt = work.ledger(self.paths.slug, self.part.part).attempt(number)
        if attempt is None or work.fingerprints.sha256(path) == attempt.requests_sha256:
            return False
        digest = disk.Digest()
        for line in attempts.request_lines(self.paths, self.part, self._owed_before(number)):
            digest.add(line)
        return digest.sha256 == attempt.requests_sha256

    def write_requests(self, number: int) -> None:
        """Write the requests of attempt *number*: the rows that all attempts before it left owed."""
        attempts.write_requests(self.paths, self.part, number, self._owed_before(number))

    def _owed_before(self, number: int) -> set[str]:
        return set(self._tally(range(1, number)).owed(self.ids()))

    def left_behind(self) -> set[int]:
        """The numbers of attempts that left raw files or a breadcrumb: they were made, whatever the ledger says."""
        return left_behind(self.files)

    def tally(self, book: Ledger) -> Tally:
        """Count the rows of all attempts."""
        return self._tally({attempt.number for attempt in book.attempts} | self.left_behind() | {1})

    # --- what to do about it -----------------------------------------------------------------------

    def was_the_end(self, book: Ledger, missing: int) -> bool:
        """Whether the run was finished with as many rows *missing* after these attempts, and nobody asks for them now.

        Results that were damaged since are made again as they were: that is no reason to pay for more.
        """
        recorded = self._recorded()
        if self.context.workspace.asks_again or recorded.get("missing") != missing:
            return False
        return len(book.attempts) <= int(recorded["attempts"])

    def may_ask_again(self, book: Ledger, owed: int) -> bool:
        """Whether the rows still owed may go into a new attempt.

        Raises Refused where the user is to be asked, ProviderError where asking again would end alike.
        """
        settings = self.context.workspace.config["queue"]
        last = book.last
        if last is None:
            return False
        self._refuse_hopeless(last)
        requeue = self.context.options.requeue or settings["requeue"]
        at_end = last.number >= settings["max_attempts"]
        if at_end or requeue != "auto":
            self._refuse_unasked(book, at_end)
        if at_end or requeue == "never":
            return False
        if requeue == "ask":
            raise Refused(
                f"{owed} of {self.part.rows} rows of {self.part.part} are still owed after attempt {last.number} "
                f"({last.state}).",
                kept="The rows that were answered are kept. Nothing was sent again.",
                hint=f"doit resume rid={self.context.workspace.rid} requeue=auto asks for exactly these rows; "
                "requeue=never leaves them missing",
            )
        if self.context.workspace.trials[self.paths.slug].model == UNKNOWN:
            raise Refused(
                f"{owed} rows of {self.part.part} are still owed, and which model was asked is not known.",
                kept="The rows that were answered are kept. Nothing was sent again.",
                hint=f"start a new run that names the model, or leave them missing: "
                f"doit resume rid={self.context.workspace.rid} requeue=never",
            )
        return True

    def _refuse_hopeless(self, last: Attempt) -> None:
        """A job that failed because its input is wrong would fail again."""
        if last.ended is JobPhase.FAILED and "INVALID_ARGUMENT" in last.message:
            raise ProviderError(
                f"the provider refused the input of {self.part.part}: {last.message}",
                where=last.job_id,
                kept="Nothing was answered and nothing is sent again; the ledger keeps the refusal.",
                hint="fix prompts, decoding or items and start a new run",
            )

    def _refuse_unasked(self, book: Ledger, at_end: bool) -> None:
        """No attempt was ever taken, so its rows are not "missing": nobody was asked."""
        if all(attempt.state == ID_TAKEN for attempt in book.attempts):
            raise Refused(
                f"{self.part.part} could not be submitted: something else has the ids of each attempt "
                f"({book.attempts[-1].message})",
                where=book.attempts[-1].job_id,
                kept="Nothing was sent.",
                hint=f"python -m pipeline orphans {self.context.workspace.rid} shows whose they are"
                f"{'' if at_end else '; requeue=auto tries other ids'}",
            )

    # --- writing it down -----------------------------------------------------------------------------

    def write(self, counted: Tally) -> ContractBroken | None:
        """Put results.jsonl in place; the error to report when rows were answered twice with different content."""
        ids = self.ids()
        digest = IdsDigest()
        for name in ids:
            digest.add(name)
        if digest.hexdigest() != self.part.ids_sha256:
            raise ContractBroken(
                f"the ids of {self.part.part} are not those the index lists.",
                where=str(self.paths.part_requests(self.part.part)),
                kept="Raw files and ledger are as they were; no results were written.",
                hint="doit forget build && doit, if nothing was submitted; else restore batch_inputs/",
            )
        merge.keep_aside(self.files, counted.unusable)
        self._put_in_place(ids, counted)
        owed = set(counted.owed(ids))
        if failed := len(ids) - len(counted.answers):
            self._say(f"{failed:,} of {len(ids):,} rows have no answer")
        if not (left := counted.conflicts & owed):
            return None
        return ContractBroken(
            f"{len(left)} rows were answered twice with different content, e.g. {min(left)}.",
            where=str(self.files.conflicts),
            kept="Both answers are kept aside; the rows count as missing.",
            hint="raise queue.max_attempts in experiment.yaml to ask again, then doit resume",
        )

    def _put_in_place(self, ids: list[str], counted: Tally) -> None:
        """Write the results, unless they stand there. What else stands there is kept under another name."""
        path = self.files.results
        kind = fingerprints.kind(path)
        if kind is not None:
            if kind == "file" and self._is_merged(counted):
                return
            if kind != "file" or path.stat().st_size:
                origin = self.context.workspace.record.origin
                aside = disk.set_aside(path, origin or disk.DAMAGED)
                said = "is as the earlier tool wrote it" if origin else "is not what the answers come to"
                self._say(f"{path.name} {said}; kept as {aside.name}")
        with disk.replacing(path) as target:
            for line in merge.result_lines(ids, counted, self.context.hands.read_row):
                target.write(line)
        self.context.workspace.fingerprints.remember(path, target.written)

    def _tally(self, numbers: Iterable[int]) -> Tally:
        asked = {number: self.asked(number) for number in sorted(numbers)}
        return merge.tally(self.files, self.ids(), asked, self.context.hands.read_row)

    def _say(self, text: str) -> None:
        self.context.hands.say(f"{self.paths.slug}/{self.part.part}: {text}")
