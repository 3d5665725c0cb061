"""Fireworks over the wire: one job whatever gets lost, results only when they are whole, links without a key."""

import base64
import gzip
import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from scripted_server import (
    HTML,
    NOT_FOUND,
    FakeTime,
    ScriptedServer,
    answer,
    endless,
    error,
    json_answer,
    reset,
    silent,
    unfinished,
)

from pipeline.errors import (
    AuthError,
    ConfigError,
    NotReady,
    ProviderError,
    QuotaFull,
    Refused,
    TrialmakeError,
    Unreachable,
)
from pipeline.providers.base import Counts, IdTaken, JobPhase, Submission
from pipeline.providers.fireworks import Fireworks
from pipeline.providers.http import Pace
from pipeline.providers.storage import Cap
from pipeline.secret import Secret

KEY = "fw_CANARY_0123456789"
ACCOUNT = "/v1/accounts/acme"
DATASETS = f"{ACCOUNT}/datasets"
JOBS = f"{ACCOUNT}/batchInferenceJobs"
IN, OUT, JOB = f"{DATASETS}/tm-in", f"{DATASETS}/tm-out", f"{JOBS}/tm-job"
UPLOAD, DOWNLOAD = f"{IN}:upload", f"{OUT}:getDownloadEndpoint"
MODEL = "accounts/fireworks/models/m"
ROWS = b'{"custom_id":"a","response":{}}\n{"custom_id":"b","response":{}}\n'
QUOTA = "invalid batch inference job: job-submission-count for account acme, in use: 16, quota: 16"


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def make(server, time):
    made = []

    def make(account="acme", pace=(), **options):
        pace = {"clock": time.clock, "sleep": time.sleep, "random": lambda: 0.0} | dict(pace)
        made.append(Fireworks(server.url, Secret(KEY), account, pace=Pace(**pace), **options))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


def briefly(play):
    """A client that soon gives up on a server which says nothing; only there, so that a busy machine fails no test."""
    return {"read_timeout": 0.3} if play in (LOST["no answer"], DAMAGED["silent in the middle"]) else {}


@pytest.fixture
def submission(tmp_path):
    requests = tmp_path / "t0_control_p01.jsonl"
    requests.write_bytes(b'{"custom_id":"a","body":{}}\n{"custom_id":"b","body":{}}\n')
    return Submission("tm-job", "tm-in", "tm-out", requests, 2, MODEL, "run r1, part t0_control_p01")


def dataset(state="READY", **fields):
    return json_answer(
        {
            "name": "accounts/acme/datasets/tm-in",
            "state": state,
            "exampleCount": "2",
            "externalUrl": "",
            "sourceJobName": "",
            "status": {"code": "OK", "message": ""},
            "userUploaded": {},
        }
        | fields
    )


def job(state="JOB_STATE_VALIDATING", **fields):
    return json_answer(
        {
            "name": "accounts/acme/batchInferenceJobs/tm-job",
            "createTime": "2026-08-30T03:48:56.029803123Z",
            "state": state,
            "status": {"code": "OK", "message": ""},
            "model": MODEL,
            "inputDatasetId": "accounts/acme/datasets/tm-in",
            "outputDatasetId": "accounts/acme/datasets/tm-out",
            "jobProgress": None,
            "lifecycle": None,
        }
        | fields
    )


CONFLICT = error(409, 6, "already exists")


def fresh(server):
    """A service that has nothing of ours yet and takes everything."""
    server.on("GET", JOB, NOT_FOUND)
    server.on("POST", DATASETS, dataset("UPLOADING"))
    server.on("POST", UPLOAD, json_answer({"object": "file"}))
    server.on("GET", IN, dataset())
    server.on("POST", JOBS, job())


# Who we are


def test_the_account_is_taken_as_given_without_asking(server, make):
    binding = make("accounts/acme").binding()
    assert (binding.provider, binding.account, binding.endpoint) == ("fireworks", "acme", server.url)
    assert make("acme", endpoint="emulator:7f").binding().endpoint == "emulator:7f"
    assert server.calls == []


def test_the_account_is_asked_once_when_the_key_has_exactly_one(server, make):
    server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": "accounts/acme"}], "nextPageToken": ""}))
    provider = make(None)
    assert provider.binding().account == provider.binding().account == "acme"
    assert server.calls == ["GET /v1/accounts"]


@pytest.mark.parametrize("listed", [[], [{"name": "accounts/a"}, {"name": "accounts/b"}]])
def test_a_key_with_several_accounts_is_verified_or_a_clear_error(server, make, listed):
    server.on("GET", "/v1/accounts", json_answer({"accounts": listed}))
    server.on("GET", "/verifyApiKey", answer(200, b"ok", ["x-fireworks-account-id: acme"]), answer(200, b"ok"))
    assert make(None).binding().account == "acme"
    with pytest.raises(ConfigError, match="FIREWORKS_ACCOUNT_ID"):
        make(None).binding()


def test_an_account_is_not_taken_for_the_only_one_when_there_are_more_pages(server, make):
    server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": "accounts/a"}], "nextPageToken": "more"}))
    server.on("GET", "/verifyApiKey", answer(200, b"", ["x-fireworks-account-id: b"]))
    assert make(None).binding().account == "b"


def test_a_service_that_knows_no_way_to_tell_the_account_is_not_asked_again_and_again(server, make, time):
    server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": "accounts/a"}, {"name": "accounts/b"}]}))
    server.on("GET", "/verifyApiKey", answer(404, b"404 page not found"))
    with pytest.raises(ConfigError, match="a, b listed"):
        make(None).binding()
    assert time.slept == []


def test_a_key_is_not_sent_in_clear_to_the_world():
    with pytest.raises(ConfigError, match="in clear"):
        Fireworks("http://api.fireworks.ai", Secret(KEY), "acme")


# Submitting: what is sent


def test_a_submission_creates_dataset_and_job_under_our_ids(server, make, submission):
    fresh(server)
    accepted = make().submit(submission)
    assert (accepted.adopted, accepted.job.job_id, accepted.job.phase) == (False, "tm-job", JobPhase.RUNNING)
    assert accepted.job.state == "VALIDATING"
    assert accepted.job.output_dataset_id == "tm-out"
    assert server.calls == [f"GET {JOB}", f"POST {DATASETS}", f"POST {UPLOAD}", f"GET {IN}", f"POST {JOBS}"]
    (created,) = server.asked("POST", DATASETS)
    assert created.json == {
        "datasetId": "tm-in",
        "dataset": {"userUploaded": {}, "exampleCount": "2", "displayName": "run r1, part t0_control_p01"},
    }
    (posted,) = server.asked("POST", JOBS)
    assert posted.query == {"batchInferenceJobId": "tm-job"}
    assert posted.json == {
        "model": MODEL,
        "inputDatasetId": "accounts/acme/datasets/tm-in",
        "outputDatasetId": "accounts/acme/datasets/tm-out",
        "displayName": "run r1, part t0_control_p01",
    }
    assert {request.header("Authorization") for request in server.requests} == {f"Bearer {KEY}"}


