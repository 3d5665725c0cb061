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

import orjson

from pipeline import disk, fingerprints
from pipeline.errors import DiskTrouble
from pipeline.fingerprints import Facts

# One row holds all that is known below one folder (a trial's, mostly), as JSON: path -> facts. A task writes the row of
# its own trial; a row for each file took longer to read than all the files to look at.
_TABLES = """
create table if not exists folders (name text not null primary key, files blob not null, crc integer not null);
create table if not exists forgotten (task text not null primary key);
drop table if exists fingerprints; -- of versions up to 0.1
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
        self.fingerprints: dict[str, Facts] = {}
        self.forgotten: set[str] = set()  # tasks that `doit forget` named, until they are done again
        self._folders: dict[str, dict[str, Facts]] = {}
        self._connection: sqlite3.Connection | None = None
        if readonly:
            self._look()
        else:
            self._open()

    def commit(self, learned: Iterable[tuple[str, Facts]]) -> None:
        """Make what was *learned* of files last, in one transaction. Raises DiskTrouble."""
        names = set()
        for path, facts in learned:
            name = path.partition("/")[0]
            self._folders.setdefault(name, {})[path] = facts
            names.add(name)
        rows = [(name, files, _crc(name, files)) for name in names for files in [orjson.dumps(self._folders[name])]]
        self._write("insert or replace into folders values (?, ?, ?)", rows)

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
            self.set_aside = disk.set_aside(self.path)
        try:
            self._begin()
        except sqlite3.Error as error:
            self.close()
            # The code of an extended error holds the primary one; text that is not UTF-8 has no code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _TROUBLE:
                raise self._trouble(error) from error
            self.set_aside = disk.set_aside(self.path)
            journal = self.path.with_name(self.path.name + _JOURNAL)
            if journal.exists():
                # It belongs to the damaged file and would be played into the new one.
                disk.set_aside(journal)
            self._begin()

    def _begin(self) -> None:
        self._connection = sqlite3.connect(self.path)
        self._connection.executescript(_TABLES)
        self._load(self._connection)

    def _load(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("select name, files, crc from folders").fetchall()
        self.forgotten = {task for (task,) in connection.execute("select task from forgotten")}
        # SQLite keeps no checksums: a flipped bit in a digest would make an intact file look damaged.
        for name, files, crc in rows:
            if isinstance(name, str) and isinstance(files, bytes) and crc == _crc(name, files):
                self._folders[name] = orjson.loads(files)
                self.fingerprints.update(self._folders[name])

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


def _crc(name: str, files: bytes) -> int:
    return zlib.crc32(files, zlib.crc32(name.encode(errors="surrogatepass")))
