"""What it costs to find out that nothing is to be done: CPU seconds and peak memory, taken in turns, medians, ratios.

    python benchmarks/noop.py                          50 trials x 20 parts; bare doit, Snakemake, DVC; one part damaged
    python benchmarks/noop.py --trials 1 10 100 500    how the no-op grows, without the peers

The run: one trial is made for real, through the emulator, and copied under the names of the others (the list of
parts and the manifest sealed anew); `doit verify=deep` then reads every file and must find nothing to do. So the
no-op is the real one, on a run that took seconds to make instead of hours.

The peers: bare doit with the same tasks as ours (names, file_dep, targets, task_dep; the action is `true`), and all
three with the graph that has a node for each part: a file for each part, and five for each trial. Ours decides about
as many files. Snakemake and DVC are left out where they are not installed beside this Python (`make bench` does it).

The repair: ten bytes are cut off one part's results. Its own work is what the same repair adds to the no-op of a run
with that trial alone; `doit` must make the same bytes again and leave all other phases alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import measure

# Images often set these; then every process compiles its libraries, and each line is a system call.
for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
    os.environ.pop(name, None)

BIN = Path(sys.executable).parent
DOIT = str(BIN / "doit")
PARTS, RUN, FIRST = 20, Path("experiments") / "run_bench", "m000-default"
DAMAGED = RUN / FIRST / "results" / "t0_control_p01" / "results.jsonl"

# doit as it is without us: our commands, reporter and database are plugins of the package.
BARE = """
import sys, doit.plugin as plugin
found = plugin.entry_points_impl()
plugin.entry_points_impl = lambda: lambda group: [p for p in found(group=group) if not p.value.startswith("pipeline")]
from doit.doit_cmd import DoitMain
sys.exit(DoitMain().run(sys.argv[1:]))
"""


class Job(NamedTuple):
    """A command that finds nothing to do, where it runs, and what breaks that each time before (nothing)."""

    name: str
    arguments: list[str]
    folder: Path
    before: Callable[[], None] = lambda: None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", help="only the no-op, for runs of so many trials")
    parser.add_argument("--rounds", type=int, default=7, help="how often each command is run (DVC: a third)")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.job:
            JOBS[given.job](*given.words)
        elif given.trials:
            grow(Path(name), given.trials, given.rounds)
        else:
            compare(Path(name), 50, given.rounds)


# --- what is compared ----------------------------------------------------------------------------------


def compare(folder: Path, trials: int, rounds: int) -> None:
    finished(folder / "one", 1)
    run = finished(folder / "run", trials, folder / "one")
    (folder / "same").mkdir()
    inside("same_tasks", run, folder / "same")
    bare = [sys.executable, "-c", BARE]
    done(bare, folder / "same")
    graph = folder / "graph"
    inside("write_graph", graph / "doit", str(trials))
    done(bare, graph / "doit")
    jobs = [
        Job("python -c pass", [sys.executable, "-c", "pass"], folder),
        Job("doit", [DOIT], run),
        Job("doit list --status", [DOIT, "list", "--status"], run),
        Job("doit list --status --all", [DOIT, "list", "--status", "--all"], run),
        Job("bare doit, same tasks", bare, folder / "same"),
        Job("  list --status", [*bare, "list", "--status"], folder / "same"),
        Job("  list --status --all", [*bare, "list", "--status", "--all"], folder / "same"),
        Job("bare doit, graph of parts", bare, graph / "doit"),
        Job("  list --status --all", [*bare, "list", "--status", "--all"], graph / "doit"),
        Job("doit, one trial", [DOIT], folder / "one"),
        Job("repair, one trial", [DOIT], folder / "one", lambda: damage(folder / "one")),
        Job("repair", [DOIT], run, lambda: damage(run)),
    ]
    slow = []
    if (BIN / "snakemake").exists():
        inside("write_graph", graph / "snakemake", str(trials))
        command = [str(BIN / "snakemake"), "--cores", "2", "--quiet", "all"]
        done(command, graph / "snakemake")
        slow.append(Job("Snakemake, graph of parts", command, graph / "snakemake"))
    if (BIN / "dvc").exists():
        inside("write_graph", graph / "dvc", str(trials), "files")
        os.environ["DVC_NO_ANALYTICS"] = "1"
        done([str(BIN / "dvc"), "init", "--no-scm", "--quiet"], graph / "dvc")
        done([str(BIN / "dvc"), "commit", "--force", "--quiet"], graph / "dvc")
        slow.append(Job("DVC repro, graph of parts", [str(BIN / "dvc"), "repro"], graph / "dvc"))
        slow.append(Job("DVC status, graph of parts", [str(BIN / "dvc"), "status"], graph / "dvc"))
    costs = in_turns(jobs, rounds, slow, max(1, rounds // 3))
    ours, listed = costs["doit", run].seconds, costs["doit list --status", run].seconds
    print(f"{trials} trials x {PARTS} parts, medians of {rounds}")
    print(f"{'':<28}{'CPU s':>8}{'MB':>6}{'/ doit':>9}{'/ list':>9}")
    for job in (*jobs, *slow):
        seconds, megabytes = costs[job.name, job.folder]
        print(f"{job.name:<28}{seconds:8.3f}{megabytes:6.0f}{seconds / ours:9.2f}{seconds / listed:9.2f}")
    one = folder / "one"
    own = costs["repair, one trial", one].seconds - costs["doit, one trial", one].seconds
    print(f"repair of one part: {costs['repair', run].seconds:.3f} s; no-op {ours:.3f} + its own work {own:.3f} s")


def grow(folder: Path, counts: list[int], rounds: int) -> None:
    finished(folder / "one", 1)
    commands = {"doit": [DOIT], "list": [DOIT, "list", "--status"], "list --all": [DOIT, "list", "--status", "--all"]}
    jobs = []
    for count in counts:
        run = finished(folder / f"run{count}", count, folder / "one")
        jobs += [Job(name, arguments, run) for name, arguments in commands.items()]
    costs = in_turns(jobs, rounds)
    print(f"CPU seconds and MB of the no-op, medians of {rounds}")
    print(f"{'trials':>8}{'parts':>8}" + "".join(f"{name:>20}" for name in commands))
    for count in counts:
        shown = [costs[name, folder / f"run{count}"] for name in commands]
        cells = "".join(f"{cost.seconds:13.3f} s{cost.megabytes:5.0f}" for cost in shown)
        print(f"{count:>8}{count * PARTS:>8}{cells}")


def in_turns(
    jobs: list[Job], rounds: int, slow: Sequence[Job] = (), slow_rounds: int = 0
) -> dict[tuple[str, Path], measure.Cost]:
    """The median of each job, all taken in turns, so that a slow minute of the machine hits all alike."""
    taken: dict[tuple[str, Path], list[measure.Cost]] = {}
    for number in range(rounds):
        for job in (*jobs, *(slow if number < slow_rounds else ())):
            job.before()
            cost = measure.command(job.arguments, cwd=str(job.folder))
            taken.setdefault((job.name, job.folder), []).append(cost)
    return {key: measure.Cost(*map(statistics.median, zip(*costs, strict=True))) for key, costs in taken.items()}


# --- a finished run --------------------------------------------------------------------------------------


def finished(folder: Path, trials: int, pattern: Path | None = None) -> Path:
    """A finished run of so many trials in *folder*; its first trial is copied from *pattern*, where one is given."""
    folder.mkdir(parents=True)
    questions = [
        {"id": f"q{n}", "question": f"What is the capital of country {n}?", "answers": [f"City {n}"]} for n in range(4)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (folder / "control.txt").write_text("Answer.\n")
    (folder / "treatment.txt").write_text("Answer, or say that you do not know.\n")
    (folder / "dodo.py").write_text("from pipeline import tasks\n\nglobals().update(tasks.namespace())\n")
    config = {
        "name": "no-op",
        "provider": "emulator",
        "models": [{"id": f"m{number:03d}"} for number in range(trials)],
        "prompt_sets": {"default": {"control": "control.txt", "treatment": "treatment.txt"}},
        "sources": [{"dataset": "bench", "format": "jsonl", "path": "questions.jsonl", "benchmark": "triviaqa"}],
        "temperatures": [0, 0.3, 0.5, 0.7, 1],
        "part_size": 2,  # 4 questions x 5 temperatures x 2 conditions = 20 parts
        "emulator": {"job_seconds": 0},
    }
    (folder / "experiment.yaml").write_text(json.dumps(config))  # JSON is YAML
    if pattern is None:
        done([DOIT, "rid=bench", "config=experiment.yaml", f"trial={FIRST}"], folder)
    else:
        done([DOIT, "rid=bench", "config=experiment.yaml", "only=prepare"], folder)
        inside("copies", folder, str(pattern / RUN / FIRST), str(trials))
    done([DOIT], folder)  # the index of all trials
    said = done([DOIT, "verify=deep"], folder)
    assert f"\n{8 * trials + 2} skipped" in said, f"something was to be done:\n{said[-3000:]}"
    done([DOIT], folder)
    return folder


def copies(pattern: str, trials: str) -> None:
    """The trials of the run here, as copies of *pattern*, each under its own name."""
    from pipeline import jsonl, sealed

    index, manifest = "batch_inputs/index.json", "results/trial_manifest.json"
    old_index = hashlib.sha256(Path(pattern, index).read_bytes()).hexdigest()
    for number in range(int(trials)):
        model = f"m{number:03d}"
        copy = RUN / FIRST.replace("m000", model)
        shutil.copytree(pattern, copy)

        def rewrite(name: str, old: str = "", new: str = "", copy: Path = copy, model: str = model) -> str:
            text = (copy / name).read_text().replace("m000", model).replace(old, new)
            data = jsonl.dumps_pretty(sealed.sealed(json.loads(text)))
            (copy / name).write_bytes(data)
            return hashlib.sha256(data).hexdigest()

        rewrite(manifest, old_index, rewrite(index))


def damage(folder: Path) -> None:
    """Cut ten bytes off one part's results; what was kept aside of earlier times goes."""
    for aside in (folder / DAMAGED).parent.glob("*.damaged.*"):
        aside.unlink()
    good = Path(f"{folder / DAMAGED}.good")
    if not good.exists():
        shutil.copy(folder / DAMAGED, good)
    assert (folder / DAMAGED).read_bytes() == good.read_bytes(), "the last repair made other bytes"
    with open(folder / DAMAGED, "r+b") as stream:
        stream.truncate(good.stat().st_size - 10)


