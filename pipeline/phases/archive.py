"""archive: artifacts, frozen config and raw files in one `.tar.gz`, with checksums of each.

The same files give the same archive: entries in name order, no owner, no time, gzip without a time
stamp. Manifest, ledgers, logs and databases stay outside: they are history, not results.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import disk, ledger
from pipeline.errors import ContractBroken
from pipeline.fingerprints import Fingerprints
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.queue import merge

_LEVEL = 6  # gzip's default; higher costs twice the time for a few percent


def archive(
    run: RunPaths, paths: TrialPaths, index: Index, fingerprints: Fingerprints, say: Callable[[str], None]
) -> Outcome:
    """Write the archive and `SHA256SUMS`; raw files that are not as they were downloaded stay outside and are named.

    So do links out of the run, whose targets may be anything: an archive is given to others.
    Raises ContractBroken when another file that belongs into it is not there.
    """
    doubtful = dict(_doubtful(paths, index, fingerprints))
    for path, problem in sorted(doubtful.items()):
        say(
            f"{path.relative_to(run.root).as_posix()}: {problem}, so it stays outside the archive; "
            "the answers it held are in results.jsonl"
        )
    held = set(_files(run, paths, index)) - doubtful.keys()
    strangers = {path for path in held if path.is_symlink() and not path.resolve().is_relative_to(run.root.resolve())}
    for path in sorted(strangers):
        name = path.relative_to(run.root).as_posix()
        say(f"{name}: a link that leads out of the run, so it stays outside the archive")
    files = sorted(held - strangers, key=lambda path: path.as_posix())
    if gone := [path.relative_to(run.root).as_posix() for path in files if not path.is_file()]:
        raise ContractBroken(
            f"{len(gone)} files that belong into the archive are not there, e.g. {gone[0]}.",
            where=str(paths.archive),
            kept="No archive was written.",
            hint=f"doit resume rid={run.rid} brings them back; then archive again",
        )
    disk.make_folder(paths.archive_folder)
    with (
        disk.replacing(paths.archive) as target,
        gzip.GzipFile(filename="", mode="wb", fileobj=target.stream, compresslevel=_LEVEL, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            entry = tarfile.TarInfo(f"run_{run.rid}/{path.relative_to(run.root).as_posix()}")
            entry.mode = 0o644
            with disk.readable(path), open(path, "rb") as stream:
                entry.size = path.stat().st_size
                tar.addfile(entry, stream)
    lines = [f"{fingerprints.sha256(path)}  {path.relative_to(run.root).as_posix()}\n" for path in files]
    lines.append(f"{target.written.sha256}  {paths.archive.relative_to(run.root).as_posix()}\n")
    sums = disk.write_bytes(paths.checksums, "".join(lines).encode())
    return Outcome(
        {paths.archive: Output(target.written), paths.checksums: Output(sums, len(lines))},
        {"archive": paths.relative(paths.archive), "files": len(files)}
        | ({"left_out": sorted(map(paths.relative, left_out))} if (left_out := {*doubtful, *strangers}) else {}),
    )


def _doubtful(paths: TrialPaths, index: Index, fingerprints: Fingerprints) -> Iterator[tuple[Path, str]]:
    """Raw files that the ledger names and that are gone or changed: sums over them would vouch for damage."""
    for part in index.parts:
        files = paths.part(part.part)
        for attempt in ledger.read(files.ledger).attempts:
            for name, facts in (attempt.collected or {}).items():
                path = files.attempt(attempt.number) / name
                if not path.is_file():
                    yield path, "it is not there any more"
                elif fingerprints.sha256(path) != facts["sha256"]:
                    yield path, "it is not what was downloaded"


def _files(run: RunPaths, paths: TrialPaths, index: Index) -> Iterator[Path]:
    yield from (run.config, run.closed_book, run.open_book, paths.index, paths.attempts, paths.combined)
    yield from (paths.predictions, paths.usage, paths.scores, paths.significance, paths.costs)
    yield from (paths.report_md, paths.report_html)
    yield from sorted(paths.figures.glob("*.svg"))
    for part in index.parts:
        files = paths.part(part.part)
        yield paths.part_requests(part.part)
        yield files.results
        for extra in (files.output_ids, files.conflicts):
            if extra.is_file():
                yield extra
        # Not the whole folder: what was set aside there has the time in its name.
        for folder in sorted(files.root.glob("a[0-9]*")):
            yield from merge.raw_files(folder)
            yield from sorted(folder.glob("requests.jsonl"))