def test_a_small_file_goes_up_in_one_multipart_request(server, make, submission):
    fresh(server)
    make().submit(submission)
    (upload,) = server.asked("POST", UPLOAD)
    kind, _, boundary = upload.header("Content-Type").partition("; boundary=")
    assert kind == "multipart/form-data"
    head, content = upload.body.split(b"\r\n\r\n", 1)
    assert head.startswith(b"--" + boundary.encode() + b"\r\n")
    assert b'form-data; name="file"; filename="tm-in.jsonl"' in head
    assert content == submission.requests.read_bytes() + b"\r\n--" + boundary.encode() + b"--\r\n"
    assert upload.header("Content-Length") == str(len(upload.body))
    assert upload.header("Transfer-Encoding") is None


def test_a_large_file_goes_up_by_a_signed_link_without_the_key(server, make, submission):
    fresh(server)
    size = submission.requests.stat().st_size
    link = f"{server.url}/bucket/tm-in.jsonl?X-Goog-Signature=SIGNED"
    server.on("POST", f"{IN}:getUploadEndpoint", json_answer({"filenameToSignedUrls": {"tm-in.jsonl": link}}))
    server.on("PUT", "/bucket/tm-in.jsonl", answer(200))
    server.on("POST", f"{IN}:validateUpload", json_answer({}))
    make(upload_threshold=size - 1).submit(submission)
    (endpoint,) = server.asked("POST", f"{IN}:getUploadEndpoint")
    assert endpoint.json == {"filenameToSize": {"tm-in.jsonl": str(size)}}
    (put,) = server.asked("PUT", "/bucket/tm-in.jsonl")
    assert put.query == {"X-Goog-Signature": "SIGNED"}
    assert put.body == submission.requests.read_bytes()
    assert put.header("Content-Type") == "application/octet-stream"
    assert put.header("X-Goog-Content-Length-Range") == f"{size},{size}"
    assert put.header("Content-Length") == str(size)
    assert put.header("Authorization") is None
    assert KEY not in str(put)
    (validated,) = server.asked("POST", f"{IN}:validateUpload")
    assert validated.json == {}
    assert server.asked("POST", UPLOAD) == []


def test_a_signed_upload_that_fails_asks_for_a_fresh_link(server, make, submission):
    fresh(server)
    links = [
        json_answer({"filenameToSignedUrls": {"tm-in.jsonl": f"{server.url}/bucket/{number}"}}) for number in range(3)
    ]
    server.on("POST", f"{IN}:getUploadEndpoint", *links)
    server.on("PUT", "/bucket/0", answer(400, b"<Error><Code>ExpiredToken</Code></Error>"))
    server.on("PUT", "/bucket/1", reset())
    server.on("PUT", "/bucket/2", answer(200))
    server.on("POST", f"{IN}:validateUpload", json_answer({}))
    make(upload_threshold=1).submit(submission)
    assert [call for call in server.calls if "bucket" in call] == [f"PUT /bucket/{number}" for number in range(3)]


@pytest.mark.parametrize("links", [{}, {"tm-in.jsonl": ""}, {"a": "https://h/a", "b": "https://h/b"}])
def test_upload_links_that_do_not_fit_are_asked_for_again(server, make, submission, links):
    fresh(server)
    good = {"tm-in.jsonl": f"{server.url}/bucket/0"}
    answers = [json_answer({"filenameToSignedUrls": offered}) for offered in (links, good)]
    server.on("POST", f"{IN}:getUploadEndpoint", *answers)
    server.on("PUT", "/bucket/0", answer(200))
    server.on("POST", f"{IN}:validateUpload", json_answer({}))
    make(upload_threshold=1).submit(submission)
    assert len(server.asked("PUT", "/bucket/0")) == 1


def test_a_second_validation_that_is_refused_is_resolved_by_looking(server, make, submission):
    """The first one did it all, and only its answer was lost."""
    fresh(server)
    link = {"tm-in.jsonl": f"{server.url}/bucket/0"}
    server.on("POST", f"{IN}:getUploadEndpoint", json_answer({"filenameToSignedUrls": link}))
    server.on("PUT", "/bucket/0", answer(200))
    server.on("POST", f"{IN}:validateUpload", reset(), error(400, 9, "dataset is not being uploaded"))
    assert make(upload_threshold=1).submit(submission).job.job_id == "tm-job"
    assert len(server.asked("POST", f"{IN}:validateUpload")) == 2


def test_a_signed_upload_is_not_sent_to_a_private_host(server, make, submission):
    fresh(server)
    link = {"tm-in.jsonl": "http://169.254.169.254/latest"}
    server.on("POST", f"{IN}:getUploadEndpoint", json_answer({"filenameToSignedUrls": link}))
    with pytest.raises(Refused, match="not followed"):
        make(upload_threshold=1).submit(submission)


@pytest.mark.parametrize("already", ["already uploaded", "dataset file Already Uploaded: tm-in"])
def test_a_file_that_is_there_already_counts_as_uploaded(server, make, submission, already):
    fresh(server)
    server.on("POST", UPLOAD, error(400, 3, already))
    assert make().submit(submission).job.job_id == "tm-job"


def test_a_lost_upload_answer_is_resolved_by_looking(server, make, submission):
    fresh(server)
    server.on("POST", UPLOAD, reset())
    make().submit(submission)
    assert len(server.asked("POST", UPLOAD)) == 1  # GET said READY: nothing to send again


def test_an_upload_that_did_not_arrive_is_sent_again_whole(server, make, submission):
    fresh(server)
    server.on("POST", UPLOAD, reset(), answer(503), json_answer({}))
    server.on("GET", IN, dataset("UPLOADING"), dataset("UPLOADING"), dataset())
    make().submit(submission)
    sent = server.asked("POST", UPLOAD)
    assert [submission.requests.read_bytes() in request.body for request in sent] == [True] * 3


# Submitting: what may go wrong at each create

LOST = {
    "reset after the commit": reset(),
    "no answer": silent(),
    "HTML 502": answer(502, HTML),
    "503": answer(503),
    "500": error(500, 13, "internal"),
    "cut off": unfinished(["Content-Length: 999"], b"{"),
    "HTML as success": answer(200, HTML),
    "429": answer(429, b"{}", ["Retry-After: 2"]),
    "409": CONFLICT,
}


