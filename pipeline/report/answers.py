"""What the report takes from `predictions.csv`: how many answers came, their tokens, and a few of them word for word.

One pass over a file that may have hundreds of megabytes; held are counts, and the answers to the items
that will be shown, each cut to `LONGEST` characters.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline import disk
from pipeline.cells import unguard
from pipeline.errors import DamagedArtifact
from pipeline.phases.parse import ERROR, PREDICTION_COLUMNS, TRUNCATED
from pipeline.report.scores import temp_key

LONGEST = 1_200  # characters of an answer, a question or a passage that are shown
_ERROR_LENGTH = 200  # characters of a provider's error message that are kept
_DISTINCT_ERRORS = 1_000  # messages may hold ids of their own, so that no two are equal

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
        """Requests with a response."""
        return self.asked - self.missing


class Answer(NamedTuple):
    """A text that was answered, cut to `LONGEST`; *length* is what it was. `error`: there was no response."""

    status: str
    text: str
    length: int
    digest: int


@dataclass(frozen=True)
class AnswerFacts:
    """*tokens* maps (condition, column) to how often each number occurs; *unknown* counts rows without numbers."""

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
    errors: Counter[str] = Counter()
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
            message = unguard(cells[_COLUMNS["error"]])[:_ERROR_LENGTH]
            errors[message if message in errors or len(errors) < _DISTINCT_ERRORS else "other errors"] += 1
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
    return AnswerFacts(counts, tokens, unknown, errors, {key: seen.most_common() for key, seen in answers.items()})


def _rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # an answer may be longer than the module's default of 131,072 characters
    with disk.readable(path), open(path, newline="", encoding="utf-8") as stream:
        try:
            reader = csv.reader(stream, strict=True)
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
