"""What an emulator has seen and done, read from its store: also while it runs, also when it is dead.

For tests and for people. It opens the database to read; the routes under /_emulator/ tell the same.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from pipeline.emulator.records import Job
from pipeline.emulator.store import database


def calls(folder: Path) -> list[dict[str, Any]]:
    """Every call to the store in *folder*, oldest first: method, path, status, effect, rule, violation, body."""
    return [{"seq": seq, **orjson.loads(record)} for seq, record in _rows(folder, "calls")]


def jobs(folder: Path) -> list[Job]:
    """Every job the store ever accepted, oldest first, deleted ones too."""
    return [Job.from_json(record) for _, record in _rows(folder, "jobs")]


def _rows(folder: Path, table: str) -> list[Any]:
    # mode=rw: what a killed process left in the write-ahead log is read too; mode=ro cannot do that.
    with closing(sqlite3.connect(f"{database(folder).resolve().as_uri()}?mode=rw", uri=True)) as connection:
        return connection.execute(f"SELECT seq, record FROM {table} ORDER BY seq").fetchall()  # noqa: S608 - our name
