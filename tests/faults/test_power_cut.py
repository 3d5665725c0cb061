"""All that a disk may show after a power cut, by a model of what a kernel is free to do, over records of real writes.

What was not fsynced may be there or not: of a file's content nothing, half or all of it; of a folder's entries any
first ones of those that changed since its last fsync (entries change in order; a rename between two folders is one
change). Each state that is possible at any moment of a record is compared with what had been acknowledged then. If
this failed, a power cut would lose a job's id, or leave half a file under a final name.

The record is of the calls that this process makes; SQLite's and the locks' files are left out. A real disk may do
worse than the model, which is why the same writes without their fsyncs must show wrong states.
"""

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_kit import CONFIG, RID, doit, tiny

from pipeline import disk, jsonl, ledger
from pipeline.manifest import COMPLETED, Manifest, Stage
from pipeline.providers.base import Accepted, Binding, Job, JobPhase, Submission
from pipeline.trials import Trial

FOLDER = b"(a folder)"
MOST = 500  # states looked at for one moment; where more are possible, as many at random
_NOT_OURS = {".doit.db", ".doit.db-journal", ".doit.db-wal", ".doit.db-shm", "run.lock", "queue.lock", ".emulator"}

Event = tuple[Any, ...]


class Recorder:
    """While entered, the record of what happens below *root*, and of what `disk` had told its caller by when."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.tree: dict[str, int] = {"": 0}
        self._seen: dict[int, tuple[int, int]] = {}
        self._told: set[str] = set()
        self._numbers = itertools.count(1)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> "Recorder":
        self._scan()
        real = {name: getattr(os, name) for name in ("fsync", "rename", "unlink", "rmdir")}

        def fsync(descriptor: int) -> None:
            real["fsync"](descriptor)
            name = self._name(os.readlink(f"/proc/self/fd/{descriptor}"))
            if name is not None:
                self._scan()
                folder = os.path.isdir(self.root / name)
                self.events.append(("fsync_dir" if folder else "fsync", self.tree[name]))

        def rename(source: Any, target: Any, **options: Any) -> None:
            names = self._name(source), self._name(target)
            self._scan()
            real["rename"](source, target, **options)
            if None not in names:
                self._moved(*names)  # type: ignore[arg-type]

        def gone(call: str) -> Callable[..., None]:
            def act(path: Any, *, dir_fd: int | None = None) -> None:
                name = self._name(path if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}")
                self._scan()
                real[call](path, dir_fd=dir_fd)
                if name is not None:
                    del self.tree[name]
                    self.events.append(("entries", ((self._folder(name), Path(name).name, None),)))

            return act

        for name, act in {"fsync": fsync, "rename": rename, "unlink": gone("unlink"), "rmdir": gone("rmdir")}.items():
            self._patch.setattr(os, name, act)
        self._acknowledge_after()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    # --- what was acknowledged

    def _acknowledge_after(self) -> None:
        """Whatever a function of `disk` has returned from, a caller relies on."""
        for name in ("append_lines", "make_folder", "remove", "remove_folder"):
            self._patch.setattr(disk, name, self._noting(getattr(disk, name)))
        replacing, move, set_aside = disk.replacing, disk.move, disk.set_aside

        @contextmanager
        def noted_replacing(path: Path) -> Iterator[disk.Replacement]:
            with replacing(path) as replacement:
                yield replacement
            self._note(path)

        def noted_move(source: Path, target: Path) -> None:
            move(source, target)
            self._note(target, source)

        def noted_set_aside(path: Path, tag: str) -> Path:
            aside = set_aside(path, tag)
            self._note(aside, path)
            return aside

        self._patch.setattr(disk, "replacing", noted_replacing)
        self._patch.setattr(disk, "move", noted_move)
        self._patch.setattr(disk, "set_aside", noted_set_aside)

    def _noting(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def noted(path: Path, *rest: Any) -> Any:
            result = act(path, *rest)
            self._note(path, log=bool(rest))
            return result

        return noted

    def _note(self, *paths: Path, log: bool = False) -> None:
        for path in paths:
            name = self._name(path)
            if not name:
                continue
            content = FOLDER if path.is_dir() else path.read_bytes() if path.is_file() else None
            self.events.append(("told", name, content, log))
            self._told.add(name)
            if content is None:  # with a folder goes what it held
                gone = {below for below in self._told if below.startswith(f"{name}/")}
                self.events.extend(("told", below, None, False) for below in sorted(gone))
                self._told -= gone

    # --- what happened

    def _name(self, path: Any) -> str | None:
        """Its name below the root; None for what is elsewhere or not ours."""
        path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.root) or _NOT_OURS & set(path.relative_to(self.root).parts):
            return None
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def _folder(self, name: str) -> int:
        return self.tree[name.rpartition("/")[0]]

    def _moved(self, source: str, target: str) -> None:
        folders = self._folder(source), self._folder(target)
        node = self.tree[source]
        for name in [name for name in self.tree if name == source or name.startswith(f"{source}/")]:
            self.tree[target + name.removeprefix(source)] = self.tree.pop(name)
        changes = ((folders[1], Path(target).name, node), (folders[0], Path(source).name, None))
        self.events.append(("entries", changes))

    def _scan(self) -> None:
        """Note what was created or written since the last look."""
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(set(folders) - _NOT_OURS)
            for entry in (*folders, *sorted(set(files) - _NOT_OURS)):
                path = Path(folder, entry)
                name = path.relative_to(self.root).as_posix()
                if name not in self.tree:
                    self.tree[name] = node = next(self._numbers)
                    self.events.append(("folder", node) if entry in folders else ("write", node, b""))
                    self.events.append(("entries", ((self._folder(name), entry, node),)))
                if entry in folders:
                    continue
                node, status = self.tree[name], path.stat()
                if self._seen.get(node) != (status.st_size, status.st_mtime_ns):
                    self._seen[node] = status.st_size, status.st_mtime_ns
                    self.events.append(("write", node, path.read_bytes()))


@dataclass
class Disk:
    """What is durable, and what is not yet."""

    durable: dict[int, bytes] = field(default_factory=dict)  # node -> content
    written: dict[int, bytes] = field(default_factory=dict)
    entries: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})  # folder -> name -> node
    pending: list[tuple[tuple[int, str, int | None], ...]] = field(default_factory=list)

    def take(self, event: Event) -> None:
        match event:
            case ("entries", changes):
                self.pending.append(changes)
            case ("folder", node):
                self.entries[node] = {}
            case ("write", node, content):
                self.written[node] = content
            case ("fsync", node):
                self.durable[node] = self.written[node]
            case ("fsync_dir", folder):
                for changes in [changes for changes in self.pending if any(one[0] == folder for one in changes)]:
                    self.pending.remove(changes)
                    _apply(self.entries, changes)

    def states(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """What may be there after a cut now: name -> content."""
        by_folder: dict[int, list[Any]] = {}
        for changes in self.pending:
            by_folder.setdefault(changes[0][0], []).append(changes)
        dirty = [node for node, content in self.written.items() if self.durable.get(node) != content]
        prefixes = [[some[:length] for length in range(len(some) + 1)] for some in by_folder.values()]
        contents = [_contents(self.durable.get(node, b""), self.written[node]) for node in dirty]
        choices: list[Sequence[Any]] = [*prefixes, *contents]
        number = 1
        for choice in choices:
            number *= len(choice)
        chosen: Iterator[Any] = itertools.product(*choices)
        if number > MOST:
            chosen = (tuple(chance.choice(choice) for choice in choices) for _ in range(MOST))
        for one in chosen:
            there = {id(changes) for some in one[: len(prefixes)] for changes in some}
            yield self._view(there, dict(zip(dirty, one[len(prefixes) :], strict=True)))

    def _view(self, there: set[int], contents: dict[int, bytes]) -> dict[str, bytes]:
        entries = {folder: dict(names) for folder, names in self.entries.items()}
        for changes in self.pending:
            if id(changes) in there:
                _apply(entries, changes)
        found: dict[str, bytes] = {}
        folders = [("", 0)]
        while folders:
            prefix, folder = folders.pop()
            for name, node in entries[folder].items():
                if node in entries:
                    found[prefix + name] = FOLDER
                    folders.append((f"{prefix}{name}/", node))
                else:
                    found[prefix + name] = contents.get(node, self.durable.get(node, b""))
        return found


def _apply(entries: dict[int, dict[str, int]], changes: Sequence[tuple[int, str, int | None]]) -> None:
    for folder, name, node in changes:
        if node is None:
            entries[folder].pop(name, None)
        else:
            entries[folder][name] = node


def _contents(old: bytes, new: bytes) -> list[bytes]:
    """What may be read of a file that was *old* when it was last synced: of what is new nothing, half or all."""
    kept = len(old) if new.startswith(old) else 0
    half = kept + (len(new) - kept + 1) // 2
    return list(dict.fromkeys([old, new[:kept], new[:half], new]))


@dataclass
class Verdict:
    """How many different states a record's moments may leave, and what is wrong with some."""

    states: int = 0
    wrong: list[str] = field(default_factory=list)
    logs: set[bytes] = field(default_factory=set)  # every content of a log that was met


