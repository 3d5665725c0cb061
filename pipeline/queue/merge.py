"""From the raw files of a part's attempts to its `results.jsonl`: rows, not files, are what was paid for.

Every row of every attempt counts: a success wins over an error, the earliest success wins, rows of
jobs that ended early are kept. What cannot be used is named and kept aside: damaged lines, ids nobody
asked for, and rows that one attempt answered twice with different content (neither is used). The
result holds one line per request, in request order, whatever order the provider used; so the same
answers give the same bytes however often the way there was interrupted.

Answers are not held in memory, only where each one stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipeline import disk, jsonl
from pipeline.parts import IdsDigest, Part
from pipeline.paths import PartPaths, is_raw_file
from pipeline.providers.rows import BadRow, Row

ReadRow = Callable[[bytes], Row]

# Answers of these codes will be the same next time. Not of these: the account's state (402 unpaid, 412 suspended) and
# what was only not now (408, 409, 425, 429, and 499, the gateway's word for a call cut off on its side).
_LASTING = range(400, 500)
_PASSING = frozenset({402, 408, 409, 412, 425, 429, 499})
_TWICE = "answered twice with other content"
_SHOWN = 1000  # bytes kept of a line above the limit
_WORDS = 2_000  # characters kept of an error's message, which may quote a whole prompt; the raw file has them all


class Place(NamedTuple):
    """Where a line stands: file, line number (from 1), offset and length in bytes."""

    path: Path
    line: int
    offset: int
    length: int


@dataclass(frozen=True)
class Failure:
    """The last error the provider gave for a row."""

    code: str | int | None
    message: str

    @property
    def lasting(self) -> bool:
        """Whether asking again would get the same answer."""
        return isinstance(self.code, int) and self.code in _LASTING and self.code not in _PASSING


class Unusable(NamedTuple):
    """A line that cannot be used, and why. The line itself stays on disk: all lines of a file may be such."""

    attempt: int
    place: Place
    reason: str

    def as_json(self) -> dict[str, Any]:
        """What is kept aside of it."""
        text = _read(self.place).rstrip(b"\r\n").decode(errors="backslashreplace")
        where = {"attempt": self.attempt, "file": self.place.path.name, "line": self.place.line}
        return {**where, "reason": self.reason, "raw": text}


@dataclass
class Tally:
    """What is known of every row of a part. *asked* counts the attempts that asked for a row and ended."""

    answers: dict[str, Place] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    unusable: list[Unusable] = field(default_factory=list)

    def owed(self, ids: Sequence[str]) -> list[str]:
        """The rows, in request order, that have no answer and no lasting refusal."""
        return [
            name
            for name in ids
            if name not in self.answers and not (name in self.failures and self.failures[name].lasting)
        ]


def tally(paths: PartPaths, ids: Sequence[str], attempts: Mapping[int, Sequence[str]], read_row: ReadRow) -> Tally:
    """Count the rows of *attempts* (number -> the ids it asked for) of a part with *ids*, oldest attempt first."""
    result = Tally()
    known = set(ids)
    for number in sorted(attempts):
        for name in attempts[number]:
            result.asked[name] = result.asked.get(name, 0) + 1
        _tally_attempt(result, number, raw_files(paths.attempt(number)), known, read_row)
    return result


def raw_files(folder: Path) -> list[Path]:
    """The provider's files of one attempt, successes before errors, in a fixed order; nothing else that lies there."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if is_raw_file(path.name) and path.is_file()]
    return sorted(found, key=lambda path: ("error" in path.name, path.name))


def result_lines(ids: Sequence[str], counted: Tally, read_row: ReadRow) -> Iterator[bytes]:
    """The lines of `results.jsonl`: one per id, in order; rows without an answer say why."""
    with ExitStack() as stack:
        streams: dict[Path, BinaryIO] = {}
        for name in ids:
            place = counted.answers.get(name)
            if place is None:
                yield jsonl.dumps({"custom_id": name, "error": _error(counted, name)}) + b"\n"
                continue
            if place.path not in streams:
                streams[place.path] = stack.enter_context(open(place.path, "rb"))
            streams[place.path].seek(place.offset)
            row = read_row(streams[place.path].read(place.length))
            yield jsonl.dumps({"custom_id": name, "response": row.response}) + b"\n"


