"""The machine's clock may be a day back, stand still, run ahead or jump: no byte, no decision and no job follows it.

Only the deadline of a job that never ends reads the clock. If these failed, a laptop that woke with a wrong date
would submit again what is running, or believe files because of their age.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle

import pytest
from queue_kit import Lab
from run_kit import CONFIG, RID, TRIAL, artifacts, doit, leftovers, tiny

from pipeline import disk, ledger, lock, manifest, opening
from pipeline.emulator import history
from pipeline.errors import ProviderError
from pipeline.queue import context

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
BACK, AHEAD = timedelta(days=-1), timedelta(days=60)
_JUMPS = (timedelta(0), BACK, timedelta(hours=20), timedelta(hours=-50))
_READERS = (context, disk, ledger, lock, manifest, opening)  # every module that asks for the time by itself

# What a wrong clock shows when the right one shows *now*; made anew for each test, since some remember.
WRONG: dict[str, Callable[[], Callable[[datetime], datetime]]] = {
    "a day back": lambda: lambda now: now + BACK,
    "frozen": lambda: lambda _now: START,
    "60 days ahead": lambda: lambda now: now + AHEAD,
    "jumping": lambda: _jumping(cycle(_JUMPS)),
}


def _jumping(jumps: Iterator[timedelta]) -> Callable[[datetime], datetime]:
    return lambda now: now + next(jumps)


class Clock:
    """What the modules of the pipeline read, and how often they did."""

    def __init__(self, wrong: Callable[[datetime], datetime], right: Callable[[], datetime]) -> None:
        self.wrong = wrong
        self.right = right
        self.read = 0

    def now(self) -> datetime:
        self.read += 1
        return self.wrong(self.right())


@contextmanager
def showing(clock: Clock):
    """For this block every module that asks for the time asks *clock*."""

    class Shown(datetime):
        @classmethod
        def now(cls, zone=None):
            return clock.now().astimezone(zone)

    with pytest.MonkeyPatch.context() as patch:
        for module in _READERS:
            patch.setattr(module, "datetime", Shown)
        yield clock


class WrongLab(Lab):
    """A Lab in which the client's clock is not the service's."""

    clock: Clock

    def hands(self, ending, confirm=None, check_stop=None):
        return replace(super().hands(ending, confirm, check_stop), now=self.clock.now)

    def at(self, wrong: Callable[[datetime], datetime]):
        self.clock = Clock(wrong, lambda: datetime.fromtimestamp(self.now(), UTC))
        return showing(self.clock)

    @property
    def posts(self) -> int:
        return len(self.calls("POST"))


@pytest.fixture(scope="module")
def said():
    """What an undisturbed run of the queue says."""
    with Lab() as lab:
        return lab.go().said


# --- the queue ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRONG)
def test_a_run_under_a_wrong_clock_is_the_same_run(said, name):
    with WrongLab() as lab, lab.at(WRONG[name]()) as clock:
        ending = lab.go()
        assert ending.done, ending.text
        assert ending.said == said
        assert clock.read > 10, "nobody looked at the wrong clock"
        lab.check()
        before = lab.posts
        again = lab.go()
        assert (again.done, again.said, lab.posts) == (True, [], before)


@pytest.mark.parametrize("name", ["a day back", "frozen", "jumping"])
def test_a_clock_that_is_set_while_jobs_run_changes_nothing(name):
    with WrongLab() as lab:
        with lab.at(lambda now: now):
            assert lab.go("submit").done
        before = lab.posts
        with lab.at(WRONG[name]()) as clock:
            ending = lab.go()
        assert ending.done, ending.text
        assert clock.read > 0
        assert lab.posts == before, "something was sent again"
        lab.check()


def test_a_clock_that_leaps_ahead_of_a_running_job_is_one_clear_message():
    """The job seems to be overdue by weeks. It is waited for again once the clock is right; it is never replaced."""
    with WrongLab() as lab:
        with lab.at(lambda now: now):
            assert lab.go("submit").done
        before = lab.posts
        for _ in range(2):
            with lab.at(lambda now: now + AHEAD):
                ending = lab.go()
            assert isinstance(ending.error, ProviderError)
            for words in ("has not ended", "nothing was sent again", "Then doit resume"):
                assert words in str(ending.error)
            assert lab.posts == before
        with lab.at(lambda now: now):
            assert lab.go().done
        assert lab.posts == before
        lab.check()


def test_a_job_that_ended_is_fetched_however_far_the_clock_is_ahead():
    with WrongLab() as lab:
        with lab.at(lambda now: now):
            assert lab.go("submit").done
        lab.sleep(3600)
        with lab.at(lambda now: now + AHEAD):
            ending = lab.go()
        assert ending.done, ending.text
        lab.check()


# --- the whole tool -------------------------------------------------------------------------------

SHORT = CONFIG.replace("[0, 0.7]", "[0]").replace("samples_per_item: 2", "samples_per_item: 1")
WORDS = (f"rid={RID}", "config=experiment.yaml", "to=parse")


def whole(folder, wrong):
    """A run under a wrong clock and its resume under the right one: artifacts, and what was decided."""
    with showing(Clock(wrong, lambda: datetime.now(UTC))) as clock:
        ran = doit(tiny(folder, SHORT), *WORDS)
        assert ran.code == 0, ran.err
    assert clock.read > 10
    resumed = doit(folder, "resume", f"rid={RID}", "to=parse")
    assert resumed.code == 0, resumed.err
    jobs = [job.id for job in history.jobs(folder / "experiments" / f"run_{RID}" / ".emulator")]
    assert len(jobs) == len(set(jobs)) == 2
    assert leftovers(folder) == []
    return artifacts(folder), ran.worked, resumed.decisions


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("right"), lambda now: now)


@pytest.mark.parametrize("name", ["a day back", "frozen", "60 days ahead"])
def test_every_phase_decides_and_writes_the_same(quick_path, right, name):
    """Begun under the wrong clock and resumed under the right one: what is recorded lies in the future, or long ago."""
    found = whole(quick_path / "wrong", WRONG[name]())
    assert found == right
    assert {verb for verb, _ in found[2].values()} == {"skip"}
    assert ("parse", TRIAL) in found[2]
