"""Every fault switch of the API sheet's section 10.3, each shown to fire: a fault that does nothing proves nothing."""

import json
import time

import pytest
import requests
from emulator_kit import SLOW, Api, fetch, row, started

from pipeline.emulator import faults
from pipeline.emulator.paging import token

JOBS = "/batchInferenceJobs$"


@pytest.fixture
def api(tmp_path):
    with started(tmp_path / "store") as emulator, Api(emulator.url) as api:
        yield api


@pytest.fixture
def ready(api):
    """The api with an input dataset `in` of three rows."""
    api.dataset("in", [row(number) for number in range(3)])
    return api


def on(method="GET", path="", skip=0, times=1, **do):
    return {"call": {"method": method, "path": path, "skip": skip, "times": times}, "do": do}


def on_job(**do):
    return {"job": {"times": None}, "do": do}


def rows(*faults_of_rows):
    return on_job(rows=list(faults_of_rows))


# --- calls: instead of an answer ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("respond", "status", "headers", "text"),
    [
        ("rate_limited", 429, {}, "rate limit"),
        ({"status": 429, "headers": {"Retry-After": "2"}, "json": {}}, 429, {"Retry-After": "2"}, "{}"),
        ({"status": 429, "headers": {"retry-after-ms": "150"}}, 429, {"retry-after-ms": "150"}, ""),
        ("internal", 500, {}, "internal error"),
        ("html_502", 502, {"Content-Type": "text/html; charset=UTF-8"}, "<html>"),
        ("unavailable", 503, {}, "upstream"),
        ("html_200", 200, {"Content-Type": "text/html; charset=UTF-8"}, "<html>"),
        ("key_revoked", 403, {}, "UNAUTHORIZED"),
        ("quota_full", 400, {}, "job-submission-count"),
        ("not_found", 404, {}, "resource not found"),
    ],
)
@pytest.mark.parametrize("commit", [False, True])
def test_an_answer_is_replaced_before_or_after_the_call_took_effect(ready, respond, status, headers, text, commit):
    ready.faults(on("POST", JOBS, respond=respond, commit=commit))
    answer = ready.create_job("j")
    assert answer.status_code == status
    assert text in answer.text
    assert {name: answer.headers[name] for name in headers} == headers
    assert ready.get("/batchInferenceJobs/j").status_code == (200 if commit else 404)
    assert ready.fired() == [1]
    assert ready.create_job("j").status_code == (409 if commit else 200)


@pytest.mark.parametrize("commit", [False, True])
def test_the_connection_is_reset_before_or_after_the_commit(ready, commit):
    ready.faults(on("POST", JOBS, reset=True, commit=commit))
    with pytest.raises(requests.ConnectionError):
        ready.create_job("j")
    assert ready.fired() == [1]
    assert ready.get("/batchInferenceJobs/j").status_code == (200 if commit else 404)
    lost = next(call for call in ready.calls() if call["rule"])
    assert (lost["status"], lost["effect"]) == (None, "created job j" if commit else "")


def test_a_slow_answer_comes_after_the_client_gave_up_and_has_taken_effect(ready):
    ready.faults(on("POST", JOBS, delay=0.4))
    with pytest.raises(requests.ReadTimeout):
        ready.session.post(f"{ready.root}/batchInferenceJobs?batchInferenceJobId=j", json=job_body(), timeout=0.1)
    assert ready.get("/batchInferenceJobs/j").status_code == 200
    assert ready.fired() == [1]


