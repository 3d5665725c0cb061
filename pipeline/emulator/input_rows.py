"""The rows of an input dataset: checked as the service's validation does, and read back in another order.

Memory stays flat: rows are read in windows; only the ids' hashes and the windows' places are held.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

WINDOW = 1000  # rows; whole windows and the rows in one are shuffled, so that passages still repeat nearby
_FAILED = "Dataset has a syntax error: "
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class InputFile:
    """A file of the dataset, under the name its owner gave it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Row:
    """One request: its number in the dataset (from 0), its id and its body."""

    number: int
    custom_id: str
    body: dict[str, Any]


class Cancelled(Exception):
    """The work is no longer wanted."""


def check(files: list[InputFile], cancelled: Callable[[], bool]) -> str:
    """Why the dataset fails validation, empty when it passes. Raises Cancelled."""
    seen: set[int] = set()
    for file in files:
        with open(file.path, "rb") as stream:
            for number, line in enumerate(stream):
                if number % WINDOW == 0 and cancelled():
                    raise Cancelled
                if line.strip() and (problem := _problem(line, seen)):
                    # The line number is one less than an editor shows: seen live.
                    return f"{_FAILED}chat dataset validation failed on {file.name}:{number}: {problem}"
    return "" if seen else f"{_FAILED}the dataset has no rows"


class InputRows:
    """The rows of *files*, which passed `check`: how many there are, and all of them in another order."""

    def __init__(self, files: list[InputFile], window: int = WINDOW) -> None:
        self._windows = _windows(files, window)
        self.count = sum(window.rows for window in self._windows)

    def shuffled(self, seed: str) -> Iterator[Row]:
        """All rows, in an order that *seed* decides."""
        order = random.Random(seed)
        for window in order.sample(self._windows, len(self._windows)):
            rows = list(_read(window))
            order.shuffle(rows)
            yield from rows


@dataclass(frozen=True)
class _Window:
    path: Path
    offset: int
    first: int
    rows: int


def _windows(files: list[InputFile], size: int) -> list[_Window]:
    windows, total = [], 0
    for file in files:
        with open(file.path, "rb") as stream:
            start, offset, rows = 0, 0, 0
            for line in stream:
                offset += len(line)
                rows += bool(line.strip())
                if rows == size:
                    windows.append(_Window(file.path, start, total, rows))
                    start, total, rows = offset, total + rows, 0
            if rows:
                windows.append(_Window(file.path, start, total, rows))
                total += rows
    return windows


def _read(window: _Window) -> Iterator[Row]:
    with open(window.path, "rb") as stream:
        stream.seek(window.offset)
        number = window.first
        for line in stream:
            if line.strip():
                value = orjson.loads(line)
                yield Row(number, value["custom_id"], value["body"])
                number += 1
                if number == window.first + window.rows:
                    return


def _problem(line: bytes, seen: set[int]) -> str:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"invalid JSON ({error})"
    if not isinstance(row, dict):
        return "not a JSON object"
    custom_id = row.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return "custom_id is required and must be a string"
    # Hashes take a third of the ids' memory; two ids of one hash are a matter of 1 in 10^7 for a million rows.
    if (hashed := hash(custom_id)) in seen:
        return f"duplicate custom_id {custom_id!r}"
    seen.add(hashed)
    if unknown := set(row) - {"custom_id", "body", "method", "url"}:
        return f"unknown field {min(unknown)!r}"
    body = row.get("body")
    if not isinstance(body, dict):
        return "body is required and must be an object"
    if ("messages" in body) == ("prompt_token_ids" in body):
        return "body needs either messages or prompt_token_ids"
    return _message_problem(body["messages"]) if "messages" in body else ""


def _message_problem(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        return "messages must be a non-empty list"
    for message in messages:
        if not isinstance(message, dict):
            return "a message must be an object"
        if message.get("role") not in _ROLES:
            return f"unknown role {message.get('role')!r}"
    return ""
