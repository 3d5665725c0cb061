"""parse: every answer as a row of `predictions.csv`, and its tokens as a row of `usage.csv`.

The contract: rows = unique `custom_id`s in the combined results = the ids that build asked for. Ids
are compared in order with the digests of `index.json`, so nothing is held in memory; only when they
differ is the difference looked for, to name it. On failure nothing new is in place.

CSV: UTF-8, all fields quoted, CRLF. `response_text` is exactly what the model wrote; a leading
`= + - @ TAB CR '` gets one `'` in front, which a reader takes off again (spreadsheets run formulas).
The lines are made by hand: csv.writer costs several times all the rest.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from functools import lru_cache
from typing import Any

from pipeline import custom_id, disk, jsonl, parts
from pipeline.cells import GUARDED, guard
from pipeline.errors import ContractBroken
from pipeline.parts import Index, Part
from pipeline.paths import TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.predictions import ERROR, OK, PREDICTION_COLUMNS, TRUNCATED, USAGE_COLUMNS
from pipeline.providers.base import MOST_TOKENS

_FILTERED = "content_filter"  # the finish reason of what was taken away, or cut where it began to offend
_STATUS = {"length": TRUNCATED, _FILTERED: ERROR}  # by finish reason; OK for all others

_NO_TOKENS = '"","","",""'  # the four token cells of a row without an answer
_BLOCK = 32  # rows written at a time: 64 KB of long answers, which stay in the processor's cache
_EXAMPLES = 3  # ids named in a message


def parse(paths: TrialPaths, index: Index) -> Outcome:
    """Write both CSVs from the combined results. Raises ContractBroken naming counts and example ids."""
    rows = 0
    with disk.replacing(paths.predictions) as predictions, disk.replacing(paths.usage) as usage:
        predictions.write(_header(PREDICTION_COLUMNS))
        usage.write(_header(USAGE_COLUMNS))
        lines = jsonl.numbered(paths.combined)
        for part in index.parts:
            rows += _parse_part(paths, index, part, lines, predictions, usage)
        if next(lines, None) is not None:
            raise _mismatch(paths, index)
    return Outcome(
        {paths.predictions: Output(predictions.written, rows), paths.usage: Output(usage.written, rows)},
        {"predictions_csv": paths.relative(paths.predictions), "row_count": rows},
    )


def _parse_part(
    paths: TrialPaths,
    index: Index,
    part: Part,
    lines: Iterator[tuple[int, bytes]],
    predictions: disk.Replacement,
    usage: disk.Replacement,
) -> int:
    """Write one part's rows. Rows are gathered and written in blocks: a call per row costs more than the row."""
    ids = parts.IdsDigest()
    wanted = itertools.islice(lines, part.rows)
    while True:
        names: list[str] = []
        written: list[bytes] = []
        used: list[str] = []
        for number, data in itertools.islice(wanted, _BLOCK):
            try:
                row = jsonl.loads(data)
                name = row["custom_id"]
                head, answer, tail, tokens = _row(name, row)
            except (jsonl.BadJson, KeyError, TypeError, ValueError, AttributeError) as error:
                raise ContractBroken(
                    f"is not a result row ({error}).",
                    where=f"{paths.combined} line {number}",
                    kept="No CSV was written.",
                    hint="run the same command again: the combined file is rebuilt from the parts",
                ) from error
            names.append(name)
            written += (head, answer, tail)
            used.append(tokens)
        if not names:
            break
        ids.extend(names)
        predictions.write(b"".join(written))
        usage.write("".join(used).encode())
    if ids.hexdigest() != part.ids_sha256:
        raise _mismatch(paths, index)
    return ids.count


def _row(name: str, row: dict[str, Any]) -> tuple[bytes, bytes, bytes, str]:
    """The line of `predictions.csv` in three pieces, of which the second is the answer, and that of `usage.csv`."""
    shown = name
    dataset, item_id, rest = name.split("|", 2)
    if "%" in name:
        dataset, item_id = custom_id.unescape(dataset), custom_id.unescape(item_id)
    if '"' in name or name[:1] in GUARDED or item_id[:1] in GUARDED:  # nearly never: three calls saved a row
        shown, dataset, item_id = _cell(name), _cell(dataset), _cell(item_id)
    try:  # as nearly all are; asking for each field whether it is there costs a third of the row's time
        response = row["response"]
        choice, counts = response["choices"][0], response["usage"]
        prompt, completion, total = counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]
        cached = counts["prompt_tokens_details"]["cached_tokens"]
        request, finish, text = response["id"], choice["finish_reason"], choice["message"]["content"]
        if not (
            type(prompt) is type(completion) is type(total) is type(cached) is int
            and type(request) is type(finish) is type(text) is str
            and 0 <= cached <= prompt <= total <= MOST_TOKENS
            and 0 <= completion <= total
        ):
            raise TypeError("a null in the place of a count or a name, or a count that cannot be")
        tokens, problem = f'"{prompt}","{completion}","{total}","{cached}"', ""
    except (LookupError, TypeError):
        request, finish, text, tokens, problem = _sparse(row)
    status, ended = _finished(finish)
    if text is None:
        answer, status = b"", ERROR
    else:
        # As bytes it is half to a quarter as long, so it is copied and searched faster.
        answer = text.encode().replace(b'"', b'""')
        if text[:1] in GUARDED:
            answer = b"'" + answer
    if status == ERROR and not problem:
        # No answer is there to judge: missing, not an empty answer, though its tokens were paid.
        why = "stopped by the content filter" if finish == _FILTERED else "no text in the response"
        problem = _cell(f"{why} (finish_reason {finish or 'absent'})")
    if '"' in request or request[:1] in GUARDED:
        request = _cell(request)
    head = f'"{shown}","{dataset}","{item_id}",{_grid(rest)},"{request}","{ended}","'
    tail = f'",{tokens},"{status}","{problem}"\r\n'
    return head.encode(), answer, tail.encode(), f'"{shown}","{status}",{tokens}\r\n'


