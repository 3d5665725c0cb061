"""From a job's end to a part's results: every state, every shape of rows, every way a job may go wrong.

If one of these failed, rows that were paid for would be thrown away, asked again without need, taken
for something they are not, or waited for without an end.
"""

from collections import Counter
from datetime import UTC, datetime

import pytest
from emulator_kit import Api
from queue_kit import (
    CREATE_DATASET,
    CREATE_JOB,
    JOB,
    JOB_SECONDS,
    LINKS,
    SMALL,
    TEN_ROWS,
    TWO_TRIALS,
    Crash,
    Lab,
    forever,
    golden,
    part_of,
)

from pipeline import jsonl
from pipeline.emulator import history
from pipeline.errors import EXIT_NOT_READY, ContractBroken, ProviderError, Refused

CONTROL = "m-p/t0_control_p01"
GET_JOB = {"method": "GET", "path": f"{JOB}/", "times": None}


def ends(state, at=0.6, **more):
    """Every first attempt ends like this."""
    return {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": state, "at": at, **more}}}


def rows_fault(do, pick=None, **more):
    """Every first attempt has this wrong with its rows."""
    return {"job": {"id": "-a1-", "times": None}, "do": {"rows": [{"pick": pick or {}, "do": do, **more}]}}


def attempts(lab, part=CONTROL):
    return lab.ledgers()[part].attempts


# --- names and figures a client must bear -----------------------------------------------------------------


@pytest.mark.parametrize(
    "deeds",
    [
        {"bare_states": True},
        {"states": {"RUNNING": "JOB_STATE_TAKING_A_NAP", "PENDING": "SOMETHING_ELSE"}},
        {"states": {"RUNNING": "JOB_STATE_UNSPECIFIED", "VALIDATING": ""}},
        {"progress": "strings"},
    ],
    ids=["bare names", "unknown states", "no state", "numbers as strings"],
)
def test_names_and_figures_of_any_spelling_are_understood(deeds):
    with Lab(SMALL, forever({"job": {}, "do": deeds})) as lab:
        assert lab.go().done
        assert lab.fired() == [2]
        assert attempts(lab)[0].counts["succeeded"] == 2
        lab.check()


@pytest.mark.parametrize(
    "edit",
    [
        {"set": {"jobProgress": None}},
        {"drop": ["jobProgress", "lifecycle", "placement", "status", "expireTime", "createTime", "displayName"]},
        {"set": {"jobProgress": {"successfullyProcessedRequests": None, "failedRequests": "many"}}},
        {"set": {"newField": {"a": [1]}, "state2": 7}},
    ],
    ids=["no progress", "fields missing", "odd figures", "new fields"],
)
def test_a_job_resource_with_missing_or_odd_fields_is_no_reason_to_stop(edit):
    with Lab(SMALL, {"call": GET_JOB, "do": {"edit": edit}}) as lab:
        # What is not there yet (404) has no fields to edit.
        assert lab.go("submit").done
        assert lab.go().done
        assert lab.fired()[0] > 2
        lab.check()


def test_without_any_counts_a_completed_job_must_account_for_each_row():
    """Counts are null and a row is in neither file: the ladder notices by itself."""
    hide = {"call": GET_JOB, "do": {"edit": {"set": {"jobProgress": None}}}}
    with Lab(TEN_ROWS, hide, rows_fault("drop", {"every": 10})) as lab:
        ending = lab.go()
        assert ending.done
        assert any("1 of 10 rows are in neither file" in line for line in ending.said)
        assert [attempt.rows for attempt in attempts(lab)] == [10, 1]
        lab.check(jobs=4)


ZEROS = {f"jobProgress.{name}": 0 for name in ("successfullyProcessedRequests", "failedRequests")}


@pytest.mark.parametrize("state", ["COMPLETED", "EXPIRED"])
@pytest.mark.parametrize("said", [ZEROS, {"jobProgress": None}], ids=["zeros", "null"])
@pytest.mark.parametrize("what", ["an empty file", "no file of answers"])
def test_a_job_that_counts_nothing_is_not_believed_to_have_answered_nothing_after_one_look(state, said, what):
    """History: the gateway writes 0 for what nobody filled in; one look at an empty file led to a second job."""
    hide = {"call": {**GET_JOB, "path": f"{JOB}/[^/]*-a1-"}, "do": {"edit": {"set": said}}}
    with Lab(TEN_ROWS, hide, *([ends(state)] if state == "EXPIRED" else [])) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        lab.sleep(600)
        if what == "an empty file":
            empty = {"respond": {"status": 200, "text": ""}}
            lab.fault({"call": {"method": "GET", "path": "^/storage/.*BIJOutputSet"}, "do": empty})
        else:
            errors = {name: url for name, url in api.links(f"{lab.jobs()[0]}-out").items() if "error" in name}
            lab.fault({"call": {**LINKS, "times": 1}, "do": {"edit": {"set": {"filenameToSignedUrls": errors}}}})
        assert lab.go().done
        assert lab.fired()[-1] == 1
        left = [attempt.rows for attempt in attempts(lab)]
        assert left == ([10, 4] if state == "EXPIRED" else [10])
        lab.check(jobs=4 if state == "EXPIRED" else 2)


def test_a_failed_job_that_counts_answers_is_looked_into():
    """The sheet knows of no output of a FAILED job; where the job says that it answered rows, one asks."""
    failed = {"call": GET_JOB, "do": {"edit": {"set": {"state": "JOB_STATE_FAILED"}}}}
    with Lab(SMALL) as lab:
        lab.go("submit")
        lab.sleep(600)
        lab.fault(failed)
        assert lab.go().done
        assert lab.fired()[0] > 0
        lab.check()


def test_an_output_dataset_id_that_is_none_does_not_stop_the_queue():
    """History: the ledger took no such id, so that each run ended in a traceback."""
    odd = {"edit": {"set": {"outputDatasetId": "accounts/emulator/datasets/../../../x?y#z"}}}
    with Lab(SMALL, {"call": GET_JOB, "do": odd}) as lab:
        assert lab.go().done
        assert lab.fired()[0] > 2
        lab.check()


RUNNING_STATES = (
    *("VALIDATING", "PENDING", "CREATING", "RUNNING", "WRITING_RESULTS", "RE_QUEUEING", "CREATING_INPUT_DATASET"),
    *("IDLE", "PAUSED", "UNSPECIFIED", "CANCELLING", "EXPIRED_CLEANING_UP", "FAILED_CLEANING_UP", "A_NEW_ONE"),
)
GONE_STATES = ("DELETING", "DELETING_CLEANING_UP", "DELETED", "ARCHIVED")


@pytest.mark.parametrize("state", RUNNING_STATES)
def test_a_job_in_such_a_state_is_waited_for(state):
    """The table of the API sheet, as far as it runs; no new job may come of any of these names."""
    seen = {"call": {**GET_JOB, "skip": 2, "times": 4}, "do": {"edit": {"set": {"state": f"JOB_STATE_{state}"}}}}
    with Lab(SMALL, seen) as lab:
        assert lab.go().done
        assert lab.fired() == [4]
        assert {attempt.state for attempt in attempts(lab)} == {"COMPLETED"}
        lab.check()


@pytest.mark.parametrize("state", GONE_STATES)
def test_a_job_in_such_a_state_has_ended(state):
    path = f"{JOB}/[^/]*-a1-[^/]*$"
    seen = {
        "call": {"method": "GET", "path": path, "skip": 2, "times": None},
        "do": {"edit": {"set": {"state": state}}},
    }
    with Lab(SMALL, seen) as lab:
        assert lab.go().done
        assert [attempt.state for attempt in attempts(lab)] == [state, "COMPLETED"]
        lab.check(jobs=4)


# --- jobs that do not end, or not well ---------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["VALIDATING", "PENDING", "CREATING"])
def test_a_job_that_never_ends_is_told_after_its_deadline(stage):
    stuck = {"job": {"times": 1}, "do": {"stuck": {"in": stage, "seconds": 400 * 3600}}}
    with Lab(SMALL, stuck, queue={"job_deadline_hours": 30}) as lab:
        lab.poll = 3600.0
        ending = lab.go()
        assert isinstance(ending.error, ProviderError)
        assert f"the job has been {stage} since" in str(ending.error)
        assert "an unsupported model can wait for ever" in str(ending.error)
        assert len(lab.jobs()) == 2
        lab.sleep(400 * 3600)
        assert lab.go().done
        lab.check()


def test_a_deadline_counts_from_the_intent_where_the_line_of_acceptance_is_damaged():
    stuck = {"job": {"times": 2}, "do": {"stuck": {"in": "PENDING", "seconds": 400 * 3600}}}
    with Lab(SMALL, stuck, queue={"job_deadline_hours": 30}) as lab:
        lab.go("submit")
        lab.sleep(3600)
        assert lab.go(wait=False).error.exit_code == EXIT_NOT_READY  # the ledgers now say PENDING
        for book in lab.run.root.glob("*/results/*/ledger.jsonl"):
            lines = book.read_bytes().splitlines(keepends=True)
            assert b'"accepted"' in lines[1]
            book.write_bytes(lines[0] + b'{"torn\n' + b"".join(lines[2:]))
        assert all(attempt.accepted and attempt.accepted_at is None for attempt in attempts(lab))
        lab.sleep(28 * 3600)
        assert lab.go(wait=False).error.exit_code == EXIT_NOT_READY
        lab.sleep(3 * 3600)
        assert "the job has been PENDING since" in str(lab.go(wait=False).error)
        assert len(lab.jobs()) == 2


def test_an_unknown_state_that_stays_is_told_after_its_deadline():
    nap = {"call": GET_JOB, "do": {"edit": {"set": {"state": "JOB_STATE_NAPPING"}}}}
    with Lab(SMALL, nap) as lab:
        lab.poll = 4 * 3600.0
        ending = lab.go()
        assert "the job has been NAPPING since" in str(ending.error)
        lab.heal()
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize(
    ("expires", "hours"),
    [(None, 30), (20, 30), (50, 51), (24 * 365, 73), ("9999-12-31T23:59:59Z", 73), ("9999-12-31T23:59:59-14:00", 73)],
)
def test_a_job_is_waited_for_until_its_window_closed_but_not_for_ever(expires, hours):
    """History: a year far ahead ended in an OverflowError, and one less far switched the deadline off."""
    with Lab(SMALL, queue={"job_deadline_hours": 30}) as lab:
        lab.go("submit")
        if isinstance(expires, int):
            expires = f"{datetime.fromtimestamp(lab.now() + expires * 3600, UTC):%Y-%m-%dT%H:%M:%SZ}"
        lab.fault({"call": GET_JOB, "do": {"edit": {"set": {"state": "RUNNING", "expireTime": expires}}}})
        lab.sleep((hours - 0.1) * 3600)
        assert lab.go(wait=False).error.exit_code == EXIT_NOT_READY
        lab.sleep(0.2 * 3600)
        assert "the job has been RUNNING since" in str(lab.go(wait=False).error)
        assert lab.fired()[0] >= 4
        lab.heal()
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize("state", ["EXPIRED", "EARLY_STOPPED"])
def test_a_job_that_ends_early_is_completed_by_asking_for_exactly_the_missing_rows(state):
    with Lab(TEN_ROWS, ends(state)) as lab:
        ending = lab.go()
        assert ending.done
        assert [(attempt.state, attempt.rows) for attempt in attempts(lab)] == [(state, 10), ("COMPLETED", 4)]
        assert any("(attempt 2, 4 rows still owed)" in line for line in ending.said)
        first, second = (set(lab.asked(CONTROL, number)) for number in (1, 2))
        answered = {row["custom_id"] for row in lab.raw(CONTROL, 1)}
        assert second == first - answered
        lab.check(jobs=4)


def test_requests_that_a_kill_left_behind_are_not_taken_for_what_is_owed():
    """The file of a second attempt that never got its intent may hold rows that were answered since."""
    with Lab(TEN_ROWS, ends("EXPIRED")) as lab:
        assert lab.go("submit").done
        folder = part_of(lab, "control") / "a2"
        folder.mkdir()
        (requests,) = lab.run.root.glob("*/batch_inputs/t0_control*.jsonl")
        (folder / "requests.jsonl").write_bytes(requests.read_bytes())
        assert lab.go().done
        assert [attempt.rows for attempt in attempts(lab)] == [10, 4]
        lab.check(jobs=4)


def test_costs_count_both_attempts():
    with Lab(TEN_ROWS, ends("EXPIRED")) as lab:
        assert lab.go().done
        for part in lab.attempts():
            told = [attempt["counts"] for attempt in part["attempts"]]
            jobs = [job.counts for job in history.jobs(lab.store) if job.id in {a["job_id"] for a in part["attempts"]}]
            assert [counts["input_tokens"] for counts in told] == [counts.input_tokens for counts in jobs]
            assert [counts["succeeded"] for counts in told] == [6, 4]
            assert part["succeeded"] == 10


def test_a_job_that_ends_early_with_nothing_is_asked_again_as_a_whole():
    with Lab(SMALL, ends("EXPIRED", at=0.0)) as lab:
        assert lab.go().done
        assert [attempt.rows for attempt in attempts(lab)] == [2, 2]
        lab.check(jobs=4)


def test_a_job_whose_window_closes_keeps_its_rows():
    """The emulator's own expiry after 24 hours, not a script's."""
    slow = {"job": {"id": "-a1-", "times": None}, "do": {"stuck": {"in": "RUNNING", "seconds": 30 * 3600}}}
    with Lab(TEN_ROWS, slow) as lab:
        lab.poll = 3600.0
        assert lab.go().done
        assert [attempt.state for attempt in attempts(lab)] == ["EXPIRED", "COMPLETED"]
        assert sum(attempt.rows for attempt in attempts(lab)) > 10
        lab.check(jobs=4)


def test_a_cancelled_job_is_asked_again():
    with Lab(SMALL, ends("CANCELLED")) as lab:
        assert lab.go().done
        assert [attempt.state for attempt in attempts(lab)] == ["CANCELLED", "COMPLETED"]
        lab.check(jobs=4)


def test_input_that_the_provider_refuses_is_not_sent_again():
    with Lab(SMALL, forever({"job": {}, "do": {"fail": "Dataset has a syntax error: line 2: bad role"}})) as lab:
        ending = lab.go()
        assert isinstance(ending.error, ProviderError)
        assert "refused the input of t0_control_p01: INVALID_ARGUMENT: Dataset has a syntax error" in str(ending.error)
        assert "start a new run" in str(ending.error)
        assert not lab.go().done  # and a resume does not pay for another try either
        assert len(lab.jobs()) == 2


def test_a_job_that_fails_for_another_reason_is_asked_again():
    with Lab(SMALL, ends("FAILED", message="internal error")) as lab:
        ending = lab.go()
        assert ending.done
        assert [attempt.state for attempt in attempts(lab)] == ["FAILED", "COMPLETED"]
        assert "internal error" in attempts(lab)[0].message
        lab.check(jobs=4)


def looks(lab):
    """How often the provider said that the control part's first job is not there."""
    calls = lab.calls("GET", f"{JOB}/{attempts(lab)[0].job_id}")
    return sum(call["status"] == 404 for call in calls)


def test_a_job_that_somebody_deletes_is_looked_for_twice_and_asked_again():
    with Lab(SMALL) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        api.delete(f"/{JOB}/{lab.jobs()[0]}")
        lab.sleep(5)
        assert lab.go().done
        assert looks(lab) == 4  # before the create; at submit, at download without a pause, and after one
        assert [attempt.state for attempt in attempts(lab)] == ["NOT_FOUND", "COMPLETED"]
        lab.check(jobs=3)


@pytest.mark.parametrize("stage", ["PENDING", "RUNNING", "WRITING_RESULTS"])
def test_results_of_a_job_that_vanished_are_looked_for_before_anything_is_asked_again(stage):
    with Lab(SMALL, forever({"job": {}, "do": {"vanish": stage}})) as lab:
        assert lab.go().done
        assert looks(lab) == 3
        assert [attempt.state for attempt in attempts(lab)] == ["NOT_FOUND"]
        lab.check()


def test_a_job_that_cannot_be_found_once_is_not_gone():
    blink = {"call": {**GET_JOB, "skip": 3, "times": 1}, "do": {"respond": "not_found"}}
    with Lab(SMALL, blink) as lab:
        assert lab.go().done
        assert lab.fired() == [1]
        lab.check()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("wait", [True, False])
def test_two_looks_without_a_pause_are_one_look(times, wait):
    """History: submit and download each looked, a tenth of a second apart, and the running job was paid for again."""
    with Lab(SMALL) as lab:
        lab.go("submit")
        blink = {"method": "GET", "path": f"{JOB}/{lab.jobs()[0]}$", "times": times}
        lab.fault({"call": blink, "do": {"respond": "not_found"}})
        lab.go(wait=wait)
        assert lab.fired() == [times]
        lab.sleep(600)
        assert lab.go().done
        assert {attempt.state for attempt in attempts(lab)} == {"COMPLETED"}
        lab.check()


def test_a_gateway_that_knows_no_route_says_nothing_about_jobs():
    """History: `{"detail": "Not Found"}` for a while, and every running job was paid for again."""
    with Lab(SMALL) as lab:
        lab.go("submit")
        nowhere = {"respond": {"status": 404, "json": {"detail": "Not Found"}}}
        lab.fault({"call": {"method": "GET", "times": 16}, "do": nowhere})
        assert lab.go().done
        assert lab.fired() == [16]
        lab.check()


def test_a_look_that_the_clock_puts_into_the_future_is_not_waited_for():
    with Lab(SMALL) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        api.delete(f"/{JOB}/{lab.jobs()[0]}")
        lab.sleep(5)
        real, lab.now = lab.now, lambda: real() + 365 * 86400
        assert not lab.go("submit", wait=False).errors
        assert attempts(lab)[0].state == "NOT_FOUND"
        lab.now = real
        assert lab.go().done
        lab.check(jobs=3)


def test_a_job_that_is_deleted_after_its_end_leaves_its_results():
    with Lab(SMALL) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        lab.sleep(600)
        for job in lab.jobs():
            api.delete(f"/{JOB}/{job}")
        assert lab.go().done
        lab.check()


def test_a_job_that_nobody_saw_before_it_was_deleted_leaves_its_results_too():
    """Accepted, the reply lost, this process killed, the job finished and then removed: its output is paid for."""
    with Lab(SMALL, {"call": {**CREATE_JOB, "times": 1}, "do": {"reset": True, "commit": True}}) as lab:

        def before(what):
            if lab.jobs():
                raise Crash

        lab.before = before
        with pytest.raises(Crash):
            lab.go()
        lab.before = lambda _what: None
        (job,) = lab.jobs()
        assert not lab.ledgers()[CONTROL].last.accepted
        lab.sleep(600)
        with Api(lab.emulator.url) as api:
            assert api.delete(f"/{JOB}/{job}").status_code == 200
        lab.sleep(60)
        assert lab.go().done
        assert [attempt.state for attempt in attempts(lab)] == ["NOT_FOUND"]
        lab.check()


def test_a_job_that_is_just_being_deleted_has_ended():
    with Lab(SMALL, emulator={"delete_seconds": 3600}) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        api.delete(f"/{JOB}/{lab.jobs()[0]}")
        assert lab.go().done
        assert [attempt.state for attempt in attempts(lab)] == ["DELETING_CLEANING_UP", "COMPLETED"]
        lab.check(jobs=3)


# --- asking again ----------------------------------------------------------------------------------------------


def test_where_the_user_is_to_be_asked_nothing_is_sent_again_before_that():
    with Lab(TEN_ROWS, ends("EXPIRED"), queue={"requeue": "ask"}) as lab:
        ending = lab.go()
        assert isinstance(ending.error, Refused)
        assert "4 of 10 rows of t0_control_p01 are still owed after attempt 1 (EXPIRED)" in str(ending.error)
        assert "requeue=auto asks for exactly these rows" in str(ending.error)
        assert len(lab.jobs()) == 2
        assert lab.go(requeue="auto").done
        lab.check(jobs=4)


def test_where_nothing_may_be_asked_again_the_missing_rows_say_so():
    with Lab(TEN_ROWS, ends("EXPIRED"), queue={"requeue": "never"}) as lab:
        ending = lab.go()
        assert ending.done
        assert f"{CONTROL}: 4 of 10 rows have no answer" in ending.said
        missing = [row for row in lab.rows() if "error" in row]
        assert len(missing) == 8
        assert missing[0]["error"]["message"] == "the provider returned no row for this request"
        assert len(lab.jobs()) == 2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_row_is_asked_more_often_than_allowed(most):
    always = forever({"job": {}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}})
    with Lab(TEN_ROWS, always, queue={"max_attempts": most}) as lab:
        assert lab.go().done
        left = {1: [10], 2: [10, 5], 3: [10, 5, 3]}[most]
        assert [attempt.rows for attempt in attempts(lab)] == left
        asked = Counter(name for number in range(1, most + 1) for name in lab.asked(CONTROL, number))
        assert max(asked.values()) == most
        assert sum("error" in row for row in lab.rows()) == 2 * {1: 5, 2: 3, 3: 2}[most]


