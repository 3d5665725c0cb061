"""Two and eight processes start on one run at nearly the same time: one works, the others name it and leave.

FAULT_STARTS sets how many such starts the long test makes (default 1,000), FAULT_SEED where it begins. If this
failed, two commands typed in two terminals would submit each part twice.
"""

import os
import random
import re
import shutil
import time

import pytest
from quick_folder import quick_folder
from run_kit import RID, artifacts, doit, forked, leftovers, tiny

from pipeline.emulator import history

PARTS = 8
WORDS = ("resume", f"rid={RID}", "to=download")
WITHIN = 0.06  # seconds between the first start and the last; the winner works some ten times as long


@pytest.fixture(scope="module")
def built():
    """A run that is built and not submitted, and the artifacts of the same run when nobody else started it."""
    with quick_folder() as base:
        folder = tiny(base / "built")
        assert doit(folder, f"rid={RID}", "config=experiment.yaml", "to=build").code == 0
        alone = shutil.copytree(folder, base / "alone", symlinks=True)
        assert doit(alone, *WORDS).code == 0
        yield folder, artifacts(alone)


def start_together(built, chance: random.Random, processes: int) -> int:
    """Start *processes* on a fresh copy at random offsets and check how it ends; how many found another at work."""
    template, wanted = built
    with quick_folder() as base:
        folder = shutil.copytree(template, base / "run", symlinks=True)
        started = []
        for pause in sorted(chance.uniform(0, WITHIN) for _ in range(processes)):
            time.sleep(pause / processes)
            started.append(forked(folder, *WORDS))
        ended = {process.pid: process.wait() for process in started}
        refused = [end for end in ended.values() if end.code != 0]
        (winner,) = [pid for pid, end in ended.items() if re.search(r"^submit +\S+ +run ", end.out, re.M)]
        for end in refused:
            assert end.code == 2, end.err
            named = re.search(rf"another process works on run {RID}: (process (\d+),|a process that has just)", end.err)
            assert named, end.err
            assert named[2] in (None, str(winner))
            assert "Nothing was changed by this one." in end.err
        assert ended[winner].code == 0, ended[winner].err
        submitted = history.jobs(folder / "experiments" / f"run_{RID}" / ".emulator")
        assert len(submitted) == len({job.id for job in submitted}) == PARTS
        assert artifacts(folder) == wanted
        assert leftovers(folder) == []
        return len(refused)


def test_a_double_start(built):
    assert start_together(built, random.Random(2), 3) > 0, "nobody met anybody"


@pytest.mark.heavy
def test_many_double_starts(built, capsys):
    starts, seed = int(os.environ.get("FAULT_STARTS", "1000")), int(os.environ.get("FAULT_SEED", "1"))
    met = refused = 0
    for number in range(seed, seed + starts):
        try:
            found = start_together(built, random.Random(number), 8 if number % 10 == 0 else 2)
        except AssertionError as error:
            raise AssertionError(f"seed {number}") from error
        met, refused = met + bool(found), refused + found
    with capsys.disabled():
        print(
            f"\n{starts:,} double starts (seeds {seed} on): one winner each; {refused:,} processes named it in {met:,}"
        )
    assert met > 0.9 * starts, "the processes hardly ever met"
