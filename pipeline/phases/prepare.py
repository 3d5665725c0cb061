"""prepare: the question files as `closed_book.jsonl` and `open_book.jsonl`, one item a line.

Items keep the order of the config's sources and of each file. Both files are always written; one of
them may be empty, never both.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import disk, jsonl, sources
from pipeline.config import Config
from pipeline.errors import Refused, SourceError
from pipeline.paths import RunPaths
from pipeline.phases import Outcome, Output


def prepare(run: RunPaths, config: Config, asked: Mapping[str, str]) -> Outcome:
    """Write the prepared items. *asked*, name -> sha256, are those that were submitted where nothing else tells.

    Raises SourceError naming file and line, or Refused for other items than were asked; then nothing is replaced.
    """
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
        for path, written in ((run.closed_book, closed), (run.open_book, opened)):
            if asked.get(path.relative_to(run.root).as_posix(), sha256 := written.stream.sha256) != sha256:
                raise Refused(
                    "the questions, or how they cluster, are not those that were submitted, whose record is lost.",
                    where=str(path),
                    kept="The prepared items are as they were. Nothing was sent.",
                    hint="put back the question files and statistics.cluster, or go on with the prepared items: "
                    f"doit resume rid={run.rid} from=build",
                )
    return Outcome(
        {
            run.closed_book: Output(closed.written, counts[run.closed_book]),
            run.open_book: Output(opened.written, counts[run.open_book]),
        },
        {"items": sum(counts.values())},
    )