def test_raising_the_limit_asks_for_what_is_still_missing():
    """The results that were settled without a record of the phase are judged anew."""
    always = forever({"job": {}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}})
    with Lab(TEN_ROWS, always, queue={"max_attempts": 1}) as lab:
        assert lab.go().done
        lab.heal()
        lab.change(queue={"max_attempts": 2})
        ending = lab.go()
        assert ending.done
        assert any(
            "results.jsonl is not what the answers come to; kept as results.jsonl.damaged" in x for x in ending.said
        )
        lab.check(jobs=4)


# --- rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        rows_fault("wrap"),
        rows_fault("id_key", key="customId"),
        rows_fault("id_key", key="request_id"),
        rows_fault("blank"),
        rows_fault("twice"),
        rows_fault("both", {"every": 2}),
        {"job": {"times": None}, "do": {"files": {"success": "results.jsonl"}}},
        {"job": {"times": None}, "do": {"files": {"success": "results-0.jsonl", "error": "my-errors.jsonl"}}},
        {"job": {"times": None}, "do": {"files": {"error": None}}},
    ],
)
def test_rows_in_any_shape_come_to_the_same_results(fault):
    with Lab(TEN_ROWS, fault) as lab:
        assert lab.go().done
        assert lab.fired() == [2]
        if "rows" in fault["do"]:
            assert lab.touched()[fault["do"]["rows"][0]["do"]] > 0
        lab.check()


