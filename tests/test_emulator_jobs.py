"""The life of an emulated job: its states by the clock, what fails it, what it writes, what outlives it."""

import json
import sqlite3
import tracemalloc

import pytest
from emulator_kit import ABSTAIN, SLOW, Api, fetch, row, started
from faulty_disk import FaultyDisk

from pipeline.emulator import input_rows, jobs
from pipeline.emulator.answers.completion import Answerer, tokens
from pipeline.emulator.config import Config
from pipeline.emulator.records import NEVER, Counts, Job
from pipeline.emulator.store import Store
from pipeline.emulator.worker import Worker

WINDOW = 24 * 3600.0
PATIENCE = 20  # seconds for what takes milliseconds on an idle machine


@pytest.fixture
def api(tmp_path):
    with started(tmp_path / "store") as emulator, Api(emulator.url) as api:
        yield api


# --- the timetable -----------------------------------------------------------------------------


def planned(switches=None, job_seconds=SLOW, expires_at=WINDOW):
    lasting = jobs.durations("j", job_seconds, realistic=False)
    return jobs.timetable("j", 0.0, expires_at, lasting, switches or {})


def job_of(table, **more):
    shape = {"id": "j", "created_at": 0.0, "expires_at": WINDOW, "model": "m", "example_count": 10}
    names = {"input_dataset": "in", "output_dataset": "out"}
    return Job(**shape, **names, **vars(table), **more)


def test_the_stages_share_the_jobs_seconds():
    table = planned()
    assert list(table.starts) == list(jobs.STAGES)
    assert (table.starts["VALIDATING"], table.ends_at, table.end_state, table.share) == (0, SLOW, "COMPLETED", 1)


@pytest.mark.parametrize("job_id", ["a", "b", "c", "d", "e", "f", "g", "h"])
def test_realistic_jobs_step_on_minutes_and_take_five_to_nine(job_id):
    lasting = jobs.durations(job_id, 0.4, realistic=True)
    assert all(seconds % 60 == 0 for seconds in lasting.values())
    assert 5 <= sum(lasting.values()) / 60 <= 9


@pytest.mark.parametrize(
    ("switches", "expires_at", "end_state", "share", "last_stage"),
    [
        ({"end": {"state": "EXPIRED", "at": 0.6}}, WINDOW, "EXPIRED", 0.6, "RUNNING"),
        ({"end": {"state": "EARLY_STOPPED", "at": 0}}, WINDOW, "EARLY_STOPPED", 0, "RUNNING"),
        ({"end": {"state": "FAILED"}}, WINDOW, "FAILED", 1, "WRITING_RESULTS"),
        ({}, 300.0, "EXPIRED", (300 - 240) / 270, "RUNNING"),  # the window closes while it runs
        (
            {"stuck": {"in": "RUNNING", "seconds": 2 * WINDOW}},
            WINDOW,
            "EXPIRED",
            pytest.approx(0.5, abs=0.01),
            "RUNNING",
        ),
        ({"stuck": {"in": "PENDING"}}, WINDOW, "COMPLETED", 1, "WRITING_RESULTS"),  # for ever, says the documentation
    ],
)
def test_how_a_job_ends(switches, expires_at, end_state, share, last_stage):
    table = planned(switches, expires_at=expires_at)
    assert (table.end_state, table.share, list(table.starts)[-1]) == (end_state, share, last_stage)
    if switches.get("stuck") == {"in": "PENDING"}:
        assert table.starts["CREATING"] > NEVER


@pytest.mark.parametrize("job_seconds", [0, 1e-9])
def test_a_job_may_take_no_time_at_all(job_seconds):
    table = planned(job_seconds=job_seconds)
    done = job_of(table, validated_at=0.0, executed_at=0.0)
    assert jobs.view(done, 1.0).state == "COMPLETED"


