"""What was sent, from the request files themselves: a report must not repeat a setting that never left the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import custom_id, disk, jsonl
from pipeline.parts import Index
from pipeline.paths import TrialPaths

_TAIL = 1 << 16  # bytes read at the end of a part; doubled until a whole line fits


@dataclass(frozen=True)
class Sent:
    """*parameters* by (temp, type): each distinct set that occurs; *prompts* by condition: each distinct system text;
    *users* by type: one user message; *absent*: parts whose request file is gone.
    """

    parameters: Mapping[tuple[str, str], list[dict[str, Any]]]
    prompts: Mapping[str, list[str]]
    users: Mapping[str, str]
    absent: tuple[str, ...]


def read_sent(paths: TrialPaths, index: Index) -> Sent:
    """The first and the last request of every part: build writes closed-book before open-book, so both types show.

    Raises UnreadableFile or DamagedArtifact.
    """
    parameters: dict[tuple[str, str], list[dict[str, Any]]] = {}
    prompts: dict[str, list[str]] = {}
    users: dict[str, str] = {}
    absent = []
    for part in index.parts:
        path = paths.part_requests(part.part)
        try:
            requests = list(_ends(path))
        except FileNotFoundError:
            absent.append(part.part)
            continue
        for request in requests:
            name = custom_id.split(request["custom_id"])
            body = request["body"]
            texts = {message["role"]: message["content"] for message in body["messages"]}
            _add(
                parameters.setdefault((custom_id.temp_key(name.temp), name.type), []),
                {key: value for key, value in body.items() if key != "messages"},
            )
            _add(prompts.setdefault(name.condition, []), texts["system"])
            users.setdefault(name.type, texts["user"])
    return Sent(parameters, prompts, users, tuple(absent))


def _ends(path: Path) -> Iterator[Any]:
    """The first and the last line of the JSON Lines file *path*, parsed."""
    first = next(jsonl.lines(path), None)
    if first is None:
        return
    yield jsonl.loads(first.data)
    with disk.readable(path), open(path, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        length = _TAIL
        while True:
            stream.seek(max(0, size - length))
            tail = stream.read().rstrip(b"\n")
            if b"\n" in tail or length >= size:
                break
            length *= 2
    yield jsonl.loads(tail.rsplit(b"\n", 1)[-1])


def _add(known: list[Any], value: Any) -> None:
    if value not in known:
        known.append(value)
