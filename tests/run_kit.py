"""A small run, driven through doit in this process: what tests of the glue and of decisions stand on.

`tiny` writes a config with a handful of questions, `doit` is the command line without the process
start, `tree` is everything on disk, mtimes included.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import re
import select
import shutil
import signal
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doit import cmd_run, doit_cmd, plugin

from pipeline import console, disk, doit_state, opening, yaml_text
from pipeline.report import plot
from pipeline.request import parse

# A process asks once which plugins are installed; going through all packages anew is a third of a small command's time.
plugin.entry_points = functools.cache(plugin.entry_points)


class _Pickler(pickle.Pickler):
    """Takes a function by its name: data hold some that make what is missing."""

    def reducer_override(self, found: Any) -> Any:
        named = isinstance(found, types.FunctionType)
        return (str, (f"{found.__module__}.{found.__qualname__}",)) if named else NotImplemented


def _content(*data: Any) -> bytes:
    """What tells *data* from any other; the same data may have several."""
    pickled = io.BytesIO()
    _Pickler(pickled).dump(data)
    return hashlib.sha256(pickled.getvalue()).digest()


def _remembered(draw: Callable[..., str]) -> Callable[..., str]:
    """*draw*, but what was drawn twice from the same data, to the same bytes, is not drawn a third time.

    Drawing takes longer than all the rest of a small run, and most runs here hold the same answers.
    """
    once: dict[bytes, str] = {}
    twice: set[bytes] = set()

    def remembered(name: str, height: float, paint: Callable[..., None]) -> str:
        key = _content(paint, name, height, [cell.cell_contents for cell in paint.__closure__ or ()])
        if key not in twice:
            drawn = draw(name, height, paint)
            if key in once:
                assert drawn == once[key], f"the figure {name} came out differently the second time"
                twice.add(key)
            once[key] = drawn
        return once[key]

    return remembered


plot.draw = _remembered(plot.draw)

RID = "tiny"
PATIENCE = 20  # seconds for what takes milliseconds on an idle machine
TRIAL = "small-default"
EVERY = ("prepare", "build", "submit", "download", "parse", "score", "stats", "costs", "report", "index")
_LINE = re.compile(rf"^({'|'.join((*EVERY, 'archive'))}) +(\S+) +(skip|run|repair|refuse) +(.*)$")

CLOSED = [
    {"id": "c1", "question": "What is the capital of Australia?", "answers": ["Canberra"]},
    {"id": "c2", "question": "Which planet has the shortest year?", "answers": ["Mercury"]},
]
PASSAGE = "The lighthouse on Brannock Head was first lit on 3 October 1871. Isobel Tennant had it built of granite."
OPEN = [
    {"id": "o1", "question": "When was the lighthouse first lit?", "answers": ["3 October 1871"]},
    {"id": "o2", "question": "Who had the lighthouse built?", "answers": ["Isobel Tennant"]},
    {"id": "o3", "question": "How deep is the harbour?", "answers": [], "is_unanswerable": True},
]
CONFIG = """\
name: tiny
provider: emulator
models:
  - {id: accounts/lab/models/small}
prompt_sets:
  default:
    control: {text: Answer briefly.}
    treatment: {text: "Answer from the passage. If it holds no answer, say I don't know."}
sources:
  - {dataset: closed, format: jsonl, benchmark: triviaqa, path: closed.jsonl}
  - {dataset: open, format: jsonl, path: open.jsonl}
temperatures: [0, 0.7]
samples_per_item: 2
part_size: 6
statistics: {bootstrap_samples: 1000, permutation_samples: 1000}
prices:
  models:
    small: {input_per_mtok: 0.15, output_per_mtok: 0.60}
    other: {input_per_mtok: 1, output_per_mtok: 1}
emulator: {job_seconds: 0}
"""
# Half as many parts and figures, for tables of cases in which a second temperature would show nothing more.
ONE_TEMPERATURE = CONFIG.replace("[0, 0.7]", "[0]")


@dataclass(frozen=True)
class Ran:
    """What one command came to: its exit code, its output, and the decision of every cell it spoke of."""

    code: int
    out: str
    err: str

    @property
    def decisions(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(phase, trial) -> (verb, reason)."""
        found = (_LINE.match(line) for line in self.out.splitlines())
        return {(m[1], "" if m[2] == "-" else m[2]): (m[3], m[4]) for m in found if m}

    @property
    def worked(self) -> list[str]:
        """The phases that ran or repaired something, in order, each once."""
        return list(
            dict.fromkeys(phase for (phase, _), (verb, _) in self.decisions.items() if verb in ("run", "repair"))
        )


def tiny(folder: Path, config: str = CONFIG) -> Path:
    """A folder with dodo.py, config and questions, ready for `doit`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parents[1] / "dodo.py", folder)
    (folder / "experiment.yaml").write_text(config)
    (folder / "closed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CLOSED))
    (folder / "open.jsonl").write_text("".join(json.dumps({**row, "context": PASSAGE}) + "\n" for row in OPEN))
    return folder


def doit(folder: Path, *words: str) -> Ran:
    """`doit WORDS` in *folder*, in this process."""
    out, err = io.StringIO(), io.StringIO()
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.modules.pop("dodo", None)
    doit_state.session = None
    try:
        cmd_run.opt_outfile["default"] = out  # doit took the sys.stdout of its import
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = doit_cmd.DoitMain().run(list(words))
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
    return Ran(int(code or 0), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def reading(folder: Path, **variables: str):
    """The session a reader of the run would have."""
    with contextlib.chdir(folder):
        opened = opening.for_reading(parse({"rid": RID, **variables}), console.warn)
        try:
            yield opened
        finally:
            opened.close()


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """path -> what stands there, its content and its mtime: equal trees mean that nothing at all was written."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        status = path.lstat()
        found[path.relative_to(folder).as_posix()] = (content, status.st_mtime_ns, status.st_mode)
    return found


