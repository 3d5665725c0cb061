"""Run folders as the earlier tool left them: small, complete, of every age. A test then damages what it is about."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "accounts/fireworks/models/tiny-8b"
SLUG = "tiny-8b-brief"
CREATED = "2024-03-05T06:07:08Z"
SYSTEM = {"control": "Answer briefly.", "treatment": "Answer briefly, or say: I don't know."}
CONDITIONS = ("control", "treatment")
ACCOUNT = "lab"

_PREDICTIONS = [
    "custom_id",
    "dataset",
    "item_id",
    "condition",
    "temp",
    "sample_index",
    "type",
    "request_id",
    "finish_reason",
    "response_text",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
]
_SCORES = [
    "abstain_rate",
    "abstain_rate_std",
    "condition",
    "em",
    "em_std",
    "f1",
    "f1_std",
    "false_answer_rate",
    "false_answer_rate_std",
    "item_key",
    "temp",
    "type",
    "unsupported_rate",
    "unsupported_rate_std",
]


def items(count: int = 4) -> list[dict[str, Any]]:
    """Prepared rows in the earlier tool's shape: closed book and open book in turn, one in four unanswerable."""
    rows = []
    for number in range(count):
        row = {
            "dataset": "squad_v2",
            "id": f"q{number}",
            "question": f"Who was number {number}?",
            "answers": [f"Ada {number}"],
        }
        if number % 2:
            row |= {"context": f"Number {number} was Ada {number}.", "is_unanswerable": number % 4 == 3}
            if row["is_unanswerable"]:
                row |= {"context": "Nothing is said of it.", "answers": []}
        rows.append(row)
    return rows


def custom_id(item: dict[str, Any], condition: str) -> str:
    return f"{item['dataset']}|{item['id']}|{condition}|0.0|0|{'open' if 'context' in item else 'closed'}"


def request(item: dict[str, Any], condition: str) -> dict[str, Any]:
    passage = f"Passage:\n{item['context']}\n\n" if "context" in item else ""
    messages = [
        {"role": "system", "content": SYSTEM[condition]},
        {"role": "user", "content": f"{passage}Question: {item['question']}"},
    ]
    return {
        "custom_id": custom_id(item, condition),
        "body": {"messages": messages, "max_tokens": 32, "temperature": 0.0},
    }


def answer(item: dict[str, Any]) -> str:
    return item["answers"][0] if item["answers"] else "I don't know"