def test_a_rule_lets_some_pass_acts_a_few_times_and_ends(ready):
    ready.faults(on(path="/datasets/in$", skip=1, times=2, respond="unavailable"))
    assert [ready.get("/datasets/in").status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert ready.get("/_emulator/faults").json()["rules"][0]["seen"] == 5


def test_the_first_due_rule_acts_and_reset_lifts_all(ready):
    ready.faults(on(path="/datasets/in$", respond="internal"), on(path="/datasets/", times=None, respond="not_found"))
    assert [ready.get("/datasets/in").status_code for _ in range(3)] == [500, 404, 404]
    assert ready.fired() == [1, 2]
    ready.delete("/_emulator/faults")
    assert ready.get("/datasets/in").status_code == 200


def test_a_key_may_be_revoked_midway_and_control_still_works(ready):
    ready.faults(on("GET", "", skip=2, times=None, respond="key_revoked"))
    assert [ready.get("/datasets/in").status_code for _ in range(4)] == [200, 200, 403, 403]
    assert ready.fired() == [2]


def test_rules_outlive_a_restart(tmp_path):
    with (
        started(tmp_path, faults=[on(path="/datasets", times=2, respond="internal")]) as emulator,
        Api(emulator.url) as api,
    ):
        assert api.get("/datasets").status_code == 500
    with (
        started(tmp_path, faults=[on(path="/datasets", times=2, respond="internal")]) as emulator,
        Api(emulator.url) as api,
    ):
        assert [api.get("/datasets").status_code for _ in range(2)] == [500, 200]


# --- calls: a changed answer --------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_a_repeated_create_may_answer_200_with_the_old_object(ready, same):
    ready.faults(on("POST", JOBS, skip=1, duplicate="return"), on("POST", "/datasets$", duplicate="return"))
    first = ready.create_job("j")
    again = ready.create_job("j", output_id=None if same else "other")
    assert (again.status_code, again.json()) == (200, first.json())
    assert ready.create_dataset("in", 99).json()["exampleCount"] == "3"
    assert ready.fired() == [1, 1]
    assert len(ready.state()["jobs"]) == 1


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        ({"set": {"state": "JOB_STATE_FROBNICATING"}}, lambda job: job["state"] == "JOB_STATE_FROBNICATING"),
        ({"set": {"jobProgress": None}}, lambda job: job["jobProgress"] is None),
        (
            {"drop": ["jobProgress", "status.message"]},
            lambda job: "jobProgress" not in job and job["status"] == {"code": "OK"},
        ),
        (
            {"set": {"status.code": "X", "new.deep": 1}},
            lambda job: job["status"]["code"] == "X" and job["new"] == {"deep": 1},
        ),
    ],
)
def test_fields_are_changed_or_missing(ready, edit, check):
    ready.create_job("j")
    ready.faults(on(path="/batchInferenceJobs/j$", edit=edit))
    assert check(ready.job("j"))
    assert ready.job("j")["state"] == "JOB_STATE_VALIDATING"


@pytest.mark.parametrize("value", ["gs://bucket/out", "", None])
def test_an_external_url_is_set_empty_or_absent(ready, value):
    edit = {"drop": ["externalUrl"]} if value is None else {"set": {"externalUrl": value}}
    ready.faults(on(path="/datasets/in$", edit=edit))
    assert ready.get("/datasets/in").json().get("externalUrl") == value


def test_links_are_empty_once_then_filled(ready):
    ready.faults(on(path=":getDownloadEndpoint$", edit={"set": {"filenameToSignedUrls": {}}}))
    assert ready.links("in") == {}
    assert len(ready.links("in")) == 1


def test_a_page_may_be_empty_and_yet_carry_a_token(ready):
    ready.faults(on(path="/datasets$", edit={"set": {"datasets": [], "nextPageToken": token(0)}}))
    first = ready.get("/datasets").json()
    assert first["datasets"] == []
    assert len(ready.get("/datasets", pageToken=first["nextPageToken"]).json()["datasets"]) == 1


# --- links ----------------------------------------------------------------------------------------


def test_a_link_is_expired_on_first_use_or_on_the_second_file(ready):
    ready.create_job("j")
    ready.advance(SLOW)
    ready.faults(on("GET", "^/storage/", skip=1, respond="link_expired"))
    success, error = ready.links("j-out").values()
    assert fetch(success).status_code == 200
    late = fetch(error)
    assert (late.status_code, "<Code>ExpiredToken</Code>" in late.text) == (400, True)
    assert fetch(error).status_code == 200
    assert ready.fired() == [1]


BODY = json.dumps(row()).encode() * 50 + b"\n"


def damaged(api, how, **more):
    """What a `requests` user gets of a damaged file: its bytes, or the exception."""
    api.create_dataset("big")
    api.upload("big", BODY)
    api.advance(1)
    api.faults(on("GET", "^/storage/", damage={"how": how, **more}))
    (url,) = api.links("big").values()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(url, stream=True, timeout=10)
        raw = b""
        try:
            for block in answer.iter_content(1 << 12):
                raw += block
                if len(raw) > 10 * len(BODY):
                    return raw
        except requests.RequestException as error:
            return error
        finally:
            answer.close()
            assert api.fired() == [1]
    return raw


@pytest.mark.parametrize("how", ["close", "reset", "chunked", "gzip"])
def test_a_body_that_ends_early_is_noticed_by_requests(api, how):
    got = damaged(api, how)
    assert isinstance(got, requests.RequestException) or (how == "gzip" and len(got) < len(BODY))


