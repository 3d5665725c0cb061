"""score against the straightforward loop, in one run: CPU seconds, their ratio, peak memory.

    python benchmarks/score.py [ROWS]          200,000 rows (370 MB) unless said

The loop reads with csv.DictReader and normalises prediction and golds at every comparison, as the
official scripts do, and the passage at every support check. It gets at most a tenth of the rows and
its time is scaled. Both must agree on every number. Needs no network; writes to a temporary folder.
"""

from __future__ import annotations

import csv
import json
import random
import re
import statistics
import string
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import measure

from pipeline.cells import unguard
from pipeline.phases.parse import PREDICTION_COLUMNS
from pipeline.phases.score import score
from pipeline.scoring import abstention
from pipeline.scoring.response import ScoringSettings

SAMPLES, CONDITIONS, QUESTIONS = 5, ("control", "treatment"), 10  # per item; per run; per paragraph
ARTICLES = re.compile(r"\b(a|an|the)\b")


# --- data -----------------------------------------------------------------------------------------


def generate(folder: Path, rows: int) -> None:
    """Prepared items (half open book, half closed book with many aliases) and about *rows* predictions."""
    rng = random.Random(1)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(4_000)]
    names = tuple(words)
    words += ["the", "a", "an", "of", "and", "in"] * 120 + [
        "naïve",
        "Zürich",
        "“quoted”",
        "1,250",
        "it’s",
        "D.C.",
        "x—y",
    ] * 15

    def prose(length: int) -> str:
        text = " ".join(rng.choices(words, k=length))
        return re.sub(r"(\w{6}) (\w)", r"\1. \2", text, count=length // 12)

    items, passage = [], ""
    for number in range(rows // (SAMPLES * len(CONDITIONS))):
        opened = number % 2 == 0
        if number % (2 * QUESTIONS) == 0:
            passage = prose(140)
        golds = [
            " ".join([*rng.choices(words, k=rng.randint(0, 2)), rng.choice(names)])
            for _ in range(3 if opened else rng.randint(2, 25))
        ]
        item = {"dataset": "d", "id": f"q{number}", "question": "?", "cluster": f"p{number // 20}", "answers": golds}
        if opened:
            none = number % 6 == 0
            item |= {
                "benchmark": "squad_v2",
                "context": passage,
                "is_unanswerable": none,
                "answers": [] if none else golds,
            }
        else:
            item["benchmark"] = "triviaqa"
        items.append(item)
    for name, opened in (("open_book", True), ("closed_book", False)):
        lines = [json.dumps(item) + "\n" for item in items if ("context" in item) == opened]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    declines = ["I don't know.", "The passage does not mention this.", "unknown", "Not enough information."]
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(PREDICTION_COLUMNS)
        for condition in CONDITIONS:
            for item in items:
                for sample in range(SAMPLES):
                    chance = rng.random()
                    gold = rng.choice(item["answers"] or ["nothing"])
                    if chance < 0.08:
                        text = rng.choice(declines)
                    elif chance < 0.2:
                        text = gold
                    else:
                        text = f'{prose(50)} "{gold}",\n\n{prose(rng.randint(170, 450))}'
                    kind = "open" if "context" in item else "closed"
                    name = f"d|{item['id']}|{condition}|0.7|{sample}|{kind}"
                    writer.writerow(
                        [
                            name,
                            "d",
                            item["id"],
                            condition,
                            "0.7",
                            sample,
                            kind,
                            "r-1",
                            "stop",
                            text,
                            9,
                            9,
                            18,
                            0,
                            "ok",
                            "",
                        ]
                    )


# --- the straightforward loop ---------------------------------------------------------------------


def squad(text: str) -> str:
    exclude = set(string.punctuation)
    return " ".join(ARTICLES.sub(" ", "".join(c for c in text.lower() if c not in exclude)).split())


def trivia(text: str) -> str:
    exclude = set(string.punctuation + "‘’´`")
    return " ".join(ARTICLES.sub(" ", "".join(" " if c in exclude else c for c in text.lower())).split())


def supported(text: str) -> str:
    return trivia("".join(" " if c in "‘’‚“”„´«»‹›–—―−…·•" else c for c in text))


def f1(prediction: str, gold: str) -> float:
    found, wanted = prediction.split(), gold.split()
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * (same / len(found)) * (same / len(wanted)) / (same / len(found) + same / len(wanted)) if same else 0.0


def loop(folder: Path, rows: int) -> dict[tuple[str, ...], list[float | None]]:
    """Means and stds of em, f1, abstentions and unsupported spans of the first *rows* predictions."""
    items = {}
    for name in ("open_book", "closed_book"):
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            item = json.loads(line)
            items[item["id"]] = item
    cells = defaultdict(list)
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            if number == rows:
                break
            item, text = items[row["item_id"]], unguard(row["response_text"])
            normalise = squad if "context" in item else trivia
            golds = item["answers"] or [""]
            declined = abstention.rule(text, 1) is not None
            if any(normalise(text) == normalise(gold) for gold in golds if gold):
                declined = False
            answer = "" if declined else text
            em = max(float(normalise(answer) == normalise(gold)) for gold in golds)
            best = max(f1(normalise(answer), normalise(gold)) for gold in golds) if item["answers"] else em
            span = 0.0
            if "context" in item and not declined:
                span = float(f" {supported(answer)} " not in f" {supported(item['context'])} ")
            cells[row["item_id"], row["condition"]].append((em, best, float(declined), span))
    scores = {}
    for key, samples in cells.items():
        columns = list(zip(*samples, strict=True))
        means = [statistics.mean(column) for column in columns]
        scores[key] = means + [statistics.stdev(column) for column in columns if len(samples) > 1]
    return scores


# --- measuring ------------------------------------------------------------------------------------


def project(folder: Path) -> None:
    prepared = (folder / "closed_book.jsonl", folder / "open_book.jsonl")
    score(folder / "predictions.csv", prepared, folder / "per_item_scores.csv", ScoringSettings())


def compare(folder: Path, rows: int) -> None:
    """Stop unless every number of the loop is the project's."""
    expected = loop(folder, rows)
    with open(folder / "per_item_scores.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if wanted := expected.pop((row["item_id"], row["condition"]), None):
                names = ["em", "f1", "abstain_rate", *(["unsupported_rate"] if row["type"] == "open" else [])]
                for at, name in enumerate(names):
                    assert abs(float(row[name]) - wanted[at]) < 1e-12, (row, name, wanted)
                    assert abs(float(row[f"{name}_std"]) - wanted[4 + at]) < 1e-12, (row, name, wanted)
    assert not expected


def main(rows: int) -> None:
    me = (sys.executable, __file__)
    with tempfile.TemporaryDirectory() as name:
        folder, part = Path(name), min(rows, max(rows // 10, 2_000))
        measure.command([*me, "generate", name, str(rows)])
        size = (folder / "predictions.csv").stat().st_size / 1e6
        idle, _ = measure.command([*me, "idle"])
        ours, memory = measure.command([*me, "project", name])
        theirs, _ = measure.command([*me, "loop", name, str(part)])
        theirs = (theirs - idle) * rows / part + idle
        compare(folder, part)
    print(f"{rows:,} rows, {size:,.0f} MB: score {ours:.1f} s CPU, peak {memory:,.0f} MB")
    print(f"straightforward loop {theirs:.1f} s CPU (measured on {part:,} rows): ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate", folder, rows]:
            generate(Path(folder), int(rows))
        case ["project", folder]:
            project(Path(folder))
        case ["loop", folder, rows]:
            loop(Path(folder), int(rows))
        case ["idle"]:
            pass
        case [] | [_] as given:
            main(int(given[0]) if given else 200_000)
        case _:
            raise SystemExit(__doc__)