@pytest.mark.parametrize("play", LOST.values(), ids=LOST)
def test_a_job_whose_answer_is_lost_is_found_and_not_created_again(server, make, submission, play):
    fresh(server)
    server.on("POST", JOBS, play)
    server.on("GET", JOB, NOT_FOUND, job("JOB_STATE_PENDING"))
    accepted = make(pace=briefly(play)).submit(submission)
    assert accepted.job.state == "PENDING"
    assert len(server.asked("POST", JOBS)) == 1
    assert accepted.adopted is (play is CONFLICT)  # else it is our own request that went through


@pytest.mark.parametrize("play", LOST.values(), ids=LOST)
def test_a_job_that_is_not_there_after_all_is_created_again_under_the_same_id(server, make, submission, play):
    fresh(server)
    server.on("GET", OUT, NOT_FOUND)
    server.on("POST", JOBS, play, job())
    assert make(pace=briefly(play)).submit(submission).job.job_id == "tm-job"
    posts = server.asked("POST", JOBS)
    assert [post.query for post in posts] == [{"batchInferenceJobId": "tm-job"}] * 2
    assert posts[0].json == posts[1].json


def test_a_reply_that_comes_late_is_found_at_the_second_create(server, make, submission):
    """The first request is still under way when we look, and has created the job when we ask again."""
    fresh(server)
    server.on("POST", JOBS, reset(), CONFLICT)
    server.on("GET", JOB, NOT_FOUND, NOT_FOUND, job())
    assert not make().submit(submission).adopted
    assert len(server.asked("POST", JOBS)) == 2


@pytest.mark.parametrize("play", LOST.values(), ids=LOST)
def test_a_dataset_whose_answer_is_lost_is_found_and_used(server, make, submission, play):
    fresh(server)
    server.on("POST", DATASETS, play)
    server.on("GET", IN, dataset("UPLOADING"), dataset())
    make(pace=briefly(play)).submit(submission)
    assert len(server.asked("POST", DATASETS)) == 1
    assert len(server.asked("POST", UPLOAD)) == 1


@pytest.mark.parametrize("play", LOST.values(), ids=LOST)
def test_a_dataset_that_is_not_there_is_created_again(server, make, submission, play):
    fresh(server)
    server.on("POST", DATASETS, play, dataset("UPLOADING"))
    server.on("GET", IN, NOT_FOUND, dataset())
    make(pace=briefly(play)).submit(submission)
    posts = server.asked("POST", DATASETS)
    assert len(posts) == 2
    assert posts[0].json == posts[1].json


def test_a_job_that_is_there_is_adopted_before_anything_is_sent(server, make, submission):
    server.on("GET", JOB, job("JOB_STATE_RUNNING"))
    accepted = make().submit(submission)
    assert accepted.adopted
    assert accepted.job.created_at == datetime(2026, 8, 30, 3, 48, 56, 29803, UTC)
    assert server.calls == [f"GET {JOB}"]


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("JOB_STATE_COMPLETED", JobPhase.COMPLETED),
        ("JOB_STATE_FAILED", JobPhase.FAILED),
        ("JOB_STATE_DELETING_CLEANING_UP", JobPhase.GONE),
    ],
)
def test_a_job_that_has_ended_is_adopted_too_since_it_is_this_attempts_one_job(server, make, submission, state, phase):
    server.on("GET", JOB, job(state))
    assert make().submit(submission).job.phase is phase
    assert server.asked("POST", JOBS) == []


def test_a_repeated_create_that_answers_200_with_the_old_object_ends_well(server, make, submission):
    fresh(server)
    server.on("POST", DATASETS, dataset("READY"))
    server.on("POST", JOBS, job("JOB_STATE_RUNNING"))
    assert make().submit(submission).job.state == "RUNNING"
    assert server.asked("POST", UPLOAD) == []


def test_a_dataset_that_is_ready_is_not_uploaded_again(server, make, submission):
    fresh(server)
    server.on("POST", DATASETS, CONFLICT)
    make().submit(submission)
    assert server.asked("POST", UPLOAD) == []
    assert len(server.asked("POST", JOBS)) == 1


@pytest.mark.parametrize("fields", [{"exampleCount": "3"}, {"exampleCount": 3}, {"sourceJobName": "accounts/a/x/j"}])
def test_a_dataset_of_other_content_is_not_used(server, make, submission, fields):
    fresh(server)
    server.on("POST", DATASETS, CONFLICT)
    server.on("GET", IN, dataset(**fields))
    with pytest.raises(IdTaken, match="tm-in is there already and holds something else") as caught:
        make().submit(submission)
    assert "nothing was spent" in str(caught.value)
    assert server.asked("POST", JOBS) == []


def test_missing_fields_prove_nothing_against_a_dataset_or_a_job(server, make, submission):
    fresh(server)
    server.on("POST", DATASETS, CONFLICT)
    server.on("GET", IN, json_answer({"state": "READY"}))
    server.on("POST", JOBS, json_answer({}))
    accepted = make().submit(submission)
    assert (accepted.job.job_id, accepted.job.phase) == ("tm-job", JobPhase.RUNNING)


ELSEWHERE = {"inputDatasetId": "accounts/acme/datasets/x"}


@pytest.mark.parametrize("fields", [ELSEWHERE, {"inputDatasetId": "", "outputDatasetId": "x"}])
@pytest.mark.parametrize("when", ["before", "conflict", "200"])
def test_a_job_of_other_content_is_not_adopted(server, make, submission, fields, when):
    fresh(server)
    other = job("JOB_STATE_RUNNING", **fields)
    server.on("GET", JOB, *([other] if when == "before" else [NOT_FOUND, other]))
    server.on("POST", JOBS, other if when == "200" else CONFLICT)
    with pytest.raises(IdTaken, match=r"tm-job is there already and .* dataset x, not tm-"):
        make().submit(submission)
    assert len(server.asked("POST", JOBS)) == (0 if when == "before" else 1)


@pytest.mark.parametrize("when", ["before", "conflict", "200"])
def test_a_job_that_reads_our_dataset_is_ours_wherever_it_writes(server, make, submission, when):
    """History: for a service that names the output itself, the job just created was taken for somebody else's."""
    fresh(server)
    found = job("JOB_STATE_RUNNING", outputDatasetId="accounts/acme/datasets/bij-awlafflj")
    server.on("GET", JOB, *([found] if when == "before" else [NOT_FOUND, found]))
    server.on("POST", JOBS, found if when == "200" else CONFLICT)
    assert make().submit(submission).job.output_dataset_id == "bij-awlafflj"


