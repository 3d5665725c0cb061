"""What a file's content was when it was last looked at, so that a no-op on gigabytes reads none.

A sha256 is trusted while size, mtime_ns, ctime_ns and inode all stay as they were; otherwise the
file is read again. The memory is kept in the run's `.doit.db` and is no more than a memory: losing
it costs a reading, never a wrong answer. It is not portable and not part of the manifest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline import disk
from pipeline.disk import StatKey, Written

_VALID = " (valid)"  # after the path, under which a digest of what was found valid is remembered
_ANY_TIME = StatKey(0, 0, 0, 0)
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


class Known(NamedTuple):
    """One remembered file: *path* is relative to the run's folder."""

    path: str
    key: StatKey
    sha256: str


class Fingerprints:
    """sha256 of files below *root*, remembered by stat key. With *deep* nothing remembered is trusted."""

    def __init__(self, root: Path, known: Iterable[Known] = (), *, deep: bool = False) -> None:
        self._root = root
        self._known: dict[str, Known] = {} if deep else {entry.path: entry for entry in known}
        self._fresh: dict[str, Known] = {}

    def sha256(self, path: Path) -> str:
        """The digest of the regular file *path*. Raises FileNotFoundError or UnreadableFile."""
        with disk.readable(path):
            seen = path.stat()
        return self._digest(self._name(path), seen, lambda: path)

    def of(self, name: str, seen: os.stat_result) -> str:
        """The digest of the regular file *name*, relative to the root, that was just *seen*; raises as `sha256`."""
        return self._digest(name, seen, lambda: self._root / name)

    def remember(self, path: Path, written: Written) -> None:
        """Take over what the writer of *path* already knows."""
        self._learn(Known(self._name(path), written.key, written.sha256))

    def vouch(self, path: Path, digest: str) -> None:
        """Remember that *path* was found valid with a content (and by rules) of this *digest*."""
        self._learn(Known(self._name(path) + _VALID, _ANY_TIME, digest))

    def vouches(self, path: Path, digest: str) -> bool:
        """Whether that is remembered; whoever asks has just read the content, so times do not matter."""
        known = self._known.get(self._name(path) + _VALID)
        return known is not None and known.sha256 == digest

    def fresh(self) -> Iterator[Known]:
        """What was learned since the last call, for the memory on disk."""
        while self._fresh:
            yield self._fresh.popitem()[1]

    def _digest(self, name: str, seen: os.stat_result, path: Callable[[], Path]) -> str:
        key = StatKey.of(seen)
        known = self._known.get(name)
        if known is not None and known.key == key:
            return known.sha256
        digest, key = disk.sha256_of(path())
        self._learn(Known(name, key, digest))
        return digest

    def _learn(self, entry: Known) -> None:
        self._known[entry.path] = entry
        self._fresh[entry.path] = entry

    def _name(self, path: Path) -> str:
        text, root = str(path), str(self._root)
        return text[len(root) + 1 :] if text.startswith(root + os.sep) else text


def look(path: Path | str) -> os.stat_result | None:
    """The entry at *path* itself, a link not followed; None when nothing is there. Raises UnreadableFile."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise disk.unreadable(Path(path), error) from error


def kind(path: Path) -> str | None:
    """What stands at *path*: "file", "folder", "symlink" or "special"; None when nothing does."""
    seen = look(path)
    return None if seen is None else kind_of(seen)


def kind_of(seen: os.stat_result) -> str:
    """The word for what was seen."""
    return _KINDS.get(stat.S_IFMT(seen.st_mode), "special")
