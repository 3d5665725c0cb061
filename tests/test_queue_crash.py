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


class Moments:
    """The boundaries worth dying at, as a run meets them: before each change of the disk, once after each effect.

    Between two of them nothing changes that outlives the process. (An fsync matters to a power cut, which is
    another test's subject.) How often is polled in between varies, so nothing else is counted.
    """

    def __init__(self, lab):
        self.lab = lab
        self.effects = self._effects()
        self.number = 0

    def _effects(self):
        return sum(bool(call["effect"]) for call in self.lab.calls())

    def met(self, what):
        """Whether the boundary *what* is one; its number is then `number`."""
        before, self.effects = self.effects, self._effects()
        met = what.startswith(CHANGES) or self.effects != before
        self.number += met
        return met


def moments(*rules, layout=SMALL):
    """What each moment of an undisturbed run is about."""
    seen = []
    with Lab(layout, *rules) as lab:
        counted = Moments(lab)
        lab.before = lambda what: seen.append(what) if counted.met(what) else None
        assert lab.go().done
    return seen


def die(lab, at):
    """Run until moment *at* (from 1), and there no further; whether it came to that."""
    counted = Moments(lab)

    def count(what):
        if counted.met(what) and counted.number == at:
            raise Crash

    lab.before = count
    try:
        lab.go()
    except Crash:
        return True
    finally:
        lab.before = lambda _what: None
    return False


@pytest.fixture(scope="module")
def small():
    return moments()


def test_the_boundaries_are_those_that_matter(small):
    seen = []
    with Lab() as lab:
        lab.before = seen.append
        assert lab.go().done
        assert sum(bool(call["effect"]) for call in lab.calls()) == 6  # two parts: dataset, upload, job
    kinds = {what.split()[0] for what in seen}
    assert kinds >= {"write", "fsync", "fsync_dir", "rename", "mkdir", "unlink", "network", "sleep"}
    assert len(small) > 45


@pytest.fixture(scope="module")
def undisturbed():
    with Lab() as lab:
        assert lab.go().done
        crumbs = lab.breadcrumbs()
        assert len(crumbs) == 2
        return lab.raw_files(), crumbs


@pytest.mark.parametrize("share", [0, 1, *(pytest.param(share, marks=pytest.mark.heavy) for share in (2, 3))])
def test_killed_at_every_step(small, undisturbed, share):
    """Raw files too: between two of them it once stopped, and the second was never fetched."""
    for at, what in list(enumerate(small, 1))[share::4]:
        with Lab() as lab:
            assert die(lab, at), f"moment {at} ({what}) never came"
            ending = lab.go()
            assert ending.done, (at, what, ending.text)
            lab.check()
            assert (lab.raw_files(), lab.breadcrumbs()) == undisturbed, (at, what)


def test_killed_at_steps_of_a_run_whose_jobs_expire():
    """Two attempts a part: the second asks for exactly the rows the first left, whenever the kill came."""
    layout = Layout(items=4)
    for at, what in list(enumerate(moments(EXPIRES, layout=layout), 1))[::18]:
        with Lab(layout, EXPIRES) as lab:
            assert die(lab, at)
            ending = lab.go()
            assert ending.done, (at, what, ending.text)
            rows = {key: [attempt.rows for attempt in book.attempts] for key, book in lab.ledgers().items()}
            assert set(map(tuple, rows.values())) == {(4, 2)}, (at, what, rows)
            lab.check(jobs=4)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_disk_that_takes_no_more_is_told_and_costs_nothing(small, lasting):
    """Out of space before each change: the old files stay, nothing is sent without its record, a resume goes on."""
    changes = [what for what in small if what.startswith(CHANGES)]
    for at in range(lasting, len(changes), 5):
        with Lab() as lab:
            left, full = at, []

            def fill(what, full=full):
                nonlocal left
                if what.startswith(CHANGES):
                    left -= 1
                    if left < 0 if lasting else left == -1:
                        full.append(what)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            lab.before = fill
            ending = lab.go()
            assert full[0] == changes[at]
            assert isinstance(ending.error, DiskTrouble), (full, ending.text)
            assert "No space left on device" in str(ending.error)
            assert "free space" in str(ending.error)
            lab.before = lambda _what: None
            assert lab.go().done
            lab.check()


@pytest.mark.heavy
def test_killed_twice_the_second_time_while_recovering(small):
    """All pairs would be thousands; every kill with three later ones is a sample that moves through all of them."""
    for at in range(1, len(small) + 1):
        for then in (1 + at % 7, 8 + at % 13, 21 + at % 29):
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
