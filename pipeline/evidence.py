"""What a trial's files prove about its stages when no record can be trusted or none was ever kept.

Of this tool's own files only `downloaded` is claimed: the parts hold exactly the ids of the index, in
order, and `results_combined.jsonl` and `attempts.json` are what they add up to. What comes after it
depends on settings that cannot be read off the files, so it is done again: seconds, the same bytes,
nothing sent.

The earlier tool's files are taken as they are, each by its own format and each against the one before
it: the combined results against the requests, predictions against the results, scores against the
predictions, and so on. The first that does not hold ends the row. Existence alone proves nothing.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import csv_text, custom_id, disk, fingerprints, identity, jsonl, ledger, mirror, traces
from pipeline.errors import DamagedArtifact
from pipeline.manifest import COMPLETED, LEGACY, Stage
from pipeline.parts import IdsDigest, Index, Part
from pipeline.paths import TrialPaths
from pipeline.providers.rows import BadRow, read_row
from pipeline.queue.attempts import stranger
from pipeline.upgrade import group_of

Ids = frozenset[str]
_Cell = tuple[str, str, float, str]  # item, condition, temperature, type

_PREDICTIONS = frozenset(
    {"custom_id", "dataset", "item_id", "condition", "temp", "sample_index", "type", "response_text"}
)
_SCORES = frozenset({"item_key", "condition", "temp", "type", "em", "abstain_rate"})
_COSTS = ("prompt_tokens", "completion_tokens", "total_tokens", "usd")
_TITLE = "Evaluation Report"
_OLD_BLOCK = {"mcnemar", "wilcoxon", "mean_delta"}  # of significance.json before it had a version


# --- this tool's own files -------------------------------------------------------------------------


def downloaded(paths: TrialPaths, index: Index) -> Stage | None:
    """The stage of a finished download; None when a part, the combined file or `attempts.json` is anything else.

    Also when they are those of another trial: ids and requests may be equal, but the ledgers say who was asked.
    """
    results = (paths.part(part.part).results for part in index.parts)
    if any(fingerprints.kind(path) != "file" for path in (paths.combined, paths.attempts, *results)):
        return None
    combined, entries, counted = disk.Digest(), [], []
    index_digest, _ = disk.sha256_of(paths.index)
    for part in index.parts:
        piece = disk.Digest()
        try:
            succeeded = _read_part(paths.part(part.part).results, part, piece, combined)
        except _Unproven:
            return None
        book = ledger.read(paths.part(part.part).ledger)
        if any(stranger(attempt, paths, part.part, index.settings["model"]) for attempt in book.attempts):
            return None
        counted.append((part, succeeded, book))
        entries.append(mirror.results(paths, part, piece, succeeded, book))
    attempts = disk.Digest()
    attempts.add(jsonl.dumps_pretty(mirror.attempts(counted)))
    outputs = {paths.combined: combined, paths.attempts: attempts}
    if any(_facts(path) != (made.sha256, made.size) for path, made in outputs.items()):
        return None
    settings = {"format": identity.FORMATS["download"]}
    return Stage(
        status=COMPLETED,
        artifacts={"parts": entries, "combined_path": paths.relative(paths.combined), "n_results": index.rows},
        outputs={
            paths.relative(paths.combined): {"sha256": combined.sha256, "size": combined.size, "rows": index.rows},
            paths.relative(paths.attempts): {"sha256": attempts.sha256, "size": attempts.size},
        },
        inputs={paths.relative(paths.index): index_digest},
        settings=settings,
        identity_version=identity.VERSION,
        config_sha256=identity.digest(settings),
    )


def _read_part(path: Path, part: Part, piece: disk.Digest, combined: disk.Digest) -> int:
    """How many rows of the part have an answer; feeds both digests. Raises _Unproven."""
    ids, succeeded = IdsDigest(), 0
    for line in jsonl.lines(path):
        try:
            row = jsonl.loads(line.data)
            ids.add(row["custom_id"])
            succeeded += "response" in row
        except (jsonl.BadJson, KeyError, TypeError, AttributeError) as error:
            raise _Unproven from error
        for digest in (piece, combined):
            digest.add(line.data + b"\n")
    if ids.hexdigest() != part.ids_sha256 or _facts(path) != (piece.sha256, piece.size):
        raise _Unproven
    return succeeded


# --- the earlier tool's files ------------------------------------------------------------------------


def adopted(paths: TrialPaths, requests: Sequence[Path], document: Mapping[str, Any]) -> dict[str, Stage]:
    """Stage -> its record, for every file of the earlier tool that holds; *requests* is empty when they are not here.

    Answers whose requests are gone are complete when every item stands there at each temperature,
    under each condition and as often as the manifest *document* says.
    """
    found: dict[str, Stage] = {}
    try:
        asked = _request_ids(requests)
        answered = _answer_ids(paths.combined)
        if asked is None and answered is not None and _is_grid(answered, document):
            asked = answered
        if asked is not None and answered == asked:
            found["downloaded"] = _download_stage(paths, len(asked))
        predictions = _read_predictions(paths.predictions)
        _require(predictions.ids == asked if asked is not None else _is_grid(predictions.ids, document))
        found["parsed"] = _stage(paths, paths.predictions, "predictions_csv", rows=len(predictions.ids))
        _require(_score_cells(paths.scores) == predictions.cells)
        found["scored"] = _stage(paths, paths.scores, "per_item_scores_csv", rows=len(predictions.cells))
        _require(
            _is_significance(jsonl.read_document(paths.significance), {temp for _, _, temp, _ in predictions.cells})
        )
        found["stats"] = _stage(paths, paths.significance, "significance_json")
        _require(_is_costs(jsonl.read_document(paths.costs)))
        found["costs"] = _stage(paths, paths.costs, "costs_json")
        _require(_TITLE in disk.read_bytes(paths.report_md).decode(errors="replace"))
        found["report"] = _stage(paths, paths.report_md, "report_md")
    except (FileNotFoundError, NotADirectoryError, DamagedArtifact, _Unproven):
        pass  # the row of evidence ends here
    return found


class _Unproven(Exception):
    """The file does not show what was looked for."""


def _require(shown: bool) -> None:
    if not shown:
        raise _Unproven


def _request_ids(files: Sequence[Path]) -> Ids | None:
    if not files:
        return None
    return frozenset(jsonl.loads(line.data)["custom_id"] for path in files for line in jsonl.lines(path))


def _answer_ids(path: Path) -> Ids | None:
    """The ids of a file of rows; None when it is not there, a line is none, or an id stands there twice."""
    ids: list[str] = []
    try:
        ids = [read_row(line.data).custom_id for line in jsonl.lines(path)]
    except (FileNotFoundError, DamagedArtifact, BadRow):
        return None
    unique = frozenset(ids)
    return unique if len(unique) == len(ids) and ids else None


def _is_grid(ids: Ids, document: Mapping[str, Any]) -> bool:
    """Whether every item stands there at each temperature, under each condition, and for each sample."""
    cells: dict[tuple[str, str, int], set[tuple[str, str, str]]] = {}
    try:
        for name in ids:
            dataset, item, condition, temp, sample, kind = custom_id.split(name)
            cells.setdefault((condition, temp, sample), set()).add((dataset, item, kind))
    except ValueError:
        return False
    if not cells:
        return False
    found = [set(column) for column in zip(*cells, strict=True)]
    conditions = {group_of(group)[0].partition("_")[2] for group in document["jobs"]} or found[0]
    temps = {custom_id.temperature_text(temp) for temp in document.get("temps", [])} or found[1]
    samples = range(document.get("samples_per_item") or len(found[2]))
    items = {frozenset(items) for items in cells.values()}
    return set(cells) == set(itertools.product(conditions, temps, samples)) and len(items) == 1


class _Predictions(NamedTuple):
    ids: Ids
    cells: frozenset[_Cell]


def _read_predictions(path: Path) -> _Predictions:
    """Ids and cells of the earlier tool's CSV (ours has a status). Raises _Unproven when an id stands there twice."""
    ids: list[str] = []
    cells: set[_Cell] = set()
    for row in _rows(path, needed=_PREDICTIONS, foreign="status"):
        ids.append(row["custom_id"])
        cells.add((f"{row['dataset']}|{row['item_id']}", row["condition"], float(row["temp"]), row["type"]))
    unique = frozenset(ids)
    _require(len(unique) == len(ids))
    return _Predictions(unique, frozenset(cells))