@pytest.mark.parametrize("shape", ["object", "string", "wrapped", "extra", "null_response"])
@pytest.mark.parametrize("file", ["success", "error"])
def test_rows_that_failed_are_asked_again_whatever_the_error_looks_like(shape, file):
    fault = rows_fault("error", {"every": 5}, shape=shape, file=file, code=503)
    with Lab(TEN_ROWS, fault) as lab:
        assert lab.go().done
        assert [attempt.rows for attempt in attempts(lab)] == [10, 2]
        lab.check(jobs=4)


@pytest.mark.parametrize(
    ("code", "again"),
    [
        *((code, False) for code in (400, 403, 404, 413)),
        *((code, True) for code in (402, 408, 412, 429, 499, 500)),
        *(("500", True), ("INTERNAL", True)),
    ],
)
def test_a_row_is_asked_again_unless_its_error_would_be_the_same(code, again):
    with Lab(TEN_ROWS, rows_fault("error", {"every": 5}, code=code, message="because")) as lab:
        ending = lab.go()
        assert ending.done
        if again:
            lab.check(jobs=4)
            return
        assert len(lab.jobs()) == 2
        failed = [row for row in lab.rows() if "error" in row]
        assert [row["error"] for row in failed] == [{"attempts": 1, "code": code, "message": "because"}] * 4


