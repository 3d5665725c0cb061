"""What may go wrong with single rows of a job's output.

A row fault is `{"pick": {...}, "do": NAME, ...}`. `pick` chooses rows, all conditions together: `every`
and `offset` (number of the row in the input, from 0), `ids` (a regular expression searched in the
custom_id), `share` (of the rows, by a hash of the custom_id). The names and their options:

    drop          in neither file                       both       a success and an error line
    error         a failure, `shape`: object, string, wrapped, extra or null_response; `code`, `message`;
                  `file`: "success" to have the error line stand among the results
    twice         the same line twice                   conflict   a second line with another content
    foreign       a line with an id nobody asked for    blank      a blank line before it
    corrupt       the line, cut in half                 raw        `line`: this text instead of the line
    wrap          response.body instead of response     id_key     `key`: another name for custom_id
    content       `text`: this answer                   empty      an empty answer
    length        cut off, finish_reason length         plain_usage  usage without details
    choices       `n` choices (default 2)               reasoning  reasoning text and token count

A row that several faults pick gets them all, in the order of the rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

SHAPES = ("object", "string", "wrapped", "extra", "null_response")
_ON_ANSWER = ("content", "empty", "length", "plain_usage", "choices", "reasoning")
_ON_LINE = ("drop", "both", "error", "twice", "conflict", "foreign", "blank", "corrupt", "raw", "wrap", "id_key")
_PICKS = {"every", "offset", "ids", "share"}


@dataclass
class Lines:
    """What one request adds to the two output files."""

    success: list[bytes] = field(default_factory=list)
    error: list[bytes] = field(default_factory=list)


def problem(fault: Any) -> str:
    """What is wrong with a row fault, empty when nothing is."""
    if not isinstance(fault, dict) or fault.get("do") not in (*_ON_ANSWER, *_ON_LINE):
        return f"rows: do is one of {(*_ON_LINE, *_ON_ANSWER)}: {fault!r}"
    if set(fault.get("pick", {})) - _PICKS:
        return f"rows: pick may hold {sorted(_PICKS)}: {fault!r}"
    if fault.get("shape", "object") not in SHAPES:
        return f"rows: shape is one of {SHAPES}: {fault!r}"
    return ""


def picked(faults: Iterable[Mapping[str, Any]], number: int, custom_id: str) -> list[Mapping[str, Any]]:
    """Those of *faults* that hit the row with this number and id."""
    return [fault for fault in faults if _picks(fault.get("pick", {}), number, custom_id)]


def lines(
    custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None, faults: Iterable[Mapping[str, Any]]
) -> Lines:
    """The lines of one row, which has either a *response* or an *error*, with *faults* done to them."""
    written = Lines()
    on_line = []
    for fault in faults:
        if fault["do"] in _ON_ANSWER and response is not None:
            _change_answer(response, fault)
        elif fault["do"] in _ON_LINE:
            on_line.append(fault)
    if response is not None:
        written.success.append(orjson.dumps({"custom_id": custom_id, "response": response}))
    else:
        written.error.append(orjson.dumps({"custom_id": custom_id, "error": error}))
    for fault in on_line:
        _change_lines(written, custom_id, response, fault)
    return written


def _picks(pick: Mapping[str, Any], number: int, custom_id: str) -> bool:
    if "every" in pick and number % pick["every"] != pick.get("offset", 0):
        return False
    if "ids" in pick and not re.search(pick["ids"], custom_id):
        return False
    if "share" in pick:
        chance = int.from_bytes(hashlib.sha256(custom_id.encode()).digest()[:8]) / 2**64
        return bool(chance < pick["share"])
    return True


def _change_answer(response: dict[str, Any], fault: Mapping[str, Any]) -> None:
    choice, usage = response["choices"][0], response["usage"]
    message = choice["message"]
    match fault["do"]:
        case "content":
            message["content"] = fault["text"]
        case "empty":
            message["content"] = ""
        case "length":
            message["content"] = message["content"][: len(message["content"]) // 2]
            choice["finish_reason"] = "length"
        case "plain_usage":
            usage.pop("prompt_tokens_details", None)
        case "choices":
            others = range(1, int(fault.get("n", 2)))
            response["choices"] += [{**choice, "index": index} for index in others]
        case "reasoning":
            message["reasoning_content"] = "Let me look at what was asked."
            usage["completion_tokens_details"] = {"reasoning_tokens": 8}
            usage["completion_tokens"] += 8
            usage["total_tokens"] += 8


def _change_lines(written: Lines, custom_id: str, response: dict[str, Any] | None, fault: Mapping[str, Any]) -> None:
    own = written.success if response is not None else written.error
    match fault["do"]:
        case "drop":
            written.success.clear()
            written.error.clear()
        case "both":
            written.error.append(_error_line(custom_id, fault))
        case "error":
            written.success.clear()
            written.error.clear()
            target = written.success if fault.get("file") == "success" else written.error
            target.append(_error_line(custom_id, fault))
        case "twice":
            own.extend(own[:1])
        case "conflict":
            changed = {**(response or {}), "id": "chatcmpl-conflict"}
            changed["choices"] = [
                {"index": 0, "message": {"role": "assistant", "content": "another answer"}, "finish_reason": "stop"}
            ]
            written.success.append(orjson.dumps({"custom_id": custom_id, "response": changed}))
        case "foreign":
            own.append(orjson.dumps({"custom_id": f"nobody-asked|{custom_id}", "response": response}))
        case "blank":
            own.insert(0, b"")
        case "corrupt":
            own[:] = [line[: len(line) // 2] for line in own]
        case "raw":
            own[:] = [str(fault["line"]).encode("utf-8", "surrogatepass")]
        case "wrap":
            wrapped = {"status_code": 200, "request_id": f"req-{custom_id}", "body": response}
            own[:] = [orjson.dumps({"custom_id": custom_id, "response": wrapped})]
        case "id_key":
            renamed = [orjson.loads(line) for line in own]
            own[:] = [orjson.dumps({fault.get("key", "customId"): line.pop("custom_id"), **line}) for line in renamed]


def _error_line(custom_id: str, fault: Mapping[str, Any]) -> bytes:
    message, code = fault.get("message", "the model did not answer"), fault.get("code", 500)
    error = {"message": message, "code": code}
    shapes: dict[str, dict[str, Any]] = {
        "object": {"error": error},
        "string": {"error": message},
        "wrapped": {"response": {"status_code": code, "error": error}},
        "extra": {"error": {**error, "type": "server_error", "param": None}, "attempt": 3, "model": "m"},
        "null_response": {"response": None, "error": error},
    }
    return orjson.dumps({"custom_id": custom_id, **shapes[fault.get("shape", "object")]})
