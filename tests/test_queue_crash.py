"""Die at every step of a small run, then resume: the same bytes, one job per part, nothing unknown.

A step is each change of the disk and each moment of talking to the provider: before a request, between
its effect and its answer, and every pause. If one of these failed, a kill at that moment would cost
money or rows. What a killed *process* leaves is tested in `faults/`; here it is cheap enough for all.
"""

import errno
import os

import pytest
from queue_kit import SMALL, Crash, Lab, Layout, golden

from pipeline.errors import DiskTrouble

EXPIRES = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
CHANGES = ("write", "rename", "unlink", "mkdir")


def boundaries(*rules, layout=SMALL):
    """What each boundary of an undisturbed run is about, and how many effects the provider had seen by then."""
    seen = []
    with Lab(layout, *rules) as lab:
        lab.before = lambda what: seen.append((what, sum(bool(call["effect"]) for call in lab.calls())))
        assert lab.go().done
    return seen


def die(lab, at):
    """Run until boundary *at*, and there no further; whether it came to that."""
    left = at

    def count(_what):
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1

    lab.before = count
    try:
        lab.go()
    except Crash:
        return True
    finally:
        lab.before = lambda _what: None
    return False


def chosen(seen):
    """The boundaries worth dying at: before each change of the disk, and once after each effect at the provider.

    Between two of them nothing changes that outlives the process. (An fsync matters to a power cut,
    which is another test's subject.)
    """
    effects = 0
    for number, (what, now) in enumerate(seen):
        if what.startswith(CHANGES) or now != effects:
            yield number
        effects = now


@pytest.fixture(scope="module")
def small():
    return boundaries()


def test_the_boundaries_are_those_that_matter(small):
    kinds = {what.split()[0] for what, _ in small}
    assert kinds >= {"write", "fsync", "fsync_dir", "rename", "mkdir", "unlink", "network", "sleep"}
    assert small[-1][1] == 6  # two parts: dataset, upload, job
    assert len(list(chosen(small))) > 45


@pytest.mark.parametrize("share", range(4))
def test_killed_at_every_step(small, share):
    for at in list(chosen(small))[share::4]:
        with Lab() as lab:
            assert die(lab, at), f"step {at} ({small[at]}) never came"
            ending = lab.go()
            assert ending.done, (at, small[at], ending.text)
            lab.check()


def test_killed_at_steps_of_a_run_whose_jobs_expire():
    """Two attempts a part: the second asks for exactly the rows the first left, whenever the kill came."""
    layout = Layout(items=4)
    seen = boundaries(EXPIRES, layout=layout)
    for at in list(chosen(seen))[::5]:
        with Lab(layout, EXPIRES) as lab:
            assert die(lab, at)
            ending = lab.go()
            assert ending.done, (at, seen[at], ending.text)
            rows = {key: [attempt.rows for attempt in book.attempts] for key, book in lab.ledgers().items()}
            assert set(map(tuple, rows.values())) == {(4, 2)}, (at, seen[at], rows)
            lab.check(jobs=4)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_disk_that_takes_no_more_is_told_and_costs_nothing(small, lasting):
    """Out of space before each change: the old files stay, nothing is sent without its record, a resume goes on."""
    steps = [number for number in chosen(small) if small[number][0].startswith(CHANGES)]
    for at in steps[lasting::3]:
        with Lab() as lab:
            left = at

            def full(what):
                nonlocal left
                left -= 1
                if what.startswith(CHANGES) and (left < 0 if lasting else left == -1):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            lab.before = full
            ending = lab.go()
            assert isinstance(ending.error, DiskTrouble), (small[at], ending.text)
            assert "No space left on device" in str(ending.error)
            assert "free space" in str(ending.error)
            lab.before = lambda _what: None
            assert lab.go().done
            lab.check()


@pytest.mark.heavy
def test_killed_twice_the_second_time_while_recovering(small):
    """All pairs would be 30,000; every kill with three later ones is a sample that moves through all of them."""
    for at in chosen(small):
        for then in (at % 7, 11 + at % 13, 40 + at % 29):
            with Lab() as lab:
                assert die(lab, at)
                again = die(lab, then)
                if again:
                    assert lab.go().done, (at, then)
                lab.check()


def test_a_finished_run_does_nothing_when_resumed():
    with Lab() as lab:
        assert lab.go().done
        calls = len(lab.calls())
        happened = []
        lab.before = happened.append
        assert lab.go("submit").done
        assert happened == []
        assert len(lab.calls()) == calls
        assert lab.artifacts() == golden(SMALL)
