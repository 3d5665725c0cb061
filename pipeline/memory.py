"""`.doit.db`: what we remember of files, so that a no-op on gigabytes reads none. A memory, never the truth.

SQLite, one transaction per finished task: killed at any moment, all that was finished is known.
Losing the file costs a reading of everything, never a repetition of work: what was done stands in
manifests and ledgers. Opened for reading it is not created, not changed, and not even repaired.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import disk, fingerprints
from pipeline.disk import StatKey
from pipeline.errors import DiskTrouble
from pipeline.fingerprints import Known

_TABLES = """
create table if not exists fingerprints (
    path text not null primary key, size integer, mtime_ns integer, ctime_ns integer, inode integer, sha256 text,
    crc integer
);
create table if not exists forgotten (task text not null primary key);
"""
# What SQLite says of a disk, a permission or another process: nothing about the content.
_TROUBLE = frozenset({
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip
_JOURNAL = "-journal"  # SQLite's own file beside a database that a kill left in the middle of a transaction


class Memory:
    """The database of one run; *readonly*: nothing is written, and a missing or unusable file is an empty memory.

    A writer holds the run's lock before it opens this: what stands here may be moved aside.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self.fingerprints: list[Known] = []
        self.forgotten: set[str] = set()  # tasks that `doit forget` named, until they are done again
        self._connection: sqlite3.Connection | None = None
        if readonly:
            self._look()
        else:
            self._open()

    def commit(self, learned: Iterable[Known]) -> None:
        """Make what was *learned* of files last, in one transaction. Raises DiskTrouble."""
        rows = [(known.path, *known.key, known.sha256, _crc(known)) for known in learned]
        self._write("insert or replace into fingerprints values (?, ?, ?, ?, ?, ?, ?)", rows)

    def forget(self, task: str) -> None:
        """Note that *task* is to be done again although its files are current. Raises DiskTrouble."""
        self.forgotten.add(task)
        self._write("insert or replace into forgotten values (?)", [(task,)])

    def forgive(self, task: str) -> None:
        """*task* was done again."""
        if task in self.forgotten:
            self.forgotten.remove(task)
            self._write("delete from forgotten where task = ?", [(task,)])

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self) -> None:
        """Read what is there, and leave: no file, a damaged one or one in use is an empty memory."""
        if fingerprints.kind(self.path) != "file":
            return
        try:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error:
            return
        try:
            self._load(connection)
        except sqlite3.Error:
            pass  # damaged, or in the middle of a killed writer's transaction: the next writer sees to it
        finally:
            connection.close()

    def _open(self) -> None:
        if fingerprints.kind(self.path) == "folder":
            self.set_aside = disk.set_aside(self.path, "damaged")
        try:
            self._begin()
        except sqlite3.Error as error:
            self.close()
            # The code of an extended error holds the primary one; text that is not UTF-8 has no code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _TROUBLE:
                raise self._trouble(error) from error
            self.set_aside = disk.set_aside(self.path, "damaged")
            journal = self.path.with_name(self.path.name + _JOURNAL)
            if journal.exists():
                # It belongs to the damaged file and would be played into the new one.
                disk.set_aside(journal, "damaged")
            self._begin()

    def _begin(self) -> None:
        self._connection = sqlite3.connect(self.path)
        self._connection.executescript(_TABLES)
        self._load(self._connection)

    def _load(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("select path, size, mtime_ns, ctime_ns, inode, sha256, crc from fingerprints")
        # SQLite keeps no checksums: a flipped bit in a digest would make an intact file look damaged.
        entries = ((Known(path, StatKey(*key), sha256), crc) for path, *key, sha256, crc in rows)
        known = [entry for entry, crc in entries if crc == _crc(entry)]
        self.forgotten = {task for (task,) in connection.execute("select task from forgotten")}
        self.fingerprints = known

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if self._connection is None or not rows:
            return
        try:
            with self._connection:
                self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: sqlite3.Error) -> DiskTrouble:
        return DiskTrouble(
            f"could not be used ({error}).",
            where=str(self.path),
            kept="Artifacts and manifests are not affected.",
            hint="free space and check permissions there, then run the same command again",
        )


def _crc(known: Known) -> int:
    path, (size, mtime_ns, ctime_ns, inode), sha256 = known
    return zlib.crc32(f"{path}\n{size}\n{mtime_ns}\n{ctime_ns}\n{inode}\n{sha256}".encode(errors="surrogatepass"))