# --- peers -------------------------------------------------------------------------------------------------


def same_tasks(folder: str) -> None:
    """A dodo.py in *folder* with the tasks of the run here, on files of its own."""
    from pipeline import opening, request, tasks

    keys = ("basename", "name", "file_dep", "targets", "task_dep")
    opened = opening.for_reading(request.parse({}), print)
    listed = [{key: task[key] for key in keys if key in task} for task in tasks.create(opened)]
    for path in {path for task in listed for key in ("file_dep", "targets") for path in task.get(key, ())}:
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_text(path)
    Path(folder, "tasks.json").write_text(json.dumps(listed))
    Path(folder, "dodo.py").write_text(f"""
import json
DOIT_CONFIG = {{"default_tasks": {tasks.doit_config(opened)["default_tasks"]}}}
def task_all():
    for task in json.load(open("tasks.json")):
        yield task if task.get("name", "") is None else {{**task, "actions": ["true"]}}
""")


def nodes(trials: int) -> Iterator[tuple[str, str, list[str], str]]:
    """rule, name, inputs, output of each node: 20 parts and five more for each trial."""
    for trial in (f"t{number:03d}" for number in range(trials)):
        parts = [f"{trial}/p{number:02d}" for number in range(PARTS)]
        yield from (("part", part.replace("/", "-"), ["source"], part) for part in parts)
        yield "parse", trial, parts, f"{trial}/predictions"
        yield "score", trial, [f"{trial}/predictions"], f"{trial}/scores"
        yield "stats", trial, [f"{trial}/scores"], f"{trial}/stats"
        yield "costs", trial, [f"{trial}/predictions"], f"{trial}/costs"
        yield "report", trial, [f"{trial}/{name}" for name in ("scores", "stats", "costs")], f"{trial}/report"


