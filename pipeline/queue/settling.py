"""What a part's rows come to: are its results in place, what is still owed, may it be asked again, write it down.

Nothing here talks to the provider. Rows are counted over all attempts of the ledger; results are
written when nothing is owed any more, or when what is owed will not be asked again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import disk, fingerprints
from pipeline.errors import ContractBroken, ProviderError, Refused
from pipeline.ledger import Attempt, Ledger
from pipeline.parts import Part
from pipeline.paths import TrialPaths
from pipeline.providers.base import JobPhase
from pipeline.queue import attempts, merge
from pipeline.queue.context import Context
from pipeline.queue.merge import Tally


@dataclass(frozen=True)
class Settling:
    """The judgements on one part."""

    context: Context
    paths: TrialPaths
    part: Part

    @property
    def name(self) -> str:
        """The part as messages name it."""
        return f"{self.paths.slug}/{self.part.part}"

    def in_place(self) -> bool:
        """Whether results.jsonl is what the manifest recorded, or else holds exactly the part's rows."""
        results = self.paths.part(self.part.part).results
        recorded = self.context.workspace.manifest(self.paths.slug).stage("downloaded")
        entries = {entry["job_key"]: entry for entry in recorded.artifacts.get("parts", [])}
        entry = entries.get(self.part.part)
        if entry is not None and entry.get("sha256") and results.is_file():
            same: bool = self.context.workspace.fingerprints.sha256(results) == entry["sha256"]
            return same
        return results.is_file() and not results.is_symlink() and merge.verify(results, self.part) is not None

    def ids(self) -> list[str]:
        """The part's ids, in request order."""
        return attempts.ids_of(self.paths.part_requests(self.part.part))

    def asked(self, number: int) -> list[str]:
        """The ids that attempt *number* asked for."""
        return attempts.ids_of(attempts.requests_of(self.paths, self.part, number))

    def tally(self, book: Ledger, ids: list[str]) -> Tally:
        """Count the rows of the ledger's attempts."""
        asked = {attempt.number: self.asked(attempt.number) for attempt in book.attempts}
        return merge.tally(self.paths.part(self.part.part), ids, asked or {1: ids}, self.context.hands.read_row)

    def raw_answers_all(self) -> bool:
        """Whether raw files answer everything although there is no ledger (it may get lost)."""
        files = self.paths.part(self.part.part)
        numbers = sorted(int(folder.name[1:]) for folder in files.root.glob("a[0-9]*") if folder.name[1:].isdigit())
        if not numbers:
            return False
        ids = self.ids()
        counted = merge.tally(files, ids, dict.fromkeys(numbers, ids), self.context.hands.read_row)
        return not counted.owed(ids)

    def owed(self, book: Ledger) -> list[str]:
        """The rows that no attempt of *book* answered for good."""
        ids = self.ids()
        return self.tally(book, ids).owed(ids)

    def may_ask_again(self, last: Attempt | None, owed: int) -> bool:
        """Whether the rows still owed may go into a new attempt. Raises Refused where the user is to be asked."""
        settings = self.context.workspace.config["queue"]
        if last is None or last.number >= settings["max_attempts"]:
            return False
        requeue = self.context.options.requeue or settings["requeue"]
        if requeue == "ask":
            raise Refused(
                f"{owed} of {self.part.rows} rows of {self.part.part} are still owed after attempt {last.number} "
                f"({last.state}).",
                kept="The rows that were answered are kept. Nothing was sent again.",
                hint=f"doit resume rid={self.context.workspace.rid} requeue=auto asks for exactly these rows; "
                "requeue=never leaves them missing",
            )
        return bool(requeue == "auto")

    def refuse_hopeless(self, last: Attempt) -> None:
        """A job that failed because its input is wrong would fail again."""
        if last.ended is JobPhase.FAILED and "INVALID_ARGUMENT" in last.message:
            raise ProviderError(
                f"the provider refused the input of {self.part.part}: {last.message}",
                where=last.job_id,
                kept="Nothing was answered and nothing is sent again; the ledger keeps the refusal.",
                hint="fix prompts, decoding or items and start a new run",
            )

    def write(self, book: Ledger) -> ContractBroken | None:
        """Put results.jsonl in place; the error to report when rows were answered twice with different content."""
        ids = self.ids()
        counted = self.tally(book, ids)
        left = counted.conflicts & set(counted.owed(ids))
        files = self.paths.part(self.part.part)
        self._set_aside_damaged()
        merged = merge.write_results(files, self.part, ids, counted, self.context.hands.read_row)
        self.context.workspace.fingerprints.remember(files.results, merged.written)
        if merged.failed:
            self.context.hands.say(f"{self.name}: {merged.failed:,} of {merged.rows:,} rows have no answer")
        if not left:
            return None
        return ContractBroken(
            f"{len(left)} rows were answered twice with different content, e.g. {min(left)}.",
            where=str(files.conflicts),
            kept="Both answers are kept aside; the rows count as missing.",
            hint="raise queue.max_attempts in experiment.yaml to ask again, then doit resume",
        )

    def _set_aside_damaged(self) -> None:
        """Keep what stands where the results belong: it is not them, or the part would be settled."""
        path = self.paths.part(self.part.part).results
        kind = fingerprints.kind(path)
        if kind is not None and not (kind == "file" and path.stat().st_size == 0):
            aside = disk.set_aside(path, "damaged")
            self.context.hands.say(f"{self.name}: {path.name} is damaged; kept as {aside.name}")