@pytest.mark.parametrize("how", ["no_length", "short_length"])
def test_a_body_that_ends_early_is_not_noticed_by_requests(api, how):
    """The cases that only the set of ids in the file can show."""
    assert damaged(api, how, at=0.25) == BODY[: len(BODY) // 4]


def test_a_body_without_end(api):
    assert len(damaged(api, "endless")) > 10 * len(BODY)


def test_a_dripping_body_is_whole_in_the_end(ready):
    ready.faults(on("GET", "^/storage/", drip={"bytes": 200, "pause": 0.01}))
    (url,) = ready.links("in").values()
    begin = time.monotonic()
    assert len(fetch(url).content.splitlines()) == 3
    assert time.monotonic() - begin > 0.02
    assert ready.fired() == [1]


# --- datasets and jobs ------------------------------------------------------------------------------


def test_a_dataset_stays_uploading_until_the_clock_frees_it(api):
    api.faults({"dataset": {"id": "^in$"}, "do": {"stuck": {"seconds": 1000}, "external_url": "gs://b/o"}})
    api.create_dataset("in")
    api.upload("in", b"{}")
    api.advance(500)
    assert api.get("/datasets/in").json()["state"] == "UPLOADING"
    assert api.get("/datasets/in").json()["externalUrl"] == "gs://b/o"
    assert api.create_job("j").json()["code"] == 9
    api.advance(501)
    assert api.get("/datasets/in").json()["state"] == "READY"
    assert api.fired() == [1]


@pytest.mark.parametrize("stage", ["VALIDATING", "PENDING", "CREATING", "RUNNING", "WRITING_RESULTS"])
def test_a_job_is_stuck_until_the_clock_frees_it(ready, stage):
    ready.faults(on_job(stuck={"in": stage, "seconds": 5000}))
    ready.create_job("j")
    ready.advance(SLOW + 1000)
    assert ready.job("j")["state"] == f"JOB_STATE_{stage}"
    ready.advance(4000)
    assert ready.job("j")["state"] == "JOB_STATE_COMPLETED"
    assert ready.fired() == [1]


def test_a_job_is_pending_for_ever(ready):
    ready.faults(on_job(stuck={"in": "PENDING"}))
    ready.create_job("j")
    ready.advance(30 * 86400)
    assert ready.job("j")["state"] == "JOB_STATE_PENDING"


@pytest.mark.parametrize("state", ["EXPIRED", "EARLY_STOPPED"])
def test_a_job_ends_early_with_its_share_done(api, state):
    api.faults(on_job(end={"state": state, "at": 0.6, "message": "out of time"}))
    job = api.finished("j", [row(number) for number in range(10)])
    assert (job["state"], job["status"]["message"]) == (f"JOB_STATE_{state}", "out of time")
    assert (job["jobProgress"]["percent"], job["jobProgress"]["successfullyProcessedRequests"]) == (60, 6)
    assert len(api.results("j-out")) == 6
    assert api.errors("j-out") == {}
    assert api.fired() == [1]


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_job_ends_without_results(ready, state):
    ready.faults(on_job(end={"state": state, "at": 0.5}))
    assert ready.finished("j")["state"] == f"JOB_STATE_{state}"
    assert ready.get("/datasets/j-out:getDownloadEndpoint").status_code == 404


def test_a_job_fails_in_validation_for_a_scripted_reason(ready):
    ready.faults(on_job(fail="Dataset has a syntax error: scripted"))
    job = ready.finished("j")
    assert (job["state"], job["status"]["message"]) == ("JOB_STATE_FAILED", "Dataset has a syntax error: scripted")


@pytest.mark.parametrize("stage", ["PENDING", "RUNNING", "COMPLETED"])
def test_a_job_vanishes_as_if_someone_deleted_it(ready, stage):
    ready.faults(on_job(vanish=stage))
    ready.create_job("j")
    assert ready.get("/batchInferenceJobs/j").status_code == 200
    ready.advance(SLOW)
    assert ready.get("/batchInferenceJobs/j").status_code == 404
    assert ready.get("/batchInferenceJobs").json()["batchInferenceJobs"] == []
    assert ready.create_job("j", output_id="other").status_code == 200


def test_bare_and_unknown_state_names(ready):
    ready.faults(on_job(bare_states=True, states={"RUNNING": "JOB_STATE_DEFRAGMENTING"}))
    ready.create_job("j")
    seen = [ready.job("j")["state"]]
    for seconds in (300, 400):
        ready.advance(seconds)
        seen.append(ready.job("j")["state"])
    assert seen == ["VALIDATING", "JOB_STATE_DEFRAGMENTING", "COMPLETED"]


def test_progress_numbers_as_strings(ready):
    ready.faults(on_job(progress="strings"))
    assert ready.finished("j")["jobProgress"]["totalProcessedRequests"] == "3"


def test_an_external_url_that_really_serves_the_results(ready):
    ready.faults(on_job(external_url="serve"))
    ready.finished("j")
    url = ready.get("/datasets/j-out").json()["externalUrl"]
    assert fetch(url).content == ready.files("j-out")["BIJOutputSet.jsonl"]
    assert fetch(url, headers={"Authorization": "Bearer emulator-key"}).status_code == 403
    assert fetch(url.replace("/external/", "/external/0")).status_code == 404
    assert len(ready.state()["violations"]) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"success": None}, {"error-data"}),
        ({"error": None}, {"BIJOutputSet.jsonl"}),
        ({"success": None, "error": None}, set()),
        ({"success": "results-0.jsonl", "error": "errors.jsonl"}, {"results-0.jsonl", "errors.jsonl"}),
    ],
)
def test_files_are_missing_or_named_otherwise(ready, files, expected):
    ready.faults(on_job(files=files))
    ready.finished("j")
    assert set(ready.files("j-out")) == expected


