"""A wait as the user sees it: told on a terminal, in a log and to a program, and given up the moment it is asked."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from run_kit import CONFIG, PATIENCE, RID, TRIAL, doit, environment, forked, tiny

from pipeline import waiting
from pipeline.emulator import history
from pipeline.queue.progress import Pace, Progress, duration

SLOW = CONFIG.replace("emulator: {job_seconds: 0}", "queue: {poll_seconds: 0.1}\nemulator: {job_seconds: 2}")
WORDS = (f"rid={RID}", "config=experiment.yaml", "to=download")


def jobs(folder):
    return len(history.jobs(folder / "experiments" / f"run_{RID}" / ".emulator"))


def seen_on_a_terminal(folder, *words):
    """All that `doit WORDS` shows where its output is a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "doit", *words]
    surroundings = {**environment(), "TERM": "xterm-256color", "COLUMNS": "80"}
    surroundings.pop("NO_COLOR", None)
    with subprocess.Popen(
        command, cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
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


def plain(shown):
    """*shown* without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown)


def test_a_log_gets_a_line_only_where_something_changed(tmp_path):
    ran = doit(tiny(tmp_path, SLOW), *WORDS)
    assert ran.code == 0
    told = [line for line in ran.out.splitlines() if "parts finished" in line]
    assert any(re.match(rf"{TRIAL}: [0-7] of 8 parts finished.*; waiting for: [a-z]", line) for line in told)
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
    assert {"tokens", "usd", "usd_expected", "seconds_left"} <= waits[-1].keys()
    assert events[-1]["event"] == "end"
    assert (events[-1]["exit_code"], events[-1]["phases"]) == (0, {"built": 4})


def test_a_terminal_gets_lines_that_are_drawn_over_and_the_results_at_the_end(tmp_path):
    shown = seen_on_a_terminal(tiny(tmp_path, SLOW), f"rid={RID}", "config=experiment.yaml")
    waits = [plain(piece).splitlines() for piece in shown.split("\r\x1b[K") if f"{TRIAL}  " in plain(piece)[:30]]
    waits = [lines for lines in waits if "parts finished" in lines[0]]
    assert waits
    assert all(len(line) < 80 for lines in waits for line in lines[:3])
    assert any("waiting for: " in line for lines in waits for line in lines)
    assert re.search(r" of \d+ rows, [\d,]+ tokens", plain(shown))
    last = plain(shown).splitlines()[-10:]
    assert last[0] == "10 built"
    assert last[1] == f"{TRIAL}: right answers with treatment instead of control, in points"
    assert re.match(r"  Open-book, temperature 0  +[a-z]", last[2])
    assert last[-4] == "missing: none of 40 answers"
    assert re.fullmatch(r"cost: \$[\d.]+ by list price; the emulator charges nothing", last[-3])
    assert last[-2] == f"Next: python -m pipeline open {RID}"
    assert last[-1] == f"report: experiments/run_{RID}/{TRIAL}/reports/report.md"


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


# --- its words, without waiting -----------------------------------------------------------------------

HALF_WAY = Progress(
    "m-p", 1, "finished", parts=12, reached=5, running=7, rows=2000, rows_done=500, waiting_for=("running",),
    tokens=90_000, usd=0.012, usd_expected=0.048, seconds_left=3 * 3600.0,
)  # fmt: skip


def test_a_line_tells_parts_rows_tokens_money_and_the_time_left():
    assert HALF_WAY.line == (
        "m-p: 5 of 12 parts finished, 500 of 2,000 rows, 90,000 tokens, $0.0120 of about $0.0480, "
        "about 3 h 00 min left; waiting for: running"
    )
    nothing = replace(HALF_WAY, trials=3, rows_done=0, tokens=0, usd_expected=None, seconds_left=None, waiting_for=())
    assert nothing.line == "3 trials: 5 of 12 parts finished"


def test_a_narrow_terminal_shows_all_figures(monkeypatch):
    """At 60 columns the money was cut off: that is the figure to stop by."""
    progress = Progress(
        trial="t", trials=1, word="finished", parts=8, reached=2, running=2, rows=120_000, rows_done=30_000,
        waiting_for=("running",), tokens=12_345_678, usd=12.34, usd_expected=49.36,
    )  # fmt: skip
    for columns, lines in (("80", 3), ("60", 4), ("30", 5)):
        monkeypatch.setenv("COLUMNS", columns)
        drawn = [line.plain for line in waiting.drawn(progress)]
        assert len(drawn) == lines
        assert all(figure in "\n".join(drawn) for figure in progress.figures())
        assert all(len(line) < int(columns) for line in drawn[1:-1])


def test_the_time_left_is_told_once_rows_have_come_while_we_looked():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    pace = Pace()
    assert pace.left(start, 100, 1000) is None
    assert pace.left(start + timedelta(minutes=5), 100, 1000) is None
    assert pace.left(start + timedelta(minutes=10), 400, 1000) == 20 * 60
    said = [duration(seconds) for seconds in (5, 80, 3599, 3700, 36_000)]
    assert said == ["under a minute", "about 1 min", "about 1 h 00 min", "about 1 h 02 min", "about 10 h"]


def test_a_worker_of_several_draws_nothing_on_the_terminal_they_share(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    said = []
    show = waiting.shown(said.append, as_json=False, alone=lambda: False)
    show(HALF_WAY)
    show(None)
    assert (said, terminal.getvalue()) == ([HALF_WAY.line], "")


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_workers_draw_nothing_and_tell_lines(tmp_path, kind):
    """Threads drew over each other's lines, and once more after the last words."""
    shown = plain(seen_on_a_terminal(tiny(tmp_path, SLOW), *WORDS, "-n", "2", "-P", kind))
    assert re.search(rf"^{TRIAL}: \d of 8 parts finished", shown, re.M)
    assert "━" not in shown


def test_a_log_gets_new_figures_every_ten_minutes():
    said, now = [], [0.0]
    show = waiting.shown(said.append, as_json=False, clock=lambda: now[0])
    for now[0] in (0.0, 300.0, 700.0, 1000.0):
        show(replace(HALF_WAY, rows_done=500 + int(now[0])))
    show(None)
    assert [re.search("[0-9,]+ of 2,000", line)[0] for line in said] == ["500 of 2,000", "1,200 of 2,000"]
