"""How the results of one attempt come home, and what is tried when they do not: the repair ladder.

    1  raw files that are still here, when they hold all that the job says it answered
    2  signed links of the output dataset (fresh ones per try)
    3  the dataset's externalUrl, when it is an allowed http(s) link
    4  the configured firectl command
    5  lost, in two looks a pause apart: recorded with everything that was tried; the rows are owed again

Unknown is not "gone": when the provider could not be asked about a dataset and no other rung brought
its rows, its error is raised and nothing counts as lost. Nor does a single look decide, since what
follows from "gone" is paid for: `work.py` climbs twice before it believes it. Whatever arrives is stored under our own
names and counted, by the ids that were asked, against what the job said.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import disk
from pipeline.errors import AuthError, ProviderError, Refused
from pipeline.fingerprints import Fingerprints
from pipeline.ledger import Attempt
from pipeline.paths import PartPaths, raw_file
from pipeline.providers.base import JobPhase, Provider
from pipeline.providers.rows import BadRow
from pipeline.queue import merge
from pipeline.queue.merge import ReadRow

_INCOMING = ".incoming"  # what a rung brings, until it is known to be better than what is there
_DAMAGED = "damaged"  # how a raw file that is not what was recorded is renamed
FIRECTL_SECONDS = 3600.0  # a download of gigabytes; the command is killed after that
_SHOWN = 200  # characters of what firectl said


@dataclass(frozen=True)
class Collected:
    """The raw files of an attempt, stored. *by* names the rung; *tried* says what did not help before it.

    Not *whole* when rows that the job counted are in none of them.
    """

    files: dict[str, dict[str, object]]
    by: str
    tried: list[str]
    whole: bool = True


class ResultsLost(Exception):
    """No rung brought the results; *tried* says why, rung by rung."""

    def __init__(self, tried: list[str]) -> None:
        super().__init__("; ".join(tried))
        self.tried = tried


class _NoSuchWay(Exception):
    """A rung that is not there for this dataset, or did not help."""


@dataclass(frozen=True, order=True)
class _Yield:
    """What some raw files hold of the rows that were asked: with an answer, with an answer or an error."""

    answered: int = 0
    accounted: int = 0

    def lacks(self, attempt: Attempt) -> str | None:
        """What is missing against the job's own counts, else against its state; None when nothing is."""
        succeeded, failed = attempt.counts.get("succeeded"), attempt.counts.get("failed")
        if succeeded is not None and self.answered < min(succeeded, attempt.rows):
            return f"{self.answered} of {succeeded} answered rows arrived"
        if succeeded is not None and failed is not None:
            accounted = min(succeeded + failed, attempt.rows)
        else:
            accounted = attempt.rows if attempt.ended is JobPhase.COMPLETED else 0
        if self.accounted < accounted:
            return f"{accounted - self.accounted} of {accounted} rows are in neither file"
        return None