def test_the_state_is_a_function_of_record_and_clock():
    job = job_of(planned(), validated_at=0.1, executed_at=250.0, counts=Counts(succeeded=10))
    seen = [(at, jobs.view(job, at)) for at in (0, 119, 120, 180, 240, 375, 509, 510, 599, 600, 10_000)]
    assert [(at, view.state, view.percent, view.counts.succeeded) for at, view in seen] == [
        (0, "VALIDATING", 0, 0),
        (119, "VALIDATING", 0, 0),
        (120, "PENDING", 0, 0),
        (180, "CREATING", 0, 0),
        (240, "RUNNING", 0, 0),
        (375, "RUNNING", 50, 5),
        (509, "RUNNING", 99, 9),
        (510, "WRITING_RESULTS", 99, 10),
        (599, "WRITING_RESULTS", 99, 10),
        (600, "COMPLETED", 100, 10),
        (10_000, "COMPLETED", 100, 10),
    ]


def test_real_work_delays_a_state_and_never_hurries_one():
    unchecked = job_of(planned())
    assert jobs.view(unchecked, 10_000).state == "VALIDATING"
    unanswered = job_of(planned(), validated_at=0.1)
    half = jobs.Progress(0.5, Counts(succeeded=5))
    assert (jobs.view(unanswered, 10_000, half).state, jobs.view(unanswered, 10_000, half).counts.succeeded) == (
        "RUNNING",
        5,
    )
    late = job_of(planned(), validated_at=0.1, executed_at=900.0)
    assert (jobs.view(late, 900).state, jobs.view(late, 900).ended_at) == ("COMPLETED", 900.0)


# --- over the wire -----------------------------------------------------------------------------


def test_a_polling_client_sees_the_whole_progression(api):
    api.dataset("in", [row(number) for number in range(4)])
    api.create_job("j")
    seen = []
    for seconds in (125, 60, 60, 130, 150, 100):
        api.advance(seconds)
        job = api.job("j")
        filled = [name for name, moment in job["lifecycle"].items() if moment]
        seen.append((job["state"].removeprefix("JOB_STATE_"), job["jobProgress"]["percent"], len(filled)))
        assert job["jobProgress"]["totalInputRequests"] == 4
        assert api.get("/datasets/j-out").status_code == (200 if job["state"].endswith("COMPLETED") else 404)
    assert [state for state, _, _ in seen] == [
        "PENDING",
        "CREATING",
        "RUNNING",
        "RUNNING",
        "WRITING_RESULTS",
        "COMPLETED",
    ]
    assert [percent for _, percent, _ in seen] == sorted(percent for _, percent, _ in seen)
    assert [filled for _, _, filled in seen] == [1, 1, 2, 2, 2, 3]


def test_realistic_mode_moves_on_the_minute(tmp_path):
    with started(tmp_path, realistic=True) as emulator, Api(emulator.url) as api:
        api.dataset("in", [row()])
        api.create_job("j")
        seen = []
        while not seen or seen[-1] != "JOB_STATE_COMPLETED":
            api.advance(60)
            seen.append(api.job("j")["state"])
    assert 5 <= len(seen) <= 9
    assert [state for number, state in enumerate(seen) if state not in seen[:number]] == [
        f"JOB_STATE_{state}" for state in ("PENDING", "CREATING", "RUNNING", "WRITING_RESULTS", "COMPLETED")
    ]


def test_a_completed_job_counts_what_it_did(api):
    job = api.finished("j", [row(0), row(1), row(2, extra_body={})])
    usage = [response["usage"] for response in api.results("j-out").values()]
    progress = job["jobProgress"]
    assert (progress["successfullyProcessedRequests"], progress["failedRequests"], progress["outputRows"]) == (2, 1, 2)
    assert progress["totalProcessedRequests"] == 3
    assert progress["inputTokens"] == sum(one["prompt_tokens"] for one in usage)
    assert progress["outputTokens"] == sum(one["completion_tokens"] for one in usage)
    assert progress["cachedInputTokenCount"] == sum(one["prompt_tokens_details"]["cached_tokens"] for one in usage)
    assert job["status"] == {"code": "OK", "message": ""}