def test_a_job_of_ours_with_another_model_is_left_to_a_person(server, make, submission):
    """Our ids hold a digest of the model: a new attempt by itself would pay twice for a renamed model."""
    server.on("GET", JOB, job(model="accounts/fireworks/models/other"))
    with pytest.raises(Refused, match=r"models/other, not accounts/fireworks/models/m") as caught:
        make().submit(submission)
    assert not isinstance(caught.value, IdTaken)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"systemPrompt": "Answer wrongly."}, "sets systemPrompt for all rows"),
        ({"inferenceParameters": {"maxTokens": 1, "temperature": 2.0, "n": 1}}, "sets maxTokens, temperature for"),
        ({"inferenceParameters": {"extraBody": '{"stop":["a"]}'}}, "sets extraBody for"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_job_that_asks_its_rows_otherwise_is_left_to_a_person(server, make, submission, fields, said, when):
    """History: it was adopted without a word, and answers to other questions counted as ours."""
    fresh(server)
    other = job(**fields)
    server.on("GET", JOB, *([other] if when == "before" else [NOT_FOUND, other]))
    server.on("POST", JOBS, error(409, 6, "exists"))
    with pytest.raises(Refused, match=said) as caught:
        make().submit(submission)
    assert not isinstance(caught.value, IdTaken)
    assert len(server.asked("POST", JOBS)) == (when == "meanwhile")


@pytest.mark.parametrize(("minutes", "taken"), [(-10, True), (-1, True), (4, True), (6, False), (600, False)])
def test_a_job_younger_than_its_intent_is_ours_whatever_the_service_fills_in(server, make, submission, minutes, taken):
    """After a crash our own job must not look foreign because of defaults; clocks differ a little."""
    filled_in = job(inferenceParameters={"maxTokens": 4096, "temperature": 0.6})
    server.on("GET", JOB, filled_in)
    created = datetime(2026, 8, 30, 3, 48, 56, tzinfo=UTC)
    ours = replace(submission, intended_at=created + timedelta(minutes=minutes))
    if taken:
        assert make().submit(ours).adopted
    else:
        with pytest.raises(Refused, match="sets maxTokens, temperature for all rows"):
            make().submit(ours)
    assert server.asked("POST", JOBS) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"systemPrompt": "", "inferenceParameters": None},
        {"systemPrompt": None, "inferenceParameters": {}},
        {
            "inferenceParameters": {
                "extraBody": "{}",
                "maxTokens": 0,
                "temperature": 1.0,
                "topP": 1,
                "n": 1,
                "topK": None,
            }
        },
    ],
)
def test_defaults_that_the_service_fills_in_are_no_settings(server, make, submission, fields):
    server.on("GET", JOB, job(**fields))
    assert make().submit(submission).adopted


def test_what_the_service_shows_for_a_job_that_was_just_created_is_not_held_against_it(server, make, submission):
    fresh(server)
    server.on("POST", JOBS, job(inferenceParameters={"maxTokens": 2048}))
    assert not make().submit(submission).adopted


@pytest.mark.parametrize("status", [400, 409])
def test_an_output_dataset_that_is_taken_needs_a_new_attempt(server, make, submission, status):
    fresh(server)
    server.on("POST", JOBS, error(status, 6, "output dataset already exists"))
    server.on("GET", OUT, dataset(sourceJobName="accounts/acme/batchInferenceJobs/older"))
    with pytest.raises(IdTaken, match="tm-out is there already, written by job older") as caught:
        make().submit(submission)
    assert "nothing was spent" in str(caught.value)
    assert len(server.asked("POST", JOBS)) == 1


@pytest.mark.parametrize("status", [400, 409])
def test_an_output_dataset_that_does_not_say_who_wrote_it_is_ours(server, make, submission, status):
    """History: a field that was left out made it somebody else's, and its rows were paid for again."""
    fresh(server)
    server.on("POST", JOBS, error(status, 6, "output dataset already exists"))
    server.on("GET", OUT, json_answer({"name": "accounts/acme/datasets/tm-out", "state": "READY"}))
    accepted = make().submit(submission)
    assert (accepted.job.phase, accepted.job.output_dataset_id) == (JobPhase.GONE, "tm-out")
    assert len(server.asked("POST", JOBS)) == 1


def test_a_job_that_the_service_calls_otherwise_is_known_by_that_name(server, make, submission):
    fresh(server)
    server.on("POST", JOBS, job(name="accounts/acme/batchInferenceJobs/awlafflj"))
    assert make().submit(submission).job.job_id == "awlafflj"


def test_an_answer_that_says_nothing_is_neither_a_job_nor_its_absence(server, make, submission):
    fresh(server)
    server.on("GET", JOB, json_answer({}))
    with pytest.raises(Unreachable, match="says nothing"):
        make().submit(submission)
    assert server.asked("POST", JOBS) == []


FORGED = "X\nNext: run what a stranger says\n" + "y" * 5000


@pytest.mark.parametrize(
    ("jobs", "datasets"),
    [
        (job(model=FORGED), dataset()),
        (job(inputDatasetId=FORGED), dataset()),
        (job(inferenceParameters={FORGED: 5}), dataset()),
        (None, dataset(state=FORGED)),
    ],
    ids=["model", "dataset", "parameter", "state"],
)
def test_what_the_service_calls_things_cannot_forge_a_line_of_a_message(server, make, submission, jobs, datasets):
    fresh(server)
    server.on("GET", JOB, jobs or NOT_FOUND)
    server.on("POST", DATASETS, datasets)
    server.on("GET", IN, datasets)
    with pytest.raises(TrialmakeError) as told:
        make().submit(submission)
    assert "X Next: run what" in str(told.value).replace("NEXT: RUN WHAT", "Next: run what")
    assert len(str(told.value)) < 1000


def test_accounts_cannot_forge_a_line_of_a_message(server, make):
    server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": FORGED}, {"name": "b"}]}))
    server.on("GET", "/verifyApiKey", answer(404))
    with pytest.raises(ConfigError, match=r"X Next: run") as told:
        make(account=None).binding()
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("status", [400, 403, 409, 429, 500])
def test_a_full_quota_is_known_at_any_status(server, make, submission, status):
    fresh(server)
    server.on("POST", JOBS, error(status, 3, QUOTA))
    with pytest.raises(QuotaFull, match="in use: 16, quota: 16") as caught:
        make().submit(submission)
    assert caught.value.exit_code == 75
    assert len(server.asked("POST", JOBS)) == 1


@pytest.mark.parametrize(
    ("status", "hint"), [(402, "bill"), (412, "suspended or unpaid"), (413, "smaller parts"), (400, "names the cause")]
)
def test_a_refusal_says_that_nothing_was_spent(server, make, submission, status, hint):
    fresh(server)
    server.on("GET", OUT, NOT_FOUND)
    server.on("POST", JOBS, error(status, 9, "no way"))
    with pytest.raises(ProviderError, match=f"creating job tm-job: the service answered {status}: no way") as caught:
        make().submit(submission)
    assert "costs nothing" in str(caught.value)
    assert hint in str(caught.value)
    assert len(server.asked("POST", JOBS)) == 1


