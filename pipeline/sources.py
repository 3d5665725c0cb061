"""Question files in their official formats, read into one kind of item.

SQuAD v2 JSON, NQ-Open JSONL, TriviaQA JSON, and own rows as JSONL or CSV. Nothing is guessed: an
item without a question, without a usable answer or with an id that stands there twice is an error
that names the file and the line or the place in the document. A reader gives each item's place and
how to make it, so that all mistakes of a file are found in one go.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import csv_text, disk, jsonl, schema
from pipeline.errors import DamagedArtifact, SourceError
from pipeline.scoring import benchmarks

MAX_ID = 500  # characters; ids travel in every custom_id
_NAMED = 5  # mistakes of one file that a message names; it counts the others

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


def read(path: Path, source: Mapping[str, Any]) -> Iterator[Item]:
    """The items of one entry of the config's `sources`, in file order, at most its `limit`.

    Raises SourceError for a file that is not there, not of its format, or holds bad items: after the last of
    them, naming the first few. Nothing is yielded after a bad one.
    """
    seen: dict[str, str] = {}
    mistakes, count = list[SourceError](), 0
    places = itertools.islice(_READERS[source["format"]](path, source), source["limit"])
    while True:
        try:
            place, make = next(places)
        except StopIteration:
            break
        except SourceError as broken:  # the file itself: what follows cannot be told apart
            mistakes, count = [*mistakes[:_NAMED], broken], count + 1
            break
        try:
            item = _made(make, place, seen)
        except SourceError as mistake:
            mistakes, count = [*mistakes[:_NAMED], mistake], count + 1
            continue
        seen[item.item_id] = place
        if not mistakes:
            yield item
    if mistakes:
        raise mistakes[0] if count == 1 else _together(mistakes[:_NAMED], count, path)


def question_id(question: str) -> str:
    """The id of a question whose format has none: 16 hex of sha256 of its NFC form."""
    return hashlib.sha256(unicodedata.normalize("NFC", question).encode()).hexdigest()[:16]


def _together(mistakes: list[SourceError], count: int, path: Path) -> SourceError:
    named = [f"  {(mistake.where or '').removeprefix(str(path)).strip()}: {mistake.what}" for mistake in mistakes]
    more = [f"  and {count - len(named):,} more"] if count > len(named) else []
    return SourceError(
        "\n".join([f"{count:,} items cannot be used:", *named, *more]), where=str(path), hint=mistakes[0].hint
    )


def _made(make: Callable[[], Item], place: str, seen: Mapping[str, str]) -> Item:
    """The item, checked. Raises SourceError."""
    try:
        item = make()
    except KeyError as error:
        raise SourceError(f"the item has no {error.args[0]!r}.", where=place) from error
    except (TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"the item is not of its format ({error}).", where=place) from error
    _check(item, place)
    if item.item_id in seen:
        raise SourceError(
            f"the item id {item.item_id!r} stands there twice (first: {seen[item.item_id]}).",
            where=place,
            hint="give every item an id of its own",
        )
    return item


def _check(item: Item, place: str) -> None:
    if not item.question.strip():
        raise SourceError("the question is empty.", where=place, hint="write a question or remove the item")
    if not item.item_id.strip() or len(item.item_id) > MAX_ID:
        raise SourceError(f"the id must have 1 to {MAX_ID} characters.", where=place)
    if item.context is not None and not item.context.strip():
        raise SourceError("the passage is empty.", where=place, hint="write a passage, or leave `context` out")
    if item.unanswerable and item.context is None:
        raise SourceError(
            "marked unanswerable, but there is no passage it could not be answered from.",
            where=place,
            hint="give it a context, or at least one right answer",
        )
    if item.unanswerable and any(answer.strip() for answer in item.answers):
        raise SourceError("marked unanswerable, and there is an answer.", where=place, hint="remove one of the two")
    if not item.unanswerable and not any(answer.strip() for answer in item.answers):
        raise SourceError(
            "there is no answer.", where=place, hint="give at least one right answer, or mark it is_unanswerable: true"
        )


# --- official formats -----------------------------------------------------------------------------


def _squad(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    document = _document(path)
    # Over the whole file: titles repeat, or are all empty, where a file was put together from pieces, and every
    # article's first paragraph was one cluster. Nor may a passage that stands there again be counted as another.
    counted: Counter[str] = Counter()
    named: dict[tuple[str, str], str] = {}
    for d, article in enumerate(_list(document, "data", str(path))):
        paragraphs = _list(article, "paragraphs", f"{path} data[{d}]")
        title = article.get("title")
        title = str(d if title in (None, "") else title)
        here: dict[tuple[str, str], str] = {}
        for p, paragraph in enumerate(paragraphs):
            entries = _list(paragraph, "qas", f"{path} data[{d}].paragraphs[{p}]")
            passage = (title, str(paragraph.get("context")))
            name = named.get(passage, f"{title}/{counted[title]}")
            counted[title] += passage not in named
            here[passage] = name
            for q, entry in enumerate(entries):
                place = f"{path} data[{d}].paragraphs[{p}].qas[{q}]"
                yield place, partial(_squad_item, source, title, name, paragraph, entry)
        named |= here  # only now: one article's paragraphs are told apart by their places, as ever


def _squad_item(source: Mapping[str, Any], title: str, name: str, paragraph: Any, entry: Any) -> Item:
    return Item(
        dataset=source["dataset"],
        item_id=_text(entry["id"]),
        question=_text(entry["question"]),
        answers=_unique(_text(answer["text"]) for answer in entry["answers"]),
        benchmark=_benchmark(source),
        paragraph=name,
        title=title,
        context=_text(paragraph["context"]),
        unanswerable=_flag(entry.get("is_impossible", False)),
    )


def _nq_open(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    asked: Counter[str] = Counter()
    for place, data in _lines(path):
        yield place, partial(_nq_open_item, source, asked, place, data)


def _nq_open_item(source: Mapping[str, Any], asked: Counter[str], place: str, data: bytes) -> Item:
    row = _json_row(data, place)
    question = _text(row["question"])
    item_id = question_id(question)
    asked[item_id] += 1
    if asked[item_id] > 1:  # the format has no ids, and its question may be repeated
        item_id = f"{item_id}-{asked[item_id]}"
    return _closed(source, item_id, question, _texts(row["answer"]))


def _triviaqa(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    for number, entry in enumerate(_list(_document(path), "Data", str(path))):
        yield f"{path} Data[{number}]", partial(_triviaqa_item, source, entry)


def _triviaqa_item(source: Mapping[str, Any], entry: Any) -> Item:
    answer = entry["Answer"]
    # The official scorer's golds; they are normalised again when they are compared.
    aliases = answer.get("NormalizedAliases") or answer.get("Aliases") or [answer["Value"]]
    golds = _unique([*_texts(aliases), *_texts(answer.get("HumanAnswers", []))])
    return _closed(source, _text(entry["QuestionId"]), _text(entry["Question"]), golds)


# --- own rows -------------------------------------------------------------------------------------


def _own_jsonl(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    for place, data in _lines(path):
        yield place, partial(_own_row, source, place, data)


def _own_row(source: Mapping[str, Any], place: str, data: bytes) -> Item:
    row = _json_row(data, place)
    _refuse_other_names(row, source, place)
    return _own_item(row, source, place)


def _own_csv(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    """A header, then rows with as many cells; an empty cell is an absent one."""
    try:
        text = disk.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise _no_file(path) from error
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
                yield place, partial(_own_cells, source, place, header, row)
    except csv.Error as error:
        raise SourceError(f"is not valid CSV ({error}).", where=f"{path} line {reader.line_num}") from error


def _own_cells(source: Mapping[str, Any], place: str, header: list[str], row: list[str]) -> Item:
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
    return _own_item(cells, source, place)


def _header(row: list[str], source: Mapping[str, Any], place: str) -> list[str]:
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


def _own_item(row: Mapping[str, Any], source: Mapping[str, Any], place: str) -> Item:
    names = source["fields"]

    def cell(name: str, default: Any = None) -> Any:
        value = row.get(names.get(name, name))
        return default if value is None else value

    question = _text(row[names.get("question", "question")])
    item_id = cell("id", question_id(question))
    item_id = str(item_id) if isinstance(item_id, int) and not isinstance(item_id, bool) else _text(item_id)
    answers = cell("answers", [])
    context = cell("context")
    item = Item(
        dataset=source["dataset"],
        item_id=item_id,
        question=question,
        answers=_texts([answers] if isinstance(answers, str) else answers),
        benchmark=_benchmark(source),
        paragraph=_text(
            cell("cluster", hashlib.sha256(_text(context).encode()).hexdigest()[:16] if context else item_id)
        ),
        title=_text(cell("cluster", item_id)),
        context=_text(context) if context is not None else None,
        unanswerable=_flag(cell("is_unanswerable", False)),
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


def _closed(source: Mapping[str, Any], item_id: str, question: str, answers: tuple[str, ...]) -> Item:
    return Item(source["dataset"], item_id, question, answers, _benchmark(source), paragraph=item_id, title=item_id)


# --- pieces ---------------------------------------------------------------------------------------


def _document(path: Path) -> Any:
    try:
        return jsonl.loads(disk.read_bytes(path).removeprefix(codecs.BOM_UTF8))
    except FileNotFoundError as error:
        raise _no_file(path) from error
    except jsonl.BadJson as error:
        raise SourceError(f"{error}.", where=str(path), hint="check that this is the official file") from error


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        for line in jsonl.lines(path):
            yield f"{path} line {line.number}", line.data
    except FileNotFoundError as error:
        raise _no_file(path) from error
    except DamagedArtifact as error:
        raise SourceError(error.what, where=error.where) from error


def _json_row(data: bytes, place: str) -> dict[str, Any]:
    try:
        row = jsonl.loads_checked(data)
    except jsonl.BadJson as error:
        raise SourceError(f"{error}.", where=place) from error
    if not isinstance(row, dict):
        raise SourceError(f"holds a JSON {type(row).__name__}, not an object.", where=place)
    return row


def _no_file(path: Path) -> SourceError:
    return SourceError("there is no such question file.", where=str(path), hint="check `path` in the config's sources")


def _list(document: Any, key: str, place: str) -> list[Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise SourceError(f"has no list {key!r} where the format has one.", where=place)
    return value


def _texts(value: Any) -> tuple[str, ...]:
    # Only a list: a text or a mapping would give its characters or its keys, and nobody would notice.
    if not isinstance(value, list):
        raise TypeError(f"expected a list of texts, found {value!r:.60}")
    return _unique(map(_text, value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r:.60}")
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "false", "0", "no", ""):
        return value.strip().lower() in ("true", "1", "yes")
    raise TypeError(f"expected true or false, found {value!r}")


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _benchmark(source: Mapping[str, Any]) -> str:
    return source["benchmark"] or BENCHMARKS[source["format"]]


_READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Iterator[Placed]]] = {
    "squad_v2": _squad,
    "nq_open": _nq_open,
    "triviaqa": _triviaqa,
    "jsonl": _own_jsonl,
    "csv": _own_csv,
}