def test_a_part_of_which_every_row_failed_keeps_the_errors_and_does_not_stop_the_others():
    fault = {"job": {"times": 1}, "do": {"rows": [{"do": "error", "code": 400, "message": "too long"}]}}
    with Lab(SMALL, fault) as lab:
        assert lab.go().done
        assert [("error" in row) for row in lab.rows()] == [True, True, False, False]
        assert len(lab.jobs()) == 2


def test_a_trial_of_which_every_row_failed_is_an_error():
    fault = {"job": {"times": None}, "do": {"rows": [{"do": "error", "code": 400, "message": "too long"}]}}
    with Lab(SMALL, fault) as lab:
        ending = lab.go()
        assert isinstance(ending.error, ContractBroken)
        assert "all 4 rows of m-p failed" in str(ending.error)


def aside(lab, part="control"):
    path = part_of(lab, part) / "set_aside.jsonl"
    return [jsonl.loads(line.data) for line in jsonl.lines(path)] if path.exists() else []


def test_a_corrupt_line_is_named_kept_aside_and_its_row_asked_again():
    with Lab(TEN_ROWS, rows_fault("corrupt", {"every": 10})) as lab:
        assert lab.go().done
        (entry,) = aside(lab)
        assert (entry["attempt"], entry["file"]) == (1, "BIJOutputSet.jsonl")
        assert entry["reason"].startswith("not JSON")
        assert entry["raw"].startswith('{"custom_id"')
        assert [attempt.rows for attempt in attempts(lab)] == [10, 1]
        lab.check(jobs=4)