def test_creates_that_never_get_through_end_and_name_the_job(server, make, submission, time):
    fresh(server)
    server.on("POST", JOBS, reset())
    with pytest.raises(Unreachable, match="given up after 7 tries") as caught:
        make().submit(submission)
    assert len(server.asked("POST", JOBS)) == 7
    assert "Job tm-job may exist and cost money" in str(caught.value)
    assert sum(time.slept) < 180


def test_a_service_that_cannot_be_asked_is_not_taken_for_no(server, make, submission):
    fresh(server)
    server.on("POST", JOBS, reset())
    server.on("GET", JOB, NOT_FOUND, answer(503))
    with pytest.raises(Unreachable) as caught:
        make().submit(submission)
    assert "Job tm-job may exist and cost money" in str(caught.value)
    assert len(server.asked("POST", JOBS)) == 1  # unknown is not "no": nothing was sent again


def test_a_key_revoked_midway_stops_at_once(server, make, submission):
    fresh(server)
    server.on("POST", JOBS, json_answer({"error": {"message": "revoked", "code": "UNAUTHORIZED"}}, 403))
    with pytest.raises(AuthError, match="revoked"):
        make().submit(submission)
    assert len(server.asked("POST", JOBS)) == 1


def test_a_dataset_that_stays_uploading_ends_in_a_clear_message(server, make, submission, time):
    fresh(server)
    server.on("GET", IN, dataset("UPLOADING"))
    with pytest.raises(NotReady, match="tm-in is still UPLOADING, 600 s after its upload") as caught:
        make().submit(submission)
    assert "nothing was spent" in str(caught.value)
    assert caught.value.exit_code == 75
    assert 500 < sum(time.slept) <= 600
    assert server.asked("POST", JOBS) == []


def test_a_submission_that_was_stuck_goes_on(server, make, submission):
    fresh(server)
    server.on("POST", DATASETS, CONFLICT)
    server.on("GET", IN, dataset("UPLOADING"), dataset("UPLOADING"), dataset("ready"))
    server.on("POST", UPLOAD, error(400, 3, "already uploaded"))
    assert make().submit(submission).job.job_id == "tm-job"


def test_a_dataset_that_reports_trouble_ends_the_waiting(server, make, submission):
    fresh(server)
    server.on("GET", IN, dataset("UPLOADING", status={"code": "INVALID_ARGUMENT", "message": "line 3 is not JSON"}))
    with pytest.raises(ProviderError, match="INVALID_ARGUMENT: line 3 is not JSON"):
        make().submit(submission)


# Looking


@pytest.mark.parametrize(
    ("state", "short", "phase"),
    [
        ("JOB_STATE_VALIDATING", "VALIDATING", JobPhase.RUNNING),
        ("JOB_STATE_PENDING", "PENDING", JobPhase.RUNNING),
        ("JOB_STATE_CREATING", "CREATING", JobPhase.RUNNING),
        ("JOB_STATE_RUNNING", "RUNNING", JobPhase.RUNNING),
        ("JOB_STATE_WRITING_RESULTS", "WRITING_RESULTS", JobPhase.RUNNING),
        ("JOB_STATE_RE_QUEUEING", "RE_QUEUEING", JobPhase.RUNNING),
        ("JOB_STATE_PAUSED", "PAUSED", JobPhase.RUNNING),
        ("JOB_STATE_UNSPECIFIED", "UNSPECIFIED", JobPhase.RUNNING),
        ("JOB_STATE_CANCELLING", "CANCELLING", JobPhase.RUNNING),
        ("JOB_STATE_EXPIRED_CLEANING_UP", "EXPIRED_CLEANING_UP", JobPhase.RUNNING),
        ("JOB_STATE_SOMETHING_NEW", "SOMETHING_NEW", JobPhase.RUNNING),
        ("", "UNSPECIFIED", JobPhase.RUNNING),
        (None, "UNSPECIFIED", JobPhase.RUNNING),
        (7, "UNSPECIFIED", JobPhase.RUNNING),
        ("JOB_STATE_COMPLETED", "COMPLETED", JobPhase.COMPLETED),
        ("COMPLETED", "COMPLETED", JobPhase.COMPLETED),
        ("completed", "COMPLETED", JobPhase.COMPLETED),
        ("JOB_STATE_EXPIRED", "EXPIRED", JobPhase.PARTIAL),
        ("JOB_STATE_EARLY_STOPPED", "EARLY_STOPPED", JobPhase.PARTIAL),
        ("JOB_STATE_CANCELLED", "CANCELLED", JobPhase.PARTIAL),
        ("JOB_STATE_FAILED", "FAILED", JobPhase.FAILED),
        ("JOB_STATE_DELETING", "DELETING", JobPhase.GONE),
        ("JOB_STATE_DELETING_CLEANING_UP", "DELETING_CLEANING_UP", JobPhase.GONE),
        ("JOB_STATE_DELETED", "DELETED", JobPhase.GONE),
        ("JOB_STATE_ARCHIVED", "ARCHIVED", JobPhase.GONE),
    ],
)
def test_every_state_has_a_phase(server, make, state, short, phase):
    server.on("GET", JOB, job(state))
    found = make().find("tm-job")
    assert (found.state, found.phase) == (short, phase)


def test_a_finished_job_as_seen_live(server, make):
    progress = {"percent": 100, "totalInputRequests": 1, "totalProcessedRequests": "3", "failedRequests": 0}
    progress |= {"successfullyProcessedRequests": 3, "inputTokens": "126", "outputTokens": 15}
    server.on(
        "GET",
        JOB,
        job(
            "JOB_STATE_COMPLETED",
            jobProgress=progress | {"cachedInputTokenCount": 82},
            expireTime="2026-08-31T03:48:53Z",
            status={"code": "OK", "message": "done\x1b[2J"},
        ),
    )
    found = make().find("tm-job")
    assert found.counts == Counts(3, 3, 0, 126, 15, 82)
    assert found.expires_at == datetime(2026, 8, 31, 3, 48, 53, tzinfo=UTC)
    assert found.message == "done\\x1b[2J"


@pytest.mark.parametrize(
    "fields",
    [
        {"jobProgress": {}},
        {"jobProgress": "soon"},
        {"jobProgress": {"totalInputRequests": None, "outputTokens": "many", "inputTokens": True}},
        {"createTime": "yesterday", "expireTime": 5, "status": None, "inferenceParameters": None},
    ],
)
def test_figures_that_cannot_be_read_are_unknown_not_an_error(server, make, fields):
    server.on("GET", JOB, job(**fields))
    assert make().find("tm-job").counts == Counts()


@pytest.mark.parametrize("name", ["accounts/x/datasets/../../../x?y#z", "a/..", "a b", "x" * 129, "a/b/", "id\n"])
def test_an_output_dataset_id_that_is_none_counts_as_left_out(server, make, name):
    """History: the ledger does not take such an id, and the queue ended with a traceback each time it looked."""
    server.on("GET", JOB, job(outputDatasetId=name))
    assert make().find("tm-job").output_dataset_id == ""