def test_the_output_is_flat_shuffled_and_complete(api):
    rows = [row(number) for number in range(40)]
    api.finished("j", rows)
    files = api.files("j-out")
    assert set(files) == {"BIJOutputSet.jsonl", "error-data"}
    assert files["error-data"] == b""
    got = [json.loads(line) for line in files["BIJOutputSet.jsonl"].splitlines()]
    sent = [one["custom_id"] for one in rows]
    assert [one["custom_id"] for one in got] != sent
    assert sorted(one["custom_id"] for one in got) == sorted(sent)
    assert all(set(one) == {"custom_id", "response"} for one in got)
    assert got[0]["response"].keys() == {"id", "object", "created", "model", "choices", "usage"}
    output = api.get("/datasets/j-out").json()
    assert output["sourceJobName"] == "accounts/emulator/batchInferenceJobs/j"
    assert (output["state"], output["externalUrl"], output["exampleCount"]) == ("READY", "", "40")
    assert set(api.links("j-out")) == {"dataset/j-out/BIJOutputSet.jsonl", "dataset/j-out/error-data"}


def test_total_echoes_the_declared_count_and_the_rest_is_true(api):
    api.create_dataset("in", 1)
    api.upload("in", b"".join(json.dumps(row(number)).encode() + b"\n" for number in range(3)))
    api.advance(1)
    progress = api.finished("j", input_id="in")["jobProgress"]
    assert (progress["totalInputRequests"], progress["totalProcessedRequests"]) == (1, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "not a JSON object"),
        ({"body": {"messages": []}}, "custom_id is required"),
        ({"custom_id": 7, "body": {}}, "custom_id is required"),
        (row(0), "duplicate custom_id"),
        ({"custom_id": "x"}, "body is required"),
        ({"custom_id": "x", "body": {}}, "either messages or prompt_token_ids"),
        ({"custom_id": "x", "body": {"messages": [], "prompt_token_ids": []}}, "either messages or prompt_token_ids"),
        ({"custom_id": "x", "body": {"messages": []}}, "non-empty list"),
        ({"custom_id": "x", "body": {"messages": [{"role": "wizard", "content": ""}]}}, "unknown role"),
        ({"custom_id": "x", "nope": 1, "body": {"messages": [{"role": "user"}]}}, "unknown field"),
    ],
)
def test_a_bad_line_fails_the_whole_job_and_there_is_no_output(api, bad, message):
    job = api.finished("j", [row(0), bad])
    assert (job["state"], job["status"]["code"]) == ("JOB_STATE_FAILED", "INVALID_ARGUMENT")
    assert "chat dataset validation failed on input.jsonl:1: " in job["status"]["message"]
    assert message in job["status"]["message"]
    assert api.get("/datasets/j-out").status_code == 404
    assert api.get("/datasets/j-out:getDownloadEndpoint").status_code == 404


