"""`significance.json` and `costs.json` as their schemas have them, and the blocks of comparisons in the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import disk, jsonl, schema
from pipeline.custom_id import CLOSED, OPEN
from pipeline.errors import DamagedArtifact
from pipeline.paths import RunPaths

Json = Mapping[str, Any]

METRICS = ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate")
TYPES = (OPEN, CLOSED)  # the order in which they are shown: where abstaining can be right comes first


@dataclass(frozen=True)
class Block:
    """What `significance.json` says of one treatment at one temperature and type; *data* is a block of its schema."""

    treatment: str
    temp: str
    type: str
    data: Json

    @property
    def metrics(self) -> list[tuple[str, Json]]:
        """The metrics that apply, in the report's order."""
        return [(name, self.data["metrics"][name]) for name in METRICS if name in self.data["metrics"]]

    def datasets(self) -> list[tuple[str, Json]]:
        """The blocks of the datasets, by name."""
        return sorted(self.data["subgroups"]["dataset"].items())


def read_significance(path: Path) -> Json:
    """`significance.json` as its schema has it."""
    return _checked(path, "significance.schema", "stats")


def read_costs(path: Path) -> Json:
    """`costs.json` as its schema has it."""
    return _checked(path, "costs.schema", "costs")


def answers_missing(significance: Json) -> int:
    """How many answers the trial lacks, as its report counts them: failed requests and responses without a text."""
    missing: dict[tuple[str, str, str], int] = {}
    for block in blocks(significance):
        for side, condition in (("control", significance["control"]), ("treatment", block.treatment)):
            # By condition: every treatment's block counts the control again.
            missing[block.temp, block.type, condition] = block.data["samples"][side]["missing"]
    return sum(missing.values())


def blocks(significance: Json) -> Iterator[Block]:
    """Every block, by treatment (the first one first), type and temperature."""
    contrasts = {significance["treatment"]: significance["results"]}
    contrasts |= {name: contrast["results"] for name, contrast in sorted(significance["contrasts"].items())}
    for treatment, results in contrasts.items():
        for kind in TYPES:
            for temp in significance["temps"]:
                if kind in results.get(temp, {}):
                    yield Block(treatment, temp, kind, results[temp][kind])


def _checked(path: Path, name: str, phase: str) -> Json:
    data = disk.read_bytes(path)
    document: Json = jsonl.document(data, path)
    version = schema.load(name)["properties"]["schema_version"]["const"]
    if isinstance(document, dict) and document.get("schema_version") in range(1, version):
        raise DamagedArtifact(
            f"is of an earlier format ({document['schema_version']}; now it is {version}).",
            where=str(path),
            hint=f"doit resume rid={RunPaths(path.parents[2]).rid} writes it anew",
        )
    if found := schema.problems_in(data, name):
        raise DamagedArtifact(
            f"does not fit schemas/{name}.json: {found[0]}"
            + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""),
            where=str(path),
            kept="The report that stood there before is untouched.",
            hint=f"doit resume force={phase} writes it again from the scores and tokens at hand",
        )
    return document
