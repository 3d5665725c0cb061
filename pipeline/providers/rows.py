"""One line of a provider's result files, whatever its shape, as one kind of row.

    {"custom_id": "a", "response": {"choices": [...], "usage": {...}}}                success, as seen live
    {"custom_id": "a", "response": {"status_code": 200, "body": {"choices": [...]}}}  success, wrapped
    {"custom_id": "a", "error": {"message": "...", "code": 400}}                      failure; also as a string,
                                                                                      in `response` or its `body`

A success needs choices; a line with an id and without them is a failure, also when it gives no
reason. A line that is not strict JSON, or has no id, is a BadRow. It runs once a row over millions
of rows: the fast parser reads every line, the strict one only lines under suspicion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline import jsonl

_ID_KEYS = ("custom_id", "customId", "request_id")  # the first that is there
_NO_REASON = "the service gave neither an answer nor a reason"

_STATUS = re.compile(r"[1-5][0-9]{2}")  # an HTTP status that was written as a string
_SPACED_KEY_END = re.compile(rb'(?<!\\)"[ \t\r\n]*:')
_BIG = float(2**63)


class BadRow(ValueError):
    """A line that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row's id and either its completion (`choices`, `usage`, ...) or its error (`code`, `message`)."""

    custom_id: str
    response: dict[str, Any] | None
    error: dict[str, Any] | None


def read_row(line: bytes) -> Row:
    """The row in *line*, a line end or a BOM aside. Raises BadRow for anything but a strict JSON object with an id."""
    line = line.removeprefix(jsonl.BOM).strip(b" \t\r\n")
    try:
        value = jsonl.loads(line)
        if _suspicious(line, value):
            value = jsonl.loads_checked(line)
    except jsonl.BadJson as error:
        raise BadRow(str(error)) from error
    if not isinstance(value, dict):
        raise BadRow("not a JSON object")
    custom_id = _custom_id(value)
    response = value.get("response")
    if isinstance(response, dict):
        for completion in (response, response.get("body")):
            if _has_choices(completion):
                return Row(custom_id, completion, None)
    return Row(custom_id, None, _error(value))


def _custom_id(value: dict[str, Any]) -> str:
    for key in _ID_KEYS:
        found = value.get(key)
        if isinstance(found, str) and found:
            return found
        if found is not None:
            raise BadRow(f"its {key} is {'empty' if found == '' else f'not a string ({found!r:.40})'}")
    raise BadRow("it has no custom_id")


def _has_choices(completion: Any) -> bool:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)


def _error(value: dict[str, Any]) -> dict[str, Any]:
    """Code and message from wherever the line has them, the outermost first."""
    places: list[Any] = [value.get("error")]
    code = None
    response = value.get("response")
    if isinstance(response, dict):
        body = response.get("body")
        places += [response.get("error"), body.get("error") if isinstance(body, dict) else body, response, body]
        code = response.get("status_code")
    elif response is not None:
        places.append(response)
    places.append(value)
    for place in places:
        while isinstance(place, dict) and isinstance(place.get("error"), dict | str) and place["error"]:
            place = place["error"]
        if isinstance(place, str) and place:
            return {"code": code, "message": place}
        if isinstance(place, dict) and (message := place.get("message")) is not None:
            found = place.get("code")
            if isinstance(found, str) and _STATUS.fullmatch(found):
                found = int(found)
            return {
                "code": found if isinstance(found, int | str) else code,
                "message": message if isinstance(message, str) else jsonl.dumps(message).decode(),
            }
        if isinstance(place, dict) and isinstance(found := place.get("code"), int | str):
            code = code if code is not None else found
    return {"code": code, "message": _NO_REASON}


def _suspicious(line: bytes, value: Any) -> bool:
    """Whether the strict parser must look: a key may stand twice, or a number or the nesting be too large."""
    if line.count(b"{") + line.count(b"[") > jsonl.MAX_DEPTH:
        return True
    if orjson.dumps(value) == line:  # nothing was dropped, no number changed; true of lines written compactly
        return False
    keys = 0
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            keys += len(item)
            todo += item.values()
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, float) and not -_BIG < item < _BIG:
            return True
    return keys != _written_keys(line)


def _written_keys(line: bytes) -> int:
    r"""How many keys stand in *line*, or another number when it holds `\\"`, which is rare.

    A key ends with a quote and a colon; inside a string that quote would be written `\"`.
    """
    if b'\\\\"' in line:  # a string that ends with a backslash, perhaps a key
        return -1
    if b" :" in line or b"\t" in line or b"\r" in line or b"\n" in line:
        return len(_SPACED_KEY_END.findall(line))
    return line.count(b'":') - line.count(b'\\":')
