"""How the results of one attempt come home, and what is tried when they do not: the repair ladder.

    1  raw files that are still here and are what the ledger says
    2  signed links of the output dataset (fresh ones per try)
    3  the dataset's externalUrl, when it is an allowed http(s) link
    4  the configured firectl command
    5  lost: recorded with everything that was tried; the rows are owed again

A rung that cannot be asked (network, key) ends the climb with its error: unknown is not "gone".
Whatever arrives is stored under our own names and counted against what the job said it answered.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import disk, jsonl
from pipeline.errors import DamagedArtifact, ProviderError, Refused, Unreachable
from pipeline.fingerprints import Fingerprints
from pipeline.ledger import Attempt
from pipeline.paths import PartPaths, raw_file
from pipeline.providers.base import Provider
from pipeline.providers.rows import BadRow
from pipeline.queue import merge
from pipeline.queue.merge import ReadRow

_INCOMING = ".incoming"  # what a rung brings, until it is known to be better than what is there
FIRECTL_SECONDS = 3600  # a download of gigabytes; the command is killed after that


@dataclass(frozen=True)
class Collected:
    """The raw files of an attempt, stored. *by* names the rung; *tried* says what did not help before it."""

    files: dict[str, dict[str, object]]
    by: str
    tried: list[str]


class ResultsLost(Exception):
    """No rung brought the results; *tried* says why, rung by rung."""

    def __init__(self, tried: list[str]) -> None:
        super().__init__("; ".join(tried))
        self.tried = tried


@dataclass(frozen=True)
class Ladder:
    """The rungs, as far as the config allows them."""

    provider: Provider
    read_row: ReadRow
    fingerprints: Fingerprints
    external_url: bool
    firectl: Sequence[str] | None

    def climb(self, paths: PartPaths, attempt: Attempt, output_ids: Sequence[str]) -> Collected:
        """Bring the attempt's results home. *output_ids*: datasets to ask for, the ledger's own last.

        Raises ResultsLost, or Unreachable / AuthError when the provider could not be asked.
        """
        folder = paths.attempt(attempt.number)
        incoming = folder / _INCOMING
        tried: list[str] = []
        best = -1
        for name, rung in self._rungs(output_ids):
            disk.remove_folder(incoming)
            disk.make_folder(incoming)
            try:
                rung(incoming)
            except DamagedArtifact as error:
                tried.append(f"{name}: {error.what}")
                continue
            except (Refused, _NoSuchWay) as error:
                tried.append(f"{name}: {error}")
                continue
            except Unreachable:
                raise
            except ProviderError as error:
                tried.append(f"{name}: {error.what}")
                continue
            problem, answered = self._shortfall(incoming, attempt)
            if answered > best:
                best = answered
                self._adopt(incoming, folder)
            if problem is None:
                disk.remove_folder(incoming)
                return Collected(self._facts(folder), name, tried)
            tried.append(f"{name}: {problem}")
        disk.remove_folder(incoming)
        if best > 0:
            # The provider's counts and its files disagree to the end: the rows that are there were paid for.
            return Collected(self._facts(folder), "what could be had", tried)
        raise ResultsLost(tried)

    def _rungs(self, output_ids: Sequence[str]) -> list[tuple[str, Callable[[Path], None]]]:
        ways = [("signed links of", self._links)]
        if self.external_url:
            ways.append(("externalUrl of", self._external))
        if self.firectl:
            ways.append(("firectl", self._firectl))
        return [(f"{name} {dataset}", partial(way, dataset)) for name, way in ways for dataset in output_ids]

    def _links(self, dataset: str, folder: Path) -> None:
        if self.provider.download(dataset, folder) is None:
            raise _NoSuchWay("the provider has no such dataset")

    def _external(self, dataset: str, folder: Path) -> None:
        url = self.provider.external_url(dataset)
        if not url or not url.lower().startswith(("http://", "https://")):
            raise _NoSuchWay("it has none" if not url else "it is not an http(s) link")
        self.provider.download_external(url, folder)

    def _firectl(self, dataset: str, folder: Path) -> None:
        """Run the configured command with both orders of its words; read whatever JSON Lines it leaves, by ids."""
        assert self.firectl
        scratch = folder / ".firectl"
        errors = []
        for words in (("dataset", "download"), ("download", "dataset")):
            disk.remove_folder(scratch)
            disk.make_folder(scratch)
            command = [*self.firectl, *words, dataset, "--output-dir", str(scratch)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=FIRECTL_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                errors.append(f"{' '.join(words)}: {error}")
                continue
            found = sorted(path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink())
            if done.returncode == 0 and found:
                counted = {False: 0, True: 0}
                for path in found:
                    errors_file = "error" in path.name
                    counted[errors_file] += 1
                    disk.move(path, raw_file(folder, errors=errors_file, number=counted[errors_file]))
                disk.remove_folder(scratch)
                return
            text = done.stderr.decode(errors="replace").strip().splitlines()
            errors.append(f"{' '.join(words)}: exit code {done.returncode}{', ' + text[-1][:200] if text else ''}")
        disk.remove_folder(scratch)
        raise _NoSuchWay("; ".join(errors))

    def _shortfall(self, folder: Path, attempt: Attempt) -> tuple[str | None, int]:
        """What the files lack against the job's own count of answered rows, and how many rows they answer."""
        answered: set[str] = set()
        damaged = 0
        for path in merge.raw_files(folder):
            for line in jsonl.lines(path):
                try:
                    row = self.read_row(line.data)
                except BadRow:
                    damaged += 1
                    continue
                if row.response is not None:
                    answered.add(row.custom_id)
        promised = attempt.counts.get("succeeded")
        if promised is not None and len(answered) < promised:
            note = f", {damaged} damaged lines" if damaged else ""
            return f"{len(answered)} of {promised} answered rows arrived{note}", len(answered)
        return None, len(answered)

    def _adopt(self, incoming: Path, folder: Path) -> None:
        """Make what just arrived the attempt's raw files, in place of fewer rows that came before."""
        for old in merge.raw_files(folder):
            disk.remove(old)
        for path in merge.raw_files(incoming):
            disk.move(path, folder / path.name)

    def _facts(self, folder: Path) -> dict[str, dict[str, object]]:
        return {
            path.name: {"sha256": self.fingerprints.sha256(path), "size": path.stat().st_size}
            for path in merge.raw_files(folder)
        }


class _NoSuchWay(Exception):
    """A rung that is not there for this dataset."""


def firectl_installed(command: Sequence[str]) -> bool:
    """Whether the configured firectl command can be started at all."""
    return shutil.which(command[0]) is not None
