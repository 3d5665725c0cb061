"""When the loop of the queue gives up, and when it waits."""

from datetime import UTC, datetime, timedelta

import pytest
from queue_kit import CREATE_DATASET, CREATE_JOB, LINKS, SMALL, STORAGE, TWO_TRIALS, Lab, Layout

from pipeline.errors import NotReady, Unreachable
from pipeline.queue.context import Options
from pipeline.queue.outage import Outage

NOBODY = {"call": {"times": None}, "do": {"reset": True}}
REFUSED = {"respond": {"status": 403, "text": "no"}}


def test_nobody_is_waited_for_while_no_job_runs():
    """A wrong address took six minutes and eleven messages, part by part."""
    with Lab(SMALL, NOBODY) as lab:
        ending = lab.go()
        assert isinstance(ending.error, Unreachable), ending.text
        assert [line for line in ending.said if "Asking again" in line] == []
        assert lab.jobs() == []
        lab.heal()
        assert lab.go().done


def test_a_provider_that_is_silent_for_a_while_is_waited_for_while_a_job_runs():
    silent = {"call": {"method": "GET", "path": "batchInferenceJobs/", "skip": 2, "times": 9}, "do": {"reset": True}}
    with Lab(SMALL, silent) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert len(lab.calls("POST", CREATE_JOB["path"].rstrip("$"))) == 2
        assert any("Asking again" in line for line in ending.said), ending.said


def closed(seconds):
    """What a service says that wants to be left alone."""
    said = {"code": 14, "message": "maintenance"}
    return {"respond": {"status": 503, "headers": {"Retry-After": str(seconds)}, "json": said}}


def away(lab, seconds, asks, calls=None):
    """The service (for some *calls*) is away for so long, and asks each time to be left alone for *asks* seconds."""
    end, sleep = lab.now() + seconds, lab.sleep
    lab.fault({"call": {**(calls or {}), "times": None}, "do": closed(asks) if asks else {"reset": True}})

    def nap(length):
        sleep(length)
        if lab.now() >= end:
            lab.heal()

    lab.sleep = nap


def test_a_service_that_names_an_hour_is_left_alone_for_it_while_a_job_runs():
    """It was asked again after every poll, and given up after five of them: nothing was collected in the night."""
    gone = {"call": {"method": "GET", "path": "batchInferenceJobs/", "skip": 2, "times": 2}, "do": closed(3000)}
    with Lab(SMALL, gone) as lab:
        began = lab.now()
        ending = lab.go()
        assert ending.done, ending.text
        assert any("asks to wait 3000 s). Asking again in about 50 min." in line for line in ending.said), ending.said
        assert lab.now() - began > 3000
        assert lab.fired() == [2]
        lab.check()


