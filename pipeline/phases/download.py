"""download: wait for the jobs, bring every answer home, and put the parts together.

`results_combined.jsonl` is the parts' results in the index's order; `attempts.json` says what each
part's submissions came to, from the ledgers, without times: the same history gives the same bytes.
"""

from __future__ import annotations

from itertools import islice

from pipeline import disk, jsonl, mirror, parts
from pipeline.errors import ContractBroken
from pipeline.paths import TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.queue.drive import Queue
from pipeline.queue.work import Work

_BLOCK = 32  # rows copied at a time, as in parse


def download(queue: Queue, paths: TrialPaths) -> Outcome:
    """Collect and combine; raises as the queue does, or ContractBroken when a part's rows are not what was asked."""
    works = queue.download(paths.slug)
    books = [queue.workspace.ledger(paths.slug, work.part.part) for work in works]
    conflicts = [work.error for work in works if work.error is not None]
    if conflicts:
        raise conflicts[0]
    counted, entries = [], []
    with disk.replacing(paths.combined) as combined:
        for work, book in zip(works, books, strict=True):
            succeeded, piece = _append(work, combined)
            counted.append((work.part, succeeded, book))
            entries.append(mirror.results(paths, work.part, piece, succeeded, book))
    total = sum(work.part.rows for work in works)
    if not any(succeeded for _, succeeded, _ in counted):
        raise ContractBroken(
            f"all {total:,} rows of {paths.slug} failed; there is nothing to compare.",
            where=str(paths.combined),
            kept="The errors are in results_combined.jsonl, row by row.",
            hint="look at the first error there; fix the config and start a new run",
        )
    attempts = disk.write_bytes(paths.attempts, jsonl.dumps_pretty(mirror.attempts(counted)))
    return Outcome(
        {paths.combined: Output(combined.written, total), paths.attempts: Output(attempts)},
        {"parts": entries, "combined_path": paths.relative(paths.combined), "n_results": total},
    )


def _append(work: Work, combined: disk.Replacement) -> tuple[int, disk.Digest]:
    """Copy one part's results, checking their ids on the way; how many rows have an answer, and what was copied."""
    ids = parts.IdsDigest()
    succeeded = 0
    piece = disk.Digest()
    lines = jsonl.lines(work.files.results)
    while block := list(islice(lines, _BLOCK)):
        rows = [jsonl.loads(line.data) for line in block]
        ids.extend([row["custom_id"] for row in rows])
        succeeded += sum("response" in row for row in rows)
        data = b"\n".join([*(line.data for line in block), b""])
        piece.add(data)
        combined.write(data)
    if ids.hexdigest() != work.part.ids_sha256:
        raise ContractBroken(
            f"holds {ids.count:,} rows that are not the {work.part.rows:,} requests of {work.part.part}, in order.",
            where=str(work.files.results),
            kept="No combined file was written.",
            hint="run the same command again: the part is rebuilt from its raw files",
        )
    return succeeded, piece
