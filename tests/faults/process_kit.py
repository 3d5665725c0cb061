"""A small run as users start it, `doit` in a process of its own, against an emulator in this one.

The emulator outlives the killed process, as the service would, and always listens at the same port:
so a run that was built once can be copied for every case.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from emulator_kit import MODEL
from quick_folder import quick_folder

from pipeline import ledger
from pipeline.emulator import history
from pipeline.emulator.config import DEFAULT_ACCOUNT, DEFAULT_KEY, Config
from pipeline.emulator.server import Emulator

ROOT = Path(__file__).parents[2]
RID = "f"
_NAMES = ("Ada", "Blaise", "Carl", "Dora")
# What is a memory, a lock or a log of times: everything else must not depend on how the way went.
_OWN_WAY = {".doit.db", "run.lock", "queue.lock", "ledger.jsonl", "decisions.jsonl", "trial_manifest.json", "run.json"}


class Case:
    """One copy of the run and one emulator, until the block ends."""

    def __init__(self, folder: Path, emulator: Emulator, store: Path) -> None:
        self.folder = folder
        self.run = folder / "experiments" / f"run_{RID}"
        self.emulator = emulator
        self.store = store

    def start(self, *words: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """`doit WORDS`, under the command *before*."""
        with open(self.folder / "said", "wb") as said:
            return subprocess.Popen(
                [*before, *_doit(self.folder, *words)],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def doit(self, *words: str) -> str:
        """`doit WORDS` to its end, which must be a good one; what it said."""
        code = self.start(*words).wait(timeout=120)
        assert code == 0, f"exit code {code}:\n{self.said()}"
        return self.said()

    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")

    def resume(self, *words: str) -> str:
        return self.doit("resume", f"rid={RID}", *words)

    def fault(self, *rules: object) -> None:
        self.emulator.service.faults.add(list(rules))

    def heal(self) -> None:
        self.emulator.service.faults.reset()

    def jobs(self) -> list[str]:
        return [job.id for job in history.jobs(self.store)]

    def posts(self) -> int:
        return sum(call["method"] == "POST" for call in history.calls(self.store))

    def artifacts(self) -> dict[str, bytes]:
        """Every file of the run that is an artifact, by name."""
        files = (path for path in self.run.rglob("*") if path.is_file())
        return {
            path.relative_to(self.run).as_posix(): path.read_bytes()
            for path in sorted(files)
            if path.name not in _OWN_WAY and not path.name.endswith(".tmp")
        }

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every file but locks and doit's memory."""
        files = (path for path in self.run.rglob("*") if path.is_file())
        return {
            path.as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in files
            if path.name not in {".doit.db", "run.lock", "queue.lock"}
        }

    def check_jobs(self, parts: int) -> None:
        """One job a part, each in a ledger; no key at a signed link."""
        jobs = self.jobs()
        assert len(jobs) == len(set(jobs)) == parts, jobs
        books = [ledger.read(path) for path in self.run.glob("*/results/*/ledger.jsonl")]
        assert {attempt.job_id for book in books for attempt in book.attempts} == set(jobs)
        assert not [call for call in history.calls(self.store) if call["violation"]]


def environment() -> dict[str, str]:
    """The environment of a run: the emulator's key, this checkout, nothing of the caller's own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRIALMAKE_", "FIREWORKS_"))}
    return {
        **kept,
        "FIREWORKS_API_KEY": DEFAULT_KEY,
        "FIREWORKS_ACCOUNT_ID": DEFAULT_ACCOUNT,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@contextmanager
def case(*, models: int = 1, shards: int = 1, job_seconds: float = 0.3):
    """A fresh copy of the built run, with its emulator."""
    template = _built(models, shards)
    with quick_folder() as folder:
        shutil.copytree(template / "experiments", folder / "experiments", symlinks=True)
        shutil.copy(template / "experiment.yaml", folder)
        shutil.copy(template / "questions.jsonl", folder)
        config = Config.from_dict({"job_seconds": job_seconds, "ready_seconds": 0.01})
        with Emulator(folder / "store", config, _port()) as emulator:
            yield Case(folder, emulator, folder / "store")


@cache
def golden(words: tuple[str, ...], models: int = 1, shards: int = 1) -> dict[str, bytes]:
    """The artifacts of an undisturbed `doit resume WORDS`."""
    with case(models=models, shards=shards) as undisturbed:
        undisturbed.resume(*words)
        return undisturbed.artifacts()


def _doit(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "doit", "-f", str(ROOT / "dodo.py"), "--dir", str(folder), *words]


@cache
def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _built(models: int, shards: int) -> Path:
    """The folder of a run of 2 x *models* x *shards* parts that is built and not submitted."""
    import atexit

    holder = quick_folder()
    folder = holder.__enter__()
    atexit.register(holder.__exit__, None, None, None)
    rows = [
        f'{{"id": "q{n}", "question": "Who discovered element {n}?", "answers": ["{name}"], '
        f'"context": "Element {n} was discovered by {name} in {1900 + n}. It glows."}}\n'
        for n, name in enumerate(_NAMES)
    ]
    (folder / "questions.jsonl").write_text("".join(rows))
    names = "".join(f"  - {{id: {MODEL}{n}, alias: m{n}}}\n" for n in range(models))
    (folder / "experiment.yaml").write_text(
        f"""\
provider: fireworks
fireworks: {{base_url: "http://127.0.0.1:{_port()}"}}
models:
{names}prompt_sets:
  p: {{control: {{text: Answer.}}, treatment: {{text: "Answer, or say: I don't know"}}}}
sources: [{{dataset: d, format: jsonl, path: questions.jsonl}}]
decoding: {{max_tokens: 32}}
part_size: {len(_NAMES) // shards}
queue: {{poll_seconds: 0.05, max_concurrent_jobs: 3}}
statistics: {{bootstrap_samples: 1000, permutation_samples: 1000}}
"""
    )
    command = [sys.executable, "-m", "doit", "-f", str(ROOT / "dodo.py"), "--dir", str(folder)]
    subprocess.run(
        [*command, f"rid={RID}", "config=experiment.yaml", "to=build"], cwd=folder, env=environment(), check=True
    )
    return folder
