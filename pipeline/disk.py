"""The only module that writes files, so that whole-or-old is decided in one place.

Under its final name a file is always whole: bytes go to `.NAME.tmp` in the same folder (a fixed
name: one writer per run, and a leftover is overwritten), then flush, fsync, rename, fsync of the
folder. Four rewrites without the two fsyncs left 248 of 289 simulated power cuts wrong, with both
none. A failed fsync is not repeated: the kernel has forgotten the pages, so the write is an error.

Nothing here decides whether a file should be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipeline.errors import DiskTrouble, UnreadableFile

_WRITE_BUFFER = 1 << 15  # bytes; what is longer goes past it without being copied once more
READ_BLOCK = 1 << 17  # bytes; with a megabyte each system call takes longer for the same bytes (measured 2026-11)

# A seam for tests: called with (operation, path) before each open, write, fsync, rename, fsync_dir, unlink
# and mkdir (of a log the write stands for the open too). An OSError raised here plays a full or failing disk.
observer: Callable[[str, Path], None] | None = None

DAMAGED = "damaged"  # the tag of what is set aside because it is not what was written

_KEPT = "Under this name stands what stood there before, or the whole new file."
# What helps; a disk that has room is not to be cleared.
_REMEDIES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has no more open files to give",
    errno.EDQUOT: "free space or ask for a larger quota on that disk",
}
_REMEDY = "free space or fix permissions on that disk"
_SPECIAL = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}  # all else that is neither file nor folder is a device


class StatKey(NamedTuple):
    """What must stay equal for a remembered hash to be trusted (an unchanged mtime alone proves nothing)."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> StatKey:
        """The key of a file as `os.stat` or `os.fstat` saw it."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True)
class Written:
    """A file as it was put in place: its sha256, size in bytes, and the key to remember it by."""

    sha256: str
    size: int
    key: StatKey


class Digest:
    """sha256 and size of bytes fed piece by piece."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """Digest of all pieces so far, in hex."""
        return self._hash.hexdigest()


class HashingWriter(io.RawIOBase):
    """A binary stream that counts and hashes what passes, so that no file is read again for its digest."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Always: this stream is only ever written."""
        return True

    def write(self, data: Any, /) -> int:
        """Pass *data* on; raises DiskTrouble when the disk does not take it."""
        # A buffered stream: an unbuffered one may store a part and report no error.
        with _explained(self._path):
            _observe("write", self._path)
            self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Digest of what was written so far, in hex."""
        return self._hash.hexdigest()


class Replacement:
    """A file being written under a temporary name; *result* is set once it stands under its final one."""

    def __init__(self, writer: HashingWriter) -> None:
        self.write = writer.write
        self.stream = writer
        self.result: Written | None = None

    @property
    def written(self) -> Written:
        """What was put in place; only after the block has ended."""
        assert self.result is not None, "the file is not in place before its block ends"
        return self.result


@contextmanager
def replacing(path: Path) -> Iterator[Replacement]:
    """Write *path* whole or not at all: leaving the block renames, an exception leaves the old file.

    A folder or symlink that stands in the way is the caller's to set aside; a symlink itself is
    replaced, never what it points to. Raises DiskTrouble when the disk does not take the bytes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _explained(path):
        _observe("open", temporary)
        stream = _created(temporary)
    try:
        writer = HashingWriter(stream, temporary)
        replacement = Replacement(writer)
        yield replacement
        with _explained(path):
            _observe("fsync", temporary)
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
            _observe("rename", path)
            os.rename(temporary, path)
            sync_folder(path.parent)
            key = StatKey.of(os.stat(path))
        replacement.result = Written(writer.sha256, writer.size, key)
    except BaseException:
        # Also on Ctrl-C: the temporary file has no value, and the next write reuses its name anyway.
        with contextlib.suppress(OSError):
            stream.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_bytes(path: Path, data: bytes) -> Written:
    """Put *data* under *path*, whole or not at all."""
    with replacing(path) as replacement:
        replacement.write(data)
    return replacement.written