def _score_cells(path: Path) -> frozenset[_Cell]:
    cells = []
    for row in _rows(path, needed=_SCORES, foreign="n_samples"):
        _require(0 <= float(row["em"] or 0) <= 1)
        cells.append((row["item_key"], row["condition"], float(row["temp"]), row["type"]))
    unique = frozenset(cells)
    _require(len(unique) == len(cells))
    return unique


def _rows(path: Path, *, needed: frozenset[str], foreign: str) -> Iterator[dict[str, str]]:
    try:
        with disk.readable(path), open(path, encoding="utf-8", newline="") as stream:
            reader = csv_text.records(stream)
            names = reader.fieldnames or []
            _require(needed.issubset(names) and foreign not in names)
            for row in reader:
                _require(None not in row and None not in row.values())  # a row with more or fewer cells
                yield row
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise _Unproven from error


def _is_significance(document: Any, temps: set[float]) -> bool:
    """The earlier tool's version 2, or what it wrote before there were versions, for exactly these temperatures."""
    if not isinstance(document, dict):
        return False
    version = document.get("schema_version")
    results = document if version is None else document.get("results")
    if version not in (None, 2) or not isinstance(results, dict):
        return False
    try:
        if {float(temp) for temp in results} != temps:
            return False
    except ValueError:
        return False
    if version is None:
        return all(isinstance(block, dict) and block.keys() >= _OLD_BLOCK for block in results.values())
    blocks = [block for kinds in results.values() if isinstance(kinds, dict) for block in kinds.values()]
    return len(blocks) >= len(results) and all(isinstance(block, dict) and "metrics" in block for block in blocks)


