"""JSON and JSON Lines as this project reads and writes them.

Reading: lines end at LF only (`str.splitlines` would also cut at U+2028 and others that may stand
inside a string). orjson refuses NaN, Infinity, numbers beyond a double, invalid UTF-8 and lone
surrogates by itself; duplicate keys and deep nesting it lets pass, so `loads` looks for those.
A damaged line is named by file and line number and never stops the reading of the others.

Writing: keys sorted, no NaN, UTF-8, a newline at the end, so that equal data are equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pipeline import disk
from pipeline.errors import DamagedArtifact

MAX_LINE = 64 << 20  # bytes; a longer line is refused while streaming (reliability notes, hostile content)
MAX_DEPTH = 100  # levels of nesting; a completion has fewer than ten
BOM = b"\xef\xbb\xbf"  # which Windows programs put before text in UTF-8


class BadJson(ValueError):
    """Text that is not acceptable JSON; the message says what is wrong with it."""


class Line(NamedTuple):
    """One line of a JSON Lines file: its number (from 1) and its bytes without the line end."""

    number: int
    data: bytes


def lines(path: Path) -> Iterator[Line]:
    """Yield the non-blank lines of *path*; a BOM at the start, CRLF and a missing last newline are accepted.

    Raises FileNotFoundError, UnreadableFile, or DamagedArtifact for a line above MAX_LINE.
    """
    return (Line(number, data.rstrip(b"\r\n")) for number, data in numbered(path))


def numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """The same as plain pairs, line ends left on, in 60 % of the time: for reading millions of lines to parse them."""
    disk.refuse_special(path)
    with disk.readable(path), open(path, "rb", buffering=disk.READ_BLOCK) as stream:
        if stream.read(len(BOM)) != BOM:
            stream.seek(0)
        for number, data in enumerate(iter(partial(stream.readline, MAX_LINE + 1), b""), 1):
            if len(data) > MAX_LINE:
                raise DamagedArtifact(
                    f"longer than {MAX_LINE:,} bytes; reading stopped there.",
                    where=f"{path} line {number}",
                    kept="The file was left as it is.",
                )
            if not data.isspace():
                yield number, data


def loads(data: bytes) -> Any:
    """Parse strict JSON. Raises BadJson with the reason."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadJson(f"not JSON ({error})") from error
    return value


def loads_checked(data: bytes) -> Any:
    """`loads`, and BadJson also for duplicate keys, nesting over MAX_DEPTH and integers beyond 64 bits.

    About twenty times slower; for small documents and for lines under suspicion.
    """
    loads(data)
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_int=_small_int)
    except RecursionError as error:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels") from error
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels")
    return value


def dumps(value: Any) -> bytes:
    """*value* as one line of canonical JSON without a newline: sorted keys, shortest floats.

    Raises ValueError for NaN or Infinity (orjson would write null, which would hide them).
    """
    return _dumped(value, orjson.OPT_SORT_KEYS)


def dumps_pretty(value: Any) -> bytes:
    """*value* as an indented document for people, canonical as `dumps`, with a newline at the end."""
    return _dumped(value, orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_document(path: Path) -> Any:
    """The JSON document in *path*. Raises FileNotFoundError, UnreadableFile or DamagedArtifact."""
    return document(disk.read_bytes(path), path)


def document(data: bytes, path: Path) -> Any:
    """The JSON document *data*, which was read from *path*. Raises DamagedArtifact."""
    try:
        return loads_checked(data)
    except BadJson as error:
        raise DamagedArtifact(f"{error}.", where=str(path)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJson(f"the key {twice!r:.60} stands there twice")
    return value


def _small_int(text: str) -> int:
    # int() itself refuses above 4,300 digits with a ValueError; anything beyond 64 bits is no count of ours.
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise BadJson("an integer beyond 64 bits")
    return number


def _depth(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        deepest = max(deepest, level)
        if level > MAX_DEPTH:
            return level
        if isinstance(item, dict):
            todo.extend((child, level + 1) for child in item.values())
        elif isinstance(item, list):
            todo.extend((child, level + 1) for child in item)
    return deepest


def _dumped(value: Any, option: int) -> bytes:
    data = orjson.dumps(value, option=option)
    if b"null" in data:  # only there may a number have been that JSON does not have
        _refuse_non_finite(value)
    return data


def _refuse_non_finite(value: Any) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, float):
            if item != item or item in (float("inf"), float("-inf")):
                raise ValueError(f"{item} cannot be written: JSON has no such number")
        elif isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list | tuple):
            todo.extend(item)