def files(folder: Path, *but: str) -> dict[str, tuple[object, ...]]:
    """`tree` without folders (the lock and the memory come and go in them) and without files named in *but*."""
    ignored = {"run.lock", ".doit.db", *but}
    return {
        name: facts for name, facts in tree(folder).items() if facts[0] is not None and Path(name).name not in ignored
    }


def letters(folder: Path) -> dict[tuple[str, str], str]:
    """(phase, trial) -> U or R, as `doit list --status --all` shows them; a group under the trial ""."""
    ran = doit(folder, "list", "--status", "--all", "--quiet", f"rid={RID}")
    assert ran.code == 0, ran.err
    found = {}
    for line in ran.out.splitlines():
        letter, name = line.split()
        phase, _, trial = name.partition(":")
        found[phase, trial] = letter
    return found


def edit(folder: Path, place: str, value: Any) -> None:
    """Set *place* (`prices.batch_discount`, `sources.0.limit`) of the run's frozen config to *value*."""
    path = folder / "experiments" / f"run_{RID}" / "experiment.yaml"
    document = yaml_text.load(path.read_text(), where=str(path))
    target = document
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in steps:
        target = target[step]
    target[last] = value
    path.write_text(json.dumps(document))  # which is YAML too, and sooner written


@dataclass(frozen=True)
class Ended:
    """How a process of its own ended: its exit code (negative for a signal), its output."""

    code: int
    out: str
    err: str


@dataclass
class Process:
    """`doit WORDS` in a forked process; `wait` returns when it and every worker of its own have ended."""

    pid: int
    folder: Path
    pipe: int

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        gone, _, _ = select.select([self.pipe], [], [], PATIENCE)
        os.close(self.pipe)
        assert gone, f"a worker of process {self.pid} is still there"
        out, err = (self.folder / f".{self.pid}.{name}" for name in ("out", "err"))
        ended = Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())
        out.unlink()
        err.unlink()
        return ended


def forked(
    folder: Path, *words: str, observer: Callable[[str, Path], None] | None = None, as_user: int | None = None
) -> Process:
    """Start `doit WORDS` in a child with *observer* at its every disk operation (for signals at exact moments).

    A test that runs as root can have the child run *as_user*, whom permissions stop. It is skipped where they stop
    such a user from reading our code.
    """
    if as_user is not None and os.getuid() == 0 and not _open_to_all(Path(disk.__file__)):
        pytest.skip("this checkout lies in a folder that only root may enter")
    gone, held = os.pipe()
    os.set_inheritable(held, False)
    pid = os.fork()
    if pid:
        os.close(held)
        return Process(pid, folder, gone)
    code = 70
    try:
        os.close(gone)
        for number, name in ((1, "out"), (2, "err")):
            opened = os.open(folder / f".{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(opened, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        cmd_run.opt_outfile["default"] = sys.stdout
        sys.modules.pop("dodo", None)
        doit_state.session = None
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        disk.observer = observer
        if as_user is not None and os.getuid() == 0:
            os.setuid(as_user)
        code = doit_cmd.DoitMain().run(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _open_to_all(file: Path) -> bool:
    """Whether anybody may enter the folders *file* lies in, links followed."""
    return all(folder.stat().st_mode & 0o001 for folder in file.resolve().parents)


class QuickClock:
    """A clock that a sleep moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def at(operation: str, name: str, action: Callable[[], object]) -> Callable[[str, Path], None]:
    """An observer that does *action* once, before *operation* on a file called *name*."""
    fired = []

    def observe(seen: str, path: Path) -> None:
        if not fired and (seen, path.name) == (operation, name):
            fired.append(path)
            action()

    return observe


# What may differ between two runs of the same experiment: it says when and how often, not what.
HISTORY = ("run.json", "trial_manifest.json", ".doit.db", "run.lock", "queue.lock", "decisions.jsonl", "ledger.jsonl")


def artifacts(folder: Path) -> dict[str, bytes]:
    """name -> content of every file of the run but its history."""
    run = folder / "experiments" / f"run_{RID}"
    found = (path for path in sorted(run.rglob("*")) if path.is_file() and ".emulator" not in path.parts)
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found if path.name not in HISTORY}


def leftovers(folder: Path) -> list[str]:
    """Temporary files, staging folders and things set aside, anywhere in the run."""
    run = folder / "experiments" / f"run_{RID}"
    odd = re.compile(r"\.(tmp|new|incoming|part|staging)$|\.(damaged|corrupt|backup)\.|^\.(new|incoming|firectl)")
    return sorted(
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if odd.search(path.name) and ".emulator" not in path.parts
    )


def two_trials(config: str = CONFIG) -> str:
    """The config with a second model, and so with a second trial."""
    return config.replace("models:\n", "models:\n  - {id: accounts/lab/models/other}\n", 1)


@contextlib.contextmanager
def watched(observer: Callable[[str, Path], None] | None):
    """For this block, *observer* is called before every disk operation of this process."""
    disk.observer = observer
    try:
        yield
    finally:
        disk.observer = None


def environment() -> dict[str, str]:
    """For a real process: this checkout's package, and nothing of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIALMAKE_", "FIREWORKS_"))}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[1])}