@pytest.mark.parametrize("line", ['{"custom_id": 7}', "[]", "null", '{"a": NaN}', '{"response": {}}', "\x00"])
def test_a_line_that_is_no_row_is_kept_aside(line):
    with Lab(TEN_ROWS, rows_fault("raw", {"every": 10}, line=line)) as lab:
        assert lab.go().done
        (entry,) = aside(lab)
        assert entry["raw"] == line
        lab.check(jobs=4)


def test_rows_that_nobody_asked_for_are_kept_aside_and_change_nothing():
    with Lab(TEN_ROWS, rows_fault("foreign", {"every": 5})) as lab:
        assert lab.go().done
        assert [entry["reason"] for entry in aside(lab)] == ["an id nobody asked for"] * 2
        lab.check()


def test_two_answers_to_one_row_are_both_kept_aside_and_the_row_is_asked_again():
    with Lab(TEN_ROWS, rows_fault("conflict", {"every": 5})) as lab:
        assert lab.go().done
        entries = aside(lab)
        assert Counter(entry["reason"] for entry in entries) == {"answered twice with other content": 4}
        assert [attempt.rows for attempt in attempts(lab)] == [10, 2]
        lab.check(jobs=4)


def test_two_answers_to_one_row_are_an_error_where_it_may_not_be_asked_again():
    """History: the second `doit resume` took the row for missing and went on."""
    with Lab(TEN_ROWS, rows_fault("conflict", {"every": 5}), queue={"max_attempts": 1}) as lab:
        for _ in range(2):
            ending = lab.go()
            assert isinstance(ending.error, ContractBroken)
            assert "2 rows were answered twice with different content, e.g. d|q" in str(ending.error)
            assert "raise queue.max_attempts" in str(ending.error)
            assert len(aside(lab)) == 4
        assert len(lab.jobs()) == 2
        lab.change(queue={"max_attempts": 2})
        assert lab.go().done
        lab.check(jobs=4)