def test_only_a_404_of_the_api_means_there_is_no_job(server, make):
    server.on("GET", JOB, NOT_FOUND)
    assert make().find("tm-job") is None
    server.on("GET", JOB, json_answer({"code": 404, "status": "NOT_FOUND"}, 404))
    assert make().find("tm-job") is None
    for play in (answer(404, HTML), json_answer({"detail": "Not Found"}, 404)):
        server.on("GET", JOB, play)
        with pytest.raises(Unreachable, match="not the API"):
            make().find("tm-job")
    server.on("GET", JOB, error(405, 12, "method"))
    with pytest.raises(ProviderError, match="answered 405"):
        make().find("tm-job")


def test_lists_are_read_page_by_page_and_filtered_here(server, make):
    def entry(name, **fields):
        return {"name": f"accounts/acme/x/{name}", "state": "READY"} | fields

    server.on(
        "GET",
        JOBS,
        json_answer({"batchInferenceJobs": [entry("tm-1"), entry("other")], "nextPageToken": "p2"}),
        json_answer({"batchInferenceJobs": [], "nextPageToken": "p3"}),
        json_answer({"batchInferenceJobs": [entry("tm-2"), None], "nextPageToken": ""}),
    )
    source = entry("tm-3", sourceJobName="accounts/acme/batchInferenceJobs/tm-1", createTime="2026-01-01T00:00:00Z")
    server.on("GET", DATASETS, json_answer({"datasets": [source], "totalSize": 1}))
    provider = make()
    assert [job.job_id for job in provider.jobs("tm-")] == ["tm-1", "tm-2"]
    assert [request.query for request in server.asked("GET", JOBS)] == [
        {"pageSize": "200"},
        {"pageSize": "200", "pageToken": "p2"},
        {"pageSize": "200", "pageToken": "p3"},
    ]
    (found,) = provider.datasets("tm-")
    assert (found.dataset_id, found.state, found.source_job_id) == ("tm-3", "READY", "tm-1")


def test_pages_that_do_not_end_are_an_error(server, make):
    server.on("GET", JOBS, json_answer({"batchInferenceJobs": [], "nextPageToken": "again"}))
    with pytest.raises(ProviderError, match="pages do not end"):
        list(make().jobs(""))


@pytest.mark.parametrize("play", [json_answer({}), answer(200), NOT_FOUND])
def test_deleting_what_is_gone_is_fine(server, make, play):
    server.on("DELETE", JOB, answer(503), play)
    server.on("DELETE", IN, play)
    provider = make()
    provider.delete_job("tm-job")
    provider.delete_dataset("tm-in")
    assert [request.body for request in server.requests] == [b""] * 3
    server.on("DELETE", IN, error(400, 9, "in use"))
    with pytest.raises(ProviderError, match="in use"):
        provider.delete_dataset("tm-in")


# Downloading

RESULTS_KEY, ERRORS_KEY = "dataset/tm-out/BIJOutputSet.jsonl", "dataset/tm-out/error-data"


def signed(server, *keys):
    """An answer of :getDownloadEndpoint with a link for each key."""
    links = {key: f"{server.url}/signed/{key}?X-Goog-Signature=CANARY-SIGNATURE" for key in keys}
    return json_answer({"filenameToSignedUrls": links})


def offer(server, **files):
    """Offer results and errors, each with its plays."""
    keys = {"results": RESULTS_KEY, "errors": ERRORS_KEY}
    server.on("GET", DOWNLOAD, signed(server, *(keys[name] for name in files)))
    for name, plays in files.items():
        server.on("GET", f"/signed/{keys[name]}", *plays)


def test_results_and_errors_arrive_under_our_names_without_the_key(server, make, tmp_path):
    offer(server, results=[answer(200, ROWS)], errors=[answer(200, b"")])
    folder = tmp_path / "results" / "a1"
    assert make().download("accounts/acme/datasets/tm-out", folder) == [
        folder / "BIJOutputSet.jsonl",
        folder / "error-data",
    ]
    assert (folder / "BIJOutputSet.jsonl").read_bytes() == ROWS
    assert (folder / "error-data").read_bytes() == b""
    assert sorted(path.name for path in folder.iterdir()) == ["BIJOutputSet.jsonl", "error-data"]
    asked, *fetched = server.requests
    assert (asked.body, asked.header("Content-Length")) == (b"", None)  # any body is answered with 400
    assert len(fetched) == 2
    for request in fetched:
        assert request.query == {"X-Goog-Signature": "CANARY-SIGNATURE"}
        assert request.header("Authorization") is None
        assert request.header("Accept-Encoding") == "identity"
        assert KEY not in str(request.headers)


def test_there_is_nothing_to_download_when_the_dataset_does_not_exist(server, make, tmp_path):
    server.on("GET", DOWNLOAD, NOT_FOUND)
    server.on("GET", OUT, NOT_FOUND)
    assert make().download("tm-out", tmp_path / "a1") is None
    assert not (tmp_path / "a1").exists()


def test_files_of_a_dataset_that_is_there_are_not_taken_for_absent(server, make, tmp_path):
    server.on("GET", OUT, dataset())
    server.on("GET", DOWNLOAD, NOT_FOUND, signed(server, RESULTS_KEY))
    server.on("GET", f"/signed/{RESULTS_KEY}", answer(200, ROWS))
    assert len(make().download("tm-out", tmp_path / "a1")) == 1
    server.on("GET", DOWNLOAD, NOT_FOUND)
    with pytest.raises(Unreachable, match=r"dataset tm-out is there, but the service knows no files of it \(given up"):
        make().download("tm-out", tmp_path / "a2")


def test_a_dataset_that_is_still_being_written_is_waited_for(server, make, tmp_path):
    """History: the refusal was taken for the last word, although the next minute had the files."""
    links = json_answer({"filenameToSignedUrls": {"dataset/tm-out/BIJOutputSet.jsonl": f"{server.url}/s/1"}})
    server.on("GET", DOWNLOAD, error(400, 9, "dataset tm-out is not ready"), links)
    server.on("GET", "/s/1", answer(200, ROWS))
    (path,) = make().download("tm-out", tmp_path / "a1")
    assert path.read_bytes() == ROWS