# --- rows -------------------------------------------------------------------------------------------


def output(api, *row_rules):
    """Lines of both files of a job of ten rows under *row_rules*, and how many rows each fault hit."""
    api.faults(rows(*row_rules))
    api.finished("j", [row(number) for number in range(10)])
    assert api.fired() == [1]
    files = api.files("j-out")
    lines = {name: data.split(b"\n")[:-1] for name, data in files.items()}
    return lines["BIJOutputSet.jsonl"], lines["error-data"], api.state()["jobs"][0]["touched"]


EVERY_FIFTH = {"every": 5, "offset": 2}
HIT = [row(2)["custom_id"], row(7)["custom_id"]]


@pytest.mark.parametrize(
    ("fault", "successes", "errors"),
    [
        ("drop", 8, 0),
        ("both", 10, 2),
        ("error", 8, 2),
        ("twice", 12, 0),
        ("conflict", 12, 0),
        ("foreign", 12, 0),
        ("blank", 12, 0),
    ],
)
def test_rows_are_missing_doubled_or_in_the_wrong_file(api, fault, successes, errors):
    good, bad, touched = output(api, {"pick": EVERY_FIFTH, "do": fault})
    assert (len(good), len(bad), touched) == (successes, errors, {fault: 2})
    ids = [json.loads(line)["custom_id"] for line in good if line]
    if fault in ("drop", "error"):
        assert not set(HIT) & set(ids)
    if fault in ("twice", "conflict"):
        same = {one: {line for line in good if json.loads(line)["custom_id"] == one} for one in HIT}
        assert {len(lines) for lines in same.values()} == {1 if fault == "twice" else 2}
    if fault == "foreign":
        assert sum(one.startswith("nobody-asked|") for one in ids) == 2
    if fault == "blank":
        assert good.count(b"") == 2
    assert sorted(json.loads(line)["custom_id"] for line in bad) == (HIT if errors else [])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"error": {"message": "m", "code": 429}}),
        ({"shape": "string"}, {"error": "m"}),
        ({"shape": "wrapped"}, {"response": {"status_code": 429, "error": {"message": "m", "code": 429}}}),
        ({"shape": "null_response"}, {"response": None, "error": {"message": "m", "code": 429}}),
        (
            {"shape": "extra"},
            {"error": {"message": "m", "code": 429, "type": "server_error", "param": None}, "attempt": 3, "model": "m"},
        ),
    ],
)
@pytest.mark.parametrize("file", ["error", "success"])
def test_error_lines_come_in_every_shape_and_file(api, options, expected, file):
    fault = {"pick": {"ids": "item-7"}, "do": "error", "code": 429, "message": "m", "file": file, **options}
    good, bad, _ = output(api, fault)
    lines = [json.loads(line) for line in (good if file == "success" else bad)]
    assert {"custom_id": HIT[1], **expected} in lines
    assert (len(good), len(bad)) == ((10, 0) if file == "success" else (9, 1))


