"""Where every file of a run lies. This module knows all of these names, and nothing else does.

experiments/run_<RID>/
  experiment.yaml  run.json
  prepared/open_book.jsonl  prepared/closed_book.jsonl
  .doit.db  run.lock  queue.lock  STOP_REQUESTED  logs/decisions.jsonl  .emulator/
  aggregate_report.md  index.html
  <trial>/
    batch_inputs/index.json  t0_control_p01.jsonl ...
    results/<part>/ledger.jsonl  OUTPUT_DATASET_ID.txt  results.jsonl  set_aside.jsonl
    results/<part>/a1/BIJOutputSet.jsonl  a1/error-data  a2/requests.jsonl
    results/attempts.json  results_combined.jsonl  predictions.csv  usage.csv  per_item_scores.csv
    results/significance.json  costs.json  trial_manifest.json
    reports/report.md  report.html  figures/*.svg
    archive/<trial>.tar.gz  SHA256SUMS
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline import disk

EXPERIMENTS = Path("experiments")
LOCAL_CONFIG = Path("experiment.yaml")
STOP_FILE = "STOP_REQUESTED"

_RUN_PREFIX = "run_"
_RID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RAW_FILE = re.compile(r"BIJOutputSet(\.[0-9]+)?\.jsonl|error-data(\.[0-9]+)?")
_PACKAGE = Path(__file__).parent


def is_rid(text: str) -> bool:
    """Whether *text* may name a run: it becomes a folder name, so no separators and no leading dot."""
    return _RID.fullmatch(text) is not None


def resource(name: str) -> Path:
    """A file shipped with the tool, such as `schemas/run.schema.json`.

    It lies beside the package in a checkout and inside it in a wheel.
    """
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name


def requests_file(part: str) -> str:
    """The name of a part's requests in `batch_inputs/`."""
    return f"{part}.jsonl"


def raw_file(folder: Path, *, errors: bool, number: int = 1) -> Path:
    """Where a provider's file of successes or of errors lies in an attempt's *folder*.

    A service that cuts its results into several files gives `BIJOutputSet.2.jsonl`, `error-data.2`, ...
    """
    infix = "" if number == 1 else f".{number}"
    return folder / (f"error-data{infix}" if errors else f"BIJOutputSet{infix}.jsonl")


def is_raw_file(name: str) -> bool:
    """Whether `raw_file` gives such names; what else lies in an attempt's folder is not the provider's."""
    return _RAW_FILE.fullmatch(name) is not None


def runs(experiments: Path = EXPERIMENTS) -> list[RunPaths]:
    """The folders below *experiments* that look like runs, by name. Raises UnreadableFile."""
    with disk.readable(experiments):
        if not experiments.is_dir():
            return []
        folders = [entry for entry in experiments.iterdir() if entry.name.startswith(_RUN_PREFIX) and entry.is_dir()]
    return [RunPaths(folder) for folder in sorted(folders)]


