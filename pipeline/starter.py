"""`init`: a folder to start an own experiment from. Nothing that is there is ever overwritten."""

from __future__ import annotations

from pathlib import Path

from pipeline import disk
from pipeline.errors import UsageError
from pipeline.paths import resource

_FILES = ("experiment.yaml", "questions.jsonl", "prompts/control.txt", "prompts/treatment.txt", "dodo.py")
EDITOR_SCHEMA = "experiment.schema.json"
_IGNORED = ".gitignore"
_IGNORE = b"# Keys are nobody else's; runs hold questions and answers in clear.\n.env\nexperiments/\n__pycache__/\n"


def init(folder: Path) -> list[Path]:
    """Write a commented config, its schema for the editor, prompts, sample questions and a dodo.py.

    Raises UsageError, with nothing written, when one of the files is there already or *folder* is a file;
    UnreadableFile where that cannot be seen.
    """
    contents = {folder / name: disk.read_bytes(resource("examples/starter") / name) for name in _FILES}
    contents[folder / EDITOR_SCHEMA] = disk.read_bytes(resource(f"schemas/{EDITOR_SCHEMA}"))
    with disk.readable(folder):
        there = [path for path in contents if path.exists()]
        file = next((parent for parent in (folder, *folder.parents) if parent.is_file()), None)
    if there or file:
        raise UsageError(
            f"{file} is a file." if file else f"{there[0]} is there already.",
            kept="Nothing was written.",
            hint="choose an empty or a new folder",
        )
    if not (folder / _IGNORED).exists():
        contents[folder / _IGNORED] = _IGNORE
    for path, data in contents.items():
        disk.make_folder(path.parent)
        disk.write_bytes(path, data)
    return list(contents)