def test_damaged_lines(api):
    corrupt = {"pick": {"ids": "item-2"}, "do": "corrupt"}
    raw = {"pick": {"ids": "item-7"}, "do": "raw", "line": '{"custom_id": "x", "response": NaN}'}
    good, _, touched = output(api, corrupt, raw)
    assert touched == {"corrupt": 1, "raw": 1}
    assert raw["line"].encode() in good
    with pytest.raises(json.JSONDecodeError):
        [json.loads(line) for line in good if line != raw["line"].encode()]


def test_wrapped_lines_and_other_id_keys(api):
    wrap, renamed = (
        {"pick": {"ids": "item-2"}, "do": "wrap"},
        {"pick": {"ids": "item-7"}, "do": "id_key", "key": "request_id"},
    )
    good, _, _ = output(api, wrap, renamed)
    lines = [json.loads(line) for line in good]
    assert next(line for line in lines if line.get("custom_id") == HIT[0])["response"]["body"]["choices"]
    assert next(line for line in lines if line.get("request_id") == HIT[1])["response"]["choices"]


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ({"do": "content", "text": "=1+1"}, lambda r: r["choices"][0]["message"]["content"] == "=1+1"),
        ({"do": "empty"}, lambda r: r["choices"][0]["message"]["content"] == ""),
        ({"do": "length"}, lambda r: r["choices"][0]["finish_reason"] == "length"),
        ({"do": "plain_usage"}, lambda r: set(r["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}),
        ({"do": "choices", "n": 3}, lambda r: [choice["index"] for choice in r["choices"]] == [0, 1, 2]),
        ({"do": "reasoning"}, lambda r: r["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8),
    ],
)
def test_odd_answers(api, fault, check):
    good, _, touched = output(api, fault)
    assert all(check(json.loads(line)["response"]) for line in good)
    assert touched == {fault["do"]: 10}


def test_a_share_of_the_rows_is_picked_by_their_ids(api):
    good, _, touched = output(api, {"pick": {"share": 0.5}, "do": "drop"})
    assert 0 < touched["drop"] < 10
    assert len(good) == 10 - touched["drop"]


# --- the script itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        [],
        {},
        {"call": {}},
        {"call": {}, "do": {}},
        {"call": {}, "job": {}, "do": {"reset": True}},
        {"call": {"pth": "x"}, "do": {"reset": True}},
        {"call": {}, "do": {"rest": True}},
        {"call": {}, "do": {"respond": "teapot"}},
        {"call": {}, "do": {"respond": {"json": {}}}},
        {"call": {}, "do": {"damage": {"how": "badly"}}},
        {"job": {}, "do": {"end": {"state": "COMPLETED"}}},
        {"job": {}, "do": {"stuck": {"in": "QUEUED"}}},
        {"job": {}, "do": {"rows": [{"do": "loose"}]}},
        {"job": {}, "do": {"rows": [{"do": "drop", "pick": {"nth": 1}}]}},
        {"job": {}, "do": {"rows": [{"do": "error", "shape": "round"}]}},
        {"dataset": {}, "do": {"reset": True}},
        {"dataset": {}, "do": {"stuck": {}}, "nmae": "x"},
    ],
)
def test_a_misspelt_rule_is_refused(rule):
    with pytest.raises(faults.BadRule):
        faults.check(rule)


def test_a_misspelt_rule_is_refused_over_the_wire_too_and_nothing_of_it_counts(api):
    answer = api.post("/_emulator/faults", {"rules": [on(reset=True), {"call": {}, "do": {"rest": True}}]})
    assert answer.status_code == 400
    assert api.fired() == []


def job_body():
    return {
        "model": "accounts/fireworks/models/m",
        "inputDatasetId": "accounts/emulator/datasets/in",
        "outputDatasetId": "accounts/emulator/datasets/j-out",
    }


def test_a_service_that_names_the_output_itself(ready):
    ready.faults({"call": {"method": "POST", "path": "batchInferenceJobs$"}, "do": {"own_output": True}})
    assert "/datasets/bij-" in ready.create_job("mine", output_id="ours").json()["outputDatasetId"]


def test_a_service_that_invents_its_own_job_ids(ready):
    ready.faults({"call": {"method": "POST", "path": "batchInferenceJobs$"}, "do": {"own_id": True}})
    name = ready.create_job("mine").json()["name"]
    assert not name.endswith("/mine")
    assert ready.get("/batchInferenceJobs/mine").status_code == 404
    assert ready.get(f"/batchInferenceJobs/{name.rpartition('/')[2]}").status_code == 200