def write_graph(trials: str, files: str = "") -> None:
    """The graph of parts as dodo.py, Snakefile and dvc.yaml; with *files*, the outputs too."""
    listed = list(nodes(int(trials)))
    Path("source").write_text("x\n")
    Path("tasks.json").write_text(json.dumps(listed))
    Path("dodo.py").write_text("""
import json
def task_all():
    for rule, name, inputs, output in json.load(open("tasks.json")):
        actions = [f"cat {' '.join(inputs)} > {output}"]
        yield {"basename": rule, "name": name, "file_dep": inputs, "targets": [output], "actions": actions}
""")
    Path("Snakefile").write_text(SNAKEFILE.format(trials=int(trials), parts=PARTS))
    stages = {
        f"{rule}-{name}": {"cmd": f"cat {' '.join(inputs)} > {output}", "deps": inputs, "outs": [output]}
        for rule, name, inputs, output in listed
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    for _, _, inputs, output in listed:
        Path(output).parent.mkdir(exist_ok=True)
        if files:
            Path(output).write_text("".join(Path(name).read_text() for name in inputs))


SNAKEFILE = """
TRIALS = [f"t{{number:03d}}" for number in range({trials})]
PARTS = [f"p{{number:02d}}" for number in range({parts})]
rule all:
    input: expand("{{trial}}/report", trial=TRIALS)
rule part:
    input: "source"
    output: "{{trial}}/{{part,p[0-9]+}}"
    shell: "cat {{input}} > {{output}}"
rule parse:
    input: lambda wanted: [f"{{wanted.trial}}/{{part}}" for part in PARTS]
    output: "{{trial}}/predictions"
    shell: "cat {{input}} > {{output}}"
rule score:
    input: "{{trial}}/predictions"
    output: "{{trial}}/scores"
    shell: "cat {{input}} > {{output}}"
rule stats:
    input: "{{trial}}/scores"
    output: "{{trial}}/stats"
    shell: "cat {{input}} > {{output}}"
rule costs:
    input: "{{trial}}/predictions"
    output: "{{trial}}/costs"
    shell: "cat {{input}} > {{output}}"
rule report:
    input: "{{trial}}/scores", "{{trial}}/stats", "{{trial}}/costs"
    output: "{{trial}}/report"
    shell: "cat {{input}} > {{output}}"
"""

# Done in a process of their own: a child's peak memory starts at its parent's size.
JOBS: dict[str, Callable[..., None]] = {"copies": copies, "same_tasks": same_tasks, "write_graph": write_graph}


def inside(job: str, folder: Path, *words: str | Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done([sys.executable, str(Path(__file__).resolve()), "--job", job, *map(str, words)], folder)


def done(arguments: list[str], folder: Path) -> str:
    """Run a command that must succeed; what it said."""
    ended = subprocess.run(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        raise SystemExit(
            f"{' '.join(arguments)[:200]} in {folder}: exit code {ended.returncode}\n{ended.stdout[-3000:]}"
        )
    return ended.stdout


if __name__ == "__main__":
    main()
