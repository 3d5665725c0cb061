"""Recorded systems, replayed over HTTP and scored by a run, against what the official scripts say of them.

    python benchmarks/official_scores.py DATA [--items N]

DATA holds the question files, recorded predictions and `expected_official_scores*` in the official
formats. Three runs are made in a temporary folder: SQuAD v2 (DocQA+ELMo against BERT), TriviaQA (two
systems, five samples; the official scores are those of sample 4) and NQ-Open. Every question's exact
match must be equal and its F1 equal to ten decimals; totals to 1e-9. Exit code 1 when one differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cells import unguard
from pipeline.items import question_id
from pipeline.paths import RunPaths, resource
from pipeline.scoring import benchmarks as registry
from pipeline.scoring.response import ItemScorer, ScoringSettings

F1_DECIMALS = 10  # of the expected file
TOTAL_TOLERANCE = 1e-9

# The official scripts' names for totals: place in a score, and what 1.0 is called.
_TOTALS = {"exact": (0, 100.0), "exact_match": (0, 100.0), "accuracy": (0, 1.0), "f1": (1, 100.0)}

Scores = dict[tuple[str, str], tuple[float, float | None]]  # (system, question id) -> em, f1


@dataclass(frozen=True)
class Case:
    """One run: a question file and the recorded system behind each condition."""

    dataset: str
    questions: str
    systems: Mapping[str, str]
    replay: Mapping[str, str]
    samples: int = 1


CASES = (
    Case(
        "squad_v2",
        "squad_v2_dev_sample.json",
        {"control": "docqa_elmo_single", "treatment": "bert_single"},
        {
            "control": "squad_v2_dev_sample.predictions.docqa_elmo_single.json",
            "treatment": "squad_v2_dev_sample.predictions.bert_single.json",
        },
    ),
    Case(
        "triviaqa",
        "triviaqa_wikipedia_dev_sample.json",
        {"control": "flan_t5_base", "treatment": "flan_t5_large"},
        dict.fromkeys(("control", "treatment"), "triviaqa_wikipedia_dev_sample.predictions_5x2.json"),
        samples=5,
    ),
    Case(
        "nq_open",
        "nq_open_sample.jsonl",
        {"control": "synthetic", "treatment": "synthetic"},
        dict.fromkeys(("control", "treatment"), "nq_open_sample.predictions.synthetic.jsonl"),
    ),
)


def main() -> int:
    """Run every case and print what agrees; 1 when something does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, help="only the first so many questions of each file")
    chosen = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            got = replayed(case, chosen.data.resolve(), Path(folder), chosen.items)
            found = differences(case, got, expected(case, chosen.data), complete=chosen.items is None)
            if chosen.items is None:
                found += total_differences(case, got, chosen.data)
            print(f"{case.dataset}: {len(got)} scores compared, {len(found)} differ", flush=True)
            for difference in found[:5]:
                print(f"  {difference}")
            wrong += len(found)
    return 1 if wrong else 0


def replayed(case: Case, data: Path, folder: Path, items: int | None) -> Scores:
    """Run *case* in *folder*, from the question file to the scores, over HTTP; its scores per question."""
    config = {
        "name": f"{case.dataset}, recorded systems",
        "models": [{"id": f"recorded/{case.dataset}"}],
        "prompt_sets": {"default": {condition: {"text": "Answer the question."} for condition in case.systems}},
        "sources": [
            {"dataset": case.dataset, "format": case.dataset, "path": str(data / case.questions), "limit": items}
        ],
        "samples_per_item": case.samples,
        "emulator": {
            "replay": {
                condition: {
                    "path": str(data / case.replay[condition]),
                    "system": system if case.samples > 1 else None,
                }
                for condition, system in case.systems.items()
            }
        },
    }
    (folder / "dodo.py").write_bytes(resource("dodo.py").read_bytes())
    (folder / f"{case.dataset}.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "doit", f"rid={case.dataset}", f"config={case.dataset}.yaml", "to=score"]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    run = RunPaths.of(case.dataset, folder / "experiments")
    trial = run.trial(f"{case.dataset}-default")
    return dict(last_sample(case, run, trial.predictions) if case.samples > 1 else per_item(case, trial.scores))


def per_item(case: Case, scores: Path) -> Iterator[tuple[tuple[str, str], tuple[float, float | None]]]:
    """The scores of `per_item_scores.csv`."""
    with open(scores, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            f1 = float(row["f1"]) if row["f1"] else None
            yield (case.systems[row["condition"]], unguard(row["item_id"])), (float(row["em"]), f1)


def last_sample(
    case: Case, run: RunPaths, predictions: Path
) -> Iterator[tuple[tuple[str, str], tuple[float, float | None]]]:
    """The scores of each item's last sample alone, by the same scorer: what the official figures are about."""
    benchmark = registry()[case.dataset]
    golds = {row["id"]: benchmark.golds(row["answers"]) for row in map(json.loads, run.closed_book.open("rb"))}
    settings = ScoringSettings()
    with open(predictions, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if int(row["sample_index"]) == case.samples - 1:
                item = unguard(row["item_id"])
                scored = ItemScorer(benchmark, golds[item], None, settings).score(unguard(row["response_text"]))
                yield (case.systems[row["condition"]], item), (float(scored.numbers.em), scored.numbers.f1)


def expected(case: Case, data: Path) -> Scores:
    """The official scores of the case's systems, by our ids."""
    found: Scores = {}
    with open(data / "expected_official_scores_per_question.csv", newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["dataset"] == case.dataset and row["system"] in case.systems.values():
                item = question_id(row["id"]) if case.dataset == "nq_open" else row["id"]
                found[row["system"], item] = (float(row["em"]), float(row["f1"]) if row["f1"] else None)
    return found


def differences(case: Case, got: Scores, official: Scores, *, complete: bool) -> list[str]:
    """Every score that is not the official one; with *complete*, also absent questions."""
    found = [f"{key}: not among the official scores" for key in got.keys() - official.keys()]
    if complete:
        found += [f"{key}: has no score" for key in official.keys() - got.keys()]
    for key in got.keys() & official.keys():
        (em, f1), (official_em, official_f1) = got[key], official[key]
        same_f1 = f1 is None if official_f1 is None else f1 is not None and round(f1, F1_DECIMALS) == official_f1
        if em != official_em or not same_f1:
            found.append(f"{key}: {em, f1}, officially {official_em, official_f1}")
    return found


def total_differences(case: Case, got: Scores, data: Path) -> list[str]:
    """Every total that is not the official script's own, which is in percent (NQ-Open: a share)."""
    official = json.loads((data / "expected_official_scores.json").read_bytes())[case.dataset]
    found = []
    for system in sorted(set(case.systems.values())):
        scores = [score for key, score in got.items() if key[0] == system]
        for name, (position, scale) in _TOTALS.items():
            if name in official[system]:
                total = scale * sum(score[position] or 0.0 for score in scores) / len(scores)
                if abs(total - official[system][name]) > TOTAL_TOLERANCE * scale:
                    found.append(f"{system}: {name} is {total}, officially {official[system][name]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