def test_an_id_whose_job_failed_in_validation_is_free_for_an_output_again(api):
    api.finished("j", [b"{"], output_id="out")
    assert api.finished("k", [row()], output_id="out")["state"] == "JOB_STATE_COMPLETED"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"extra_body": {}}, "Extra inputs are not permitted, field: 'extra_body'"),
        ({"model": "accounts/fireworks/models/other"}, "is not the model of the job"),
        ({"n": 0}, "n: 0"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_a_bad_parameter_fails_its_row_only(api, parameters, message):
    job = api.finished("j", [row(0), row(1, **parameters)])
    assert job["state"] == "JOB_STATE_COMPLETED"
    (failure,) = api.errors("j-out").values()
    assert (failure["custom_id"], failure["error"]["code"]) == (row(1)["custom_id"], 400)
    assert message in failure["error"]["message"]
    assert list(api.results("j-out")) == [row(0)["custom_id"]]


def test_parameters_of_the_job_count_for_rows_that_have_none(api):
    one = row(0, temperature=None, max_tokens=None)
    defaults = {"maxTokens": 1, "n": 2, "extraBody": '{"stop": ["zz"]}'}
    api.finished("j", [one], inferenceParameters=defaults, systemPrompt="Unused: the row has its own.")
    (response,) = api.results("j-out").values()
    assert [choice["finish_reason"] for choice in response["choices"]] == ["length", "length"]
    assert [choice["index"] for choice in response["choices"]] == [0, 1]


def test_the_jobs_system_prompt_goes_before_rows_without_one(api):
    api.finished("j", [row(0, system="")], systemPrompt=ABSTAIN)
    (response,) = api.results("j-out").values()
    assert response["choices"][0]["message"]["content"] == "I don't know"
    assert response["usage"]["prompt_tokens_details"]["cached_tokens"] == tokens(ABSTAIN) + 4


def test_a_deleted_job_cleans_up_for_a_while_and_is_gone(tmp_path):
    with started(tmp_path, delete_seconds=100.0) as emulator, Api(emulator.url) as api:
        api.dataset("in", [row()])
        api.create_job("j")
        assert api.delete("/batchInferenceJobs/j").json() == {}
        assert api.job("j")["state"] == "JOB_STATE_DELETING_CLEANING_UP"
        assert api.delete("/batchInferenceJobs/j").status_code == 404
        assert api.create_job("j").status_code == 409
        api.advance(100)
        assert api.get("/batchInferenceJobs/j").status_code == 404
        assert api.get("/datasets/j-out").status_code == 404
        assert api.finished("j", input_id="in")["state"] == "JOB_STATE_COMPLETED"
        assert [job["id"] for job in api.state()["jobs"]] == ["j", "j"]


def test_a_job_deleted_after_its_work_and_before_its_end_leaves_no_output(api):
    api.dataset("in", [row()])
    api.create_job("j")
    api.advance(SLOW * 0.9)
    assert api.job("j")["state"] == "JOB_STATE_WRITING_RESULTS"
    api.delete("/batchInferenceJobs/j")
    api.advance(SLOW)
    assert api.get("/datasets/j-out").status_code == 404


def test_results_outlive_a_deleted_job(api):
    api.finished("j", [row()])
    api.delete("/batchInferenceJobs/j")
    assert len(api.results("j-out")) == 1


def test_an_input_deleted_too_early_fails_the_job(api):
    api.dataset("in", [row()])
    api.create_job("j")
    api.advance(130)
    api.delete("/datasets/in")
    api.advance(SLOW)
    assert (api.job("j")["state"], api.job("j")["status"]["message"]) == ("JOB_STATE_FAILED", "input dataset not found")


def test_a_continued_job_runs_only_what_has_no_success_yet(api):
    api.faults({"job": {"id": "^j$"}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}})
    first = api.finished("j", [row(number) for number in range(10)] + [row(10, nope=1)])
    assert first["state"] == "JOB_STATE_EXPIRED"
    done = set(api.results("j-out"))
    name = "accounts/emulator/batchInferenceJobs/j"
    api.finished("k", model=None, inputDatasetId=None, continuedFromJobName=name)
    again = set(api.results("k-out"))
    assert len(done) in (4, 5)
    assert (done & again, len(done | again)) == (set(), 10)
    assert api.job("k")["continuedFromJobName"] == name
    chain = api.links("k-out", downloadLineage="true")
    assert list(chain) == [f"dataset/{i}-out/{f}" for i in "jk" for f in ("BIJOutputSet.jsonl", "error-data")]
    rows = [
        json.loads(line)["custom_id"]
        for name, url in chain.items()
        if "BIJ" in name
        for line in fetch(url).iter_lines()
    ]
    assert sorted(rows) == sorted(done | again)


