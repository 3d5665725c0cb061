"""stats: read `per_item_scores.csv`, write `significance.json`.

Equal scores and settings give equal bytes. What the numbers mean is decided in `pipeline.statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import disk, jsonl, schema
from pipeline.phases import Outcome, Output
from pipeline.statistics.analysis import analyse
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores

SCHEMA = "significance.schema"


def stats(scores: Path, target: Path, settings: StatisticsSettings, control: str, treatments: Sequence[str]) -> Outcome:
    """Compare each of *treatments* with *control* and write *target*.

    Raises FileNotFoundError, UnreadableFile, DamagedArtifact, ContractBroken or DiskTrouble; *target* is then as
    it was.
    """
    table = read_scores(scores)
    document = analyse(table, settings, control, treatments)
    data = jsonl.dumps_pretty(document)
    schema.require_none(schema.problems_in(data, SCHEMA), "significance.json")
    facts = {
        "schema_version": document["schema_version"],
        "rows": len(table.texts["item_id"]),
        "temps": document["temps"],
        "tests": sum(family["m"] for family in document["fdr"]["families"].values()),
    }
    return Outcome({target: Output(disk.write_bytes(target, data))}, facts)
