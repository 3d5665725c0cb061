"""The emulator's memory: what it has acknowledged survives kill -9 and its own restart.

    <store>/
      emulator.sqlite    datasets, jobs, the ledger of calls, fault rules, the clock
      objects/<hex>      bytes of dataset files, under our own names: a client's file name is never a path
      address.json       {"url", "pid", "store_id"} of the process that serves it (`process.py`)
      emulator.lock      held by that process

WAL with synchronous=NORMAL: a commit is in the kernel's hands when it returns, which a killed process
cannot take back. One connection behind one lock, since every transaction is a few small rows.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from pipeline import disk
from pipeline.emulator.clock import Clock
from pipeline.emulator.records import Dataset, Job

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, record BLOB);
CREATE TABLE IF NOT EXISTS jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, open INTEGER, record BLOB);
CREATE INDEX IF NOT EXISTS jobs_by_id ON jobs (id, seq);
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (open) WHERE open;
CREATE TABLE IF NOT EXISTS calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, record BLOB);
CREATE TABLE IF NOT EXISTS rules (seq INTEGER PRIMARY KEY AUTOINCREMENT, rule BLOB, seen INTEGER, fired INTEGER);
"""


def database(folder: Path) -> Path:
    """The database of the store in *folder*."""
    return folder / "emulator.sqlite"


def address_file(folder: Path) -> Path:
    """Where the process that serves *folder* says how to reach it."""
    return folder / "address.json"


def lock_file(folder: Path) -> Path:
    """What the process that serves *folder* holds."""
    return folder / "emulator.lock"