@pytest.mark.parametrize("do", ["length", "empty", "plain_usage", "reasoning", "choices"])
def test_odd_answers_are_answers(do):
    with Lab(TEN_ROWS, rows_fault(do, {"every": 2})) as lab:
        assert lab.go().done
        assert lab.touched()[do] > 0
        assert len(lab.jobs()) == 2
        assert all("response" in row for row in lab.rows())


def test_results_come_in_request_order_although_the_provider_shuffles():
    with Lab(TEN_ROWS) as lab:
        assert lab.go().done
        sent = lab.asked(CONTROL, 1)
        assert [row["custom_id"] for row in lab.raw(CONTROL, 1)] != sent
        part = part_of(lab, "control")
        assert [jsonl.loads(line.data)["custom_id"] for line in jsonl.lines(part / "results.jsonl")] == sent


# --- results that stand there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["edited", "cut", "emptied", "reordered", "a folder", "a link"])
def test_results_that_are_not_what_the_answers_come_to_are_kept_aside_and_made_again(how):
    with Lab(TEN_ROWS) as lab:
        assert lab.go().done
        path = part_of(lab, "control") / "results.jsonl"
        data = path.read_bytes()
        rows = data.splitlines(keepends=True)
        match how:
            case "edited":
                path.write_bytes(data[:-30] + b"\n")
            case "cut":
                path.write_bytes(b"".join(rows[:6]))
            case "emptied":
                path.write_bytes(b"")
            case "reordered":
                path.write_bytes(b"".join(rows[::-1]))
            case "a folder":
                path.unlink()
                path.mkdir()
            case "a link":
                path.unlink()
                path.symlink_to("/etc/hostname")
        assert lab.go().done
        kept = list(path.parent.glob("results.jsonl.damaged.*"))
        assert len(kept) == (how != "emptied")
        lab.check()