def test_a_running_job_cannot_be_continued(api):
    api.dataset("in", [row()])
    api.create_job("j")
    answer = api.create_job("k", continuedFromJobName="accounts/emulator/batchInferenceJobs/j")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


def test_answers_do_not_depend_on_job_dataset_or_store(tmp_path):
    passage = "Ada Lovelace wrote the first program in 1843. She lived in London."
    rows = [row(number, "When was it written?", passage, temperature=1.0) for number in range(20)]
    lines = []
    for name in ("a", "b"):
        with started(tmp_path / name) as emulator, Api(emulator.url) as api:
            api.finished(name, rows if name == "a" else reversed(rows))
            lines.append(sorted(api.files(f"{name}-out")["BIJOutputSet.jsonl"].splitlines()))
    assert lines[0] == lines[1]
    assert len({json.loads(line)["response"]["choices"][0]["message"]["content"] for line in lines[0]}) > 1


# --- memory --------------------------------------------------------------------------------------


def test_rows_are_read_in_windows_each_exactly_once(tmp_path):
    """Blank lines, CRLF, several files and a last line without an end must not shift a window."""
    for name, numbers in (("a", range(7)), ("b", range(7, 8)), ("c", ())):
        lines = [json.dumps(row(number)) + ("\r\n\n" if number % 2 else "\n") for number in numbers]
        (tmp_path / name).write_text("".join(lines).rstrip("\n"), newline="")
    files = [input_rows.InputFile(name, tmp_path / name) for name in "abc"]
    assert input_rows.check(files, lambda: False) == ""
    rows = input_rows.InputRows(files, window=3)
    got = list(rows.shuffled("seed"))
    assert rows.count == 8
    assert sorted((one.number, one.custom_id) for one in got) == [(n, row(n)["custom_id"]) for n in range(8)]
    assert (
        [one.number for one in got]
        == [one.number for one in rows.shuffled("seed")]
        != sorted(one.number for one in got)
    )


@pytest.mark.heavy
def test_a_hundred_thousand_rows_are_never_held(api):
    """Input is some 40 MB; validating and answering it may hold ids and one window."""
    body = {"messages": [{"role": "user", "content": "Question: who? " + "x" * 300}]}
    api.dataset("in", ({"custom_id": f"id-{number}", "body": body} for number in range(100_000)))
    tracemalloc.start()
    job = api.finished("j", input_id="in")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert job["jobProgress"]["outputRows"] == 100_000
    assert peak < 30_000_000


# --- a full disk -------------------------------------------------------------------------------


def test_a_job_whose_results_find_no_room_fails_and_the_next_one_does_not(api):
    """The thread ended, and every job was running for ever."""
    api.dataset("in", [row()])
    api.create_job("j")
    with FaultyDisk(fail_at=0) as full:
        api.advance(SLOW)
    assert full.fired
    assert full.operations[0].startswith("open ")
    failed = api.job("j")
    assert failed["state"] == "JOB_STATE_FAILED"
    assert failed["status"]["message"] == "the emulator's disk: could not be written (No space left on device)."
    assert failed["jobProgress"]["percent"] == 0
    assert api.finished("k")["state"] == "JOB_STATE_COMPLETED"


class FullStore(Store):
    """A store without room for what becomes of a job, *left* times."""

    left = 2

    def update_job(self, record):
        if self.left:
            self.left -= 1
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        super().update_job(record)


def test_what_became_of_a_job_is_recorded_when_there_is_room_again(tmp_path):
    store, ended = FullStore(tmp_path), []
    store.add_job(job_of(planned(job_seconds=0)))
    worker = Worker(store, Answerer(Config()), lambda: ended.append(True))
    worker.start()
    while store.left:
        worker.wake()
        assert worker.settle(PATIENCE)
    worker.wake()
    assert worker.settle(PATIENCE)
    assert store.job("j").error == "input dataset not found"
    worker.stop()
    worker.join()
    store.close()
    assert not ended
