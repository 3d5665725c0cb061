"""CPU seconds and peak memory of commands, each in a process of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """What a command took: CPU seconds (user and system, all threads) and peak resident memory in MB."""

    seconds: float
    megabytes: float


def command(arguments: Sequence[str], cwd: str | None = None) -> Cost:
    """Run *arguments* with its output thrown away; stop if it fails.

    A child's peak starts at its parent's size, so a script that measures holds no data itself.
    """
    child = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {child.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def interleaved(jobs: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Cost]:
    """The medians of *rounds* runs of each job, taken in turns, so that a slow minute of the machine hits all alike.

    What one has left in memory for the disk is written before the next begins: it is not the next one's work.
    """
    taken: dict[str, list[Cost]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, arguments in jobs.items():
            os.sync()
            taken[name].append(command(arguments))
    return {
        name: Cost(*(statistics.median(column) for column in zip(*costs, strict=True))) for name, costs in taken.items()
    }
