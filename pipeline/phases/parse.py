"""parse: every answer as a row of `predictions.csv`, and its tokens as a row of `usage.csv`.

The contract: rows = unique `custom_id`s in the combined results = the ids that build asked for. Ids
are compared in order with the digests of `index.json`, so nothing is held in memory; only when they
differ is the difference looked for, to name it. On failure nothing new is in place.

CSV: UTF-8, all fields quoted, CRLF. `response_text` is exactly what the model wrote; a leading
`= + - @ TAB CR '` gets one `'` in front, which a reader takes off again (spreadsheets run formulas).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline import custom_id, disk, jsonl, parts
from pipeline.errors import ContractBroken
from pipeline.parts import Index, Part
from pipeline.paths import TrialPaths
from pipeline.phases import Outcome, Output

PREDICTION_COLUMNS = [
    "custom_id",
    "dataset",
    "item_id",
    "condition",
    "temp",
    "sample_index",
    "type",
    "request_id",
    "finish_reason",
    "response_text",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "status",
    "error",
]
USAGE_COLUMNS = ["custom_id", "status", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"]

OK = "ok"
ERROR = "error"
TRUNCATED = "truncated"

_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")
_EXAMPLES = 3  # ids named in a message


def parse(paths: TrialPaths, index: Index) -> Outcome:
    """Write both CSVs from the combined results. Raises ContractBroken naming counts and example ids."""
    rows = 0
    with disk.replacing(paths.predictions) as predictions, disk.replacing(paths.usage) as usage:
        predictions.write(_csv(PREDICTION_COLUMNS))
        usage.write(_csv(USAGE_COLUMNS))
        lines = jsonl.lines(paths.combined)
        for part in index.parts:
            rows += _parse_part(paths, index, part, lines, predictions, usage)
        if next(lines, None) is not None:
            raise _mismatch(paths, index)
    return Outcome(
        {paths.predictions: Output(predictions.written, rows), paths.usage: Output(usage.written, rows)},
        {"predictions_csv": paths.relative(paths.predictions), "row_count": rows},
    )


def guard(text: str) -> str:
    """*text* as a cell that no spreadsheet runs as a formula."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unguard(cell: str) -> str:
    """What `guard` was given."""
    return cell[1:] if cell.startswith("'") else cell


def _parse_part(
    paths: TrialPaths,
    index: Index,
    part: Part,
    lines: Iterator[jsonl.Line],
    predictions: disk.Replacement,
    usage: disk.Replacement,
) -> int:
    ids = parts.IdsDigest()
    for _ in range(part.rows):
        line = next(lines, None)
        if line is None:
            break
        try:
            row = jsonl.loads(line.data)
            name = row["custom_id"]
            cells = _cells(name, row)
        except (jsonl.BadJson, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContractBroken(
                f"is not a result row ({error}).",
                where=f"{paths.combined} line {line.number}",
                kept="No CSV was written.",
                hint="run the same command again: the combined file is rebuilt from the parts",
            ) from error
        ids.add(name)
        predictions.write(_csv(cells))
        usage.write(_csv((name, cells[14], *cells[10:14])))
    if ids.hexdigest() != part.ids_sha256:
        raise _mismatch(paths, index)
    return ids.count


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    request = custom_id.split(name)
    head = (
        guard(name),
        guard(request.dataset),
        guard(request.item_id),
        request.condition,
        request.temp,
        str(request.sample_index),
        request.type,
    )
    response = row.get("response")
    if response is None:
        error = row["error"]
        code = error.get("code")
        message = f"{code}: {error['message']}" if code is not None else str(error["message"])
        return (*head, "", "", "", "", "", "", "", ERROR, guard(message))
    choices = response.get("choices") or [{}]
    choice = choices[0]
    finish = choice.get("finish_reason") or ""
    text = (choice.get("message") or {}).get("content")
    tokens = response.get("usage") or {}
    details = tokens.get("prompt_tokens_details") or {}
    status = TRUNCATED if finish == "length" else OK
    return (
        *head,
        guard(str(response.get("id") or "")),
        guard(str(finish)),
        guard(text if isinstance(text, str) else ""),
        _number(tokens.get("prompt_tokens")),
        _number(tokens.get("completion_tokens")),
        _number(tokens.get("total_tokens")),
        _number(details.get("cached_tokens")),
        status,
        "",
    )


def _number(value: Any) -> str:
    """A token count; what the provider did not say stays empty, it is not 0."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _csv(cells: Any) -> bytes:
    # By hand, as bytes: csv.writer costs several times the rest of parse on long answers.
    return ('"' + '","'.join([cell.replace('"', '""') for cell in cells]) + '"\r\n').encode()


def _mismatch(paths: TrialPaths, index: Index) -> ContractBroken:
    """The error that names what differs between the combined results and what build asked for."""
    found = Counter(jsonl.loads(line.data).get("custom_id") for line in jsonl.lines(paths.combined))
    asked: set[str] = set()
    for part in index.parts:
        asked.update(jsonl.loads(line.data)["custom_id"] for line in jsonl.lines(paths.part_requests(part.part)))
    said = [f"{sum(found.values()):,} rows with {len(found):,} unique custom_ids, {len(asked):,} were asked for"]
    for what, names in (
        ("missing", asked - found.keys()),
        ("foreign", found.keys() - asked),
        ("doubled", {name for name, count in found.items() if count > 1}),
    ):
        if names:
            said.append(f"{len(names):,} {what}, e.g. {', '.join(sorted(map(str, names))[:_EXAMPLES])}")
    if len(said) == 1:
        said.append("the same ids stand there in another order")
    return ContractBroken(
        "; ".join(said) + ".",
        where=str(paths.combined),
        kept="No CSV was written.",
        hint="doit forget download && doit rebuilds the combined file from the parts",
    )