def _is_costs(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and "schema_version" not in document  # that would be ours
        and all(isinstance(document.get(key), int | float) for key in _COSTS)
    )


# --- records -----------------------------------------------------------------------------------------


def _download_stage(paths: TrialPaths, rows: int) -> Stage:
    stage = _stage(paths, paths.combined, "combined_path", rows=rows)
    parts = [
        # Without sha256: what the queue makes of these rows need not be these bytes.
        {"job_key": part, "path": paths.relative(trace.rows), "size": trace.rows.stat().st_size}
        for part, trace in traces.of_parts(paths.results).items()
        if trace.rows is not None
    ]
    artifacts = {"combined_path": stage.artifacts["combined_path"], "parts": parts, "n_results": rows}
    return replace(stage, artifacts=artifacts)


def _stage(paths: TrialPaths, path: Path, key: str, rows: int | None = None) -> Stage:
    digest, size = _facts(path) or ("", 0)
    facts: dict[str, Any] = {"sha256": digest, "size": size}
    artifacts: dict[str, Any] = {key: paths.relative(path)}
    if rows is not None:
        facts["rows"] = artifacts["row_count"] = rows
    return Stage(status=COMPLETED, artifacts=artifacts, outputs={paths.relative(path): facts}, format=LEGACY)


def _facts(path: Path) -> tuple[str, int] | None:
    try:
        digest, key = disk.sha256_of(path)
    except FileNotFoundError:
        return None
    return digest, key.size
