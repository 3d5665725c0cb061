"""`per_item_scores.csv` as columns of numbers, and the pairs of items that a comparison rests on.

Items are kept in the order of their names, so the order of rows in the file changes nothing. An empty cell
is NaN here and never 0; anything else that is not a finite number is an error with file and row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline import csv_text, disk
from pipeline.cells import unguard
from pipeline.custom_id import temp_key
from pipeline.errors import ContractBroken, DamagedArtifact
from pipeline.statistics.numbers import FloatArray, IntArray

RATES = ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate")
TEXTS = ("dataset", "item_id", "condition", "temp", "type", "cluster")
COUNTS = ("n_samples", "n_missing", "n_truncated")
NUMBERS = (*COUNTS, "answerable", "consistency", *RATES, *(f"{rate}_std" for rate in RATES))
_BOUNDED = frozenset(("answerable", "consistency", *RATES))  # must lie in [0, 1]
_FILLED = frozenset((*COUNTS, "temp"))  # must not be empty
_ROWS_AT_ONCE = 1_000  # half a megabyte of text while reading: twice as fast as 30 MB that no cache holds
_SHOWN = 5  # ids named in a message

T = TypeVar("T", str, tuple[str, ...])


@dataclass(frozen=True)
class Pairs:
    """The items that both conditions hold at one temperature and type: one entry an item in every array."""

    item: IntArray
    dataset: IntArray
    cluster: IntArray
    answerable: FloatArray
    control: Mapping[str, FloatArray]
    treatment: Mapping[str, FloatArray]
    unpaired: IntArray  # the datasets of items that only one condition holds
    dataset_names: Sequence[str]

    def of_dataset(self, code: int) -> Pairs:
        """The pairs of one dataset."""
        kept = self.dataset == code
        return Pairs(
            self.item[kept],
            self.dataset[kept],
            self.cluster[kept],
            self.answerable[kept],
            {name: values[kept] for name, values in self.control.items()},
            {name: values[kept] for name, values in self.treatment.items()},
            self.unpaired[self.unpaired == code],
            self.dataset_names,
        )


class Scores:
    """A score table by column; `types`, `conditions`, `datasets` and `temps` are what occurs in it, sorted."""

    def __init__(self, texts: Mapping[str, Sequence[str]], numbers: Mapping[str, FloatArray], where: str) -> None:
        """From columns; *where* names their origin. Raises ContractBroken, with ids, for a key that occurs twice."""
        self.texts = texts
        self.numbers = numbers
        self.where = where
        self._type, self.types = _coded(texts["type"])
        self._condition, self.conditions = _coded(texts["condition"])
        self._dataset, self.datasets = _coded(texts["dataset"])
        self._item, _ = _coded(list(zip(texts["dataset"], texts["item_id"], strict=True)))
        self._cluster, _ = _coded(
            [  # a name is local to its dataset; an item without one is a cluster of its own
                (dataset, name, "named") if name else (dataset, item)
                for dataset, name, item in zip(texts["dataset"], texts["cluster"], texts["item_id"], strict=True)
            ]
        )
        temps, self._temp = np.unique(np.array(texts["temp"], dtype=np.float64), return_inverse=True)
        self.temps = [float(temp) for temp in temps]
        if len({temp_key(temp) for temp in self.temps}) < len(self.temps):
            raise ContractBroken("two temperatures would share one key; they differ after 6 digits.", where=where)
        self._refuse_duplicates()

    def rows(self, temp: float, kind: str, condition: str) -> IntArray:
        """The rows of one temperature, type and condition, in order of items."""
        if temp not in self.temps or kind not in self.types or condition not in self.conditions:
            return np.array([], dtype=np.int64)
        (rows,) = np.nonzero(
            (self._temp == self.temps.index(temp))
            & (self._type == self.types.index(kind))
            & (self._condition == self.conditions.index(condition))
        )
        ordered: IntArray = rows[np.argsort(self._item[rows])]
        return ordered

    def pairs(self, temp: float, kind: str, control: str, treatment: str) -> Pairs:
        """The items that both conditions hold; an item's cluster and answerability are those of the control's row."""
        of_control, of_treatment = self.rows(temp, kind, control), self.rows(temp, kind, treatment)
        items, left, right = np.intersect1d(
            self._item[of_control], self._item[of_treatment], assume_unique=True, return_indices=True
        )
        alone = np.concatenate([np.delete(of_control, left), np.delete(of_treatment, right)])
        left, right = of_control[left], of_treatment[right]
        return Pairs(
            items,
            self._dataset[left],
            self._cluster[left],
            self.numbers["answerable"][left],
            {name: values[left] for name, values in self.numbers.items()},
            {name: values[right] for name, values in self.numbers.items()},
            self._dataset[alone],
            self.datasets,
        )

    def _refuse_duplicates(self) -> None:
        key = self._item
        for code in (self._type, self._condition, self._temp):
            key = key * (int(code.max(initial=0)) + 1) + code
        order = np.argsort(key, kind="stable")
        twice = np.sort(order[1:][key[order[1:]] == key[order[:-1]]])
        if len(twice):
            ids = ["|".join(self.texts[name][row] for name in TEXTS[:5]) for row in twice[:_SHOWN]]
            more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
            raise ContractBroken(
                f"{len(twice)} rows repeat an item, condition, temperature and type: {', '.join(ids)}{more}.",
                where=self.where,
                kept="Nothing was written.",
                hint="doit forget score && doit builds the table again",
            )


def read_scores(path: Path) -> Scores:
    """The scores in *path*.

    Raises FileNotFoundError, UnreadableFile, DamagedArtifact for a file that is no such CSV, and ContractBroken
    for missing columns, no rows, a cell that is no number in its range, or a repeated key.
    """
    texts: dict[str, list[str]] = {name: [] for name in TEXTS}
    numbers: dict[str, list[FloatArray]] = {name: [] for name in NUMBERS}
    with disk.readable(path), open(path, encoding="utf-8", newline="") as stream:
        reader = csv_text.rows(stream)
        try:
            header = next(reader, [])
            if missing := [name for name in (*TEXTS, *NUMBERS) if name not in header]:
                raise ContractBroken(f"columns missing: {', '.join(missing)}.", where=f"{path} row 1")
            done = 1
            while rows := list(islice(reader, _ROWS_AT_ONCE)):
                for number, row in enumerate(rows, done + 1):
                    if len(row) != len(header):
                        raise ContractBroken(f"{len(row)} fields, not {len(header)}.", where=f"{path} row {number}")
                columns = dict(zip(header, zip(*rows, strict=True), strict=True))
                for name in TEXTS:
                    plain = {cell: unguard(cell) for cell in set(columns[name])}  # few differ, and one text serves all
                    texts[name].extend(map(plain.__getitem__, columns[name]))
                for name in NUMBERS:
                    numbers[name].append(_parsed(columns[name], name, path, done))
                _parsed(columns["temp"], "temp", path, done)
                done += len(rows)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DamagedArtifact(f"not a CSV file ({error}).", where=f"{path} line {reader.line_num}") from error
    if not texts["item_id"]:
        raise ContractBroken("no rows: there is nothing to compare.", where=str(path))
    return Scores(texts, {name: np.concatenate(parts) for name, parts in numbers.items()}, str(path))


def joined(parts: Iterable[tuple[Scores, str, str]]) -> Scores:
    """One table from several: of each (scores, condition, new name) the rows of that condition, under the new name."""
    texts: dict[str, list[str]] = {name: [] for name in TEXTS}
    numbers: dict[str, list[FloatArray]] = {name: [] for name in NUMBERS}
    origins = []
    for scores, condition, new_name in parts:
        rows = [row for row, name in enumerate(scores.texts["condition"]) if name == condition]
        for name in TEXTS:
            texts[name] += [new_name] * len(rows) if name == "condition" else [scores.texts[name][row] for row in rows]
        for name in NUMBERS:
            numbers[name].append(scores.numbers[name][rows])
        origins.append(scores.where)
    return Scores(texts, {name: np.concatenate(columns) for name, columns in numbers.items()}, " and ".join(origins))


def _coded(values: Sequence[T]) -> tuple[IntArray, list[T]]:
    names = sorted(set(values))
    codes = {name: code for code, name in enumerate(names)}
    return np.fromiter(map(codes.__getitem__, values), dtype=np.int64, count=len(values)), names


def _parsed(cells: Sequence[str], name: str, path: Path, done: int) -> FloatArray:
    """The column *name* as floats, NaN for an empty cell where that is allowed; *done* rows came before."""
    values = {cell: _number(cell) for cell in set(cells)}  # rates have few distinct values: half the time is saved
    highest = 1 + 1e-9 if name in _BOUNDED else math.inf
    if name not in _FILLED:
        values[""] = math.nan
    if wrong := {cell for cell, value in values.items() if value is None or value < -1e-9 or value > highest}:
        row, cell = next((row, cell) for row, cell in enumerate(cells, done + 1) if cell in wrong)
        raise ContractBroken(
            f"{name}: {cell!r} is no number {'from 0 to 1' if name in _BOUNDED else 'of 0 or more'}.",
            where=f"{path} row {row}",
            kept="Nothing was written.",
            hint="doit forget score && doit builds the table again",
        )
    return np.fromiter(map(values.__getitem__, cells), dtype=np.float64, count=len(cells))


def _number(cell: str) -> float | None:
    """The finite number in *cell*, or None: the text "nan" is none, and neither is an empty cell."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