@dataclass(frozen=True)
class Ladder:
    """The rungs, as far as the config allows them."""

    provider: Callable[[], Provider]
    read_row: ReadRow
    fingerprints: Fingerprints
    external_url: bool
    firectl: Sequence[str] | None
    firectl_seconds: float = FIRECTL_SECONDS

    def climb(self, paths: PartPaths, attempt: Attempt, asked: Collection[str]) -> Collected:
        """Bring home the rows of *attempt*, which *asked* for these ids.

        Raises ResultsLost when nobody has them; AuthError, ProviderError or Refused when that is not clear.
        """
        folder = paths.attempt(attempt.number)
        incoming = folder / _INCOMING
        # A climb that was killed may have moved up one file of several: what is there may suffice and not be all.
        cut_off = incoming.exists()
        tried = self._set_aside_changed(folder, attempt)
        unclear: ProviderError | Refused | None = None
        here = merge.raw_files(folder)
        best = self._count(here, asked)
        if here:
            problem = "an earlier try was cut off" if cut_off else best.lacks(attempt)
            if problem is None:
                return Collected(self._facts(folder), "raw files", tried)
            tried.append(f"raw files: {problem}")
        for name, rung in self._rungs(attempt.output_dataset_id):
            disk.remove_folder(incoming)
            disk.make_folder(incoming)
            try:
                rung(incoming)
            except _NoSuchWay as error:
                tried.append(f"{name}: {error}")
                continue
            except AuthError:
                raise  # no rung of the provider's would fare better, and it is not about this dataset
            except (ProviderError, Refused) as error:
                tried.append(f"{name}: {error.what}")
                unclear = unclear or error
                continue
            brought = self._count(merge.raw_files(incoming), asked)
            if brought > best or (cut_off and brought == best) or not merge.raw_files(folder):
                best = brought
                self._adopt(incoming, folder)
            if (problem := brought.lacks(attempt)) is None:
                disk.remove_folder(incoming)
                return Collected(self._facts(folder), name, tried)
            tried.append(f"{name}: {problem}")
        disk.remove_folder(incoming)
        if unclear is not None:
            raise unclear
        if best.accounted:
            # The provider's counts and its files disagree to the end: the rows that are there were paid for.
            return Collected(self._facts(folder), "what could be had", tried, whole=False)
        raise ResultsLost(tried)

    def _rungs(self, dataset: str) -> list[tuple[str, Callable[[Path], None]]]:
        ways = [("signed links of", self._links)]
        if self.external_url:
            ways.append(("externalUrl of", self._external))
        if self.firectl:
            ways.append(("firectl", self._firectl))
        return [(f"{name} {dataset}", partial(way, dataset)) for name, way in ways]

    def _links(self, dataset: str, folder: Path) -> None:
        if self.provider().download(dataset, folder) is None:
            raise _NoSuchWay("the provider has no such dataset")

    def _external(self, dataset: str, folder: Path) -> None:
        url = self.provider().external_url(dataset)
        if not url or not url.lower().startswith(("http://", "https://")):
            raise _NoSuchWay("it has none" if not url else "it is not an http(s) link")
        try:
            self.provider().download_external(url, folder)
        except (ProviderError, Refused) as error:
            # Whatever a link of unknown origin answers says nothing about the dataset.
            raise _NoSuchWay(error.what) from error

    def _firectl(self, dataset: str, folder: Path) -> None:
        """Run the configured command with both orders of its words; read whatever files it leaves, by ids."""
        assert self.firectl
        scratch = folder / ".firectl"
        errors = []
        for words in (("dataset", "download"), ("download", "dataset")):
            disk.remove_folder(scratch)
            disk.make_folder(scratch)
            command = [*self.firectl, *words, dataset, "--output-dir", str(scratch)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=self.firectl_seconds, check=False)
            except OSError as error:
                raise _NoSuchWay(f"{command[0]} cannot be started ({error.strerror})") from error
            except subprocess.TimeoutExpired:
                errors.append(f"{' '.join(words)}: ended after {self.firectl_seconds:g} s without an end")
                continue
            found = sorted(path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink())
            if done.returncode == 0 and found:
                self._take(found, folder)
                disk.remove_folder(scratch)
                return
            errors.append(f"{' '.join(words)}: exit code {done.returncode}{_last_words(done.stderr)}")
        disk.remove_folder(scratch)
        raise _NoSuchWay("; ".join(errors))

    def _take(self, found: list[Path], folder: Path) -> None:
        """Move the command's files under our own names; its own names never become ours."""
        taken = {False: 0, True: 0}
        for path in found:
            errors = "error" in path.name
            taken[errors] += 1
            disk.move(path, raw_file(folder, errors=errors, number=taken[errors]))

    def _count(self, files: Sequence[Path], asked: Collection[str]) -> _Yield:
        answered: set[str] = set()
        failed: set[str] = set()
        for path in files:
            for _, data in merge.places(path):
                try:
                    row = self.read_row(data)
                except BadRow:
                    continue  # counted and kept aside when the rows are merged
                if row.custom_id in asked:
                    (failed if row.response is None else answered).add(row.custom_id)
        return _Yield(len(answered), len(answered | failed))

    def _set_aside_changed(self, folder: Path, attempt: Attempt) -> list[str]:
        """Keep, under another name, raw files that are not what was recorded: they may not be trusted."""
        said = []
        for name, facts in (attempt.collected or {}).items():
            path = folder / name
            if path.is_file() and self.fingerprints.sha256(path) != facts["sha256"]:
                said.append(f"{name}: not what was recorded; kept as {disk.set_aside(path, _DAMAGED).name}")
        return said

    def _adopt(self, incoming: Path, folder: Path) -> None:
        """Make what just arrived the attempt's raw files. Each one replaces its predecessor in one step."""
        arrived = merge.raw_files(incoming)
        for path in arrived:
            disk.move(path, folder / path.name)
        for old in merge.raw_files(folder):
            if old.name not in {path.name for path in arrived}:
                disk.remove(old)

    def _facts(self, folder: Path) -> dict[str, dict[str, object]]:
        return {
            path.name: {"sha256": self.fingerprints.sha256(path), "size": path.stat().st_size}
            for path in merge.raw_files(folder)
        }


def _last_words(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    # A link it may quote has its signature in the query.
    return f", {re.sub(r'[?][^ ]*', '', lines[-1])[:_SHOWN]}" if lines else ""
