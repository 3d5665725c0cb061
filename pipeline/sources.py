"""Question files read into items, the official formats here: SQuAD v2 JSON, NQ-Open JSONL, TriviaQA JSON.

Nothing is guessed: an item without a question, without a usable answer or with an id that stands there
twice is an error that names the file and the line or the place in the document. Own rows are `own_rows.py`'s.
"""

from __future__ import annotations

import codecs
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import disk, items, jsonl, own_rows
from pipeline.errors import SourceError
from pipeline.items import Item, Placed

MAX_ID = 500  # characters; ids travel in every custom_id
_NAMED = 5  # mistakes of one file that a message names; it counts the others


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
        item_id=items.text(entry["id"]),
        question=items.text(entry["question"]),
        answers=items.unique(items.text(answer["text"]) for answer in entry["answers"]),
        benchmark=items.benchmark_of(source),
        paragraph=name,
        title=title,
        context=items.text(paragraph["context"]),
        unanswerable=items.flag(entry.get("is_impossible", False)),
    )


def _nq_open(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    asked: Counter[str] = Counter()
    for place, data in items.lines(path):
        yield place, partial(_nq_open_item, source, asked, place, data)


def _nq_open_item(source: Mapping[str, Any], asked: Counter[str], place: str, data: bytes) -> Item:
    row = items.json_row(data, place)
    question = items.text(row["question"])
    item_id = items.question_id(question)
    asked[item_id] += 1
    if asked[item_id] > 1:  # the format has no ids, and its question may be repeated
        item_id = f"{item_id}-{asked[item_id]}"
    return _closed(source, item_id, question, items.texts(row["answer"]))


def _triviaqa(path: Path, source: Mapping[str, Any]) -> Iterator[Placed]:
    for number, entry in enumerate(_list(_document(path), "Data", str(path))):
        yield f"{path} Data[{number}]", partial(_triviaqa_item, source, entry)


def _triviaqa_item(source: Mapping[str, Any], entry: Any) -> Item:
    answer = entry["Answer"]
    # The official scorer's golds; they are normalised again when they are compared.
    aliases = answer.get("NormalizedAliases") or answer.get("Aliases") or [answer["Value"]]
    golds = items.unique([*items.texts(aliases), *items.texts(answer.get("HumanAnswers", []))])
    return _closed(source, items.text(entry["QuestionId"]), items.text(entry["Question"]), golds)


def _closed(source: Mapping[str, Any], item_id: str, question: str, answers: tuple[str, ...]) -> Item:
    return Item(
        source["dataset"], item_id, question, answers, items.benchmark_of(source), paragraph=item_id, title=item_id
    )


# --- pieces ---------------------------------------------------------------------------------------


def _document(path: Path) -> Any:
    try:
        return jsonl.loads(disk.read_bytes(path).removeprefix(codecs.BOM_UTF8))
    except FileNotFoundError as error:
        raise items.no_file(path) from error
    except jsonl.BadJson as error:
        raise SourceError(f"{error}.", where=str(path), hint="check that this is the official file") from error


def _list(document: Any, key: str, place: str) -> list[Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise SourceError(f"has no list {key!r} where the format has one.", where=place)
    return value


_READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Iterator[Placed]]] = {
    "squad_v2": _squad,
    "nq_open": _nq_open,
    "triviaqa": _triviaqa,
    "jsonl": own_rows.from_jsonl,
    "csv": own_rows.from_csv,
}
