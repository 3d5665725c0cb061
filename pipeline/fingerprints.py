"""What a file's content was when it was last looked at, so that a no-op on gigabytes reads none.

A sha256 is trusted while size, mtime_ns, ctime_ns and inode all stay as they were; otherwise the
file is read again. The memory is kept in the run's `.doit.db` and is no more than a memory: losing
it costs a reading, never a wrong answer. It is not portable and not part of the manifest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import disk
from pipeline.disk import StatKey, Written

_VALID = " (valid)"  # after the path, under which a digest of what was found valid is remembered
_ANY_TIME = StatKey(0, 0, 0, 0)
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


@dataclass(frozen=True)
class Known:
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
        name = self._name(path)
        with disk.readable(path):
            key = StatKey.of(path.stat())
        known = self._known.get(name)
        if known is not None and known.key == key:
            return known.sha256
        digest, key = disk.sha256_of(path)
        self._learn(Known(name, key, digest))
        return digest

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

    def _learn(self, entry: Known) -> None:
        self._known[entry.path] = entry
        self._fresh[entry.path] = entry

    def _name(self, path: Path) -> str:
        text, root = str(path), str(self._root)
        return text[len(root) + 1 :] if text.startswith(root + os.sep) else text


def kind(path: Path) -> str | None:
    """What stands at *path*: "file", "folder", "symlink" or "special"; None when nothing does."""
    with disk.readable(path):
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return _KINDS.get(stat.S_IFMT(mode), "special")