def test_results_without_ledger_and_raw_files_are_believed_when_they_hold_the_parts_rows():
    """As in an archive, which has neither ledger nor key."""
    with Lab(TEN_ROWS, ends("EXPIRED"), queue={"requeue": "never"}) as lab:
        assert lab.go().done
        before = lab.artifacts()
        for path in lab.run.root.glob("*/results/*/ledger.jsonl"):
            path.unlink()
        lab.emulator.stop()
        assert lab.go().done
        assert lab.artifacts() == before


def test_progress_tells_parts_rows_and_what_is_waited_for():
    with Lab(TEN_ROWS) as lab:
        lab.poll = JOB_SECONDS / 10
        ending = lab.go()
        shown = [progress for progress in ending.shown if progress]
        assert {reason for progress in shown for reason in progress.waiting_for} >= {"validating", "running"}
        assert [progress.rows_done for progress in shown] == sorted(progress.rows_done for progress in shown)
        middle = next(progress for progress in shown if 0 < progress.rows_done < 20)
        assert middle.line.startswith(f"m-p: 0 of 2 parts finished, {middle.rows_done} of 20 rows, {middle.tokens:,} ")
        assert middle.line.endswith(" left; waiting for: running")
        assert middle.usd is None  # this lab knows no prices
        assert middle.as_json()["event"] == "progress"
        assert ending.shown[-1] is None
        assert lab.artifacts() == golden(TEN_ROWS)


