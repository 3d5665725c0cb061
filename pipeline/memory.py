"""`.doit.db`: what doit remembers of tasks, and what we remember of files. A memory, never the truth.

SQLite, one transaction per finished task: killed at any moment, all that was finished is known.
Losing the file costs a check of everything, never a repetition of work: the manifests and ledgers
say the rest. Opened for reading it is not created, not changed, and not even repaired.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import disk, jsonl
from pipeline.disk import StatKey
from pipeline.errors import DiskTrouble
from pipeline.fingerprints import Known

_TABLES = """
create table if not exists doit (task_id text not null primary key, task_data blob);
create table if not exists fingerprints (
    path text not null primary key, size integer, mtime_ns integer, ctime_ns integer, inode integer, sha256 text
);
"""


class Memory:
    """The database of one run; *readonly*: nothing is written, and a missing or unusable file is an empty memory."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self.set_aside: Path | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self.fingerprints: list[Known] = []
        try:
            self._connection = self._open()
            self._load()
        except sqlite3.DatabaseError:
            # Damaged, or (for a reader) in the middle of a killed writer's transaction.
            self._rows, self.fingerprints = {}, []
            if not readonly:
                self._connection.close()
                self.set_aside = disk.set_aside(path, "damaged")
                self._connection = self._open()
            else:
                self._connection = sqlite3.connect(":memory:")

    def row(self, task: str) -> dict[str, Any] | None:
        """What doit stored of *task*."""
        return self._rows.get(task)

    def change(self, task: str, key: str, value: Any) -> None:
        """Store one value of *task* in memory; `commit` makes it last."""
        self._rows.setdefault(task, {})[key] = value

    def forget(self, task: str) -> None:
        """Remove all that is stored of *task*."""
        self._rows.pop(task, None)
        self._write("delete from doit where task_id = ?", [(task,)])

    def forget_all(self) -> None:
        """Remove all tasks; what is known of files stays, it is still true."""
        self._rows.clear()
        self._write("delete from doit", [()])

    def commit(self, task: str | None, learned: Iterable[Known]) -> None:
        """Make *task*'s values and what was *learned* of files last, in one transaction."""
        if task is not None and task in self._rows:
            data = jsonl.dumps(self._rows[task])
            self._write("insert or replace into doit values (?, ?)", [(task, data)], commit=False)
        files = [(k.path, k.key.size, k.key.mtime_ns, k.key.ctime_ns, k.key.inode, k.sha256) for k in learned]
        self._write("insert or replace into fingerprints values (?, ?, ?, ?, ?, ?)", files)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self.readonly:
            if not self.path.is_file():
                return sqlite3.connect(":memory:")
            self._connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
            return self._connection
        self._connection = sqlite3.connect(self.path)
        self._connection.executescript(_TABLES)
        return self._connection

    def _load(self) -> None:
        tables = {name for (name,) in self._connection.execute("select name from sqlite_master")}
        if "doit" in tables:
            rows = self._connection.execute("select task_id, task_data from doit")
            self._rows = {task: jsonl.loads(data) for task, data in rows}
        if "fingerprints" in tables:
            query = "select path, size, mtime_ns, ctime_ns, inode, sha256 from fingerprints"
            self.fingerprints = [
                Known(path, StatKey(size, mtime, ctime, inode), sha256)
                for path, size, mtime, ctime, inode, sha256 in self._connection.execute(query)
            ]

    def _write(self, statement: str, rows: list[tuple[Any, ...]], *, commit: bool = True) -> None:
        if self.readonly:
            return
        try:
            if rows:
                self._connection.executemany(statement, rows)
            if commit and self._connection.in_transaction:
                self._connection.commit()
        except sqlite3.Error as error:
            raise DiskTrouble(
                f"could not be written ({error}).",
                where=str(self.path),
                kept="Artifacts and manifests are not affected.",
                hint="free space on that disk, then run the same command again",
            ) from error
