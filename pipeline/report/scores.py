"""What the report takes from `per_item_scores.csv` beside the statistics: sizes, means, and items worth showing.

One pass; memory grows with datasets, clusters and examples, not with items.
"""

from __future__ import annotations

import csv
import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pipeline import csv_text, disk
from pipeline.cells import unguard
from pipeline.custom_id import temp_key
from pipeline.errors import DamagedArtifact
from pipeline.report.text import sha256

WIN = "win"
LOSS = "loss"
FALSE_ANSWER = "false answer"
KINDS = (WIN, LOSS, FALSE_ANSWER)

# Paired per treatment: the two ways of judging whether a passage supports an answer.
_PAIRED = ("unsupported_rate", "unsupported_alt_rate")
_TEXTS = ("item_key", "dataset", "item_id", "cluster")  # columns whose cells are guarded

Row = Mapping[str, str]


class Place(NamedTuple):
    """Where an example stands; sorts in the report's order."""

    treatment: str
    temp: str
    type: str
    kind: str


class Chosen(NamedTuple):
    """An item worth showing; sorts by how clear a case it is, then by a digest, so that no dataset comes first."""

    rank: float
    digest: str
    dataset: str
    item_id: str


@dataclass
class Sizes:
    """What one dataset of one type holds."""

    items: int = 0
    answerable: int = 0
    clusters: set[str] = field(default_factory=set)


@dataclass
class Mean:
    """A running mean; None while it is empty."""

    total: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        """Take one more value."""
        self.total += value
        self.n += 1

    @property
    def value(self) -> float | None:
        """The mean so far."""
        return self.total / self.n if self.n else None


@dataclass(frozen=True)
class ScoreFacts:
    """*sizes* by (type, dataset); *em* by (temp, condition) over all items; *paired* by (treatment, temp, type,
    column) as the control's and the treatment's mean over the items both have.
    """

    samples: int
    sizes: Mapping[tuple[str, str], Sizes]
    em: Mapping[tuple[str, str], Mean]
    paired: Mapping[tuple[str, str, str, str], tuple[Mean, Mean]]
    chosen: Mapping[Place, Sequence[Chosen]]


def read_scores(path: Path, control: str, treatments: Sequence[str], examples: int) -> ScoreFacts:
    """The facts of the table at *path*, with up to *examples* items of each kind per treatment, temperature, type.

    Raises FileNotFoundError, UnreadableFile or DamagedArtifact.
    """
    sizes: dict[tuple[str, str], Sizes] = defaultdict(Sizes)
    em: dict[tuple[str, str], Mean] = defaultdict(Mean)
    paired: dict[tuple[str, str, str, str], tuple[Mean, Mean]] = defaultdict(lambda: (Mean(), Mean()))
    chosen: dict[Place, list[Chosen]] = defaultdict(list)
    samples = 0
    for (kind, dataset, item_id), group in groupby(rows(path), key=_item):
        item = list(group)
        size = sizes[kind, dataset]
        size.items += 1
        size.answerable += item[0]["answerable"] == "1"
        size.clusters.add(item[0]["cluster"])
        samples = max(samples, *(int(row["n_samples"]) for row in item))
        cells = {(temp_key(row["temp"]), row["condition"]): row for row in item}
        for (temp, condition), row in cells.items():
            if row["em"]:
                em[temp, condition].add(float(row["em"]))
            if condition not in treatments or (temp, control) not in cells:
                continue
            base = cells[temp, control]
            for column in _PAIRED:
                if base[column] and row[column]:
                    means = paired[condition, temp, kind, column]
                    means[0].add(float(base[column]))
                    means[1].add(float(row[column]))
            for sort, rank in _cases(base, row):
                place = Place(condition, temp, kind, sort)
                case = Chosen(rank, sha256(f"{kind}|{row['item_key']}"), dataset, item_id)
                chosen[place] = heapq.nsmallest(examples, [*chosen[place], case])
    return ScoreFacts(samples, sizes, em, paired, {place: cases for place, cases in chosen.items() if cases})


def rows(path: Path) -> Iterator[Row]:
    """The rows of the table at *path* by column; raises DamagedArtifact when it is not one."""
    with disk.readable(path), open(path, newline="", encoding="utf-8") as stream:
        try:
            reader = csv_text.records(stream)
            for row in reader:
                if None in row or None in row.values():
                    raise DamagedArtifact("has too many or too few cells.", where=f"{path} line {reader.line_num}")
                yield row | {name: unguard(row[name]) for name in _TEXTS}
        except (csv.Error, UnicodeDecodeError) as error:
            raise DamagedArtifact(f"is not the CSV that was written ({error}).", where=str(path)) from error


def _item(row: Row) -> tuple[str, str, str]:
    return row["type"], row["dataset"], row["item_id"]


def _cases(control: Row, treatment: Row) -> Iterator[tuple[str, float]]:
    """Which kinds of example an item is, with its rank in each; the smallest rank is the clearest case."""
    if control["em"] and treatment["em"]:
        delta = round(float(treatment["em"]) - float(control["em"]), 12)
        if delta:
            yield (WIN if delta > 0 else LOSS), -abs(delta)
    if treatment["false_answer_rate"] and (rate := float(treatment["false_answer_rate"])) > 0:
        yield FALSE_ANSWER, -rate
