"""A wait as the user sees it: told on a terminal, in a log and to a program, and given up the moment it is asked."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

from run_kit import CONFIG, PATIENCE, RID, TRIAL, doit, environment, forked, tiny

from pipeline.emulator import history

SLOW = CONFIG.replace("emulator: {job_seconds: 0}", "queue: {poll_seconds: 0.1}\nemulator: {job_seconds: 2}")
WORDS = (f"rid={RID}", "config=experiment.yaml", "to=download")


def jobs(folder):
    return len(history.jobs(folder / "experiments" / f"run_{RID}" / ".emulator"))


def seen_on_a_terminal(folder, *words):
    """All that `doit WORDS` shows where its output is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "doit", *words]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # Linux says so when the last writer is gone
            pass
    os.close(ours)
    return shown.decode()


def test_a_log_gets_a_line_only_where_something_changed(tmp_path):
    ran = doit(tiny(tmp_path, SLOW), *WORDS)
    assert ran.code == 0
    told = [line for line in ran.out.splitlines() if "parts finished" in line]
    assert any(re.match(rf"{TRIAL}: [0-7] of 8 parts finished; waiting for: [a-z]", line) for line in told)
    assert [line for line, after in pairwise(told) if line == after] == []
    assert "\x1b" not in ran.out + ran.err


def test_a_program_gets_an_event_at_each_look(tmp_path):
    ran = doit(tiny(tmp_path, SLOW), *WORDS, "json=1")
    assert ran.code == 0
    events = [json.loads(line) for line in ran.out.splitlines() if line.startswith("{")]
    waits = [event for event in events if event["event"] == "progress" and event["word"] == "finished"]
    assert waits
    assert {(event["trial"], event["parts"]) for event in waits} == {(TRIAL, 8)}
    assert all(event["reached"] + event["running"] <= 8 and event["waiting_for"] for event in waits)
    assert waits[-1]["rows_done"] <= waits[-1]["rows"]


def test_a_terminal_gets_one_line_that_is_drawn_over(tmp_path):
    shown = seen_on_a_terminal(tiny(tmp_path, SLOW), *WORDS)
    waits = [piece for piece in shown.split("\r\x1b[K") if piece.startswith(f"{TRIAL}: ")]
    assert waits
    assert not any("\n" in piece for piece in waits)
    assert "4 built" in shown.splitlines()[-1]


def test_sigterm_ends_the_wait_at_once_and_the_jobs_go_on(tmp_path):
    folder = tiny(tmp_path, SLOW)
    process = forked(folder, *WORDS)
    said = folder / f".{process.pid}.out"
    end = time.monotonic() + PATIENCE
    while not (said.exists() and "parts finished" in said.read_text()):
        assert time.monotonic() < end, "it never waited"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    ended = process.wait()
    assert ended.code == 143
    assert f"Next: doit resume rid={RID}" in ended.err
    manifest = json.loads((folder / f"experiments/run_{RID}/{TRIAL}/results/trial_manifest.json").read_text())
    assert manifest["stage_status"]["downloaded"]["status"] == "stopped"
    assert jobs(folder) == 8
    assert doit(folder, "resume", f"rid={RID}", "to=download").code == 0
    assert jobs(folder) == 8