def result(item: dict[str, Any], condition: str, shape: int = 0) -> dict[str, Any]:
    """A result row in one of the shapes there were."""
    name = custom_id(item, condition)
    completion = {
        "id": f"req-{item['id']}",
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": answer(item)}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }
    if shape % 2:
        return {"customId": name, "response": completion}
    return {"custom_id": name, "response": {"status_code": 200, "request_id": f"r-{name}", "body": completion}}


@dataclass(frozen=True)
class Folder:
    """A run of the earlier tool. Age 0 is flat and has one part a condition; the others have *parts*."""

    root: Path
    age: int = 2
    count: int = 4
    parts: int = 2

    @property
    def trial(self) -> Path:
        return self.root if self.age == 0 else self.root / SLUG

    @property
    def results(self) -> Path:
        return self.trial / "results"

    @property
    def manifest(self) -> Path:
        return self.results / ("run_manifest.json" if self.age == 0 else "trial_manifest.json")

    @property
    def names(self) -> list[str]:
        """The folders of the parts."""
        if self.age == 0:
            return [f"t0_{condition}" for condition in CONDITIONS]
        return [f"t0_{condition}_p{n + 1:02d}" for condition in CONDITIONS for n in range(self.parts)]

    def shard(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        """(condition, items) of a part."""
        condition = name.split("_")[1]
        if self.age == 0:
            return condition, items(self.count)
        number = int(name.rpartition("_p")[2]) - 1
        return condition, items(self.count)[number :: self.parts]

    def requests(self, name: str) -> Path:
        condition, _ = self.shard(name)
        if self.age == 0:
            return self.root / "batch_inputs" / f"t0_{condition}.jsonl"
        infix = ".p" if self.age == 2 else "_part"
        return self.root / "batch_inputs" / f"t0_brief_{condition}{infix}{name.rpartition('_p')[2]}.jsonl"

    def job(self, name: str) -> str:
        return f"job-{name.replace('_', '-')}"

    def build(self) -> "Folder":
        """Write all of it."""
        self.results.mkdir(parents=True)
        (self.root / "run_state.json").write_text(json.dumps({"schema_version": 1, "run_id": self.root.name[4:]}))
        combined = []
        for name in self.names:
            condition, shard = self.shard(name)
            lines(self.requests(name), [request(item, condition) for item in shard])
            rows = [result(item, condition, shape) for shape, item in enumerate(reversed(shard))]
            lines(self.results / name / "results.jsonl", rows)
            (self.results / f"{name}_OUTPUT_DATASET_ID.txt").write_text(
                f"accounts/{ACCOUNT}/datasets/out-{name.replace('_', '-')}\n"
            )
            combined += rows
        lines(self.results / "results_combined.jsonl", combined)
        self.write_manifest()
        self._write_analysis()
        return self

    def write_manifest(self, **changes: Any) -> None:
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        self.manifest.write_text(json.dumps({**self.document(), **changes}, indent=1))

    def document(self) -> dict[str, Any]:
        """The manifest as its age wrote it; `lab_note` is a key nobody knows."""
        identity = {"model_id": MODEL, "top_p": 1.0, "top_k": None, "max_new_tokens": 32}
        common = {
            "temps": [0.0],
            "samples_per_item": 1,
            "prompts": {name: {"sha256": "0" * 64, "tokens": 3} for name in CONDITIONS},
            "lab_note": {"by": "A. B.", "numbers": [1, 2.5, None]},
        }
        grouped = {f"t0_{c}": [name for name in self.names if f"_{c}" in name] for c in CONDITIONS}
        jobs: dict[str, Any] = {group: [self.job(name) for name in names] for group, names in grouped.items()}
        datasets: dict[str, Any] = {
            group: [f"ex-{name.replace('_', '-')}" for name in names] for group, names in grouped.items()
        }
        if self.age == 0:
            flat = {
                key: {group: names[0] for group, names in block.items()}
                for key, block in (("jobs", jobs), ("datasets", datasets))
            }
            return {"created_utc": CREATED, **identity, **common, **flat}
        older = {
            "run_id": self.root.name[4:],
            "trial": {**identity, "prompt_set": "brief"},
            **common,
            "jobs": jobs,
            "datasets": datasets,
        }
        if self.age == 1:
            return {"created_utc": CREATED, **older}
        older["job_status"] = dict.fromkeys(self.names, "downloaded")
        if self.age == 2:
            return {"created_utc": CREATED, **older}
        stages = ("downloaded", "parsed", "scored", "stats", "costs", "report", "archived")
        return {
            "schema_version": 2,
            "timestamps": {"created_at": CREATED, "updated_at": CREATED},
            **older,
            "control_registry": {},
            "stage_status": {
                stage: {
                    "status": "completed" if stage != "archived" else "pending",
                    "updated_at": CREATED,
                    "artifacts": {},
                }
                for stage in stages
            },
        }

    def _write_analysis(self) -> None:
        predictions, scores = [], []
        for condition in CONDITIONS:
            for item in items(self.count):
                name = custom_id(item, condition)
                fields = name.split("|")
                predictions.append(
                    [name, *fields[:3], fields[3], fields[4], fields[5], "r", "stop", answer(item), 20, 3, 23]
                )
                key = f"{item['dataset']}|{item['id']}"
                scores.append(["0.0", "0.0", condition, "1.0", "0.0", "", "", "", "", key, "0.0", fields[5], "", ""])
        table(self.results / "predictions.csv", _PREDICTIONS, predictions)
        table(self.results / "per_item_scores.csv", _SCORES, scores)
        block = {
            "n_items": self.count,
            "mcnemar": {"b": 0, "c": 0, "p_exact": 1.0},
            "metrics": {"em": {"delta_mean": 0.0}},
        }
        old = {"mcnemar": {"b": 0, "c": 0, "p_value": 1.0}, "wilcoxon": {"W": 0.0, "p_value": 1.0}, "mean_delta": 0.0}
        newer = {
            "schema_version": 2,
            "temps": [0.0],
            "stats_config": {},
            "results": {"0.0": {"closed": block, "open": block}},
        }
        (self.results / "significance.json").write_text(json.dumps({"0.0": old} if self.age == 0 else newer))
        costs = {
            "prompt_tokens": 160,
            "completion_tokens": 24,
            "total_tokens": 184,
            "usd": 0.000012,
            "batch_discount_applied": True,
        }
        (self.results / "costs.json").write_text(json.dumps(costs))
        (self.trial / "reports").mkdir()
        (self.trial / "reports" / "report.md").write_text("# Evaluation Report\n\nModel: tiny-8b\n")

    def prepare(self) -> None:
        """The prepared questions, which the earlier tool kept elsewhere, put into the run."""
        rows = items(self.count)
        lines(self.root / "prepared" / "squad_closed.jsonl", [row for row in rows if "context" not in row])
        lines(self.root / "prepared" / "squad_open.jsonl", [row for row in rows if "context" in row])


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below *root* and its bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
