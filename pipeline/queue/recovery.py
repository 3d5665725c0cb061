"""How the results of one attempt come home, and what is tried when they do not: the repair ladder.

    1  raw files that are still here, when they hold all that the job says it answered
    2  signed links of the output dataset (fresh ones per try)
    3  the dataset's externalUrl, when it is an allowed http(s) link
    4  the configured firectl command, and what `results_combined.jsonl` still holds of the rows
    5  lost, in two looks a pause apart: recorded with everything that was tried; the rows are owed again

Unknown is not "gone": when the provider could not be asked about a dataset and no other rung brought
its rows, its error is raised and nothing counts as lost. Nor does a single look decide, since what
follows from "gone" is paid for: `work.py` climbs twice before it believes it. Whatever arrives is stored under our own
names and counted, by the ids that were asked, against what the job said.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from pipeline import disk, environment
from pipeline.errors import AuthError, ProviderError, Refused
from pipeline.fingerprints import Fingerprints
from pipeline.ledger import Attempt
from pipeline.paths import PartPaths, raw_file
from pipeline.providers import resources
from pipeline.providers.base import JobPhase, Provider
from pipeline.providers.rows import BadRow
from pipeline.queue import attempts, merge
from pipeline.queue.merge import ReadRow
from pipeline.secret import Secret

_INCOMING = ".incoming"  # what a rung brings, until it is known to be better than what is there
FIRECTL_SECONDS = 3600.0  # a download of gigabytes; the command is killed after that
_SHOWN = 200  # characters of what firectl said
_KEY_OPTION = "--api-key"
_TAIL = 4096  # bytes kept of what it writes to its standard error


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
        succeeded, failed = attempt.counts.get("succeeded") or 0, attempt.counts.get("failed") or 0
        if self.answered < min(succeeded, attempt.rows):
            return f"{self.answered} of {succeeded} answered rows arrived"
        # A job that counts nothing may have been told nothing (the gateway writes 0 for what is not set), and the
        # counts of one that completed may be behind. A second look costs a pause, a wrong belief a second job.
        told = succeeded + failed if attempt.ended is not JobPhase.COMPLETED else 0
        accounted = min(told or attempt.rows, attempt.rows)
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
    combined: Path | None = None  # the trial's combined results, when they are what was recorded
    firectl_seconds: float = FIRECTL_SECONDS
    check_stop: Callable[[], None] = lambda: None

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
        rungs = self._rungs(attempt.output_dataset_id, _noted(paths, attempt))
        if self.combined is not None:
            rungs.append((self.combined.name, partial(self._combined, self.combined, asked)))
        for name, rung in rungs:
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
                if self._count(merge.raw_files(incoming), asked).accounted < attempt.rows:
                    continue  # else the file that did not come holds nothing that was asked, whatever the job counted
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
        if best.accounted or (merge.raw_files(folder) and not attempt.counts.get("succeeded")):
            # The provider's counts and its files disagree to the end: the rows that are there were paid for.
            return Collected(self._facts(folder), "what could be had", tried, whole=False)
        raise ResultsLost(tried)

    def _rungs(self, dataset: str, noted: Sequence[str]) -> list[tuple[str, Callable[[Path], None]]]:
        ways = [("signed links of", self._links)]
        if self.external_url:
            ways.append(("externalUrl of", self._external))
        if self.firectl:
            ways.append(("firectl", self._firectl))
        # What a breadcrumb names beside it: the ledger that knew the service's own name for the output may be lost.
        named = [(name, way, dataset_id) for dataset_id in (dataset, *noted) for name, way in ways]
        return [(f"{name} {dataset_id}", partial(way, dataset_id)) for name, way, dataset_id in named]

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
                code, said = _run(command, self.firectl_seconds, self.check_stop)
            except OSError as error:
                raise _NoSuchWay(f"{command[0]} cannot be started ({error.strerror})") from error
            if code is None:
                errors.append(f"{' '.join(words)}: ended after {self.firectl_seconds:g} s without an end")
                continue
            found = sorted(path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink())
            if code == 0 and found:
                self._take(found, folder)
                disk.remove_folder(scratch)
                return
            errors.append(f"{' '.join(words)}: exit code {code}{_last_words(said, command)}")
        disk.remove_folder(scratch)
        raise _NoSuchWay("; ".join(errors))

    def _combined(self, combined: Path, asked: Collection[str], folder: Path) -> None:
        """The answers that were put together once: they are what the provider's file of successes held."""
        with disk.replacing(raw_file(folder, errors=False)) as file:
            for _, data in merge.places(combined):
                row = self.read_row(data)
                if row.custom_id in asked and row.response is not None:
                    file.write(data)
        if not file.written.size:
            raise _NoSuchWay("none of its rows are there")

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
                said.append(f"{name}: not what was recorded; kept as {disk.set_aside(path).name}")
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


def _run(command: Sequence[str], seconds: float, check_stop: Callable[[], None]) -> tuple[int | None, bytes]:
    """Exit code (None: it did not end) and the end of what *command* said to its standard error.

    It gets no terminal to ask questions at, what it prints is not kept, and its children end with it.
    Raises OSError, or what *check_stop* raises.
    """
    deadline, said = time.monotonic() + seconds, b""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        while (left := deadline - time.monotonic()) > 0:
            check_stop()
            if select.select([process.stderr], [], [], min(left, 0.5))[0]:
                if not (block := os.read(process.stderr.fileno(), 1 << 16)):
                    break
                said = (said + block)[-_TAIL:]
            elif process.poll() is not None:  # a child of its own keeps the pipe
                break
        with suppress(subprocess.TimeoutExpired):
            return process.wait(max(0.0, deadline - time.monotonic())), said
        return None, said
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def _noted(paths: PartPaths, attempt: Attempt) -> list[str]:
    """The output datasets that the breadcrumb notes for *attempt*, its own aside; what can be no id is left out."""
    crumbs = (crumb for crumb in attempts.breadcrumbs(paths) if attempts.number_of(crumb) == attempt.number)
    names = map(resources.last_segment, crumbs)
    return [name for name in names if name != attempt.output_dataset_id and resources.is_id(name)]


def _last_words(said: bytes, command: Sequence[str]) -> str:
    """The last line that *command* said, as it may be shown and kept: without keys and signatures."""
    lines = said.decode(errors="replace").strip().splitlines()
    if not lines:
        return ""
    last = environment.without_keys(lines[-1])
    for option, word in pairwise([*command, ""]):
        if option.startswith(_KEY_OPTION):
            last = Secret(option.partition("=")[2] or word).mask(last.encode()).decode()
    return f", {re.sub(r'[?][^ ]*', '', last)[:_SHOWN]}"  # a link it may quote has its signature in the query
