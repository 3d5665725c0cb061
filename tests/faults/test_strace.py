"""kill -9 before each system call that changes the disk or talks to the provider, one call at a time.

strace counts per system call and thread, so each call has a loop of its own, which ends with the first
run that was not killed any more; a loop that killed nothing fails. FAULT_EVERY=n takes every n-th. The calls
that put files in place are also sampled over a run from nothing to its report, FAULT_EVERY_WHOLE=n (default 20).

    pytest -m heavy tests/faults/test_strace.py
"""

import os
import shutil
import signal
import subprocess

import pytest
from process_kit import Case, case, golden

WORDS = ("to=download",)
PARTS = 2
WHOLE = ("to=report",)
# Each with the fewest times a run of two parts makes it; fewer means that the loop ended too early.
CALLS = {
    "write": 30,
    "pwrite64": 30,  # SQLite, into doit's memory
    "fsync": 60,
    "fdatasync": 8,
    "rename": 12,
    "unlink": 2,
    "mkdir": 4,
    "rmdir": 2,
    "sendto": 15,
    "recvfrom": 15,
}
# Only the build removes a folder with files in it, by unlinkat.
WHOLE_CALLS = {"write": 60, "rename": 40, "fsync": 120, "unlinkat": 1}

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def killed_at(run: Case, call: str, number: int, *words: str) -> bool:
    """Whether the kernel killed `doit WORDS` before its *number*-th *call*."""
    log = run.folder / "strace"
    tracer = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:signal=KILL:when={number}"]
    code = run.start(*words, before=[*tracer, *inject]).wait(timeout=300)
    killed = "+++ killed by SIGKILL +++" in log.read_text(errors="replace")
    log.unlink()
    assert killed == (code != 0), (code, run.said())
    if killed:
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    return killed


@pytest.mark.parametrize("call", CALLS)
def test_killed_before_each(call, capsys):
    every = int(os.environ.get("FAULT_EVERY", "1"))
    kills, number, wanted = 0, 1, golden(WORDS)
    while True:
        with case() as run:
            if not killed_at(run, call, number, "resume", "rid=f", *WORDS):
                break
            kills += 1
            run.resume(*WORDS)
            run.check_jobs(PARTS)
            assert run.artifacts() == wanted, f"{call} number {number}"
        number += every
    with capsys.disabled():
        print(f"\n{call}: killed before {kills} of {number - 1} calls; 0 duplicate jobs, 0 differing bytes")
    assert kills > 0
    assert number > CALLS[call]


@pytest.mark.parametrize("call", WHOLE_CALLS)
def test_killed_on_the_way_from_nothing_to_the_report(call, capsys):
    """Where the run was not even recorded the same command begins it; else `doit resume` goes on."""
    every = int(os.environ.get("FAULT_EVERY_WHOLE", "20"))
    begin = ("rid=f", "config=experiment.yaml", *WHOLE)
    kills, number, wanted = 0, 1, golden(WHOLE)
    while True:
        with case() as run:
            shutil.rmtree(run.run)
            if not killed_at(run, call, number, *begin):
                assert run.artifacts() == wanted
                break
            kills += 1
            run.doit(*(("resume", "rid=f", *WHOLE) if (run.run / "run.json").exists() else begin))
            run.check_jobs(PARTS)
            assert run.artifacts() == wanted, f"{call} number {number}"
        number += every
    with capsys.disabled():
        print(f"\n{call}: killed {kills} times in {number - 1} calls; 0 duplicate jobs, 0 differing bytes")
    assert kills > 0
    assert number > WHOLE_CALLS[call]


def test_strace_can_trace_here():
    """Else every loop above would end at once (ptrace may be forbidden in a container)."""
    assert subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], check=False).returncode == 0
