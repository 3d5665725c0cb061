"""score: `per_item_scores.csv`, one row per item, temperature and condition, aligned with `predictions.csv`.

The columns are those of COLUMNS; an empty cell means "not applicable", never 0. Rows are sorted by
type, dataset, item, temperature, condition. Rates are means over the samples that have a response,
each std has ddof=1 and is empty below two samples. A request without a response (status `error`)
counts in n_missing and in nothing else. `abstain_rules` names what makes each abstaining sample one, as
`sample_index:rule`, so that the detector can be audited beside predictions.csv: `0:dont_know 4:empty`.

parse has made sure that predictions.csv holds every request that build made, so it defines the grid:
every prepared item must stand there under every condition and temperature that occur, with samples 0
to K-1 for one K. Anything else is an error that names ids, and the old file stays. So it does where no row at all
holds an answer: its report could only say that there is nothing to compare.

Memory grows with items: of an answer 16 bytes are kept, and a passage is read again when it is needed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pipeline import csv_text, custom_id, disk, jsonl
from pipeline.cells import guard, unguard
from pipeline.custom_id import CLOSED, OPEN
from pipeline.errors import ContractBroken
from pipeline.phases import Outcome, Output
from pipeline.predictions import ERROR, OK, TRUNCATED
from pipeline.scoring import benchmarks
from pipeline.scoring.benchmark import Benchmark
from pipeline.scoring.response import ItemScorer, Numbers, ScoringSettings
from pipeline.scoring.unsupported import Passage

# fmt: off
COLUMNS = (
    "item_key", "dataset", "item_id", "type", "condition", "temp", "n_samples", "n_missing",
    "em", "em_std", "f1", "f1_std", "abstain_rate", "abstain_rate_std", "false_answer_rate", "false_answer_rate_std",
    "unsupported_rate", "unsupported_rate_std", "cluster",
    "answerable", "n_answered", "consistency", "unsupported_alt_rate", "n_truncated", "abstain_rules",
)
# fmt: on
_READ = ("type", "dataset", "item_id", "condition", "temp", "sample_index", "status", "response_text")

MAX_SAMPLES = 1_000  # per item, condition and temperature: the config's limit
SHOWN = 5  # ids that an error message lists
REASONS = 3  # why answers are missing, in an error message
REASON_SHOWN = 100  # characters of each
PASSAGES = 16  # passages kept ready: the questions of one paragraph follow each other

_ANSWER = struct.Struct("<iiq")  # sample index, number of its outcome, hash of the normalised answer
_Key = tuple[str, str, str]  # type, dataset, item id


class _Place(NamedTuple):
    """Where the prepared row starts that holds a passage."""

    path: Path
    offset: int


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: an item is a key of the answers
class _Item:
    key: _Key
    cluster: str
    benchmark: Benchmark
    golds: tuple[str, ...]
    passage: _Place | None


class _Outcome(NamedTuple):
    """What one response adds to its row; *numbers* is None where there is no response."""

    numbers: Numbers | None
    truncated: bool
    abstain_rule: str | None


@dataclass
class _Answers:
    """All responses, packed, by (temperature, condition) and item; and the counts beside them."""

    cells: dict[tuple[str, str], dict[_Item, bytes]] = field(default_factory=dict)
    outcomes: dict[_Outcome, int] = field(default_factory=dict)
    rules: Counter[str] = field(default_factory=Counter)  # abstentions by rule
    missing: Counter[str] = field(default_factory=Counter)  # by condition
    truncated: Counter[str] = field(default_factory=Counter)  # by condition
    rows: int = 0


def score(predictions: Path, prepared: Sequence[Path], target: Path, settings: ScoringSettings) -> Outcome:
    """Score every response of *predictions* against the *prepared* items and write *target*.

    The facts count items, responses, missing and truncated ones, and abstentions by rule. Raises
    ContractBroken where predictions and items do not agree, a row is damaged or none holds an answer; then
    *target* is what it was.
    """
    items = _items(prepared)
    answers = _answers(predictions, items, settings)
    samples = _check(predictions, items, answers)
    if answers.missing.total() == answers.rows:
        raise _unanswered(predictions, answers.rows)
    with disk.replacing(target) as replacement:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for row in _rows(items, answers, samples):
            writer.writerow(row)
            if buffer.tell() > disk.READ_BLOCK:
                replacement.write(buffer.getvalue().encode())
                buffer.seek(0)
                buffer.truncate()
        replacement.write(buffer.getvalue().encode())
    rows = len(items) * len(answers.cells)
    conditions = sorted({condition for _, condition in answers.cells})
    facts = {
        "row_count": rows,
        "items": len(items),
        "responses": answers.rows,
        "missing": {condition: answers.missing[condition] for condition in conditions},
        "truncated": {condition: answers.truncated[condition] for condition in conditions},
        "abstain_rules": dict(sorted(answers.rules.items())),
    }
    return Outcome({target: Output(replacement.written, rows)}, facts)


# --- prepared items -------------------------------------------------------------------------------


def _items(prepared: Iterable[Path]) -> dict[_Key, _Item]:
    """Every prepared item, golds normalised once; of its passage only the place."""
    items: dict[_Key, _Item] = {}
    places: dict[bytes, _Place] = {}
    for path in prepared:
        with disk.readable(path), open(path, "rb") as stream:
            offset = 0
            for number, line in enumerate(stream, 1):
                try:
                    item = _item(line, _Place(path, offset), places)
                    if item.key in items:
                        raise ValueError(f"the item {_name(item.key)} stands there twice")
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    reason = f"no {error}" if isinstance(error, KeyError) else error
                    raise ContractBroken(
                        f"not a usable prepared item ({reason}).",
                        where=f"{path} line {number}",
                        kept="Nothing was written.",
                        hint="doit forget prepare, then doit",
                    ) from error
                items[item.key] = item
                offset += len(line)
    return items


def _item(line: bytes, place: _Place, places: dict[bytes, _Place]) -> _Item:
    row = jsonl.loads(line)
    name = row["benchmark"]
    if name not in benchmarks():
        raise ValueError(f"the benchmark {name!r} is not one of {', '.join(sorted(benchmarks()))}")
    benchmark = benchmarks()[name]
    context: str | None = row.get("context")
    passage = None
    if context is not None:
        # Questions on one passage share its place, so that it is read once for all of them.
        passage = places.setdefault(hashlib.blake2b(context.encode(), digest_size=16).digest(), place)
    golds = () if row.get("is_unanswerable", False) else benchmark.golds(row["answers"])
    key = (CLOSED if context is None else OPEN, row["dataset"], row["id"])
    return _Item(key, row["cluster"], benchmark, golds, passage)


def _passage(place: _Place) -> Passage:
    with disk.readable(place.path), open(place.path, "rb") as stream:
        stream.seek(place.offset)
        return Passage(jsonl.loads(stream.readline())["context"])


# --- responses ------------------------------------------------------------------------------------


def _answers(predictions: Path, items: Mapping[_Key, _Item], settings: ScoringSettings) -> _Answers:
    """Score every row of *predictions*. The samples of an item follow each other, so one scorer is kept."""
    answers = _Answers()
    passage = lru_cache(PASSAGES)(_passage)  # for this call only: the next one may find another file there
    unknown: Counter[str] = Counter()
    current: _Item | None = None
    scorer: ItemScorer | None = None
    for number, (kind, dataset, item_id, condition, temp, sample, status, text) in _predictions(predictions):
        answers.rows += 1
        key = (kind, unguard(dataset), unguard(item_id))
        item = items.get(key)
        if item is None:
            unknown[_name(key)] += 1
            continue
        try:
            cell = answers.cells.setdefault((_temperature(temp), condition), {})
            index = _sample(sample)
            if status not in (OK, TRUNCATED, ERROR):
                raise ValueError(f"the status {status!r}")
        except ValueError as error:
            raise _broken(f"not a prediction: {error}.", f"{predictions} row {number}") from error
        if status == ERROR:
            outcome, answer = _Outcome(None, truncated=False, abstain_rule=None), 0
            answers.missing[condition] += 1
        else:
            if item is not current or scorer is None:
                current = item
                scorer = ItemScorer(item.benchmark, item.golds, item.passage and passage(item.passage), settings)
            scored = scorer.score(unguard(text))
            outcome = _Outcome(scored.numbers, status == TRUNCATED, scored.abstain_rule)
            answer = hash(scored.normalised)
            answers.truncated[condition] += outcome.truncated
            if scored.abstain_rule is not None:
                answers.rules[scored.abstain_rule] += 1
        code = answers.outcomes.setdefault(outcome, len(answers.outcomes))
        cell[item] = cell.get(item, b"") + _ANSWER.pack(index, code, answer)
    if unknown:
        raise _broken(f"{len(unknown):,} items were never prepared: {_some(unknown)}.", str(predictions))
    return answers


def _predictions(path: Path, columns: Sequence[str] = _READ) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(row number, the cells of *columns*) for every row below the header; rows count from 1."""
    number = 0
    try:
        with disk.readable(path), open(path, encoding="utf-8", newline="") as stream:
            rows = csv_text.rows(stream)
            header = next(rows, [])
            if missing := [name for name in columns if name not in header]:
                raise _broken(f"the columns {', '.join(missing)} are missing.", str(path))
            cells = itemgetter(*map(header.index, columns))
            for number, row in enumerate(rows, 1):
                if len(row) != len(header):
                    raise _broken(f"{len(row)} cells instead of {len(header)}.", f"{path} row {number}")
                yield number, cells(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _broken(f"not readable as CSV in UTF-8 ({error}).", f"{path} after row {number}") from error


@lru_cache(256)
def _temperature(text: str) -> str:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the temperature {text!r}")
    return custom_id.temperature_text(value)


@lru_cache(MAX_SAMPLES)
def _sample(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= MAX_SAMPLES:
        raise ValueError(f"the sample_index {text!r}")
    return int(text)


def _check(predictions: Path, items: Mapping[_Key, _Item], answers: _Answers) -> int:
    """The number of samples, the same for every item, condition and temperature. Raises ContractBroken otherwise."""
    if not answers.rows:
        raise _broken("there is no prediction.", str(predictions))
    temps, conditions = map(set, zip(*answers.cells, strict=True))
    samples = max(len(given) for cell in answers.cells.values() for given in cell.values()) // _ANSWER.size
    twice: list[str] = []
    wrong: list[str] = []
    for temp, condition in sorted(product(temps, conditions)):
        cell = answers.cells.get((temp, condition), {})
        for key, item in items.items():
            indexes = sorted(index for index, _, _ in _ANSWER.iter_unpack(cell.get(item, b"")))
            if indexes == list(range(samples)):
                continue
            name = f"{_name(key)} {condition} {temp}"
            twice += [f"{name} sample {index}" for index, times in Counter(indexes).items() if times > 1]
            wrong.append(f"{name} has {len(set(indexes))}")
    if twice:
        raise _broken(f"{len(twice):,} samples stand there more than once: {_some(twice)}.", str(predictions))
    if wrong:
        raise _broken(
            f"{len(wrong):,} of items x conditions x temperatures do not have {samples} samples: {_some(wrong)}.",
            str(predictions),
        )
    return samples


# --- rows -----------------------------------------------------------------------------------------


class _Summary(NamedTuple):
    """The cells of a row that follow from its outcomes alone."""

    rates: tuple[str, ...]  # mean and std of em, f1, abstained, false_answer, unsupported
    alternative: str
    answered: str
    truncated: str


def _rows(items: Mapping[_Key, _Item], answers: _Answers, samples: int) -> Iterator[Sequence[str]]:
    outcomes = list(answers.outcomes)

    @lru_cache(1 << 12)  # with a few samples an item, the same mixtures come again and again
    def summary(codes: tuple[int, ...]) -> _Summary:
        return _summary([outcomes[code] for code in codes])

    grid = sorted(answers.cells, key=lambda cell: (float(cell[0]), cell[1]))
    for (kind, dataset, item_id), item in sorted(items.items()):
        name = f"{custom_id.escape(dataset)}|{custom_id.escape(item_id)}"
        names = (guard(name), guard(dataset), guard(item_id), kind)
        answerable = str(int(bool(item.golds)))
        for temp, condition in grid:
            given = sorted(_ANSWER.iter_unpack(answers.cells[temp, condition][item]))
            present = [answer for _, code, answer in given if outcomes[code].numbers is not None]
            rates, alternative, answered, truncated = summary(tuple(sorted(code for _, code, _ in given)))
            yield (
                *names, condition, temp, str(samples), str(samples - len(present)), *rates, guard(item.cluster),
                answerable, answered, _consistency(present), alternative, truncated,
                " ".join(f"{index}:{rule}" for index, code, _ in given if (rule := outcomes[code].abstain_rule)),
            )  # fmt: skip


def _consistency(answers: Sequence[int]) -> str:
    """The share of *answers* equal to the most frequent one; abstentions are one answer among others."""
    return repr(max(Counter(answers).values()) / len(answers)) if answers else ""


def _summary(outcomes: Sequence[_Outcome]) -> _Summary:
    numbers = [outcome.numbers for outcome in outcomes if outcome.numbers is not None]
    rates = [[value for value in column if value is not None] for column in zip(*numbers, strict=True)]
    *columns, alternative = rates or [[] for _ in Numbers._fields]
    return _Summary(
        tuple(cell for column in columns for cell in _mean_and_std(column)),
        _mean_and_std(alternative)[0],
        str(sum(not number.abstained for number in numbers)),
        str(sum(outcome.truncated for outcome in outcomes)),
    )


def _mean_and_std(values: Sequence[float]) -> tuple[str, str]:
    """Mean and std (ddof=1), "" where there are too few values. Sums are exact, so their order does not matter."""
    if not values:
        return "", ""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return repr(float(mean)), ""
    if min(values) == max(values):
        return repr(float(values[0])), "0.0"
    return repr(mean), repr(math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)))


# --- messages -------------------------------------------------------------------------------------


def _name(key: _Key) -> str:
    kind, dataset, item_id = key
    return f"{custom_id.escape(dataset)}|{custom_id.escape(item_id)} ({kind})"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _unanswered(predictions: Path, rows: int) -> ContractBroken:
    said = Counter(unguard(error) for _, (error, _) in _predictions(predictions, ("error", "status")))
    reasons = [f"{times:,}: {' '.join(text.split())[:REASON_SHOWN]}" for text, times in said.most_common(REASONS)]
    return ContractBroken(
        f"none of {rows:,} requests has an answer; there is nothing to compare ({'; '.join(reasons)}"
        f"{'; ...' if len(said) > REASONS else ''}).",
        where=str(predictions),
        kept="No score was written. What came back, and may have been paid, is kept, with each reason in column error.",
        hint="start a new run: other prompts or another model where a filter stopped it, a larger decoding.max_tokens "
        "where it ended at `length` before it answered",
    )


def _broken(what: str, where: str) -> ContractBroken:
    return ContractBroken(
        what,
        where=where,
        kept="No score was written; the scores that stood there are untouched.",
        hint="doit forget parse, then doit: predictions.csv is built again from the results",
    )
