"""costs: what the trial's tokens cost, priced once and in one place, with everything unknown said so.

A row without token counts is unpriced and counted, not free; an unknown price gives `usd: null` and a
reason. Money that bought no answer is the difference between the provider's own counts and the rows that
count (errors, expired jobs, duplicates), and the price of responses without an answer (the content filter).
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby, islice
from operator import gt, itemgetter
from pathlib import Path
from typing import Any

from pipeline import csv_text, custom_id, disk, jsonl, schema
from pipeline.config import Config
from pipeline.errors import ContractBroken, DamagedArtifact
from pipeline.identity import FORMATS
from pipeline.ledger import ID_TAKEN
from pipeline.paths import TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.predictions import ERROR
from pipeline.queue import budget
from pipeline.queue.estimates import Price, Tokens
from pipeline.trials import Trial

SCHEMA = "costs.schema"
_SCORES = ("condition", "item_key", "em", "n_samples", "n_missing")  # the columns read of per_item_scores.csv
_UNDONE = {
    "kept": "No costs were written.",
    "hint": "run the same command again without a selection of phases: the file is repaired first",
}
_BLOCK = 1000  # rows of usage.csv counted at a time
_NO_COUNT = ("", "0")  # no request is of 0 tokens
_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
_OF_NO_ANSWER = "unanswered_"  # before the name of a count: of rows that were counted and are no answer


def costs(paths: TrialPaths, config: Config, trial: Trial) -> Outcome:
    """Write `costs.json`. Raises DamagedArtifact when an input is not what its phase wrote."""
    price = Price.of(config, trial)
    with _as_written(paths.usage):
        totals = _totals(paths.usage)
    everything = _sum(totals.values())
    with _as_written(paths.attempts):
        history = jsonl.read_document(paths.attempts)
        parts, attempts = [_part(part, price) for part in history["parts"]], _attempts(history, everything, price)
        asked = sum(part["rows"] for part in parts)
    if everything["rows"] != asked:
        raise ContractBroken(
            f"{everything['rows']:,} rows, but {asked:,} were asked for.", where=str(paths.usage), **_UNDONE
        )
    by_condition = {
        condition: _sum(total for key, total in totals.items() if key[0] == condition)
        for condition in sorted(trial.conditions)
    }
    document = {
        **_money(everything, price),
        "schema_version": FORMATS["costs"],
        "usage_source": {"type": "predictions", "path": paths.relative(paths.usage)},
        "batch_discount_applied": config["prices"]["batch_discount"] > 0,
        "pricing": _pricing(config, trial, price),
        "conditions": {condition: _money(total, price) for condition, total in by_condition.items()},
        "temps": {
            custom_id.temp_key(temp): {
                condition: _money(totals[condition, custom_id.temperature_text(temp)], price)
                for condition in sorted(trial.conditions)
            }
            for temp in trial.temperatures
        },
        "parts": parts,
        "attempts": attempts,
    }
    with _as_written(paths.scores):
        for condition, per_item in _per_item(by_condition, price, paths.scores).items():
            document["conditions"][condition] |= per_item
    data = jsonl.dumps_pretty(document)
    schema.require_none(schema.problems_in(data, SCHEMA), "costs.json")
    written = disk.write_bytes(paths.costs, data)
    return Outcome(
        {paths.costs: Output(written)},
        {
            "costs_json": paths.relative(paths.costs),
            "provider": config["provider"],
            "pricing_key": document["pricing"]["model_key"],
            "usd": document["usd"],
        },
    )


def _totals(usage: Path) -> dict[tuple[str, str], Counter[str]]:
    """Rows and tokens by (condition, temperature); what the provider did not count is not 0 but unpriced."""
    totals: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    rows = _rows(usage, ("custom_id", "status", *_TOKENS))
    # In blocks of one cell, as the rows lie: sums of columns cost a fifth of counting each row by itself.
    while block := list(islice(rows, _BLOCK)):
        for cell, some in groupby(block, lambda row: _cell_of(row[0].split("|", 2)[2])):
            asked = list(some)
            counted = [row[2:] for row in asked if _is_counted(row)]
            totals[cell].update({**_sums(counted), "rows": len(asked), "priced_rows": len(counted)})
            unanswered = _sums([row[2:] for row in asked if row[1] == ERROR and _is_counted(row)])
            totals[cell].update({_OF_NO_ANSWER + name: number for name, number in unanswered.items()})
            if len(counted) < len(asked):
                answers = sum(row[1] != ERROR and not _is_counted(row) for row in asked)
                totals[cell]["unpriced_answers"] += answers
    return totals


def _is_counted(row: Sequence[str]) -> bool:
    """Whether the provider counted the tokens of *row*: what it read, of no request 0, and what it wrote."""
    prompt, completion = row[2], row[3]
    return prompt not in _NO_COUNT and completion != "" and "-" not in prompt + completion


def _sums(rows: Sequence[Sequence[str]]) -> dict[str, int]:
    """The tokens of some rows together, by name."""
    if not rows:
        return dict.fromkeys(_TOKENS, 0)
    columns = zip(*rows, strict=True)
    prompt, completion, total, cached = ([int(cell) if cell else 0 for cell in column] for column in columns)
    # What parse no longer writes, but an older table may hold: counts below 0, and more tokens cached than read.
    if any(map(gt, cached, prompt)) or min(cached) < 0 or min(total) < 0:
        total = [max(0, count) for count in total]
        cached = [max(0, min(counts)) for counts in zip(cached, prompt, strict=True)]
    return dict(zip(_TOKENS, map(sum, (prompt, completion, total, cached)), strict=True))


@lru_cache(4096)  # a run has few conditions, temperatures and samples, and millions of rows
def _cell_of(rest: str) -> tuple[str, str]:
    """Condition and temperature in what follows the item in a custom_id."""
    request = custom_id.split(f"d|i|{rest}")
    return request.condition, request.temp


def _sum(totals: Iterable[Counter[str]]) -> Counter[str]:
    return sum(totals, Counter())


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The cells of *columns* of each row."""
    with disk.readable(path), open(path, newline="", encoding="utf-8") as stream:
        rows = csv_text.rows(stream)
        header = next(rows, [])
        if missing := set(columns).difference(header):
            raise LookupError(f"no column {min(missing)}")
        cells = itemgetter(*map(header.index, columns))
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"line {rows.line_num} has {len(row)} cells instead of {len(header)}")
            yield cells(row)


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """Whatever is wrong inside *path* is damage: its phase wrote something else."""
    try:
        yield
    except (csv.Error, ValueError, LookupError, TypeError) as error:
        raise DamagedArtifact(
            f"is not what its phase wrote ({type(error).__name__}: {error}).",
            where=str(path),
            **_UNDONE,
        ) from error