def test_several_files_of_a_kind_are_kept_apart_and_names_of_the_service_never_become_paths(server, make, tmp_path):
    keys = [
        "dataset/x/results-1.jsonl",
        "dataset/x/results-0.jsonl",
        "../../../etc/passwd",
        "a/Error_1",
        "a/errors.txt",
    ]
    links = {key: f"{server.url}/signed/{number}" for number, key in enumerate(keys)}
    server.on("GET", DOWNLOAD, json_answer({"filenameToSignedUrls": links}))
    for number in range(len(keys)):
        server.on("GET", f"/signed/{number}", answer(200, b'{"n":%d}\n' % number))
    made = make().download("tm-out", tmp_path / "a1")
    contents = {path.name: path.read_bytes() for path in made}
    assert contents == {
        "BIJOutputSet.jsonl": b'{"n":2}\n',
        "BIJOutputSet.2.jsonl": b'{"n":1}\n',
        "BIJOutputSet.3.jsonl": b'{"n":0}\n',
        "error-data": b'{"n":3}\n',
        "error-data.2": b'{"n":4}\n',
    }
    assert {path.parent for path in made} == {tmp_path / "a1"}


CHUNKED = "Transfer-Encoding: chunked"
LENGTH = f"Content-Length: {len(ROWS)}"
MD5 = base64.b64encode(hashlib.md5(ROWS).digest()).decode()
HALF = len(ROWS) // 2 + 7

