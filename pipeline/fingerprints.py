"""What a file's content was when it was last looked at, so that a no-op on gigabytes reads none.

A sha256 is trusted while size, mtime_ns, ctime_ns and inode all stay as they were; otherwise the
file is read again. The memory is kept in the run's `.doit.db` and is no more than a memory: losing
it costs a reading, never a wrong answer. It is not portable and not part of the manifest.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline import disk
from pipeline.disk import StatKey, Written

# What is remembered of a file: sha256, size, mtime_ns, ctime_ns, inode. Lists, as the memory's JSON holds them: making
# something nicer of each would take longer than looking at the files.
Facts = list[Any]

T = TypeVar("T")

_VALID = " (valid)"  # after the path, under which a digest of what was found valid is remembered
_LOOK_HOLDS = 2.0  # seconds; a no-op of many trials lives by looks as old
_ANY_TIME = StatKey(0, 0, 0, 0)
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}


class Fingerprints:
    """sha256 of files below *root*, remembered by stat key. With *deep* nothing remembered is trusted.

    *known* has paths relative to *root*.
    """

    def __init__(self, root: Path, known: Mapping[str, Facts] | None = None, *, deep: bool = False) -> None:
        self._root = root
        self._below = f"{root}/"
        self._known: dict[str, Facts] = {} if deep else dict(known or {})
        self._fresh: dict[str, Facts] = {}
        self._looks: dict[str, os.stat_result | None] | None = None
        self._answers: dict[str, Any] = {}  # what followed from the looks
        self._looks_since = 0.0
        self._at_work: str | None = None  # the beginning of the names where this process is at work

    def look_once(self) -> None:
        """From now on look at each file once: whoever decides on all phases asks after most files several times."""
        self._looks, self._answers, self._at_work = {}, {}, None
        self._looks_since = time.monotonic()

    def look_anew(self) -> None:
        """Look whenever asked: something is being done, anywhere, here or in a worker."""
        self._looks, self._answers = None, {}

    def work_in(self, folder: str) -> None:
        """Look whenever asked below *folder*, relative to the root: this process is at work there, and only there."""
        below = f"{folder}/"
        if self._at_work not in (None, below):
            self.look_anew()
        self._at_work = below

    def look_again(self) -> None:
        """The work is done: look once more where it was, and everywhere if the looks are not of just now."""
        below, looks = self._at_work, self._looks
        if looks is None or below is None or time.monotonic() - self._looks_since > _LOOK_HOLDS:
            self.look_once()
            return
        for held in (looks, self._answers):
            for name in [
                name for name in held if below in name
            ]:  # a quarter of startswith; what it drops too many is looked at anew
                del held[name]
        self._at_work = None

    def look(self, name: str) -> os.stat_result | None:
        """The entry *name*, relative to the root, as `look` of this module."""
        looks, at_work = self._looks, self._at_work  # another thread may set them
        if looks is None or (at_work is not None and name.startswith(at_work)):
            return look(self._below + name)
        try:
            return looks[name]
        except KeyError:
            return looks.setdefault(name, look(self._below + name))

    def once(self, name: str, answer: Callable[[], T]) -> T:
        """The *answer* to the question *name*, which follows from looks at its folder: while they hold, so does it."""
        looks, at_work, answers = self._looks, self._at_work, self._answers
        if looks is None or (at_work is not None and name.startswith(at_work)):
            return answer()
        if name not in answers:
            answers[name] = answer()
        known: T = answers[name]
        return known

    def sha256(self, path: Path) -> str:
        """The digest of the regular file *path*. Raises FileNotFoundError or UnreadableFile."""
        with disk.readable(path):
            seen = path.stat()
        return self._digest(self._name(path), seen, path)

    def of(self, name: str, seen: os.stat_result) -> str:
        """The digest of the regular file *name*, relative to the root, that was just *seen*; raises as `sha256`."""
        return self._digest(name, seen, None)

    def remember(self, path: Path, written: Written) -> None:
        """Take over what the writer of *path* already knows."""
        self._learn(self._name(path), written.sha256, written.key)

    def vouch(self, path: Path, digest: str) -> None:
        """Remember that *path* was found valid with a content (and by rules) of this *digest*."""
        self._learn(self._name(path) + _VALID, digest, _ANY_TIME)

    def vouches(self, path: Path, digest: str) -> bool:
        """Whether that is remembered; whoever asks has just read the content, so times do not matter."""
        known = self._known.get(self._name(path) + _VALID)
        return known is not None and known[0] == digest

    def fresh(self) -> Iterator[tuple[str, Facts]]:
        """What was learned since the last call, for the memory on disk."""
        while self._fresh:
            yield self._fresh.popitem()

    def _digest(self, name: str, seen: os.stat_result, path: Path | None) -> str:
        known = self._known.get(name)
        if known is not None and known[1:] == [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]:
            return str(known[0])
        digest, key = disk.sha256_of(path or self._root / name)
        self._learn(name, digest, key)
        return digest

    def _learn(self, name: str, digest: str, key: StatKey) -> None:
        self._known[name] = self._fresh[name] = [digest, *key]

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