def _money(total: Mapping[str, int], price: Price) -> dict[str, Any]:
    """Tokens and US dollars of some rows, under the names people know."""
    usd = _price_of(total, price)
    return {
        "prompt_tokens": total["prompt_tokens"],
        "completion_tokens": total["completion_tokens"],
        "total_tokens": total["total_tokens"],
        "cached_tokens": total["cached_tokens"],
        "usage_records": total["priced_rows"],
        "unpriced_rows": total["rows"] - total["priced_rows"],
        "unpriced_answers": total["unpriced_answers"],
        "usd": _usd(usd),
        "usd_per_request": _each(usd, total["priced_rows"]),
    }


def _price_of(total: Mapping[str, int], price: Price) -> float | None:
    """US dollars of some rows, not rounded; what was counted of no row has no price."""
    if total["rows"] and not total["priced_rows"]:
        return None
    return price.usd(total["prompt_tokens"], total["completion_tokens"], total["cached_tokens"])


def _pricing(config: Config, trial: Trial, price: Price) -> dict[str, Any]:
    prices = config["prices"]["models"]
    key = config.price_key(trial.model, trial.alias)
    known = price.input is not None
    reason = None
    if key is None:
        reason = "the emulator is free" if known else f"no price for {trial.model!r} under prices.models"
    return {
        "provider": config["provider"],
        "model_key": key or trial.model,
        "input_rate_per_mtok": prices[key]["input_per_mtok"] if key else (0.0 if known else None),
        "output_rate_per_mtok": prices[key]["output_per_mtok"] if key else (0.0 if known else None),
        "rate_type": "list price per million tokens, before discounts",
        "table_found": key is not None,
        "use_batch_api": True,
        "batch_discount": config["prices"]["batch_discount"],
        "cached_discount": config["prices"]["cached_discount"],
        "reason": reason,
    }


def _part(part: Mapping[str, Any], price: Price) -> dict[str, Any]:
    counted, unknown = _counted([part])
    usd = None if unknown else price.usd(*_total(counted))
    return {
        "part": part["part"],
        "attempts": len(part["attempts"]),
        "rows": part["rows"],
        "failed": part["failed"],
        "provider_input_tokens": _total(counted).input_tokens if counted else None,
        "provider_output_tokens": _total(counted).output_tokens if counted else None,
        "usd": _usd(usd),
    }


