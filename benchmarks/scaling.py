"""How cost grows with the work: a whole experiment over HTTP, phase by phase, at several sizes.

    python benchmarks/scaling.py [REQUESTS ...] [--plot FILE]        1,000, 10,000 and 100,000 unless said

A million takes half an hour and 15 GB of disk.

Half of the questions stand on a passage, half have no passage; two conditions, five samples, answers of 1 to 2 KB
replayed by the emulator, which runs beside and is not counted. Each phase is a `doit only=PHASE` of its own: the figure
holds the start of Python and all checks. The last rows are the whole run again with nothing to do, and its status.
CPU seconds of all processes of a command, its peak memory, and its time on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import data
import measure

from pipeline.graph import PHASES
from pipeline.starter import resource

SIZES = (1_000, 10_000, 100_000)
SAMPLES, CONDITIONS = 5, ("control", "treatment")
QUESTIONS_PER_PASSAGE = 10
RECORDED = 2  # different answers of an item; more samples repeat them
KEY = "emulator-key"  # what the emulator takes; no secret


class Figure(NamedTuple):
    """What one command took."""

    phase: str
    cost: measure.Cost
    elapsed: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=int, nargs="*", default=SIZES)
    parser.add_argument("--plot", type=Path, help="draw the curves into this file, too")
    given = parser.parse_args()
    measured: dict[int, list[Figure]] = {}
    for requests in given.requests:
        with tempfile.TemporaryDirectory() as folder:
            measured[requests] = []
            for figure in run(Path(folder), requests):
                measured[requests].append(figure)
                cost = figure.cost
                print(
                    f"{requests:>9,} {figure.phase:<9}{cost.seconds:>9.2f} s CPU {cost.megabytes:>6.0f} MB"
                    f"{figure.elapsed:>9.1f} s",
                    flush=True,
                )
    if given.plot:
        plot(measured, given.plot)


def run(folder: Path, requests: int) -> Iterator[Figure]:
    """Every phase of an experiment with *requests* requests, and then the no-op."""
    (folder / "dodo.py").write_bytes(resource("dodo.py").read_bytes())
    items = requests // (SAMPLES * len(CONDITIONS))
    write_questions(folder, items)
    with emulator(folder) as address:
        write_config(folder, address)
        doit = [sys.executable, "-m", "doit"]
        yield timed(folder, "prepare", [*doit, "rid=bench", "config=experiment.yaml", "only=prepare"])
        for phase in PHASES:
            if phase.name != "prepare":
                yield timed(folder, phase.name, [*doit, "rid=bench", f"only={phase.name}", "yes=1"])
    yield timed(folder, "no-op", [*doit, "rid=bench"])
    yield timed(folder, "status", [*doit, "list", "--status", "rid=bench"])


def timed(folder: Path, phase: str, command: Sequence[str]) -> Figure:
    start = time.monotonic()
    cost = measure.command(command, cwd=str(folder))
    return Figure(phase, cost, time.monotonic() - start)


def write_questions(folder: Path, items: int) -> None:
    """*items* questions, every other one on a passage that ten of them share, and what the emulator answers."""
    generator = random.Random(items)
    with (
        open(folder / "closed.jsonl", "w") as closed,
        open(folder / "open.jsonl", "w") as opened,
        open(folder / "answers.json", "w") as answers,
    ):
        passage = ""
        answers.write("{")
        for number in range(items):
            name = f"item-{number:07d}"
            item = {
                "id": name,
                "question": f"What is told of number {number}?",
                "answers": [f"answer {number}", "1,234"],
            }
            if number % (2 * QUESTIONS_PER_PASSAGE) == 0:
                passage = data.prose(generator, 700)
            if number % 2:
                closed.write(json.dumps(item) + "\n")
            else:
                opened.write(json.dumps({**item, "context": passage}) + "\n")
            replies = [data.prose(generator, generator.randint(1000, 2000)) for _ in range(RECORDED)]
            answers.write(f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(replies)}")
        answers.write("}\n")


def write_config(folder: Path, address: str) -> None:
    config = {
        "name": "scaling",
        "provider": "fireworks",
        "fireworks": {"base_url": address},
        "models": [{"id": "accounts/fireworks/models/bench"}],
        "prompt_sets": {
            "default": {
                "control": {"text": "Answer the question."},
                "treatment": {"text": "Answer, or say that you do not know."},
            }
        },
        "sources": [
            {"dataset": "closed", "format": "jsonl", "path": "closed.jsonl", "benchmark": "triviaqa"},
            {"dataset": "open", "format": "jsonl", "path": "open.jsonl", "benchmark": "squad_v2"},
        ],
        "samples_per_item": SAMPLES,
        "temperatures": [0.7],
        "part_size": 10_000,
        "queue": {"poll_seconds": 0.5},
        "prices": {"models": {"bench": {"input_per_mtok": 0.15, "output_per_mtok": 0.6}}},
    }
    (folder / "experiment.yaml").write_text(json.dumps(config))


@contextmanager
def emulator(folder: Path) -> Iterator[str]:
    """The emulator with the recorded answers; its address."""
    replay = {condition: {"path": str(folder / "answers.json"), "system": None} for condition in CONDITIONS}
    (folder / "emulator.json").write_text(json.dumps({"replay": replay}))
    command = [sys.executable, "-m", "pipeline", "emulate", "--store", "service", "--config", "emulator.json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            address = json.loads(child.stdout.readline())
            os.environ["FIREWORKS_API_KEY"] = KEY
            yield address["url"]
        finally:
            child.terminate()


def plot(measured: Mapping[int, Sequence[Figure]], path: Path) -> None:
    """CPU seconds and peak memory over the number of requests, both axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "scaling", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, first in enumerate(next(iter(measured.values()))):
        columns = [figures[number].cost for figures in measured.values()]
        style = {"marker": "osD^v"[number % 5], "color": f"C{number % 10}", "label": first.phase}
        time_axes.loglog(list(measured), [cost.seconds for cost in columns], **style)
        memory_axes.semilogx(list(measured), [cost.megabytes for cost in columns], **style)
    time_axes.set(xlabel="requests", ylabel="CPU seconds")
    memory_axes.set(xlabel="requests", ylabel="peak memory, MB", ylim=(0, None))
    memory_axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
