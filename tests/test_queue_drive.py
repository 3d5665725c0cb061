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