def keep_aside(paths: PartPaths, unusable: Sequence[Unusable]) -> None:
    """Make `set_aside.jsonl` hold what could not be used, or take it away when there is nothing."""
    if unusable:
        with disk.replacing(paths.conflicts) as target:
            for line in unusable:
                target.write(jsonl.dumps(line.as_json()) + b"\n")
    elif paths.conflicts.exists():
        disk.remove(paths.conflicts)


def verify(path: Path, part: Part) -> int | None:
    """How many rows of a part's results have an answer; None when the file is not those results, whole and in order."""
    ids = IdsDigest()
    succeeded = 0
    try:
        for line in jsonl.lines(path):
            row = jsonl.loads(line.data)
            ids.add(row["custom_id"])
            succeeded += "response" in row
    except (FileNotFoundError, jsonl.BadJson, KeyError, TypeError, AttributeError):
        return None
    return succeeded if ids.hexdigest() == part.ids_sha256 else None


def _tally_attempt(result: Tally, number: int, files: list[Path], known: set[str], read_row: ReadRow) -> None:
    """Fold one attempt's rows in. Within an attempt the same id with other content is used from neither row."""
    answers: dict[str, Place] = {}
    failures: dict[str, Failure] = {}
    conflicts: set[str] = set()
    for path in files:
        for place, data in places(path):
            try:
                row = read_row(data)
            except BadRow as error:
                result.unusable.append(Unusable(number, place, str(error)))
                continue
            name = row.custom_id
            if name not in known:
                result.unusable.append(Unusable(number, place, "an id nobody asked for"))
            elif row.response is None:
                assert row.error is not None
                failure = Failure(row.error.get("code"), str(row.error.get("message", ""))[:_WORDS])
                failures[name] = min(failures.get(name, failure), failure, key=_rank)
            elif name not in answers:
                answers[name] = place
            elif _content(answers[name], read_row) != row.response:
                if name not in conflicts:
                    result.unusable.append(Unusable(number, answers[name], _TWICE))
                conflicts.add(name)
                result.unusable.append(Unusable(number, place, _TWICE))
    for name in conflicts:
        del answers[name]
        failures[name] = Failure("conflict", "the provider answered twice with different content")
    result.conflicts = (result.conflicts | conflicts) - (answers.keys() | result.answers.keys())
    result.failures.update({name: failure for name, failure in failures.items() if name not in answers})
    for name, place in answers.items():
        result.answers.setdefault(name, place)


def places(path: Path) -> Iterator[tuple[Place, bytes]]:
    """Each line of a raw file that is not blank, with its place; one above the limit is cut, so that it is refused."""
    offset = number = 0
    with disk.readable(path), open(path, "rb", buffering=disk.READ_BLOCK) as stream:
        while data := stream.readline(jsonl.MAX_LINE + 1):
            number += 1
            length = len(data)
            if length > jsonl.MAX_LINE:
                end = data
                while not end.endswith(b"\n") and (end := stream.readline(jsonl.MAX_LINE)):
                    length += len(end)
                data = _cut(data)
            if data.strip():
                yield Place(path, number, offset, length), data
            offset += length


def _rank(failure: Failure) -> tuple[bool, str, str]:
    """Which of several errors for one row counts, whatever their order: one that may pass before one that lasts."""
    return failure.lasting, str(failure.code), failure.message


def _content(place: Place, read_row: ReadRow) -> Any:
    return read_row(_read(place)).response


def _read(place: Place) -> bytes:
    """The line at *place*, as `places` gave it."""
    with disk.readable(place.path), open(place.path, "rb") as stream:
        stream.seek(place.offset)
        return stream.read(place.length) if place.length <= jsonl.MAX_LINE else _cut(stream.read(_SHOWN))


def _cut(data: bytes) -> bytes:
    return data[:_SHOWN] + b"..."


def _error(counted: Tally, name: str) -> dict[str, Any]:
    failure = counted.failures.get(name) or Failure("missing", "the provider returned no row for this request")
    return {"code": failure.code, "message": failure.message, "attempts": counted.asked.get(name, 0)}