def _counted(parts: Iterable[Mapping[str, Any]]) -> tuple[list[Tokens], int]:
    """What the provider counted, attempt by attempt, and of how many it did not say; by the budget's rules.

    A part whose attempts are not known any more had one at least.
    """
    known: list[Tokens] = []
    unknown = 0
    for part in parts:
        # An attempt whose id was another's had no job: it cost nothing.
        made = [attempt for attempt in part["attempts"] if attempt["state"] != ID_TAKEN]
        said = [budget.counted_of(attempt) for attempt in made]
        known += [tokens for tokens in said if tokens is not None]
        unknown += said.count(None) or (not part["attempts"])
    return known, unknown


def _total(counted: Sequence[Tokens]) -> Tokens:
    return Tokens(*map(sum, zip(*counted, strict=True))) if counted else Tokens(0, 0, 0)


def _attempts(attempts: Mapping[str, Any], total: Mapping[str, int], price: Price) -> dict[str, Any]:
    """Estimate against actual against the provider's own counts, and what bought no row that counts."""
    every = [attempt for part in attempts["parts"] for attempt in part["attempts"]]
    # Where the ledger of one is lost, what the others add up to is no total.
    lost = sum(not part["attempts"] for part in attempts["parts"])
    estimates = [None] * lost + [attempt["estimate"]["usd"] for attempt in every]
    counted, unknown = _counted(attempts["parts"])
    sums = _total(counted)
    known_usd = price.usd(*sums)
    provider = sums._asdict() if every and not unknown else None
    provider_usd = known_usd if provider else None
    rows_usd, unanswered_usd = (
        price.usd(*(total[of + name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")))
        for of in ("", _OF_NO_ANSWER)
    )
    # An answer without token counts was paid for, nobody knows with how much: then nor is what the others left over.
    failed = sum(part["failed"] for part in attempts["parts"])
    uncounted = total["rows"] - total["priced_rows"] > failed
    wasted = None
    if not uncounted and provider_usd is not None and rows_usd is not None and unanswered_usd is not None:
        wasted = max(0.0, provider_usd - rows_usd) + unanswered_usd
    return {
        "submissions": len(every),
        "estimated_usd_at_most": _usd(sum(estimates)) if estimates and None not in estimates else None,
        "provider_counts": provider,
        "provider_usd": _usd(provider_usd),
        "spent_on_unused_rows_usd": _usd(wasted),
        # Only where there are such rows, and below what is known although the sum is not: other runs keep their bytes.
        **({"unanswered_usd": _usd(unanswered_usd)} if total[f"{_OF_NO_ANSWER}prompt_tokens"] else {}),
        **(
            {"known": {"uncounted_attempts": unknown, "counts": sums._asdict(), "usd": _usd(known_usd)}}
            if counted and provider is None
            else {}
        ),
        **({"parts_without_record": lost} if lost else {}),
    }


def _per_item(totals: Mapping[str, Mapping[str, int]], price: Price, scores: Path) -> dict[str, dict[str, Any]]:
    """Cost per item and per correct answer of each condition of *totals*: expected correct samples from the scores."""
    items: dict[str, set[str]] = defaultdict(set)
    correct: dict[str, float] = defaultdict(float)
    for condition, item, em, samples, missing in _rows(scores, _SCORES):
        items[condition].add(item)
        if em:
            correct[condition] += float(em) * (int(samples) - int(missing))
    found = {}
    for condition, total in totals.items():
        # Answers without token counts were paid for too, nobody knows with how much: then nor is what an item cost.
        usd = None if total["unpriced_answers"] else _price_of(total, price)
        found[condition] = {
            "items": len(items[condition]),
            "correct_answers": round(correct[condition], 6),
            "usd_per_item": _each(usd, len(items[condition])),
            "usd_per_correct_answer": _each(usd, correct[condition]),
        }
    return found


def _usd(value: float | None) -> float | None:
    """A sum of US dollars with six decimals, as `costs.json` always had them."""
    return None if value is None else round(value, 6)


def _each(usd: float | None, number: float) -> float | None:
    """US dollars for one of *number*, in ten significant digits: six decimals leave one or two of so small a price."""
    return None if usd is None or not number else float(f"{usd / number:.10g}")