DAMAGED = {
    "closed before the announced length": unfinished([LENGTH], ROWS[:HALF]),
    "closed between two lines": unfinished([LENGTH], ROWS[: len(ROWS) // 2]),
    "closed within a chunk": unfinished([CHUNKED], b"%x\r\n" % len(ROWS) + ROWS[:HALF]),
    "closed after a chunk": unfinished([CHUNKED], b"%x\r\n" % len(ROWS) + ROWS + b"\r\n"),
    "closed without any length": unfinished([], ROWS[:HALF]),
    "closed without any length between two lines": unfinished([], ROWS[: len(ROWS) // 2]),
    "announced too short": answer(200, ROWS, [f"Content-Length: {HALF}"]),
    "announced too long": unfinished(["Content-Length: 99999"], ROWS),
    "reset before the answer": reset(),
    "reset in the middle": reset(unfinished([LENGTH], ROWS[:HALF])),
    "half a gzip stream of matching length": answer(200, gzip.compress(ROWS)[:20], ["Content-Encoding: gzip"]),
    "whole gzip without saying so": answer(200, gzip.compress(ROWS)),
    "HTML with 200": answer(200, HTML, ["Content-Type: application/jsonl"]),
    "JSON that is no row": answer(200, b'["a"]'),
    "other bytes of the right length": answer(200, bytes(len(ROWS))),
    "another row than the checksum says": answer(200, ROWS.replace(b"a", b"c", 1), [f"x-goog-hash: md5={MD5}"]),
    "a part of it": answer(206, ROWS[:HALF], [f"Content-Range: bytes 0-{HALF}/{len(ROWS)}"]),
    "nothing": answer(204),
    "a redirect": answer(302, b"", ["Location: http://169.254.169.254/"]),
    "silent in the middle": silent(unfinished([LENGTH], ROWS[:HALF])),
    "expired link": answer(400, b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"),
    "link not accepted": answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
    "link without rights": answer(401),
    "link to nothing": answer(404),
    "storage overloaded": answer(503, b"", ["Retry-After: 1"]),
}


@pytest.mark.parametrize("play", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_download_is_not_stored_and_fetched_again_by_a_fresh_link(server, make, tmp_path, play):
    folder = tmp_path / "a1"
    folder.mkdir()
    old = folder / "BIJOutputSet.jsonl"
    old.write_bytes(b"old")
    seen = []

    def sleep(seconds):
        seen.append({path.name: path.read_bytes() for path in folder.iterdir()})

    offer(server, errors=[answer(200, b"")], results=[play, answer(200, ROWS)])
    made = make(pace={"sleep": sleep} | briefly(play)).download("tm-out", folder)
    assert seen[0] == {"BIJOutputSet.jsonl": b"old"}  # the fault fired, and left nothing behind
    assert old.read_bytes() == ROWS
    assert len(made) == 2
    assert len(server.asked("GET", DOWNLOAD)) == 2
    assert len(server.asked("GET", f"/signed/{RESULTS_KEY}")) == 2


@pytest.mark.parametrize("play", DAMAGED.values(), ids=DAMAGED)
def test_a_download_that_stays_damaged_ends_and_names_no_signature(server, make, tmp_path, caplog, play):
    """What is the same twice although its end is in doubt is what the provider has; the ids will tell."""
    caplog.set_level(logging.DEBUG)
    offer(server, results=[play])
    in_doubt = play in (
        DAMAGED["JSON that is no row"],
        DAMAGED["other bytes of the right length"],
        DAMAGED["closed without any length"],
        DAMAGED["closed without any length between two lines"],
        DAMAGED["announced too short"],
        DAMAGED["another row than the checksum says"],
    )
    shown = ""
    try:
        make(pace={"tries": 3} | briefly(play)).download("tm-out", tmp_path / "a1")
        assert in_doubt
        assert len(server.asked("GET", DOWNLOAD)) == 2
    except Unreachable as failure:
        assert not in_doubt
        assert len(server.asked("GET", DOWNLOAD)) == 3
        assert list((tmp_path / "a1").iterdir()) == []
        shown = str(failure)
        assert "results stay at the service" in shown
    assert "CANARY" not in shown + caplog.text
    assert "/signed/dataset/tm-out/BIJOutputSet.jsonl" in caplog.text


@pytest.mark.parametrize("line", [b"null", b"[[[", b"\x00", b'custom_id":"a"}'])
def test_a_damaged_first_line_does_not_cost_the_others(server, make, tmp_path, line):
    """History: such a file was refused for ever, and every row in it with it."""
    offer(server, results=[answer(200, line + b"\n" + ROWS)])
    make().download("tm-out", tmp_path / "a1")
    assert (tmp_path / "a1" / "BIJOutputSet.jsonl").read_bytes() == line + b"\n" + ROWS
    assert len(server.asked("GET", DOWNLOAD)) == 2  # it is believed when the same bytes come twice


def test_a_compressed_file_is_named_as_such(server, make, tmp_path):
    offer(server, results=[DAMAGED["half a gzip stream of matching length"]])
    with pytest.raises(Unreachable, match="came compressed although it was asked for plain"):
        make(pace={"tries": 2}).download("tm-out", tmp_path / "a1")


def test_a_file_that_was_whole_is_not_fetched_again_when_the_other_fails(server, make, tmp_path):
    expired = answer(400, b"<Error><Code>ExpiredToken</Code></Error>")
    offer(server, results=[answer(200, ROWS)], errors=[expired, expired, answer(200, b'{"custom_id":"c"}\n')])
    assert len(make().download("tm-out", tmp_path / "a1")) == 2
    assert len(server.asked("GET", f"/signed/{RESULTS_KEY}")) == 1
    assert len(server.asked("GET", DOWNLOAD)) == 3


WHOLE = {
    "plain": answer(200, ROWS),
    "chunked": unfinished([CHUNKED], b"%x\r\n" % len(ROWS) + ROWS + b"\r\n0\r\n\r\n"),
    "with its checksum": answer(200, ROWS, [f"x-goog-hash: crc32c=AAAAAA==,md5={MD5}"]),
    "with a checksum of its compressed form": answer(
        200, ROWS, ["x-goog-hash: md5=AAAAAAAAAAAAAAAAAAAAAA==", "x-goog-stored-content-encoding: gzip"]
    ),
    "with a checksum that is none": answer(200, ROWS, ["x-goog-hash: md5=???"]),
    "with a checksum beyond ASCII": answer(200, ROWS, ["x-goog-hash: md5=\u00e9"]),
    "no encoding in particular": answer(200, ROWS, ["Content-Encoding: "]),
    "identity encoding": answer(200, ROWS, ["Content-Encoding: identity"]),
}


@pytest.mark.parametrize("play", WHOLE.values(), ids=WHOLE)
def test_a_whole_file_is_taken_at_once(server, make, tmp_path, play):
    offer(server, results=[play])
    make().download("tm-out", tmp_path / "a1")
    assert (tmp_path / "a1" / "BIJOutputSet.jsonl").read_bytes() == ROWS
    assert len(server.asked("GET", DOWNLOAD)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xef\xbb\xbf" + ROWS, b"\r\n  " + ROWS, ROWS.rstrip(), ROWS + b"\n \n"]
)
def test_blank_files_a_bom_and_odd_line_ends_are_fine(server, make, tmp_path, content):
    offer(server, results=[answer(200, content)])
    make().download("tm-out", tmp_path / "a1")
    assert (tmp_path / "a1" / "BIJOutputSet.jsonl").read_bytes() == content  # kept as it came
    assert len(server.asked("GET", DOWNLOAD)) == 1


def test_links_that_come_later_are_waited_for(server, make, tmp_path):
    server.on("GET", f"/signed/{RESULTS_KEY}", answer(200, ROWS))
    server.on(
        "GET",
        DOWNLOAD,
        json_answer({"filenameToSignedUrls": {}}),
        json_answer({}),
        json_answer({"filenameToSignedUrls": {RESULTS_KEY: ""}}),
        json_answer({"filenameToSignedUrls": None}),
        signed(server, RESULTS_KEY),
    )
    assert len(make().download("tm-out", tmp_path / "a1")) == 1


def test_links_that_never_come_are_a_clear_error(server, make, tmp_path):
    server.on("GET", DOWNLOAD, json_answer({"filenameToSignedUrls": {}}))
    with pytest.raises(Unreachable, match=r"dataset tm-out: the service lists no files \(given up after 7 tries"):
        make().download("tm-out", tmp_path / "a1")


def test_an_endless_file_is_refused_at_the_cap(server, make, tmp_path):
    offer(server, results=[endless(unfinished([]), ROWS * 1000)])
    with pytest.raises(Refused, match="larger than 1,000,000 bytes"):
        make(cap=Cap(bytes=1_000_000)).download("tm-out", tmp_path / "a1")
    assert list((tmp_path / "a1").iterdir()) == []
    assert len(server.asked("GET", DOWNLOAD)) == 1


def test_a_dripping_file_is_left_when_its_time_is_up(server, make, tmp_path, time):
    time.tick = 10.0
    offer(server, results=[endless(unfinished(["Content-Length: 10000000000"]), b"{")])
    with pytest.raises(Unreachable, match="not finished after 300 s"):
        make(cap=Cap(seconds=300)).download("tm-out", tmp_path / "a1")
    assert list((tmp_path / "a1").iterdir()) == []


@pytest.mark.parametrize("link", ["http://169.254.169.254/x", "gs://bucket/x", "https://u@storage.googleapis.com/x"])
def test_a_link_that_leads_elsewhere_is_refused(server, make, tmp_path, link):
    server.on("GET", DOWNLOAD, json_answer({"filenameToSignedUrls": {RESULTS_KEY: link}}))
    with pytest.raises(Refused, match="not followed"):
        make().download("tm-out", tmp_path / "a1")


def test_the_external_url_is_read_and_fetched_without_the_key(server, make, tmp_path):
    url = f"{server.url}/external/x?sig=1"
    server.on(
        *("GET", OUT, dataset(externalUrl=url), dataset(), dataset(externalUrl="gs://b/o")),
        *(json_answer({"name": "accounts/acme/datasets/tm-out"}), NOT_FOUND),
    )
    provider = make()
    assert [provider.external_url("tm-out") for _ in range(5)] == [url, None, "gs://b/o", None, None]
    server.on("GET", "/external/x", reset(), answer(404), answer(200, ROWS))
    (path,) = provider.download_external(url, tmp_path / "a1")
    assert path.read_bytes() == ROWS
    assert server.requests[-1].header("Authorization") is None
    with pytest.raises(Refused, match="not a plain http"):
        provider.download_external("gs://b/o", tmp_path / "a1")
    with pytest.raises(Refused):
        provider.download_external("https://127.0.0.1/x", tmp_path / "a1")


def test_an_external_url_that_stays_dead_is_an_error(server, make, tmp_path):
    server.on("GET", "/external/x", answer(404))
    with pytest.raises(Unreachable, match="storage answered 404"):
        make().download_external(f"{server.url}/external/x", tmp_path / "a1")


# Both clients


def test_netrc_and_proxies_do_not_reach_signed_links(server, make, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    offer(server, results=[answer(200, ROWS)])
    make().download("tm-out", tmp_path / "a1")
    assert server.requests[-1].header("Authorization") is None


def test_no_message_of_a_whole_submission_shows_the_key(server, make, submission, caplog):
    """The service repeats the key in every answer it can, at every step."""
    caplog.set_level(logging.DEBUG)
    shown = []
    for method, path in (("GET", JOB), ("POST", DATASETS), ("POST", UPLOAD), ("GET", IN), ("POST", JOBS)):
        for play in (error(400, 3, f"key {KEY}"), error(500, 13, KEY), answer(404, KEY.encode())):
            fresh(server)
            server.on("GET", OUT, NOT_FOUND)
            server.on(method, path, play)
            if path == IN:
                server.on(method, path, dataset("UPLOADING", status={"code": "X", "message": KEY}))
            try:
                make(pace={"tries": 2}).submit(submission)
            except TrialmakeError as failure:
                shown.append(str(failure))
    assert len(shown) >= 8
    assert KEY not in "".join(shown) + caplog.text


def test_a_date_without_a_time_zone_tells_no_clock(server, make):
    server.on("GET", JOBS, json_answer({"batchInferenceJobs": []}))
    server.on("GET", f"/v1/{MODEL}", json_answer({}, headers=["Date: Mon, 02 Nov 2026 10:00:00 -0000"]))
    assert make().look(MODEL).clock_skew_s is None
