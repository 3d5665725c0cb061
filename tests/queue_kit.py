"""A tiny run and an emulator in this process, for tests of the queue: the clock is moved, nothing sleeps.

A `Lab` is one run on one emulator. `lab.go()` is what one `doit` does about submit and download, on
a freshly opened run with a fresh queue and a fresh client; so two of them are a run and its resume.
"""

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline import config, disk, jsonl, ledger, runs, workspace
from pipeline.emulator import history
from pipeline.emulator.config import Config as EmulatorConfig
from pipeline.emulator.server import Emulator
from pipeline.errors import TrialmakeError
from pipeline.identity import of_phase
from pipeline.manifest import COMPLETED, Stage
from pipeline.paths import PartPaths, RunPaths
from pipeline.phases.build import build
from pipeline.phases.download import download
from pipeline.phases.prepare import prepare
from pipeline.phases.submit import submit
from pipeline.providers.fireworks import Fireworks
from pipeline.providers.http import Pace
from pipeline.providers.rows import read_row
from pipeline.queue.context import Collaborators, Context, Options
from pipeline.queue.drive import Queue
from pipeline.queue.estimates import Planned
from pipeline.queue.progress import Progress
from pipeline.record import read_record
from pipeline.secret import Secret

KEY = "emulator-key"
JOB = "batchInferenceJobs"
CREATE_JOB = {"method": "POST", "path": f"{JOB}$"}
CREATE_DATASET = {"method": "POST", "path": "datasets$"}
UPLOAD = {"method": "POST", "path": ":upload$"}
LINKS = {"method": "GET", "path": ":getDownloadEndpoint$"}
STORAGE = {"method": "GET", "path": "^/storage/"}
POLL = 30.0  # seconds of the virtual clock between two passes
JOB_SECONDS = 60.0
NAPS = 400  # pauses of one lab, after which it is taken to wait for ever

# Memory where there is some: thousands of small runs with an fsync for each step would wait for a disk.
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_NAMES = ("Ada", "Blaise", "Carl", "Dora", "Emil", "Felix", "Grace", "Hilda", "Ivan", "Jane")


class Crash(BaseException):
    """The process dies here. Nothing may catch it, so what is on disk is what a killed process leaves."""


@dataclass(frozen=True)
class Layout:
    """How large the run is: one part per trial and condition, *shards* of them where *items* are split."""

    items: int = 3
    shards: int = 1
    models: tuple[str, ...] = ("m",)

    @property
    def parts(self) -> int:
        return 2 * self.shards * len(self.models)


SMALL = Layout(items=2)
TWO_TRIALS = Layout(items=4, shards=2, models=("m", "n"))
TEN_ROWS = Layout(items=10)


@dataclass
class Ending:
    """How one invocation ended: what each phase of each trial said, and every line that was shown."""

    errors: dict[tuple[str, str], TrialmakeError] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    asked: list[Planned] = field(default_factory=list)
    shown: list[Progress | None] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.errors

    @property
    def error(self) -> TrialmakeError:
        """The one error, or the first."""
        assert self.errors, "everything was done"
        return next(iter(self.errors.values()))

    @property
    def text(self) -> str:
        return "\n".join([*self.said, *(str(error) for error in self.errors.values())])