class Store:
    """The store in *folder*, created when there is none. *speed* counts for a new store only."""

    def __init__(self, folder: Path, speed: float = 1.0) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        disk.make_folder(self._objects)
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(database(folder), isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(f"BEGIN;{_TABLES}COMMIT;")
        with self.transaction():
            fresh = {"origin": repr(time.time()), "speed": repr(speed), "advanced": "0.0"}
            fresh |= {"store_id": secrets.token_hex(8), "secret": secrets.token_hex(32)}
            self.is_new = self._one("SELECT 1 FROM meta") is None
            self._db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", fresh.items())
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.store_id: str = meta["store_id"]
        self.secret: bytes = bytes.fromhex(meta["secret"])
        self.clock = Clock(float(meta["origin"]), float(meta["speed"]), float(meta["advanced"]))
        self._sweep()

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, one thread at a time; inside another transaction it is part of that one."""
        with self._lock:
            if self._depth:
                yield
                return
            with self._db:  # commits, or rolls back whatever is raised
                self._db.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0

    def advance_clock(self, seconds: float) -> None:
        """Move the clock forward, durably."""
        with self.transaction():
            self.clock.advance(seconds)
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'advanced'", (repr(self.clock.advanced),))

    # --- datasets and jobs ---------------------------------------------------------------------

    def dataset(self, dataset_id: str) -> Dataset | None:
        """The dataset of that id, if there is one to be seen now."""
        row = self._one("SELECT record FROM datasets WHERE id = ?", dataset_id)
        record = Dataset.from_json(row[0]) if row else None
        return record if record and record.visible_from <= self.clock.now() else None

    def datasets(self) -> list[Dataset]:
        """All datasets to be seen now, oldest first."""
        now = self.clock.now()
        records = [Dataset.from_json(row[0]) for row in self._all("SELECT record FROM datasets ORDER BY seq")]
        return [record for record in records if record.visible_from <= now]

    def put_dataset(self, record: Dataset) -> None:
        """Keep *record*, in place of an older one of its id."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO datasets (id, record) VALUES (?, ?) "
                "ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (record.id, record.to_json()),
            )

    def drop_dataset(self, dataset_id: str) -> None:
        """Forget a dataset, also one that is not to be seen yet, and its bytes."""
        with self.transaction():
            row = self._one("SELECT record FROM datasets WHERE id = ?", dataset_id)
            self._db.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,))
        if row:
            record = Dataset.from_json(row[0])
            for file in (*record.files, *record.arrived):
                disk.remove(self.object_path(file.object_id))

    def job(self, job_id: str) -> Job | None:
        """The newest job of that id, whatever became of it."""
        row = self._one("SELECT record FROM jobs WHERE id = ? ORDER BY seq DESC LIMIT 1", job_id)
        return Job.from_json(row[0]) if row else None

    def jobs(self) -> list[Job]:
        """Every job there ever was, oldest first."""
        return [Job.from_json(row[0]) for row in self._all("SELECT record FROM jobs ORDER BY seq")]

    def open_jobs(self) -> list[Job]:
        """The jobs the worker still has something to do for, oldest first."""
        return [Job.from_json(row[0]) for row in self._all("SELECT record FROM jobs WHERE open ORDER BY seq")]

    def add_job(self, record: Job) -> None:
        """Keep a new job; one of the same id that is gone stays in the history."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO jobs (id, open, record) VALUES (?, ?, ?)", (record.id, record.open, record.to_json())
            )

    def update_job(self, record: Job) -> None:
        """Keep what changed of the newest job of that id."""
        with self.transaction():
            self._db.execute(
                "UPDATE jobs SET open = ?, record = ? WHERE seq = (SELECT max(seq) FROM jobs WHERE id = ?)",
                (record.open, record.to_json(), record.id),
            )

    # --- bytes ---------------------------------------------------------------------------------

    def new_object(self) -> str:
        """A name for the bytes of one file."""
        return secrets.token_hex(12)

    def object_path(self, object_id: str) -> Path:
        """Where the bytes of an object lie."""
        return self._objects / object_id

    # --- the ledger of calls and the fault rules --------------------------------------------------

    def add_call(self, record: dict[str, Any]) -> int:
        """Write down one call; its number."""
        with self.transaction():
            cursor = self._db.execute("INSERT INTO calls (record) VALUES (?)", (orjson.dumps(record),))
            return int(cursor.lastrowid or 0)

    def calls(self, after: int = 0) -> list[dict[str, Any]]:
        """The calls with numbers above *after*, in order."""
        rows = self._all("SELECT seq, record FROM calls WHERE seq > ? ORDER BY seq", after)
        return [{"seq": seq, **orjson.loads(record)} for seq, record in rows]

    def add_rule(self, rule: dict[str, Any]) -> None:
        """Keep a fault rule."""
        with self.transaction():
            self._db.execute("INSERT INTO rules (rule, seen, fired) VALUES (?, 0, 0)", (orjson.dumps(rule),))

    def rules(self) -> list[tuple[int, dict[str, Any], int, int]]:
        """The fault rules in order: number, rule, how often it was looked at, how often it acted."""
        rows = self._all("SELECT seq, rule, seen, fired FROM rules ORDER BY seq")
        return [(seq, orjson.loads(rule), seen, fired) for seq, rule, seen, fired in rows]

    def count_rule(self, seq: int, fired: bool) -> None:
        """One more call that rule *seq* matched; *fired* when it acted."""
        with self.transaction():
            self._db.execute("UPDATE rules SET seen = seen + 1, fired = fired + ? WHERE seq = ?", (fired, seq))

    def drop_rules(self) -> None:
        """Forget all fault rules."""
        with self.transaction():
            self._db.execute("DELETE FROM rules")

    # --- private ---------------------------------------------------------------------------------

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _sweep(self) -> None:
        """Remove objects no dataset names: uploads and outputs that a kill cut off before their commit."""
        records = [Dataset.from_json(row[0]) for row in self._all("SELECT record FROM datasets")]
        named = {file.object_id for record in records for file in (*record.files, *record.arrived)}
        for path in self._objects.iterdir():
            if path.name not in named:
                disk.remove(path)