@dataclass(frozen=True)
class RunPaths:
    """The files of one run; *root* is `experiments/run_<RID>`."""

    root: Path

    @classmethod
    def of(cls, rid: str, experiments: Path = EXPERIMENTS) -> RunPaths:
        return cls(experiments / f"{_RUN_PREFIX}{rid}")

    @property
    def rid(self) -> str:
        return self.root.name.removeprefix(_RUN_PREFIX)

    @cached_property
    def config(self) -> Path:
        return self.root / "experiment.yaml"

    @cached_property
    def record(self) -> Path:
        return self.root / "run.json"

    @cached_property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @cached_property
    def open_book(self) -> Path:
        return self.prepared / "open_book.jsonl"

    @cached_property
    def closed_book(self) -> Path:
        return self.prepared / "closed_book.jsonl"

    @cached_property
    def database(self) -> Path:
        return self.root / ".doit.db"

    @cached_property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @cached_property
    def queue_lock(self) -> Path:
        return self.root / "queue.lock"

    @cached_property
    def stop_request(self) -> Path:
        return self.root / STOP_FILE

    @cached_property
    def decisions(self) -> Path:
        return self.root / "logs" / "decisions.jsonl"

    @cached_property
    def emulator(self) -> Path:
        return self.root / ".emulator"

    @cached_property
    def aggregate_report(self) -> Path:
        return self.root / "aggregate_report.md"

    @cached_property
    def index_html(self) -> Path:
        return self.root / "index.html"

    def trial(self, slug: str) -> TrialPaths:
        return TrialPaths(self.root / slug)

    def indexes(self) -> Iterator[Path]:
        """The lists of parts that are there, of whatever trial."""
        return self.root.glob("*/batch_inputs/index.json")

    def ledgers(self) -> Iterator[Path]:
        """The ledgers that are there, of whatever trial: something was submitted where there is one."""
        return self.root.glob("*/results/*/ledger.jsonl")

    def sent_trials(self) -> set[str]:
        """The names of the trials' folders in which anything is left of a submission, whatever the config has."""
        folders = self.root.glob("*/results/*")
        return {folder.parents[1].name for folder in folders if PartPaths(folder).shows_submission()}


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial; *root* is `experiments/run_<RID>/<trial>`."""

    root: Path

    @property
    def slug(self) -> str:
        return self.root.name

    @property
    def run(self) -> RunPaths:
        return RunPaths(self.root.parent)

    @cached_property
    def inputs(self) -> Path:
        return self.root / "batch_inputs"

    @cached_property
    def index(self) -> Path:
        return self.inputs / "index.json"

    @cached_property
    def results(self) -> Path:
        return self.root / "results"

    @cached_property
    def attempts(self) -> Path:
        return self.results / "attempts.json"

    @cached_property
    def combined(self) -> Path:
        return self.results / "results_combined.jsonl"

    @cached_property
    def predictions(self) -> Path:
        return self.results / "predictions.csv"

    @cached_property
    def usage(self) -> Path:
        return self.results / "usage.csv"

    @cached_property
    def scores(self) -> Path:
        return self.results / "per_item_scores.csv"

    @cached_property
    def significance(self) -> Path:
        return self.results / "significance.json"

    @cached_property
    def costs(self) -> Path:
        return self.results / "costs.json"

    @cached_property
    def manifest(self) -> Path:
        return self.results / "trial_manifest.json"

    @cached_property
    def reports(self) -> Path:
        return self.root / "reports"

    @cached_property
    def report_md(self) -> Path:
        return self.reports / "report.md"

    @cached_property
    def report_html(self) -> Path:
        return self.reports / "report.html"

    @cached_property
    def figures(self) -> Path:
        return self.reports / "figures"

    @cached_property
    def archive_folder(self) -> Path:
        return self.root / "archive"

    @cached_property
    def archive(self) -> Path:
        return self.archive_folder / f"{self.slug}.tar.gz"

    @cached_property
    def checksums(self) -> Path:
        return self.archive_folder / "SHA256SUMS"

    def part_requests(self, part: str) -> Path:
        return self.inputs / requests_file(part)

    def all_part_requests(self) -> list[Path]:
        """The parts' requests that are there, listed in the index or not."""
        return sorted(self.inputs.glob("t*_p[0-9]*.jsonl"))

    def part(self, name: str) -> PartPaths:
        return PartPaths(self.results / name)

    def ledgers(self) -> list[Path]:
        """The ledgers of the trial that are there, of parts listed in the index or not."""
        return sorted(self.results.glob("*/ledger.jsonl"))

    def relative(self, path: Path) -> str:
        """*path* as the manifest names it: POSIX, relative to the run's folder."""
        return path.relative_to(self.root.parent).as_posix()


@dataclass(frozen=True)
class PartPaths:
    """The files of one part's submissions and results."""

    root: Path

    @cached_property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @cached_property
    def output_ids(self) -> Path:
        return self.root / "OUTPUT_DATASET_ID.txt"

    @cached_property
    def results(self) -> Path:
        return self.root / "results.jsonl"

    @cached_property
    def conflicts(self) -> Path:
        """Rows that could not be used, kept aside with the reason."""
        return self.root / "set_aside.jsonl"

    def shows_submission(self) -> bool:
        """Whether anything is left of a submission: its ledger or breadcrumb, or what was answered."""
        if any(path.exists() for path in (self.ledger, self.output_ids, self.results)):
            return True
        return any(is_raw_file(path.name) for path in self.root.glob("a[0-9]*/*"))

    def attempt(self, number: int) -> Path:
        return self.root / f"a{number}"

    def attempt_requests(self, number: int) -> Path:
        """The exact bytes attempt *number* asked for (attempt 1 asks for the whole part and needs no copy)."""
        return self.attempt(number) / "requests.jsonl"

    def success_rows(self, number: int) -> Path:
        return raw_file(self.attempt(number), errors=False)

    def error_rows(self, number: int) -> Path:
        return raw_file(self.attempt(number), errors=True)
