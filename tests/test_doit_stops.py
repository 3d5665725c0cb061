"""Ways a run ends before its time: signals, stop requests, kills, closed pipes. One resume finishes it.

Signals come at exact moments: the child's disk operations are watched, and at a named one it strikes.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from quick_folder import quick_folder
from run_kit import (
    ONE_TEMPERATURE,
    RID,
    TRIAL,
    artifacts,
    at,
    doit,
    environment,
    forked,
    leftovers,
    reading,
    tiny,
    two_trials,
    watched,
)

from pipeline.emulator import history

HEAVY = pytest.mark.heavy
START = (f"rid={RID}", "config=experiment.yaml")
# phase -> the write that it makes last, and the state of the run (a phase that finished) in which it begins
MOMENTS = {
    "prepare": ("closed_book.jsonl", ""),
    "build": ("index.json", ""),
    "submit": ("OUTPUT_DATASET_ID.txt", "build"),
    "download": ("results_combined.jsonl", "build"),
    "parse": ("predictions.csv", "download"),
    "score": ("per_item_scores.csv", "download"),
    "stats": ("significance.json", "download"),
    "costs": ("costs.json", "download"),
    "report": ("report.md", "costs"),
    "index": ("index.html", "costs"),
}
STAGES = {
    "submit": "downloaded",
    "download": "downloaded",
    "parse": "parsed",
    "score": "scored",
    "stats": "stats",
    "costs": "costs",
    "report": "report",
}


class States:
    """A run that was never disturbed, and the same run as it was after some phases."""

    def __init__(self, base):
        self.base = base
        self.number = 0
        self.operations = 0  # of the disk, from nothing to costs
        folder = tiny(base / "undisturbed", ONE_TEMPERATURE)
        for last in ("build", "download", "costs", "index"):
            with watched(self.count if last != "index" else None):
                assert doit(folder, *(START if last == "build" else ()), f"to={last}").code == 0
            shutil.copytree(folder, base / last, symlinks=True)
        self.artifacts = artifacts(folder)

    def count(self, _operation, _path):
        self.operations += 1

    def copy(self, state):
        self.number += 1
        folder = self.base / f"copy{self.number}"
        return shutil.copytree(self.base / state, folder, symlinks=True) if state else tiny(folder, ONE_TEMPERATURE)

    def assert_undisturbed(self, folder, last="index"):
        """Up to phase *last* every artifact has the bytes of the undisturbed run, and nothing else lies about."""
        there = artifacts(folder)
        assert {name: self.artifacts.get(name) for name in there} == there
        assert leftovers(folder) == []
        with reading(folder, to=last) as session:
            questions = [session.question(phase.name, slug) for phase, slug in session.cells()]
            assert {q.relative(target) for q in questions for target in q.targets} <= there.keys()


@pytest.fixture(scope="module")
def states():
    with quick_folder() as base:
        yield States(base)


def jobs(folder):
    return len(history.jobs(folder / "experiments" / f"run_{RID}" / ".emulator"))


def status(folder, phase):
    run = folder / "experiments" / f"run_{RID}"
    if phase in ("prepare", "index"):
        return json.loads((run / "run.json").read_text())["stages"][phase]["status"]
    manifest = json.loads((run / TRIAL / "results" / "trial_manifest.json").read_text())
    return manifest["stage_status"][STAGES[phase]]["status"]


def interrupt(number):
    return lambda: os.kill(os.getpid(), number)


# --- stopped by the user ----------------------------------------------------------------------------


SIGNALS = [("SIGINT", phase) for phase in MOMENTS] + [
    ("SIGTERM", phase) if phase in ("submit", "parse", "report") else pytest.param("SIGTERM", phase, marks=HEAVY)
    for phase in MOMENTS
]


@pytest.mark.parametrize(("name", "phase"), SIGNALS)
def test_a_signal_in_a_phase_is_told_recorded_and_resumed(states, name, phase):
    number, code = {"SIGINT": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}[name]
    last_write, state = MOMENTS[phase]
    folder = states.copy(state)
    words = (*(START if not state else ()), f"to={phase}")
    ended = forked(folder, *words, observer=at("rename", last_write, interrupt(number))).wait()
    assert ended.code == code
    assert "Traceback" not in ended.out + ended.err
    assert f"stopped by {'Ctrl-C' if code == 130 else 'SIGTERM'}." in ended.err
    assert f"Next: doit resume rid={RID}" in ended.err
    if phase != "build":  # which has no record beside its files
        assert status(folder, phase) == "stopped"
    resumed = doit(folder, "resume", f"rid={RID}", f"to={phase}")
    assert (resumed.code, resumed.worked[-1]) == (0, phase)
    states.assert_undisturbed(folder, phase)


def test_a_stop_request_lets_the_phase_at_work_finish_and_starts_no_other(states):
    folder = states.copy("download")
    stop = folder / "experiments" / f"run_{RID}" / "STOP_REQUESTED"
    ended = forked(folder, observer=at("rename", "per_item_scores.csv", stop.touch)).wait()
    assert ended.code == 130
    assert [status(folder, phase) for phase in ("score", "stats", "costs")] == ["completed", "stopped", "stopped"]
    assert "STOP_REQUESTED was found: no new work is started." in ended.out
    assert "1 built" in ended.out or "2 built" in ended.out
    resumed = doit(folder, "resume", f"rid={RID}")
    assert "STOP_REQUESTED removed: going on." in resumed.out
    assert (resumed.code, resumed.worked) == (0, ["stats", "costs", "report", "index"])
    states.assert_undisturbed(folder)


# --- killed -----------------------------------------------------------------------------------------


class Kill:
    """An observer that kills the run's main process with SIGKILL at disk operation number *moment* (from 1)."""

    def __init__(self, moment):
        self.moment = moment
        self.main = None

    def __call__(self, _operation, _path):
        self.main = self.main or os.getpid()  # the first operation, the run's lock or record, is made there
        self.moment -= 1
        if self.moment == 0:
            os.kill(self.main, signal.SIGKILL)