def test_of_several_trials_a_job_that_is_not_to_be_asked_for_is_asked_for_when_its_time_has_come():
    """Each trial's own pass asked again at once: five trials used up all patience without a second's wait."""
    layout = Layout(items=2, models=tuple("abcdef"))
    with Lab(layout, queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go("submit").done
        job = next(job for job in lab.jobs() if lab.ledgers()["a-p/t0_control_p01"].last.job_id == job)
        lab.fault({"call": {"method": "GET", "path": f"batchInferenceJobs/{job}$", "times": 3}, "do": closed(3000)})
        began = lab.now()
        ending = lab.go("submit", "download")
        assert ending.done, ending.text
        assert lab.fired() == [3]
        assert 9000 < lab.now() - began < 9300
        lab.check()


@pytest.mark.parametrize("resting", [1, 2])
def test_parts_that_are_not_to_be_asked_for_hold_up_no_other(resting):
    with Lab(Layout(items=4, shards=2), queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go("submit").done
        for job in lab.jobs()[:resting]:
            rest = {"call": {"method": "GET", "path": f"batchInferenceJobs/{job}$", "times": 1}, "do": closed(3000)}
            lab.fault(rest)
        began, brought = lab.now(), []
        lab.before = lambda what: brought.append(lab.now()) if what.startswith("rename results.jsonl") else None
        ending = lab.go("download")
        assert ending.done, ending.text
        assert lab.fired() == [1] * resting
        assert [moment - began < 600 for moment in brought] == [True] * (4 - resting) + [False] * resting
        lab.check()


def test_a_service_that_takes_no_upload_for_an_hour_is_waited_for_although_the_other_job_has_ended():
    no_upload = {"call": {**CREATE_DATASET, "skip": 1, "times": 2}, "do": closed(3000)}
    with Lab(SMALL, no_upload) as lab:
        began = lab.now()
        ending = lab.go()
        assert ending.done, ending.text
        assert lab.fired() == [2]
        assert lab.now() - began > 6000
        lab.check()


def test_nobody_is_waited_for_who_names_an_hour_at_the_first_call():
    with Lab(TWO_TRIALS, {"call": {"times": None}, "do": closed(3000)}) as lab:
        began = lab.now()
        ending = lab.go()
        assert [type(error) for error in ending.errors.values()] == [Unreachable] * 2, ending.text
        assert all("asks to wait 3000 s" in str(error) for error in ending.errors.values())
        assert lab.now() - began < 60


@pytest.mark.parametrize("account", ["emulator", None])
@pytest.mark.parametrize("wait", [True, False])
def test_each_trial_is_told_that_nobody_is_there(account, wait):
    """Where the account was not known yet, the second trial ended in an IndexError."""
    with Lab(TWO_TRIALS, NOBODY) as lab:
        lab.account = account
        ending = lab.go(wait=wait)
        assert [type(error) for error in ending.errors.values()] == [Unreachable] * 2, ending.text
        lab.heal()
        assert lab.go().done
        lab.check()


def test_of_many_jobs_not_each_is_asked_for_five_times_until_a_dead_emulator_is_given_up():
    with Lab(Layout(items=8, shards=4, models=("m", "n")), queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go("submit").done
        lab.fault(NOBODY)
        began = lab.now()
        ending = lab.go("download")
        assert [type(error) for error in ending.errors.values()] == [Unreachable] * 2, ending.text
        assert lab.now() - began < 900
        lab.heal()
        assert lab.go("download").done
        lab.check()


def test_results_that_cannot_be_fetched_for_an_hour_are_waited_for_although_no_job_runs():
    """The last job had ended, so a network that was down then ended the night."""
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        away(lab, 3600, None, LINKS)
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert ending.done, ending.text
        assert len(lab.calls("GET", ":getDownloadEndpoint")) > 2 * 7
        lab.check()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_storage_that_accepts_no_fresh_link_is_an_answer_and_not_waited_for_like_an_outage(parts):
    """With the real service the command sat there for six hours, asking for links that were refused at once."""
    with Lab(Layout(items=2, shards=parts), {"call": {**STORAGE, "times": None}, "do": REFUSED}) as lab:
        assert lab.go("submit").done
        began = lab.now()
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert isinstance(ending.error, Unreachable), ending.text
        assert "storage answered 403" in str(ending.error)
        assert lab.now() - began < 3600
        assert lab.fired() == [5 * 7 * 2 * parts]
        assert any("the storage, which refuses its links" in said.waiting_for for said in ending.shown if said)
        lab.heal()
        assert lab.go("download").done
        lab.check()


def refuse(lab, jobs):
    """The storage accepts no link to the results of *jobs*."""
    for job in jobs:
        for file in lab.emulator.service.store.dataset(f"{job}-out").files:
            lab.fault({"call": {**STORAGE, "path": f"^/storage/.*{file.object_id}", "times": None}, "do": REFUSED})


def test_results_that_can_be_had_are_fetched_though_ten_others_are_refused():
    """Each pass ended at the second refusal, and five passes ended the command."""
    with Lab(Layout(items=6, shards=6), queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go("submit").done
        lab.sleep(900)
        refuse(lab, [book.last.job_id for _, book in sorted(lab.ledgers().items())][:10])
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert "storage answered 403" in str(ending.error)
        assert len(list(lab.run.root.rglob("results.jsonl"))) == 2
        assert all(fired % 7 == 0 and fired // 7 <= 5 for fired in lab.fired())
        lab.heal()
        assert lab.go("download").done
        lab.check()


def test_refused_parts_hold_up_neither_the_others_nor_new_jobs_where_nobody_waits():
    """From cron each command met the same two refusals and ended."""
    with Lab(Layout(items=4, shards=2), queue={"max_concurrent_jobs": 3}) as lab:
        lab.go("submit", wait=False)
        assert len(lab.jobs()) == 3
        lab.sleep(900)
        refuse(lab, [book.last.job_id for _, book in sorted(lab.ledgers().items())][:2])
        lab.go("submit", wait=False)
        assert len(lab.jobs()) == 4
        lab.sleep(900)
        ending = lab.go("download", wait=False)
        assert "storage answered 403" in ending.text
        assert len(list(lab.run.root.rglob("results.jsonl"))) == 2
        lab.heal()
        assert lab.go("download").done
        lab.check()


def test_one_refusal_after_a_long_silence_is_no_end():
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        file = next(file for file in lab.emulator.service.store.dataset(f"{lab.jobs()[0]}-out").files)
        link = {**STORAGE, "path": f"^/storage/.*{file.object_id}"}
        lab.fault(
            {"call": {**link, "times": 7 * 6}, "do": {"reset": True}}, {"call": {**link, "times": 7}, "do": REFUSED}
        )
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert ending.done, ending.text
        assert lab.fired() == [7 * 6, 7]
        lab.check()


def test_a_machine_that_slept_was_not_without_an_answer_all_night():
    """The lid was closed for eight hours; the first try after that, with no network yet, ended the command."""
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        lab.fault(NOBODY)
        began, sleep, asleep = lab.now(), lab.sleep, []

        def nap(length):
            sleep(length)
            if lab.now() - began > 20 * 60 and not asleep:
                sleep(8 * 3600)
                asleep.append(lab.now())
            elif asleep and lab.now() - asleep[0] > 60:
                lab.heal()

        lab.sleep = nap
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert ending.done, ending.text
        assert asleep
        lab.check()


def test_links_that_are_refused_keep_no_job_from_being_waited_for():
    slow = {"job": {"skip": 5, "times": 1}, "do": {"stuck": {"in": "RUNNING", "seconds": 4 * 3600}}}
    with Lab(Layout(items=3, shards=3), slow, queue={"max_concurrent_jobs": 100}) as lab:
        lab.poll = 300.0
        assert lab.go("submit").done
        lab.sleep(900)
        refuse(lab, lab.jobs()[:5])
        began = lab.now()
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert "storage answered 403" in str(ending.error)
        assert lab.now() - began > 3 * 3600
        assert len(list(lab.run.root.rglob("results.jsonl"))) == 1
        assert len(list(lab.run.root.rglob("results.jsonl"))) == 1
        lab.heal()
        assert lab.go("download").done
        lab.check()


def test_an_endless_outage_is_given_up_for_all_trials_at_once():
    with Lab(Layout(items=2, models=tuple("abcdef")), queue={"max_concurrent_jobs": 100}) as lab:
        lab.poll = 300.0
        assert lab.go("submit").done
        away(lab, 24 * 3600, 3600)
        began = lab.now()
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert [type(error) for error in ending.errors.values()] == [Unreachable] * 6, ending.text
        assert 6 * 3600 <= lab.now() - began < 8 * 3600
        assert len([line for line in ending.said if "out of reach" in line or "503" in line]) < 60
        lab.heal()
        assert lab.go("download").done
        lab.check()


@pytest.mark.parametrize("asks", [120, 200, 3600])
def test_an_outage_of_hours_is_waited_out_where_that_is_wanted_and_else_given_up(asks):
    with Lab(SMALL) as lab:
        lab.poll = 300.0
        assert lab.go("submit").done
        away(lab, 3 * 3600, asks)
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert ending.done, ending.text
        lab.check()
    with Lab(SMALL) as lab:
        lab.poll = 300.0
        assert lab.go("submit").done
        away(lab, 9 * 3600, asks)
        began = lab.now()
        ending = lab.go("download", outage_seconds=6 * 3600.0)
        assert isinstance(ending.error, Unreachable), ending.text
        assert 6 * 3600 <= lab.now() - began < 8 * 3600
        lab.heal()
        assert lab.go("download").done
        lab.check()


@pytest.mark.parametrize(("asks", "times"), [(3600, 1), (170, None)])
def test_without_waiting_nobody_waits_for_a_storage_that_asks_for_it(asks, times):
    """Its hour was slept through inside a pass, by a command that was told not to wait."""
    with Lab(SMALL, {"call": {**STORAGE, "times": times}, "do": closed(asks)}) as lab:
        assert lab.go("submit").done
        lab.sleep(300)
        began = lab.now()
        ending = lab.go("download", wait=False)
        assert isinstance(ending.error, NotReady | Unreachable), ending.text
        assert lab.fired()[0] >= 1
        assert lab.now() - began < 400
        assert [line for line in ending.said if "Asking again" in line] == []
        lab.heal()
        assert lab.go("download").done
        lab.check()


def test_a_clock_that_is_set_back_ends_no_rest_in_the_future():
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    outage = Outage()
    error = Unreachable("away")
    error.wait = 3000.0
    assert outage.note(error, now, Options(poll_seconds=30.0)) == 3000.0
    assert outage.resting(now + timedelta(seconds=2999))
    assert not outage.resting(now + timedelta(seconds=3000))
    assert not outage.resting(now - timedelta(days=1))
    for _ in range(2_000):  # a clock that is set back each night, a poll of a second
        assert outage.note(Unreachable("away"), now, Options(poll_seconds=0.1)) <= 600.0
    outage.over()
    assert (outage.times, outage.resting(now)) == (0, False)