class Lab:
    """One run, one emulator, one clock."""

    def __init__(self, layout: Layout = SMALL, *rules: Any, emulator: Any = None, **settings: Any):
        self._own = tempfile.TemporaryDirectory(prefix="lab-", dir=FAST_DISK)
        folder = self.folder = Path(self._own.name)
        self.layout = layout
        self.run = RunPaths.of("lab", folder / "experiments")
        shutil.copytree(_template(layout).parent, self.run.root.parent)
        if settings:
            self.change(**settings)
        self.store = folder / "store"
        options = {"job_seconds": JOB_SECONDS, "ready_seconds": 0.5, "faults": list(rules), **(emulator or {})}
        self.emulator = Emulator(self.store, EmulatorConfig.from_dict(options))
        self.endpoint = f"emulator:{self.emulator.store_id}"
        self.key = KEY
        self.account = "emulator"
        self.poll = POLL
        self.read_timeout = 10.0
        self.before: Callable[[str], None] = lambda _what: None  # called at every boundary
        self.naps = 0
        self._clients: list[Fireworks] = []

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        disk.observer = None
        for client in self._clients:
            client.close()
        self.emulator.stop()
        self._own.cleanup()

    def change(self, **settings: Any) -> None:
        """Edit the run's frozen config: `queue={"max_attempts": 1}`."""
        document = dict(config.read_frozen(self.run.config, base=self.folder).values)
        for key, value in settings.items():
            document[key] = {**document[key], **value} if isinstance(value, Mapping) else value
        checked = config.check(document, base=self.folder, where="test")
        disk.write_bytes(self.run.config, config.frozen_text(checked))

    def rebuild(self, **settings: Any) -> None:
        """Change the config and build its parts over those there are, submitted or not."""
        for breadcrumb in self.run.root.glob("*/results/*/OUTPUT_DATASET_ID.txt"):
            breadcrumb.unlink()  # build would refuse for it
        self.change(**settings)
        _build(self.run)

    def opened(self) -> workspace.Workspace:
        """The run as it is."""
        return _opened(self.run)

    def build(self, slug: str) -> None:
        """Build the parts of one trial by the config as it is."""
        _build(self.run, slug)

    # --- one invocation ---------------------------------------------------------------------------

    def go(
        self, *phases: str, trials: tuple[str, ...] = (), before: Callable[[str], None] = lambda _: None, **options: Any
    ) -> Ending:
        """Submit and download every trial (or only *phases*), each trial's trouble kept apart, as doit does it.

        *before* is called with each trial that is about to be submitted, for what other workers do meanwhile.
        """
        ending = Ending()
        opened = _opened(self.run)
        queue = self.queue(opened, ending, trials=trials, **options)
        for phase in phases or ("submit", "download"):
            for slug in trials or tuple(opened.trials):
                if ("submit", slug) in ending.errors:
                    continue
                try:
                    if phase == "submit":
                        before(slug)
                        submit(queue, slug)
                    else:
                        download(queue, opened.trial_paths(slug))
                except TrialmakeError as error:
                    ending.errors[phase, slug] = error
        return ending

    def record(self, slug: str) -> None:
        """Record that *slug* has been downloaded, as the session does after the phase."""
        opened = _opened(self.run)
        outcome = download(self.queue(opened, Ending()), opened.trial_paths(slug))
        opened.manifest(slug).set_stage("downloaded", Stage(status=COMPLETED, artifacts=outcome.artifacts))
        opened.save_manifest(slug)

    def look_twice(self) -> Ending:
        """Download without waiting, twice and a pause apart: what is gone is believed to be gone then, not before."""
        first = self.go("download", wait=False)
        assert not any("are lost" in line for line in first.said)
        self.sleep(self.poll)
        return self.go("download", wait=False)

    def queue(self, opened: workspace.Workspace, ending: Ending, **options: Any) -> Queue:
        hands = self.hands(ending, confirm=options.pop("confirm", None), check_stop=options.pop("check_stop", None))
        since = datetime.fromtimestamp(self.now(), UTC)
        return Queue(Context(opened, hands, Options(**{"poll_seconds": self.poll, "since": since, **options})))

    def context(self) -> Context:
        """What `orphans` works with."""
        return Context(_opened(self.run), self.hands(Ending()), Options())

    def hands(self, ending: Ending, confirm: Any = None, check_stop: Any = None) -> Collaborators:
        disk.observer = self._observe
        return Collaborators(
            connect=self.client,
            read_row=read_row,
            say=ending.said.append,
            check_stop=check_stop or (lambda: None),
            allow_spending=confirm or ending.asked.append,
            show=ending.shown.append,
            sleep=self.sleep,
            now=lambda: datetime.fromtimestamp(self.now(), UTC),
        )

    def client(self) -> Fireworks:
        """A client whose every pause moves the clock."""
        client = Fireworks(
            self.emulator.url,
            Secret(self.key),
            self.account,
            endpoint=self.endpoint,
            pace=Pace(clock=self._tick, sleep=self.sleep, random=lambda: 0.5, read_timeout=self.read_timeout),
            ready_seconds=120.0,
        )
        self._clients.append(client)
        return client

    def now(self) -> float:
        return self.emulator.service.now()

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        assert self.naps < NAPS, "this would never end"  # its clock does not move by itself
        self.before("sleep")
        self.emulator.service.store.advance_clock(seconds)
        self.emulator.service.worker.wake()
        assert self.emulator.service.worker.settle(30.0)

    def _observe(self, operation: str, path: Path) -> None:
        if path.is_relative_to(self.run.root):  # the emulator writes too, in a thread of this process
            self.before(f"{operation} {path.name}")

    def _tick(self) -> float:
        self.before("network")
        return self.now()

    # --- what it left ------------------------------------------------------------------------------

    def ledgers(self) -> dict[str, ledger.Ledger]:
        """Part -> its ledger, all trials."""
        found = sorted(self.run.root.glob("*/results/*/ledger.jsonl"))
        return {f"{path.parts[-4]}/{path.parts[-2]}": ledger.read(path) for path in found}

    def jobs(self) -> list[str]:
        """The ids of every job the emulator ever accepted."""
        return [job.id for job in history.jobs(self.store)]

    def calls(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        return [call for call in history.calls(self.store) if method in call["method"] and path in call["path"]]

    def artifacts(self) -> dict[str, bytes]:
        """Every results file, by its name below the run; what must be the same however the way there went."""
        found = [
            *self.run.root.glob("*/results/*/results.jsonl"),
            *self.run.root.glob("*/results/results_combined.jsonl"),
        ]
        return {path.relative_to(self.run.root).as_posix(): path.read_bytes() for path in sorted(found)}

    def raw_files(self) -> dict[str, bytes]:
        """Every file below an attempt's folder: the provider's, which the archive takes along."""
        found = [path for path in self.run.root.glob("*/results/*/a[0-9]*/**/*") if path.is_file()]
        return {path.relative_to(self.run.root).as_posix(): path.read_bytes() for path in sorted(found)}

    def breadcrumbs(self) -> dict[str, str]:
        """The output datasets that each part noted, for a person who has lost everything else."""
        found = self.run.root.glob("*/results/*/OUTPUT_DATASET_ID.txt")
        return {path.relative_to(self.run.root).as_posix(): path.read_text() for path in sorted(found)}

    def _part(self, name: str) -> PartPaths:
        slug, part = name.split("/")
        return self.run.trial(slug).part(part)

    def asked(self, name: str, number: int) -> list[str]:
        """The ids that attempt *number* of the part `trial/part` asked for."""
        slug, part = name.split("/")
        trial = self.run.trial(slug)
        path = trial.part_requests(part) if number == 1 else trial.part(part).attempt_requests(number)
        return [jsonl.loads(line.data)["custom_id"] for line in jsonl.lines(path)]

    def sent(self, job_id: str) -> set[str]:
        """The ids that the job was given."""
        service = self.emulator.service
        dataset = service.store.dataset(f"{job_id}-in")
        data = b"".join(service.store.object_path(file.object_id).read_bytes() for file in dataset.files)
        return {jsonl.loads(line)["custom_id"] for line in data.splitlines()}

    def raw(self, name: str, number: int) -> list[dict[str, Any]]:
        """The rows that attempt *number* of the part `trial/part` brought as successes."""
        return [jsonl.loads(line.data) for line in jsonl.lines(self._part(name).success_rows(number))]

    def touched(self) -> dict[str, int]:
        """Row fault -> how many rows it hit."""
        total: Counter[str] = Counter()
        for job in history.jobs(self.store):
            total.update(job.touched)
        return dict(total)

    def rows(self) -> list[dict[str, Any]]:
        """All rows of all combined results."""
        files = sorted(self.run.root.glob("*/results/results_combined.jsonl"))
        return [jsonl.loads(line.data) for path in files for line in jsonl.lines(path)]

    def attempts(self) -> list[dict[str, Any]]:
        """The parts of every attempts.json."""
        files = sorted(self.run.root.glob("*/results/attempts.json"))
        return [part for path in files for part in jsonl.read_document(path)["parts"]]

    def fired(self) -> list[int]:
        """How often each rule acted."""
        return [rule["fired"] for rule in self.emulator.service.faults.listing()]

    def fault(self, *rules: Any) -> None:
        self.emulator.service.faults.add(list(rules))

    def heal(self) -> None:
        self.emulator.service.faults.reset()

    # --- what must always hold -----------------------------------------------------------------------

    def check(self, *, jobs: int | None = None) -> None:
        """Everything was paid once and brought home: the golden bytes, one job per part (or *jobs*), each known."""
        created = self.jobs()
        assert len(created) == (self.layout.parts if jobs is None else jobs), created
        self.check_ledgers()
        assert self.artifacts() == golden(self.layout)

    def check_ledgers(self) -> None:
        """No job twice, each in a ledger, and no key where none belongs."""
        created = self.jobs()
        assert len(set(created)) == len(created), "an id was used for two jobs"
        known = {attempt.job_id for book in self.ledgers().values() for attempt in book.attempts}
        assert set(created) <= known, "a job that no ledger knows"
        assert not [call for call in self.calls() if call["violation"]]


@lru_cache
def _template(layout: Layout) -> Path:
    """The run of *layout*, built once per process."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir=FAST_DISK))
    atexit.register(shutil.rmtree, folder)
    rows = [
        {
            "id": f"q{number}",
            "question": f"Who discovered element {number}?",
            "context": f"Element {number} was discovered by {_NAMES[number]} in {1900 + number}. It glows.",
            "answers": [_NAMES[number]],
        }
        for number in range(layout.items)
    ]
    (folder / "questions.jsonl").write_bytes(b"".join(jsonl.dumps(row) + b"\n" for row in rows))
    document = {
        "provider": "fireworks",
        "models": [{"id": f"accounts/fireworks/models/{name}", "alias": name} for name in layout.models],
        "prompt_sets": {"p": {"control": {"text": "Answer."}, "treatment": {"text": "Answer, or say: I don't know"}}},
        "sources": [{"dataset": "d", "format": "jsonl", "path": "questions.jsonl"}],
        "decoding": {"max_tokens": 32},
        "part_size": -(-layout.items // layout.shards),
    }
    checked = config.check(document, base=folder, where="test")
    run = RunPaths.of("lab", folder / "experiments")
    runs.create(run, checked, "2026-01-01T00:00:00+00:00")
    prepare(run, checked, {})
    _build(run)
    return run.root


def _build(run: RunPaths, only: str | None = None) -> None:
    opened = _opened(run)
    inputs = {
        path.relative_to(run.root).as_posix(): disk.sha256_of(path)[0] for path in (run.closed_book, run.open_book)
    }
    for slug, trial in opened.trials.items():
        if only not in (None, slug):
            continue
        settings = of_phase("build", opened.config, trial)
        build(run, opened.trial_paths(slug), opened.config, trial, settings=settings, inputs=inputs, submitted={})


@lru_cache
def golden(layout: Layout) -> dict[str, bytes]:
    """The artifacts of an undisturbed run of *layout*."""
    with Lab(layout) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert len(lab.jobs()) == layout.parts
        return lab.artifacts()


def _opened(run: RunPaths) -> workspace.Workspace:
    """The run with its frozen config as it stands."""
    settings = config.read_frozen(run.config, base=run.root)
    return workspace.Workspace(run, read_record(run.record), settings, readonly=False)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def forever(rule: Mapping[str, Any]) -> dict[str, Any]:
    """*rule* without an end to it."""
    subject = next(key for key in ("call", "job", "dataset") if key in rule)
    return {**rule, subject: {**rule[subject], "times": None}}


def part_of(lab: Lab, words: str) -> Path:
    """The folder of the one part whose path holds all of *words*."""
    found: Iterable[Path] = lab.run.root.glob("*/results/t*/")
    (folder,) = [path for path in found if all(word in path.as_posix() for word in words.split())]
    return folder