def test_progress_counts_the_trials_that_were_finished_before():
    """Their parts are not driven any more, but they are the run's: else the last trial would begin at nothing."""
    with Lab(TWO_TRIALS) as lab:
        assert lab.go(trials=("m-p",)).done
        lab.record("m-p")
        ending = lab.go()
        shown = [progress for progress in ending.shown if progress]
        assert {(progress.trials, progress.parts, progress.rows) for progress in shown} == {(2, 8, 16)}
        assert shown[0].reached == 4
        assert shown[0].rows_done == 8
        assert lab.artifacts() == golden(TWO_TRIALS)


def test_progress_expects_of_each_trial_the_price_of_its_own_model():
    """With the cheap model asked first, the dear one was expected at its price: a hundredth of what came."""
    dear = {name: {"input_per_mtok": usd, "output_per_mtok": usd} for name, usd in (("m", 1), ("n", 200))}
    with Lab(TWO_TRIALS, prices={"models": dear}, queue={"max_concurrent_jobs": 1}) as lab:
        ending = lab.go()
        shown = [progress for progress in ending.shown if progress]
        early = [progress for progress in shown if progress.usd and progress.rows_done < 8]
        assert early
        came_to = max(progress.usd for progress in shown)
        assert all(progress.usd < came_to / 50 for progress in early)
        assert all(came_to / 2 < progress.usd_expected < 20 * came_to for progress in early)


EXPIRES = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("damage", [b"", b'{"custom_id": "x', b"{}\n"])
def test_the_requests_of_a_later_attempt_are_written_anew_where_they_are_damaged(sent, damage):
    """A cut file ended in a traceback; an emptied one was refused for ever with advice that could not help."""
    with Lab(SMALL, EXPIRES) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        if not sent:
            lab.fault({"call": {**CREATE_DATASET, "times": None}, "do": {"respond": "unavailable"}})
        lab.go("download", wait=False)
        lab.heal()
        lab.fault(EXPIRES)
        later = list(lab.run.root.glob("*/results/*/a2/requests.jsonl"))
        assert later
        before = {path: path.read_bytes() for path in later}
        for path in later:
            path.write_bytes(damage)
        ending = lab.go()
        assert ending.done, ending.text
        assert ("requests of attempt 2 are damaged; kept as requests.jsonl.damaged." in ending.text) == bool(damage)
        assert {path: path.read_bytes() for path in later} == before
        assert len(lab.jobs()) == 4
        lab.heal()
        lab.check(jobs=4)