def judge(events: Sequence[Event], also: Callable[[dict[str, bytes]], str | None] = lambda _state: None) -> Verdict:
    """Look at every state of every moment of a record; *also* may object to one."""
    told: dict[str, list[tuple[bytes | None, bool]]] = {}
    for event in events:
        if event[0] == "told":
            told.setdefault(event[1], [(None, event[3])]).append((event[2], event[3]))
    at = dict.fromkeys(told, 0)
    verdict, chance, model = Verdict(), random.Random(1), Disk()
    for number, event in enumerate(events):
        if event[0] == "told":
            at[event[1]] += 1
        model.take(event)
        seen = set()
        for state in model.states(chance):
            key = hash(frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            problem = _problem(state, told, at, verdict) or also(state)
            if problem:
                verdict.wrong.append(f"after event {number} ({event[0]}): {problem}")
        verdict.states += len(seen)
    return verdict


def _problem(state: dict[str, bytes], told: dict[str, Any], at: dict[str, int], verdict: Verdict) -> str | None:
    for name, contents in told.items():
        now, log = contents[at[name]]
        coming = contents[min(at[name] + 1, len(contents) - 1)][0]
        there = state.get(name)
        if log and there is not None:
            verdict.logs.add(there)
            if there.startswith(now or b"") and (coming or b"").startswith(there):
                continue
        if there not in (now, coming):
            return f"{name} is {'gone' if there is None else f'{len(there)} bytes, neither old nor new'}"
    return None


def without(events: Sequence[Event], *kinds: str) -> list[Event]:
    """The record of the same writes by a program that leaves out these calls."""
    return [event for event in events if event[0] not in kinds]


# --- the writes of `disk` ---------------------------------------------------------------------------


@pytest.fixture
def folder(quick_path: Path) -> Path:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to see which file is synced")
    return quick_path


def rewrites(folder: Path) -> None:
    for number in range(4):
        disk.write_bytes(folder / "file", b"content %d, " % number * (number + 1))


def appends(folder: Path) -> None:
    for number in range(4):
        disk.append_lines(folder / "log", [b'{"line": %d}' % number])


def folders(folder: Path) -> None:
    disk.make_folder(folder / "a" / "b")
    disk.write_bytes(folder / "a" / "b" / "file", b"content")


def moves(folder: Path) -> None:
    disk.make_folder(folder / "to")
    disk.write_bytes(folder / "from", b"content")
    disk.write_bytes(folder / "to" / "there", b"older content")
    disk.move(folder / "from", folder / "to" / "there")


def removes(folder: Path) -> None:
    disk.write_bytes(folder / "file", b"content")
    disk.remove(folder / "file")


def asides(folder: Path) -> None:
    disk.write_bytes(folder / "file", b"content")
    disk.copy_aside(folder / "file", "backup")
    disk.set_aside(folder / "file", "damaged")
    disk.write_bytes(folder / "file", b"new content")


def scratch(folder: Path) -> None:
    disk.make_folder(folder / ".new")
    disk.write_bytes(folder / ".new" / "file", b"content")
    disk.remove_folder(folder / ".new")


def story(folder: Path) -> None:
    """A ledger and a manifest as a run writes them: the intent, its file, and only then the manifest that names it."""
    job = Job("j", "COMPLETED", JobPhase.COMPLETED, "m", "j-in", "j-out")
    submission = Submission("j", "j-in", "j-out", Path("x"), 4, "m", "r")
    book, results, document = folder / "p" / "ledger.jsonl", folder / "p" / "results.jsonl", folder / "manifest.json"
    manifest = Manifest.new("r", Trial("m-d", "m", "m", "d", {"control": "c"}, {}, (0.0,), 1))
    manifest.save(document)
    ledger.intend(
        book, 1, submission, "d" * 64, Binding("f", "a", "e"), {"input_tokens": 1, "output_tokens": 1, "usd": None}
    )
    ledger.accept(book, 1, Accepted(job, adopted=False))
    written = disk.write_bytes(results, b'{"custom_id": "x"}\n')
    ledger.end(book, 1, job)
    outputs = {"p/results.jsonl": {"sha256": written.sha256, "size": written.size}}
    manifest.set_stage("downloaded", Stage(COMPLETED, "2026-01-01T00:00:00.000Z", outputs=outputs))
    manifest.save(document)


WRITES = (rewrites, appends, folders, moves, removes, asides, scratch, story)
# Which call each of them cannot do without. (A scratch folder's files have no value, its absence has.)
NEEDED = [(act, kind) for act in WRITES for kind in ("fsync", "fsync_dir")]
_NO_CONTENT = {(removes, "fsync"), (scratch, "fsync")}


def recorded(act: Callable[[Path], object], folder: Path) -> list[Event]:
    with Recorder(folder) as recorder:
        act(folder)
    assert {"told", "entries"} <= {event[0] for event in recorder.events}
    return recorder.events


@pytest.mark.parametrize("act", WRITES)
def test_every_state_is_old_or_new_and_nothing_acknowledged_is_lost(folder, act):
    events = recorded(act, folder)
    verdict = judge(events)
    assert verdict.wrong == []
    assert verdict.states > len(events), "the model never had a choice"


@pytest.mark.parametrize(("act", "kind"), [pair for pair in NEEDED if pair not in _NO_CONTENT])
def test_without_either_fsync_the_model_finds_wrong_states(folder, act, kind):
    """Else it would find none above either."""
    events = recorded(act, folder)
    assert len(without(events, kind)) < len(events)
    assert judge(without(events, kind)).wrong


def test_whatever_is_left_of_a_ledger_tells_what_was_acknowledged(folder, tmp_path):
    verdict = judge(recorded(story, folder))
    left = tmp_path / "ledger.jsonl"
    torn = 0
    for content in verdict.logs:
        left.write_bytes(content)
        book = ledger.read(left)
        lines = content.count(b"\n")
        assert len(book.damaged) == (not content.endswith(b"\n") and content != b"")
        torn += len(book.damaged)
        assert [attempt.accepted for attempt in book.attempts] == [lines > 1] * (lines > 0)
    assert torn >= 3, "no line was ever torn"


# --- a whole run ------------------------------------------------------------------------------------


def unkept(state: dict[str, bytes]) -> str | None:
    """What a manifest in this state names that is not there as it says."""
    for name, content in state.items():
        if not name.endswith("/trial_manifest.json"):
            continue
        for stage, facts in jsonl.loads(content)["stage_status"].items():
            for output, said in facts.get("outputs", {}).items():
                there = state.get(output)
                if there is None or hashlib.sha256(there).hexdigest() != said["sha256"]:
                    return f"{name}: {stage} names {output}, which is not there as it says"
    return None


@pytest.mark.heavy
def test_every_state_of_a_whole_run(folder, capsys):
    """From nothing to the report; each manifest that may be left names only what is left with it."""
    base = tiny(folder, CONFIG.replace("[0, 0.7]", "[0]").replace("samples_per_item: 2", "samples_per_item: 1"))
    run = base / "experiments" / f"run_{RID}"
    run.mkdir(parents=True)
    with Recorder(run) as recorder:
        ran = doit(base, f"rid={RID}", "config=experiment.yaml", "to=archive")
    assert ran.code == 0, ran.err
    kinds = [event[0] for event in recorder.events]
    assert min(kinds.count("fsync"), kinds.count("fsync_dir")) >= 50
    verdict = judge(recorder.events, unkept)
    for kind in ("fsync", "fsync_dir"):
        shorter = without(recorder.events, kind)[:600]
        assert judge(shorter).wrong, f"the model does not notice a run without {kind}"
    with capsys.disabled():
        print(f"\n{verdict.states:,} states after {len(kinds):,} events: {len(verdict.wrong)} wrong")
    assert verdict.wrong == []
