"""prepare: the question files as `closed_book.jsonl` and `open_book.jsonl`, one item a line.

Items keep the order of the config's sources and of each file. Both files are always written; one of
them may be empty, never both.
"""

from __future__ import annotations

from pipeline import disk, jsonl, sources
from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.paths import RunPaths
from pipeline.phases import Outcome, Output


def prepare(run: RunPaths, config: Config) -> Outcome:
    """Write the prepared items. Raises SourceError naming file and line; then nothing is replaced."""
    cluster = config["statistics"]["cluster"]
    counts = {run.closed_book: 0, run.open_book: 0}
    disk.make_folder(run.prepared)
    with disk.replacing(run.closed_book) as closed, disk.replacing(run.open_book) as opened:
        for source in config["sources"]:
            for item in sources.read(config.path(source["path"]), source):
                path, target = (run.closed_book, closed) if item.context is None else (run.open_book, opened)
                target.write(jsonl.dumps(item.row(cluster)) + b"\n")
                counts[path] += 1
        if not any(counts.values()):
            raise SourceError("the sources hold no items.", where=str(run.config), hint="check the paths and limits")
    return Outcome(
        {
            run.closed_book: Output(closed.written, counts[run.closed_book]),
            run.open_book: Output(opened.written, counts[run.open_book]),
        },
        {"items": sum(counts.values())},
    )