def _sparse(row: dict[str, Any]) -> tuple[str, str, str | None, str, str]:
    """Request id, finish reason, text, token cells and problem, of a row that lacks some: "" or None where it does.

    What is of another shape than the service's own counts as absent: it was paid for and cannot be asked for again, so
    one such row must not keep all the others from being used.
    """
    if (response := row.get("response")) is None:
        return "", "", None, _NO_TOKENS, _cell(_refusal(row["error"]))
    choices = response.get("choices")
    choice = _named(choices[0]) if isinstance(choices, list) and choices else {}
    counts = _named(response.get("usage"))
    details = _named(counts.get("prompt_tokens_details"))
    said = (*map(counts.get, ("prompt_tokens", "completion_tokens", "total_tokens")), details.get("cached_tokens"))
    # What the provider did not say stays empty, it is not 0; and a count below 0 or of 2**64 - 1 is none.
    numbers = [number if type(number) is int and 0 <= number <= MOST_TOKENS else None for number in said]
    prompt, *_, cached = numbers
    if prompt is not None and cached is not None:
        numbers[3] = min(cached, prompt)  # a part of the prompt: more of it would make the run cheaper
    tokens = ",".join(f'"{"" if number is None else number}"' for number in numbers)
    text = _named(choice.get("message")).get("content")
    finish = str(choice.get("finish_reason") or "")
    return str(response.get("id") or ""), finish, text if isinstance(text, str) else None, tokens, ""


def _named(value: Any) -> dict[str, Any]:
    """*value* where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


@lru_cache(4096)  # a run has few conditions, temperatures, samples and types, and millions of rows
def _grid(rest: str) -> str:
    """The cells for what follows the item in a custom_id; none of them can hold a quote."""
    request = custom_id.split(f"d|i|{rest}")
    return f'"{request.condition}","{request.temp}","{request.sample_index}","{request.type}"'


@lru_cache(1024)
def _finished(reason: str) -> tuple[str, str]:
    """The status of an answer that ended for *reason*, and the cell that says so: there are few reasons."""
    return _STATUS.get(reason, OK), _cell(reason)


def _refusal(error: dict[str, Any]) -> str:
    code = error.get("code")
    return f"{code}: {error['message']}" if code is not None else str(error["message"])


def _cell(text: str) -> str:
    """*text* guarded and with its quotes doubled, to stand between quotes."""
    return guard(text).replace('"', '""') if '"' in text or text[:1] in GUARDED else text


def _header(columns: Sequence[str]) -> bytes:
    return ('"' + '","'.join(columns) + '"\r\n').encode()


def _mismatch(paths: TrialPaths, index: Index) -> ContractBroken:
    """The error that names what differs between the combined results and what build asked for."""
    found = Counter(map(_name, jsonl.lines(paths.combined)))
    asked: set[str] = set()
    said = [f"{sum(found.values()):,} rows with {len(found):,} unique custom_ids, {index.rows:,} were asked for"]
    try:
        for part in index.parts:
            asked.update(map(_name, jsonl.lines(paths.part_requests(part.part))))
    except FileNotFoundError:
        said.append(f"the requests of {part.part} are gone, so what is missing or foreign cannot be named")
    else:
        said += _some("missing", asked - found.keys()) + _some("foreign", found.keys() - asked)
    said += _some("doubled", {name for name, count in found.items() if count > 1})
    if len(said) == 1:
        said.append("the same ids stand there in another order")
    return ContractBroken(
        "; ".join(said) + ".",
        where=str(paths.combined),
        kept="No CSV was written.",
        hint="doit forget download && doit rebuilds the combined file from the parts",
    )


def _some(what: str, names: Set[str]) -> list[str]:
    return [f"{len(names):,} {what}, e.g. {', '.join(sorted(names)[:_EXAMPLES])}"] if names else []


def _name(line: jsonl.Line) -> str:
    """The custom_id in *line*; of a line that has none, what to call it in a message."""
    try:
        name = jsonl.loads(line.data)["custom_id"]
    except (jsonl.BadJson, KeyError, TypeError):
        name = None
    return name if isinstance(name, str) else f"(line {line.number}, without an id)"
