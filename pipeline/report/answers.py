"""What the report takes from `predictions.csv`: how many answers came, their tokens, and a few of them word for word.

One pass over a file that may have hundreds of megabytes; held are counts, and the answers to the items
that will be shown, each cut to `LONGEST` characters.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline import csv_text, disk
from pipeline.cells import unguard
from pipeline.custom_id import temp_key
from pipeline.errors import DamagedArtifact
from pipeline.predictions import ERROR, PREDICTION_COLUMNS, TRUNCATED

LONGEST = 1_200  # characters of an answer, a question or a passage that are shown
_ERROR_LENGTH = 200  # characters of a provider's error message that are shown
_ERROR_READ = 2_000  # characters of one that are looked at
_DISTINCT_ERRORS = 1_000  # reasons that are told apart

Item = tuple[str, str, str]  # type, dataset, item id

_COLUMNS = {name: number for number, name in enumerate(PREDICTION_COLUMNS)}
_WIDTH = len(PREDICTION_COLUMNS)


class Group(NamedTuple):
    """Requests that are counted together."""

    temp: str
    type: str
    condition: str


@dataclass
class Counts:
    """What became of the requests of a group; *truncated* ones are answers too."""

    asked: int = 0
    missing: int = 0
    truncated: int = 0

    @property
    def answered(self) -> int:
        """Requests with an answer."""
        return self.asked - self.missing


class Answer(NamedTuple):
    """A text that was answered, cut to `LONGEST`; *length* is what it was. `error`: why there is no answer."""

    status: str
    text: str
    length: int
    digest: int


@dataclass(frozen=True)
class AnswerFacts:
    """*tokens* maps (condition, column) to how often each number occurs; *unknown* counts rows without numbers.

    *errors* counts the provider's messages; those that differ in ids and numbers only are one, with `…` in their place.
    """

    counts: Mapping[Group, Counts]
    tokens: Mapping[tuple[str, str], Counter[int]]
    unknown: int
    errors: Counter[str]
    answers: Mapping[tuple[Item, str, str], Sequence[tuple[Answer, int]]]


def read_answers(path: Path, wanted: Collection[Item]) -> AnswerFacts:
    """The facts of *path*, with the answers to the *wanted* items by (item, temp, condition), commonest first.

    Raises FileNotFoundError, UnreadableFile or DamagedArtifact.
    """
    counts: dict[Group, Counts] = defaultdict(Counts)
    tokens: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    errors = _Reasons()
    answers: dict[tuple[Item, str, str], Counter[Answer]] = defaultdict(Counter)
    temps: dict[str, str] = {}
    unknown = 0
    for cells in _rows(path):
        condition, kind, status = (cells[_COLUMNS[name]] for name in ("condition", "type", "status"))
        temp = temps.setdefault(cells[_COLUMNS["temp"]], temp_key(cells[_COLUMNS["temp"]]))
        group = counts[Group(temp, kind, condition)]
        group.asked += 1
        group.truncated += status == TRUNCATED
        if status == ERROR:
            group.missing += 1
            ids = (unguard(cells[_COLUMNS[name]]) for name in ("custom_id", "item_id"))
            errors.add(unguard(cells[_COLUMNS["error"]])[:_ERROR_READ], *ids)
        for column in ("prompt_tokens", "completion_tokens"):
            if number := cells[_COLUMNS[column]]:
                tokens[condition, column][int(number)] += 1
            else:
                unknown += column == "prompt_tokens"
        item = (kind, unguard(cells[_COLUMNS["dataset"]]), unguard(cells[_COLUMNS["item_id"]]))
        if item in wanted:
            text = unguard(cells[_COLUMNS["error" if status == ERROR else "response_text"]])
            answers[item, temp, condition][Answer(status, text[:LONGEST], len(text), hash(text))] += 1
    # Counter.most_common keeps the order of first sight among equals: the file's order, so it is the same each time.
    by_place = {key: seen.most_common() for key, seen in answers.items()}
    return AnswerFacts(counts, tokens, unknown, errors.counted(), by_place)


# What tells two messages of one reason apart: a word with a digit in it, but no HTTP status, which is a reason.
_VARYING = re.compile(r"(?<![\w-])(?![45]\d\d(?![\w-]))([\w-]*\d[\w-]*)")


class _Reasons:
    """The provider's messages, counted by their text without ids and numbers: one a question would be one a line."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], tuple[list[str], int]] = {}
        self._others = 0

    def add(self, message: str, *ids: str) -> None:
        """Count *message*, which may name one of the row's *ids*."""
        pieces = _pieces(message, ids)
        key = tuple(pieces[::2])
        if key not in self._seen and len(self._seen) >= _DISTINCT_ERRORS:
            self._others += 1
            return
        before, times = self._seen.get(key, (pieces, 0))
        if before != pieces:
            pieces = [one if one == other else "…" for one, other in zip(before, pieces, strict=True)]
        self._seen[key] = pieces, times + 1

    def counted(self) -> Counter[str]:
        """How often each reason was given, as it is shown."""
        found: Counter[str] = Counter()
        for pieces, times in self._seen.values():
            found["".join(pieces)[:_ERROR_LENGTH]] += times
        return found + Counter({"other errors": self._others})


def _pieces(message: str, ids: Sequence[str]) -> list[str]:
    """Text that stays and text that varies, taking turns; the first of *ids* that is a word of *message* varies."""
    for name in filter(None, ids):
        before, found, after = message.partition(name)
        if found and not before[-1:].isalnum() and not after[:1].isalnum():
            return [*_VARYING.split(before), found, *_VARYING.split(after)]
    return _VARYING.split(message)


def _rows(path: Path) -> Iterator[list[str]]:
    with disk.readable(path), open(path, newline="", encoding="utf-8") as stream:
        try:
            reader = csv_text.rows(stream)
            if (header := next(reader, [])) != PREDICTION_COLUMNS:
                raise DamagedArtifact(f"has the columns {', '.join(header)}.", where=str(path))
            for cells in reader:
                if len(cells) != _WIDTH:
                    raise DamagedArtifact(
                        f"has {len(cells)} cells, not {_WIDTH}.", where=f"{path} line {reader.line_num}"
                    )
                yield cells
        except (csv.Error, UnicodeDecodeError) as error:
            raise DamagedArtifact(f"is not the CSV that was written ({error}).", where=str(path)) from error
