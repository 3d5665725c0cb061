"""An item as every format of question files gives it, and the pieces that their readers are made of.

A reader gives each item's place and how to make it, so that all mistakes of a file are found in one go.
Making one raises SourceError, or KeyError, TypeError, AttributeError or ValueError for what is not of its format.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import jsonl
from pipeline.errors import DamagedArtifact, SourceError

# Whose scoring rules apply when the config names none.
BENCHMARKS = {
    "squad_v2": "squad_v2",
    "nq_open": "nq_open",
    "triviaqa": "triviaqa",
    "jsonl": "squad_v2",
    "csv": "squad_v2",
}


@dataclass(frozen=True)
class Item:
    """One question. *context* is the passage of an open-book item, None for closed book."""

    dataset: str
    item_id: str
    question: str
    answers: tuple[str, ...]
    benchmark: str
    paragraph: str
    title: str
    context: str | None = None
    unanswerable: bool = False

    def row(self, cluster: str) -> dict[str, Any]:
        """The prepared row; *cluster* says which unit its questions are not independent within."""
        units = {"paragraph": self.paragraph, "title": self.title, "none": self.item_id}
        row: dict[str, Any] = {
            "answers": list(self.answers),
            "benchmark": self.benchmark,
            "cluster": units[cluster],
            "dataset": self.dataset,
            "id": self.item_id,
            "question": self.question,
        }
        if self.context is not None:
            row |= {"context": self.context, "is_unanswerable": self.unanswerable}
        return row


Placed = tuple[str, Callable[[], Item]]  # an item's place, and how to make it


def question_id(question: str) -> str:
    """The id of a question whose format has none: 16 hex of sha256 of its NFC form."""
    return hashlib.sha256(unicodedata.normalize("NFC", question).encode()).hexdigest()[:16]


def benchmark_of(source: Mapping[str, Any]) -> str:
    """Whose scoring rules apply to the items of *source*."""
    return source["benchmark"] or BENCHMARKS[source["format"]]


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(place, content) of each line of *path*. Raises SourceError."""
    try:
        for line in jsonl.lines(path):
            yield f"{path} line {line.number}", line.data
    except FileNotFoundError as error:
        raise no_file(path) from error
    except DamagedArtifact as error:
        raise SourceError(error.what, where=error.where) from error


def json_row(data: bytes, place: str) -> dict[str, Any]:
    """The JSON object in *data*. Raises SourceError."""
    try:
        row = jsonl.loads_checked(data)
    except jsonl.BadJson as error:
        raise SourceError(f"{error}.", where=place) from error
    if not isinstance(row, dict):
        raise SourceError(f"holds a JSON {type(row).__name__}, not an object.", where=place)
    return row


def no_file(path: Path) -> SourceError:
    """The error for a question file that is not there."""
    return SourceError("there is no such question file.", where=str(path), hint="check `path` in the config's sources")


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a list, each once. Raises TypeError."""
    # Only a list: a text or a mapping would give its characters or its keys, and nobody would notice.
    if not isinstance(value, list):
        raise TypeError(f"expected a list of texts, found {value!r:.60}")
    return unique(map(text, value))


def text(value: Any) -> str:
    """*value* if it is text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r:.60}")
    return value


def flag(value: Any) -> bool:
    """What a truth value, or a word that CSV has for one, says. Raises TypeError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "false", "0", "no", ""):
        return value.strip().lower() in ("true", "1", "yes")
    raise TypeError(f"expected true or false, found {value!r}")


def unique(given: Iterable[str]) -> tuple[str, ...]:
    """The *given* texts in their order, each once."""
    return tuple(dict.fromkeys(given))
