"""`custom_id`: the name under which a request is sent and its answer comes back.

    dataset|item_id|condition|temp|sample_index|type        squad|56be4db0|control|0.7|2|open

Six fields; `%` and `|` inside a field are percent-escaped, so any item id can be used. An id is
never made into a path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

OPEN = "open"
CLOSED = "closed"


class RequestId(NamedTuple):
    """The fields of a custom_id; *temp* is the shortest decimal that reads back as the temperature."""

    dataset: str
    item_id: str
    condition: str
    temp: str
    sample_index: int
    type: str


def temperature_text(temperature: float) -> str:
    """The shortest decimal that round-trips: 0 -> "0", 0.7 -> "0.7", 0.25 -> "0.25"."""
    text = repr(float(temperature))
    return text.removesuffix(".0")


def temp_key(temperature: float | str) -> str:
    """The temperature as documents name it, to six digits; a config has no two that share one."""
    return format(float(temperature), "g")


def join(request: RequestId) -> str:
    """The custom_id of *request*."""
    dataset, item_id, condition, temp, sample_index, kind = request
    return f"{escape(dataset)}|{escape(item_id)}|{condition}|{temp}|{sample_index}|{kind}"


def split(custom_id: str) -> RequestId:
    """The fields of *custom_id*; an earlier tool's `0.0` reads as `0`. Raises ValueError."""
    fields = custom_id.split("|")
    if len(fields) != 6:
        raise ValueError(f"{custom_id!r} has {len(fields)} fields separated by |, not six")
    dataset, item_id, condition, temp, sample, kind = fields
    if kind not in (OPEN, CLOSED) or not sample.isascii() or not sample.isdigit():
        raise ValueError(f"{custom_id!r} does not end in a sample number and open or closed")
    if "%" in custom_id:
        dataset, item_id, condition = unescape(dataset), unescape(item_id), unescape(condition)
    return RequestId(dataset, item_id, condition, _shortest(temp), int(sample), kind)


@lru_cache(64)  # a run has a handful of temperatures and millions of ids
def _shortest(temp: str) -> str:
    return temperature_text(float(temp))


def escape(field: str) -> str:
    """*field* without `|` and without ambiguity."""
    return field.replace("%", "%25").replace("|", "%7C")


def unescape(field: str) -> str:
    """What `escape` was given."""
    return field.replace("%7C", "|").replace("%7c", "|").replace("%25", "%")
