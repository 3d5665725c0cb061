"""doit's memory and its way of looking at files, replaced by ours.

doit saves its state only when it ends, so a kill loses everything it learned, and it takes an equal
mtime for equal content. The backend commits after each task; the checker compares content digests.
Where the backend has no row (the database was deleted, the folder copied), it answers from what
`done.py` decided, so that the two agree and nothing is done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.dependency import FileChangedChecker

from pipeline.done import Skip

if TYPE_CHECKING:
    from pipeline.session import Session

# The session of this process: doit makes backend, checker and reporter itself and hands them nothing of ours.
session: Session | None = None

_LAST_OF_SUCCESS = "deps:"  # the key doit writes last when it records a success
_UNUSED = ("_values_:", "result:")  # records live in the manifest; doit's copy would only cost


class Checker(FileChangedChecker):  # type: ignore[misc] # doit ships no types
    """A file is modified when its sha256 is; the name of this class is stored with each row."""

    def check_modified(self, file_path: str, file_stat: object, state: str) -> bool:
        """Whether *file_path* differs from the digest *state*."""
        return self._digest(file_path) != state

    def get_state(self, dep: str, current_state: str | None) -> str | None:
        """The digest to store; None when it is the stored one."""
        digest = self._digest(dep)
        return None if digest == current_state else digest

    def _digest(self, path: str) -> str:
        assert session is not None
        return session.workspace.fingerprints.sha256(Path(path))


class Backend:
    """doit's database: rows of the session's `Memory`, paths stored relative to the run's folder."""

    desc = "one transaction per finished task (Trialmake)"

    def __init__(self, name: str, codec: object, *, module_name: str | None = None) -> None:
        assert session is not None, "dodo.py opens the session before doit opens its database"
        self.name = name
        self._session = session
        self._root = f"{session.workspace.paths.root}/"

    def get(self, task_id: str, dependency: str) -> Any:
        """What is stored of *task_id*; from the decision when nothing is stored."""
        row = self._session.memory.row(task_id)
        if row is None:
            return self._derived(task_id, dependency)
        if dependency == _LAST_OF_SUCCESS:
            return [self._root + name for name in row.get(dependency, [])]
        return row.get(self._key(dependency))

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Store one value; the last of a success makes the row last."""
        if dependency in _UNUSED:
            return
        if dependency == _LAST_OF_SUCCESS:
            value = sorted(self._key(name) for name in value)
        self._session.memory.change(task_id, self._key(dependency), value)
        if dependency == _LAST_OF_SUCCESS and not self._session.readonly:
            self._session.remember(task_id)

    def in_(self, task_id: str) -> bool:
        """Whether anything is stored of *task_id*."""
        return self._session.memory.row(task_id) is not None

    def remove(self, task_id: str) -> None:
        """Forget *task_id*."""
        if not self._session.readonly:
            self._session.memory.forget(task_id)

    def remove_all(self) -> None:
        """Forget every task."""
        if not self._session.readonly:
            self._session.memory.forget_all()

    def dump(self) -> None:
        """doit is done; the session closes the database when the command ends."""

    def _key(self, dependency: str) -> str:
        return dependency.removeprefix(self._root)

    def _derived(self, task_id: str, dependency: str) -> Any:
        phase, _, slug = task_id.partition(":")
        decided = self._session.decisions.get((phase, slug))
        if not isinstance(decided, Skip):
            return None
        if dependency == _LAST_OF_SUCCESS:
            return [str(path) for path in self._session.question(phase, slug).inputs]
        if dependency == "checker:":
            return Checker.__name__
        if dependency.endswith(":"):
            return None
        try:
            return self._session.workspace.fingerprints.sha256(Path(dependency))
        except FileNotFoundError:
            return None


def closing(close: Callable[[], None]) -> None:
    """End the process's session through *close*."""
    global session
    try:
        close()
    finally:
        session = None
