"""kill -9 at random moments, replies lost at random, over a run of several parts and trials.

FAULT_KILLS sets how many kills the long test makes (default 1,000), FAULT_SEED where it begins; both
are printed with the figures. If this failed, an interrupted run would pay twice or differ.
"""

import os
import random
import signal
import time

import pytest
from process_kit import Case, case, golden

MODELS, SHARDS = 2, 2
PARTS = 2 * MODELS * SHARDS
KILLS_A_RUN = 6
CALLS = ({"method": "POST"}, {"method": "GET"}, {"method": "POST", "path": "batchInferenceJobs$"})
REPLIES = ({"reset": True}, {"reset": True, "commit": True}, {"respond": "html_502", "commit": True})


def calls(run: Case) -> int:
    return len(run.emulator.service.store.calls())


def kill_somewhere(run: Case, chance: random.Random, *words: str) -> bool:
    """Start a resume and kill it some time later; whether it was still alive then.

    Half of the kills count their time from its first call: on a busy machine the others all came before it.
    """
    before = calls(run)
    child = run.start("resume", "rid=f", *words)
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0.3, 1.8))
    else:
        while calls(run) == before and child.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1.0))
    if child.poll() is not None:
        return False
    os.killpg(child.pid, signal.SIGKILL)
    return child.wait() == -signal.SIGKILL  # it may have been on its way out just then


def one_run(chance: random.Random, kills: int, *words: str) -> tuple[int, int]:
    """Kill one run up to *kills* times, then let it finish and check all of it; kills made and replies lost."""
    made = lost = 0
    wanted = golden(words, MODELS, SHARDS)
    with case(models=MODELS, shards=SHARDS) as run:
        for _ in range(kills):
            rules = [
                {"call": {**chance.choice(CALLS), "skip": chance.randrange(9)}, "do": chance.choice(REPLIES)}
                for _ in range(chance.randrange(6))
            ]
            run.fault(*rules)
            made += kill_somewhere(run, chance, *words)
            lost += sum(rule["fired"] for rule in run.emulator.service.faults.listing())
            run.heal()
        run.resume(*words)
        run.check_jobs(PARTS)
        found = run.artifacts()
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []
        posts, before = run.posts(), run.state()
        run.resume(*words)
        assert (run.posts(), run.state()) == (posts, before), "a resume of a finished run did something"
    return made, lost


def test_a_few_kills():
    chance = random.Random(5)
    made, _ = one_run(chance, 2, "to=download")
    assert made > 0


@pytest.mark.heavy
def test_many_kills(capsys):
    wanted, seed = int(os.environ.get("FAULT_KILLS", "1000")), int(os.environ.get("FAULT_SEED", "1"))
    made = lost = runs = 0
    while made < wanted:
        chance = random.Random(seed + runs)
        words = ("to=download",) if runs % 4 else ()  # every fourth run goes all the way to the report
        try:
            now = one_run(chance, KILLS_A_RUN, *words)
        except AssertionError as error:
            raise AssertionError(f"seed {seed + runs}") from error
        made, lost, runs = made + now[0], lost + now[1], runs + 1
    with capsys.disabled():
        print(
            f"\n{made:,} kills and {lost:,} lost replies in {runs} runs of {PARTS} parts (seeds {seed} to "
            f"{seed + runs - 1}): 0 duplicate jobs, 0 lost rows, 0 differing bytes"
        )
    assert lost > 0, "no reply was ever lost"
