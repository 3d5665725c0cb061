"""A user's own questions as JSONL or CSV: which cell is what, under whichever names the config's `fields` give.

Whoever calls a field otherwise is told what to write. An answer of which the benchmark's rules leave
nothing is an error: nobody could be right.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import csv_text, disk, items, schema
from pipeline.errors import SourceError
from pipeline.items import Item, Placed
from pipeline.scoring import benchmarks

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}  # what spreadsheets write in other countries, or when pasted


def from_jsonl(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    """The items of a JSON Lines file. Raises SourceError."""
    for place, data in items.lines(path):
        yield place, partial(_row, source, place, data)


def from_csv(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    """The items of a CSV file: a header, then rows with as many cells; an empty cell is an absent one.

    Raises SourceError.
    """
    try:
        text = disk.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise items.no_file(path) from error
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8 ({error.reason} at byte {error.start}).", where=str(path)) from error
    reader = csv_text.rows(io.StringIO(text, newline=""))
    header: list[str] = []
    try:
        for row in reader:
            place = f"{path} line {reader.line_num}"
            if not header:
                header = _header(row, source, place)
            elif row:
                yield place, partial(_cells, source, place, header, row)
    except csv.Error as error:
        raise SourceError(f"is not valid CSV ({error}).", where=f"{path} line {reader.line_num}") from error


def _row(source: Mapping[str, Any], place: str, data: bytes) -> Item:
    row = items.json_row(data, place)
    _refuse_other_names(row, source, place)
    return _item(row, source, place)


def _cells(source: Mapping[str, Any], place: str, header: list[str], row: list[str]) -> Item:
    if len(row) != len(header):
        raise SourceError(
            f"{len(row)} cells under a header of {len(header)}.",
            where=place,
            hint="put cells that hold a comma, a quote or a line end in quotes",
        )
    cells: dict[str, Any] = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    answers = source["fields"].get("answers", "answers")
    if answers in cells:
        pieces = cells[answers].split(source["answer_separator"])
        cells[answers] = [piece.strip() for piece in pieces if piece.strip()]
    return _item(cells, source, place)


def _header(row: list[str], source: Mapping[str, Any], place: str) -> list[str]:
    if len(row) == 1 and (other := [name for mark, name in _OTHER_SEPARATORS.items() if mark in row[0]]):
        raise SourceError(
            f"the header is one cell, {row[0]!r}: cells are separated by commas, not by {other[0]}.",
            where=place,
            hint="save the file with commas between its cells",
        )
    if len(set(row)) != len(row):
        raise SourceError("two columns have the same name.", where=place)
    if missing := [name for name in source["fields"].values() if name not in row]:
        raise SourceError(
            f"there is no column {missing[0]!r}, which the config's `fields` names{schema.nearest(missing[0], row)}",
            where=place,
        )
    _refuse_other_names(row, source, place)
    return row


def _refuse_other_names(names: Collection[str], source: Mapping[str, Any], place: str) -> None:
    """Whoever calls things otherwise is told what to write; without it only "no answer" would be said of each row."""
    fields = source["fields"]
    optional = fields.get("is_unanswerable", "is_unanswerable") in names  # then answers may be left out
    for name in ("question",) if optional else ("question", "answers"):
        if fields.get(name, name) not in names:
            raise SourceError(
                f"there is no {fields.get(name, name)!r}; there are: {', '.join(map(str, names)) or 'none'}.",
                where=place,
                hint=f"say what your file calls it in the config's source, as in fields: {{{name}: ...}}",
            )


def _item(row: Mapping[str, Any], source: Mapping[str, Any], place: str) -> Item:
    names = source["fields"]

    def cell(name: str, default: Any = None) -> Any:
        value = row.get(names.get(name, name))
        return default if value is None else value

    question = items.text(row[names.get("question", "question")])
    item_id = cell("id", items.question_id(question))
    item_id = str(item_id) if isinstance(item_id, int) and not isinstance(item_id, bool) else items.text(item_id)
    answers = cell("answers", [])
    context = cell("context")
    item = Item(
        dataset=source["dataset"],
        item_id=item_id,
        question=question,
        answers=items.texts([answers] if isinstance(answers, str) else answers),
        benchmark=items.benchmark_of(source),
        paragraph=items.text(
            cell("cluster", hashlib.sha256(items.text(context).encode()).hexdigest()[:16] if context else item_id)
        ),
        title=items.text(cell("cluster", item_id)),
        context=items.text(context) if context is not None else None,
        unanswerable=items.flag(cell("is_unanswerable", False)),
    )
    _check_golds(item, place)
    return item


def _check_golds(item: Item, place: str) -> None:
    """Refuse an answer that is nothing to the benchmark: officially, whoever declines would then be right."""
    given = [answer for answer in item.answers if answer.strip()]
    if given and not item.unanswerable and not any(benchmarks()[item.benchmark].golds(given)):
        raise SourceError(
            f"nothing is left of the answer {given[0]!r}: {item.benchmark} drops punctuation and a, an, the.",
            where=place,
            hint="write it otherwise, here and in the prompt (options as 1-4 or B-E, say), or remove the item",
        )
