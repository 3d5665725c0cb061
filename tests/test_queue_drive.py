"""When the loop of the queue gives up, and when it waits."""

from queue_kit import CREATE_JOB, SMALL, Lab

from pipeline.errors import Unreachable

NOBODY = {"call": {"times": None}, "do": {"reset": True}}


def test_nobody_is_waited_for_while_no_job_runs():
    """A wrong address took six minutes and eleven messages, part by part."""
    with Lab(SMALL, NOBODY) as lab:
        ending = lab.go()
        assert isinstance(ending.error, Unreachable), ending.text
        assert [line for line in ending.said if "Asking again later" in line] == []
        assert lab.jobs() == []
        lab.heal()
        assert lab.go().done


def test_a_provider_that_is_silent_for_a_while_is_waited_for_while_a_job_runs():
    silent = {"call": {"method": "GET", "path": "batchInferenceJobs/", "skip": 2, "times": 9}, "do": {"reset": True}}
    with Lab(SMALL, silent) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert len(lab.calls("POST", CREATE_JOB["path"].rstrip("$"))) == 2
        assert any("Asking again later" in line for line in ending.said), ending.said


def test_a_service_that_names_an_hour_is_left_alone_for_it_while_a_job_runs():
    """It was asked again after every poll, and given up after five of them: nothing was collected in the night."""
    closed = {"status": 503, "headers": {"Retry-After": "3000"}, "json": {"code": 14, "message": "maintenance"}}
    away = {"call": {"method": "GET", "path": "batchInferenceJobs/", "skip": 2, "times": 2}, "do": {"respond": closed}}
    with Lab(SMALL, away) as lab:
        began = lab.now()
        ending = lab.go()
        assert ending.done, ending.text
        assert any("asks to wait 3000 s" in line for line in ending.said), ending.said
        assert lab.now() - began > 3000
        assert len(lab.calls("POST", CREATE_JOB["path"].rstrip("$"))) == 2