def append_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Add *lines* (without their newlines) to a log that must survive a power cut, with one flush for all.

    A torn last line, left by a kill in the middle of an append, is closed with a newline first, so
    that it stays one damaged line and cannot swallow the new one.
    """
    with _explained(path, kept="The lines before it are untouched."):
        _observe("write", path)
        with open(path, "ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.writelines(line + b"\n" for line in lines)
            stream.flush()
            _observe("fsync", path)
            os.fsync(stream.fileno())
        # Each time, not only for a new file: the append that created it may have been killed right here.
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Create *path* and its parents, each one's entry made durable."""
    if path.is_dir():
        return
    with _explained(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            _observe("mkdir", folder)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def move(source: Path, target: Path) -> None:
    """Rename the whole file *source* to *target* on the same disk, durable in both folders."""
    with _explained(target):
        _observe("rename", target)
        os.rename(source, target)
        sync_folder(target.parent)
        if source.parent != target.parent:
            sync_folder(source.parent)


def remove_folder(path: Path) -> None:
    """Delete the folder *path* and all in it; for the tool's own scratch folders only."""
    with _explained(path):
        if path.is_dir():
            _observe("unlink", path)
            shutil.rmtree(path)
            sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete the file *path* (not a folder); one that is gone already is fine."""
    with _explained(path):
        _observe("unlink", path)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)


def set_aside(path: Path, tag: str = DAMAGED) -> Path:
    """Rename *path* (file, folder or link) to `NAME.TAG.<UTC time>` and return that name: nothing is deleted."""
    target = _free_name(path, tag)
    with _explained(path):
        _observe("rename", target)
        os.rename(path, target)
        sync_folder(path.parent)
    return target


def copy_aside(path: Path, tag: str, suffix: str = "") -> Path:
    """Copy the file *path* byte for byte to a free name `NAME.TAG.<UTC time>SUFFIX`, durable before this returns.

    The copy is whole or not there. Raises DiskTrouble, or UnreadableFile when it is *path* that fails.
    """
    target = _free_name(path, tag, suffix)
    with readable(path), open(path, "rb") as source, replacing(target) as copy:
        while block := source.read(READ_BLOCK):
            copy.write(block)
    return target


def read_bytes(path: Path) -> bytes:
    """The content of *path*.

    FileNotFoundError passes through: absence is a normal answer. Any other trouble is UnreadableFile.
    """
    refuse_special(path)
    with readable(path):
        return path.read_bytes()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Translate trouble while reading *path*: absent stays FileNotFoundError, all else is UnreadableFile."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error


def refuse_special(path: Path) -> None:
    """Raise UnreadableFile for a pipe or a device, before it is opened: it may wait for a writer, or have no end."""
    with readable(path):
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise OSError(f"it is a {_SPECIAL.get(kind, 'device')}, not a file")


def unreadable(path: Path, error: OSError) -> UnreadableFile:
    """What *error* means for whoever wanted to read *path*."""
    return UnreadableFile(
        f"cannot be read ({error.strerror or error}).",
        where=str(path),
        kept="Nothing was changed: this says nothing about the file's content.",
        hint=f"{remedy(path, error, 'check permissions and the disk')}, then run the same command again",
    )


def remedy(path: Path, error: OSError, otherwise: str) -> str:
    """What helps against *error* at *path*: what is known to, or *otherwise*."""
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        for place in (*reversed(path.parents), path):
            if os.path.lexists(place) and not os.path.isdir(place):
                return f"move {place} away, a file where a folder belongs"
    return _REMEDIES.get(error.errno or 0, otherwise)


def sha256_of(path: Path) -> tuple[str, StatKey]:
    """The sha256 of *path* and the stat key that held before and after reading it.

    Raises FileNotFoundError or UnreadableFile; DamagedArtifact is not decided here.
    """
    refuse_special(path)
    with readable(path), open(path, "rb") as stream:
        while True:
            before = StatKey.of(os.fstat(stream.fileno()))
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if StatKey.of(os.fstat(stream.fileno())) == before:
                return digest, before


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable; without it a rename may be undone by a power cut."""
    _observe("fsync_dir", folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_name(path: Path, tag: str, suffix: str = "") -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    number = 0
    while True:
        extra = f"-{number}" if number else ""
        candidate = path.with_name(f"{path.name}.{tag}.{stamp}{extra}{suffix}")
        if not os.path.lexists(candidate):
            return candidate
        number += 1


def _created(temporary: Path) -> IO[bytes]:
    """A new file to write; what stands there is left over, and may be a link whose target is none of ours."""
    try:
        return open(temporary, "xb", buffering=_WRITE_BUFFER)
    except FileExistsError:
        os.unlink(temporary)
        return open(temporary, "xb", buffering=_WRITE_BUFFER)


@contextmanager
def _explained(path: Path, kept: str = _KEPT) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskTrouble(
            f"could not be written ({error.strerror or error}).",
            where=str(path),
            kept=kept,
            hint=f"{remedy(path, error, _REMEDY)}, then run the same command again",
        ) from error


def _observe(operation: str, path: Path) -> None:
    if observer is not None:
        observer(operation, path)