def killed_and_resumed(states, folder, moments, last):
    """Kill the run at each of *moments*, resume each time, and at last undisturbed; whatever a kill left is gone."""
    for moment in moments:
        words = ("resume", f"rid={RID}") if begun(folder) else START
        ended = forked(folder, *words, f"to={last}", observer=Kill(moment)).wait()
        assert ended.code == -signal.SIGKILL or moment != moments[0], "the kill did not strike"
    done = doit(folder, *(("resume", f"rid={RID}") if begun(folder) else START), f"to={last}")
    assert (done.code, "Traceback" in done.out + done.err) == (0, False), done.out + done.err
    states.assert_undisturbed(folder, last)
    assert jobs(folder) == 4, "one job per part"
    assert doit(folder, f"to={last}").worked == []


def begun(folder):
    return (folder / "experiments" / f"run_{RID}" / "run.json").exists()


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_a_random_instant_loses_nothing_and_pays_once(states, seed):
    moment = random.Random(seed).randint(1, states.operations)
    killed_and_resumed(states, states.copy(""), [moment], "costs")


@HEAVY
@pytest.mark.parametrize("seed", range(50))
def test_kill_9_at_fifty_random_instants_and_again_during_the_resume(states, seed):
    chance = random.Random(1000 + seed)
    moments = [chance.randint(1, states.operations), chance.randint(1, states.operations // 2)]
    killed_and_resumed(states, states.copy(""), moments, "index")


@pytest.mark.parametrize(
    ("workers", "operation", "name"),
    [
        (("-n", "4"), "write", "ledger.jsonl"),
        pytest.param(("-n", "4", "-P", "thread"), "rename", "predictions.csv", marks=HEAVY),
        pytest.param(("-n", "4"), "rename", "predictions.csv", marks=HEAVY),
        pytest.param(("-n", "4", "-P", "thread"), "write", "ledger.jsonl", marks=HEAVY),
    ],
    ids=["processes-submit", "threads-parse", "processes-parse", "threads-submit"],
)
def test_kill_9_under_n_leaves_no_worker_behind(states, workers, operation, name):
    """A worker that went on would write without the run's lock."""
    folder = tiny(states.base / f"workers-{len(workers)}-{name}", two_trials(ONE_TEMPERATURE))
    main = []

    def kill(seen, path):
        main[:] = main or [os.getpid()]
        if (seen, path.name) == (operation, name):
            os.kill(main[0], signal.SIGKILL)

    assert forked(folder, *workers, *START, "to=costs", observer=kill).wait().code == -signal.SIGKILL
    resumed = doit(folder, "resume", f"rid={RID}", "to=costs")
    assert resumed.code == 0, resumed.out + resumed.err
    assert leftovers(folder) == []
    assert jobs(folder) == 8
    there = {name: data for name, data in artifacts(folder).items() if name.startswith(("prepared/", f"{TRIAL}/"))}
    assert there.items() <= states.artifacts.items()


# --- nobody reads any more --------------------------------------------------------------------------


def close_the_pipe():
    """Make standard output a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)


@pytest.mark.parametrize(
    ("operation", "name", "phase"),
    [("rename", "index.json", "build"), ("write", "ledger.jsonl", "submit"), ("rename", "predictions.csv", "parse")],
)
def test_a_reader_that_goes_away_stops_the_run_without_a_traceback(states, operation, name, phase):
    folder = states.copy(MOMENTS[phase][1])
    words = (*(START if not MOMENTS[phase][1] else ()), "to=costs")
    ended = forked(folder, *words, observer=at(operation, name, close_the_pipe)).wait()
    assert (ended.code, ended.err) == (1, "")
    if phase == "submit":
        assert status(folder, phase) == "stopped"
    assert doit(folder, "resume", f"rid={RID}", "to=costs").code == 0
    states.assert_undisturbed(folder, "costs")
    assert jobs(folder) == 4


def test_doit_head_1(states):
    """The real thing, by a shell: doit's stdout is block buffered there, and Python flushes it once more at its end."""
    folder = states.copy("costs")
    command = f"{sys.executable} -m doit rid={RID} force=costs to=costs 2>errors | head -1"
    shown = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=True, env=environment())
    assert shown.stdout == f"run {RID} in experiments/run_{RID}\n".encode()
    assert (folder / "errors").read_bytes() == b""
    assert doit(folder, "resume", f"rid={RID}", "to=costs").code == 0


def test_a_killed_worker_ends_the_run_instead_of_being_waited_for(states):
    folder = tiny(states.base / "killed-worker", two_trials(ONE_TEMPERATURE))
    assert doit(folder, *START, "to=download").code == 0

    def kill(operation, path):
        if (operation, path.name) == ("rename", "predictions.csv") and multiprocessing.parent_process():
            os.kill(os.getpid(), signal.SIGKILL)

    ended = forked(folder, "-n", "2", "to=costs", observer=kill).wait()
    assert ended.code == 1
    assert "stopped by the death of a worker process" in ended.err
    assert f"Next: doit resume rid={RID}" in ended.err
    assert doit(folder, "resume", f"rid={RID}", "to=costs").code == 0
    assert leftovers(folder) == []


def test_ctrl_c_under_n_is_told_without_a_traceback(states):
    """The terminal tells every process, and doit ends the workers too: a worker that was ending showed its stack."""
    config = two_trials(ONE_TEMPERATURE).replace("job_seconds: 0", "job_seconds: 60")
    folder = tiny(states.base / "ctrl-c", config)
    assert doit(folder, *START, "to=build").code == 0
    chance = random.Random(5)
    for _ in range(4):
        command = [sys.executable, "-m", "doit", "-n", "2", f"rid={RID}", "to=download"]
        options = {"cwd": folder, "env": environment(), "text": True, "start_new_session": True}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
            shown = next(line for line in process.stdout if line.startswith(("submit", "download")))
            time.sleep(chance.random() / 2)
            os.killpg(process.pid, signal.SIGINT)
            shown += process.stdout.read()
        assert process.returncode == 130, shown
        assert "stopped by Ctrl-C." in shown
        assert "Traceback" not in shown
