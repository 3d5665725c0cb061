"""doit's memory and its way of looking at files, replaced by the one truth there is.

doit saves its state only when it ends, so a kill loses everything it learned; it takes an equal mtime
for equal content and a target that exists for a good one. `done.py` compares contents and looks
inside, and the manifest, written after each task, says what was done. So doit keeps nothing of its
own: a task is up to date if and only if its decision is to skip, in every situation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from doit.dependency import FileChangedChecker

if TYPE_CHECKING:
    from pipeline.session import Session

# The session of this process: doit makes backend, checker and reporter itself and hands them nothing of ours.
session: Session | None = None

_LAST_OF_SUCCESS = "deps:"  # the key doit writes last when it records a success
_LOOKED_AT = "looked at"


class Checker(FileChangedChecker):  # type: ignore[misc] # doit ships no types
    """Finds nothing that the decision did not find: doit asks after it, about the same files."""

    def exists(self, _file_path: str) -> bool:
        """A missing target is a reason of `done.py`, or (results of the earlier tool) none at all."""
        return True

    def info(self, _file_path: str) -> None:
        """Nothing: a missing input is a reason of `done.py` too."""

    def check_modified(self, _file_path: str, _file_stat: object, _state: str) -> bool:
        """No: contents were compared when the decision was made."""
        return False

    def get_state(self, _dep: str, _current_state: str | None) -> str | None:
        """Nothing to store: digests of inputs stand in the manifest."""
        return None


class Backend:
    """doit's database, of which each row is a decision. What a success teaches of files is committed with it."""

    desc = "answers from the manifests, one transaction per finished task (Trialmake)"

    def __init__(self, name: str, codec: object, *, module_name: str | None = None) -> None:
        assert session is not None, "dodo.py opens the session before doit opens its database"
        self.name = name
        self._session = session

    def get(self, _task_id: str, dependency: str) -> Any:
        """Every file was looked at; of a task itself nothing is stored."""
        return None if dependency.endswith(":") else _LOOKED_AT

    def set(self, _task_id: str, dependency: str, _value: Any) -> None:
        """Commit with the last key of a success."""
        assert not self._session.readonly, "commands that would store a state are refused in commands.py"
        if dependency == _LAST_OF_SUCCESS:
            self._session.remember()

    def in_(self, _task_id: str) -> bool:
        """No: values of tasks are not stored."""
        return False

    def remove(self, task_id: str) -> None:
        """`doit forget` stales the record; the rows of a failed task are the reporter's business."""
        if self._session.forgetting:
            phase, _, slug = task_id.partition(":")
            self._session.forget(phase, slug)

    def remove_all(self) -> None:
        """Stale every record."""
        for phase, slug in self._session.cells():
            self.remove(f"{phase.name}:{slug}")

    def dump(self) -> None:
        """doit is done; the session closes the database when the command ends."""


def closing(close: Callable[[], None]) -> None:
    """End the process's session through *close*."""
    global session
    try:
        close()
    finally:
        session = None
