"""The emulator on the wire: what a client that trusts the API sheet may rely on, call by call."""

import http.client
import json
import re
import socket
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from emulator_kit import MODEL, Api, fetch, row, started

from pipeline.emulator import bodies
from pipeline.emulator.datasets_api import UPLOAD_LIMIT


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture
def api(server):
    with Api(server.url) as api:
        yield api
    with Api(server.url) as sweeper:
        for kind in ("batchInferenceJobs", "datasets"):
            for resource in sweeper.get(f"/{kind}", pageSize=200).json()[kind]:
                sweeper.delete(f"/{kind}/{resource['name'].rpartition('/')[2]}")
        sweeper.advance(1)


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


# --- who asks, and for what ---------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "Bearer wrong", "emulator-key", "Bearer "])
def test_a_bad_key_gets_403_in_its_own_envelope(api, header):
    api.session.headers["Authorization"] = header
    answer = api.get("/datasets")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert set(answer.json()) == {"error", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/accounts/other/datasets", 403),
        ("PUT", "/datasets", 405),
        ("POST", "/datasets/x", 405),
        ("POST", "/datasets/x:getDownloadEndpoint", 405),
        ("POST", "/batchInferenceJobs/x:cancel", 404),
        ("GET", "/datasets/absent", 404),
        ("DELETE", "/datasets/absent", 404),
        ("GET", "/datasets/absent:getDownloadEndpoint", 404),
        ("GET", "/batchInferenceJobs/absent", 404),
        ("DELETE", "/batchInferenceJobs/absent", 404),
    ],
)
def test_what_is_not_there_is_refused_as_the_gateway_does(api, method, path, status):
    answer = api.call(method, path)
    assert answer.status_code == status
    if status == 404:
        assert answer.json() == {"code": 5, "message": "resource not found", "details": []}


def test_the_account_is_found_both_ways(api):
    listing = api.get("/v1/accounts").json()
    assert [account["name"] for account in listing["accounts"]] == ["accounts/emulator"]
    assert (listing["nextPageToken"], listing["totalSize"]) == ("", 1)
    assert api.get("/v1/accounts/emulator").json()["state"] == "READY"
    assert api.get("/verifyApiKey").headers["x-fireworks-account-id"] == "emulator"


def test_a_get_with_a_body_is_refused_and_the_connection_survives(api):
    assert api.call("GET", "/datasets", json={}).status_code == 400
    assert api.get("/datasets").status_code == 200


# --- datasets ------------------------------------------------------------------------------------


def test_a_new_dataset_shows_every_field(api):
    answer = api.create_dataset("in", 120).json()
    assert TIME.fullmatch(answer.pop("createTime"))
    assert TIME.fullmatch(answer.pop("updateTime"))
    assert answer == {
        "name": "accounts/emulator/datasets/in",
        "displayName": "",
        "createdBy": "emulator@localhost",
        "state": "UPLOADING",
        "status": {"code": "OK", "message": ""},
        "exampleCount": "120",
        "estimatedTokenCount": "0",
        "averageTurnCount": 0,
        "format": "FORMAT_UNSPECIFIED",
        "externalUrl": "",
        "sourceJobName": "",
        "encryptionState": "ENCRYPTION_STATE_PLAINTEXT",
        "userUploaded": {},
    }


def test_both_spellings_of_a_field_are_understood(api):
    body = {"dataset_id": "in", "dataset": {"user_uploaded": {}, "example_count": 7, "display_name": "d"}}
    answer = api.post("/datasets", body).json()
    assert (answer["exampleCount"], answer["displayName"], answer["userUploaded"]) == ("7", "d", {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"datasetId": "in", "dataset": {"userUploaded": {}}}, "example_count is required"),
        ({"datasetId": "in", "dataset": {}, "exampleCount": "1"}, 'unknown field "exampleCount"'),
        ({"datasetId": "in", "dataset": {"exampleCount": "1", "nope": 1}}, 'unknown field "nope"'),
        ({"datasetId": "in", "dataset": {"exampleCount": "many"}}, "exampleCount"),
        ({"datasetId": "in", "dataset": {"exampleCount": "1", "example_count": "1"}}, "set twice"),
        ({"datasetId": "in", "dataset": {"exampleCount": "1", "userUploaded": {}, "splitted": {}}}, "only one of"),
        ({"datasetId": "in", "dataset": {"exampleCount": "1", "format": "CSV"}}, "format"),
        ({"datasetId": "1in", "dataset": {"exampleCount": "1"}}, "invalid dataset id"),
        ({"datasetId": "in-", "dataset": {"exampleCount": "1"}}, "invalid dataset id"),
        ({"datasetId": "a" * 64, "dataset": {"exampleCount": "1"}}, "invalid dataset id"),
        ({"dataset": {"exampleCount": "1"}}, "invalid dataset id"),
        ([], "expected a JSON object"),
    ],
)
def test_a_wrong_create_is_refused_with_code_3(api, body, message):
    answer = api.post("/datasets", body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert message in answer.json()["message"]


def test_a_body_that_is_no_json_is_refused(api):
    answer = api.call("POST", "/datasets", data=b"{")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


def test_a_taken_dataset_id_is_a_conflict(api):
    api.create_dataset("in")
    answer = api.create_dataset("in")
    assert (answer.status_code, answer.json()["code"]) == (409, 6)


def test_an_uploaded_dataset_is_ready_after_a_while_and_takes_no_second_file(api):
    api.create_dataset("in", 1)
    answer = api.upload("in", b'{"a": 1}\n')
    assert answer.json() | {"created_at": 0} == {
        "id": "accounts/emulator/datasets/in",
        "object": "file",
        "bytes": 9,
        "created_at": 0,
        "filename": "input.jsonl",
        "purpose": "dataset",
    }
    api.advance(1)
    assert api.get("/datasets/in").json()["state"] == "READY"
    again = api.upload("in", b'{"a": 1}\n')
    assert again.status_code == 400
    assert "already uploaded" in again.json()["message"]
    assert api.files("in") == {"input.jsonl": b'{"a": 1}\n'}


def test_the_colon_of_a_verb_may_be_escaped(api):
    api.dataset("in", [row()])
    assert api.get("/datasets/in%3AgetDownloadEndpoint").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=x; filename=f\r\n\r\n1\r\n--b--",
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n1"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--",
        ),
    ],
)
def test_an_upload_that_is_not_one_file_is_refused(api, content_type, body):
    api.create_dataset("in")
    answer = api.call("POST", "/datasets/in:upload", data=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert api.get("/datasets/in").json()["state"] == "UPLOADING"


def test_a_chunked_upload_is_understood(api):
    api.create_dataset("in")
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n',
        b"12\r",
        b"\n34\r\n--b",
        b"--\r\n",
    ]
    answer = api.call(
        "POST", "/datasets/in:upload", data=iter(parts), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.json()["bytes"] == 6
    api.advance(1)
    assert api.files("in") == {"f.jsonl": b"12\r\n34"}


class _Trickle:
    """A body that comes in pieces of *step* bytes."""

    def __init__(self, data, step):
        self.data, self.step = data, step

    def read(self, size=0):
        piece, self.data = self.data[: self.step], self.data[self.step :]
        return piece


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("payload", [b"", b"x", b"\r\n--", b"--b", b"a\r\n--\r\n-b\n" * 9])
def test_a_multipart_file_survives_any_cut_of_the_stream(step, payload):
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: x\r\n\r\n'
    seen = bytearray()
    body = _Trickle(head + payload + b"\r\n--b--\r\n", step)
    assert bodies.multipart_file(body, 'multipart/form-data; boundary="b"', seen.extend) == "f"
    assert bytes(seen) == payload


def test_an_upload_above_the_limit_is_refused_before_it_is_sent(api, server):
    api.create_dataset("in")
    host = urlsplit(server.url).netloc
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.putrequest("POST", "/v1/accounts/emulator/datasets/in:upload")
    for name, value in (
        ("Authorization", "Bearer emulator-key"),
        ("Content-Type", "multipart/form-data; boundary=b"),
        ("Content-Length", str(UPLOAD_LIMIT + 1)),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_update_and_delete(api):
    api.dataset("in", [row()])
    assert api.call("PATCH", "/datasets/in", json={"displayName": "new"}).json()["displayName"] == "new"
    assert api.delete("/datasets/in").json() == {}
    assert api.get("/datasets/in").status_code == 404
    assert api.delete("/datasets/in").status_code == 404


# --- signed links --------------------------------------------------------------------------------


def _put(url, data, **headers):
    headers = {
        "Content-Type": "application/octet-stream",
        "X-Goog-Content-Length-Range": f"{len(data)},{len(data)}",
    } | headers
    host, path = urlsplit(url).netloc, url.partition(urlsplit(url).netloc)[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("PUT", path, data, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _upload_links(api, sizes):
    return api.post("/datasets/in:getUploadEndpoint", {"filenameToSize": sizes}).json()["filenameToSignedUrls"]


def test_a_signed_upload_of_several_files(api):
    api.create_dataset("in", 2)
    links = _upload_links(api, {"a.jsonl": "2", "b.jsonl": 3})
    query = parse_qs(urlsplit(links["a.jsonl"]).query)
    assert query["X-Goog-Expires"] == ["3600"]
    assert query["X-Goog-SignedHeaders"] == ["content-type;host;x-goog-content-length-range"]
    assert re.fullmatch(r"\d{8}T\d{6}Z", query["X-Goog-Date"][0])
    assert _put(links["a.jsonl"], b"1\n") == 200
    early = api.post("/datasets/in:validateUpload")
    assert (early.status_code, early.json()["code"]) == (400, 9)
    assert _put(links["b.jsonl"], b"22\n") == 200
    assert api.post("/datasets/in:validateUpload").json() == {}
    api.advance(1)
    assert api.get("/datasets/in").json()["state"] == "READY"
    assert api.files("in") == {"a.jsonl": b"1\n", "b.jsonl": b"22\n"}
    assert api.post("/datasets/in:validateUpload").json() == {}


def test_a_new_announcement_replaces_the_earlier_one(api):
    api.create_dataset("in", 2)
    first = _upload_links(api, {"a.jsonl": "2"})
    _upload_links(api, {"b.jsonl": "2"})
    assert _put(first["a.jsonl"], b"1\n") == 404
    assert api.post("/datasets/in:validateUpload").status_code == 400


def test_validation_refuses_an_empty_object_and_no_announcement(api):
    api.create_dataset("in", 1)
    assert api.post("/datasets/in:validateUpload").json()["code"] == 9
    links = _upload_links(api, {"a.jsonl": "0"})
    assert _put(links["a.jsonl"], b"") == 200
    assert api.post("/datasets/in:validateUpload").json()["code"] == 9


@pytest.mark.parametrize("names", [{}, {"../a": "1"}, {"a/b": "1"}, {"a": "-1"}, {"a": "x"}, {"": "1"}])
def test_only_base_names_and_sizes_can_be_announced(api, names):
    api.create_dataset("in", 1)
    assert api.post("/datasets/in:getUploadEndpoint", {"filenameToSize": names}).status_code == 400


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"12\n", {}, 403),  # another size than was signed
        (b"1\n", {"Content-Type": "text/plain"}, 403),
        (b"123", {"X-Goog-Content-Length-Range": "2,2"}, 400),  # a body that is not what it says
        (b"1\n", {"Authorization": "Bearer emulator-key"}, 403),
    ],
)
def test_an_upload_link_insists_on_what_was_signed(api, data, headers, status):
    api.create_dataset("in", 1)
    links = _upload_links(api, {"a.jsonl": "2"})
    assert _put(links["a.jsonl"], data, **headers) == status
    assert api.post("/datasets/in:validateUpload").status_code == 400


def test_a_download_link_needs_no_key_and_lives_ten_minutes(api):
    api.dataset("in", [b"{}"])
    (url,) = api.links("in").values()
    query = parse_qs(urlsplit(url).query)
    assert (query["X-Goog-Expires"], query["X-Goog-SignedHeaders"]) == (["599"], ["host"])
    assert fetch(url).content == b"{}\n"
    api.advance(590)
    assert fetch(url).status_code == 200
    api.advance(10)
    late = fetch(url)
    assert (late.status_code, "<Code>ExpiredToken</Code>" in late.text) == (400, True)


def test_a_changed_link_does_not_open(api):
    api.dataset("in", [b"{}"])
    (url,) = api.links("in").values()
    for changed in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("Expires=599", "Expires=9999")):
        assert fetch(changed).status_code == 403
    assert fetch(url.partition("?")[0]).status_code == 403


def test_a_key_shown_to_a_link_fails_the_request_and_is_recorded(api):
    api.dataset("in", [b"{}"])
    (url,) = api.links("in").values()
    before = len(api.state()["violations"])
    assert fetch(url, headers={"Authorization": "Bearer emulator-key"}).status_code == 403
    assert [entry["violation"] for entry in api.state()["violations"][before:]] == ["authorization at a signed link"]


# --- jobs ----------------------------------------------------------------------------------------


def test_a_new_job_shows_every_field(api):
    api.dataset("in", [row()])
    answer = api.create_job(
        "j", displayName="d", maxJobDuration="86400s", inferenceParameters={"max_tokens": 64}
    ).json()
    for name in ("createTime", "updateTime", "expireTime"):
        assert TIME.fullmatch(answer.pop(name))
    assert answer == {
        "name": "accounts/emulator/batchInferenceJobs/j",
        "displayName": "d",
        "createdBy": "emulator@localhost",
        "state": "JOB_STATE_VALIDATING",
        "status": {"code": "OK", "message": ""},
        "model": MODEL,
        "inputDatasetId": "accounts/emulator/datasets/in",
        "outputDatasetId": "accounts/emulator/datasets/j-out",
        "inferenceParameters": {"extraBody": "{}", "maxTokens": 64},
        "precision": "BF16",
        "continuedFromJobName": "",
        "systemPrompt": "",
        "maxJobDuration": "86400s",
        "placement": None,
        "waitingOnCapacity": False,
        "lifecycle": None,
        "jobProgress": None,
    }
    assert api.job("j")["jobProgress"] is None


@pytest.mark.parametrize(
    ("changes", "status", "code", "message"),
    [
        ({"model": None}, 400, 3, "model is required"),
        ({"inputDatasetId": None}, 400, 3, "input_dataset_id is required"),
        ({"inputDatasetId": "accounts/other/datasets/in"}, 400, 3, "not a dataset of this account"),
        ({"inputDatasetId": "accounts/emulator/datasets/absent"}, 404, 5, "resource not found"),
        ({"inputDatasetId": "accounts/emulator/datasets/empty"}, 400, 9, "not ready"),
        ({"outputDatasetId": "accounts/emulator/datasets/in"}, 409, 6, "already exists"),
        ({"outputDatasetId": "accounts/emulator/datasets/Out"}, 400, 3, "invalid dataset id"),
        ({"continueFrom": "x"}, 400, 3, 'unknown field "continueFrom"'),
        ({"continuedFromJobName": "accounts/emulator/batchInferenceJobs/none"}, 404, 5, "not found"),
        ({"continuedFromJobName": "none"}, 400, 3, "not a full job name"),
        ({"inferenceParameters": {"maxTokens": "x"}}, 400, 3, "maxTokens"),
        ({"inferenceParameters": {"extraBody": "[]"}}, 400, 3, "not a JSON object"),
        ({"inferenceParameters": {"extraBody": "{"}}, 400, 3, "not JSON"),
        ({"maxJobDuration": "1 day"}, 400, 3, "not a duration"),
    ],
)
def test_a_wrong_job_is_refused(api, changes, status, code, message):
    api.dataset("in", [row()])
    api.create_dataset("empty")
    answer = api.create_job("j", **changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert message in answer.json()["message"]
    assert api.get("/batchInferenceJobs/j").status_code == 404


@pytest.mark.parametrize("job_id", ["1j", "j-", "J", "a" * 64, "a_b"])
def test_a_job_id_follows_the_rule(api, job_id):
    api.dataset("in", [row()])
    assert api.create_job(job_id, output_id="out").json()["code"] == 3


def test_a_taken_job_id_is_a_conflict_whatever_the_content(api):
    api.dataset("in", [row()])
    api.create_job("j")
    for answer in (api.create_job("j"), api.create_job("j", output_id="other")):
        assert (answer.status_code, answer.json()["code"]) == (409, 6)
    assert [job["id"] for job in api.state()["jobs"] if job["state"] != "GONE"] == ["j"]


def test_an_output_id_is_taken_from_the_moment_a_job_asks_for_it(api):
    api.dataset("in", [row()])
    api.create_job("j", output_id="out")
    assert api.get("/datasets/out").status_code == 404
    assert api.create_job("k", output_id="out").status_code == 409
    assert api.create_dataset("out").status_code == 409


def test_without_ids_the_server_invents_them(api):
    api.dataset("in", [row()])
    answer = api.post("/batchInferenceJobs", {"model": MODEL, "inputDatasetId": "in"}).json()
    assert re.fullmatch(r"accounts/emulator/batchInferenceJobs/[a-z][a-z0-9]{7}", answer["name"])
    assert re.fullmatch(r"accounts/emulator/datasets/bij-[a-z][a-z0-9]{7}", answer["outputDatasetId"])


@pytest.mark.parametrize(("asked", "hours"), [("", 24), ("3600s", 12), ("172800s", 48), ("999999s", 72)])
def test_the_window_is_kept_between_12_and_72_hours(api, asked, hours):
    api.dataset("in", [row()])
    job = api.create_job("j", maxJobDuration=asked).json()
    created, expires = (datetime.fromisoformat(job[name]) for name in ("createTime", "expireTime"))
    assert expires - created == timedelta(hours=hours)


def test_the_quota_refuses_with_the_words_seen_live_and_frees_itself(tmp_path):
    with started(tmp_path, quota=1) as emulator, Api(emulator.url) as api:
        api.dataset("in", [row()])
        assert api.create_job("a").status_code == 200
        full = api.create_job("b")
        assert full.status_code == 400
        assert full.json()["message"] == (
            "invalid batch inference job: job-submission-count for account emulator, in use: 1, quota: 1"
        )
        api.advance(600)
        assert api.create_job("b").status_code == 200


# --- listings ------------------------------------------------------------------------------------


def test_a_listing_comes_in_pages(api):
    for number in range(5):
        api.create_dataset(f"d{number}")
    seen, token = [], ""
    while True:
        answer = api.get("/datasets", pageSize=2, pageToken=token, filter='state="READY"').json()
        assert answer["totalSize"] == 5
        seen.append([resource["name"][-2:] for resource in answer["datasets"]])
        if not (token := answer["nextPageToken"]):
            break
    assert seen == [["d0", "d1"], ["d2", "d3"], ["d4"]]


def test_order_mask_and_page_size_of_a_listing(api):
    for name in ("b", "a", "c"):
        api.create_dataset(name)
    names = [resource["name"][-1] for resource in api.get("/datasets", orderBy="name desc").json()["datasets"]]
    assert names == ["c", "b", "a"]
    assert api.get("/datasets", readMask="name,example_count").json()["datasets"][0].keys() == {"name", "exampleCount"}
    assert len(api.get("/datasets", pageSize=100000).json()["datasets"]) == 3
    for wrong in ({"pageToken": "x"}, {"pageSize": "x"}, {"orderBy": "nope"}):
        assert api.get("/datasets", **wrong).json()["code"] == 3


def test_jobs_are_listed_under_their_plural_key(api):
    assert api.get("/batchInferenceJobs").json() == {"batchInferenceJobs": [], "nextPageToken": "", "totalSize": 0}
    api.dataset("in", [row()])
    api.create_job("j")
    listed = api.get("/batchInferenceJobs").json()["batchInferenceJobs"]
    assert listed == [api.job("j")]


# --- the ledger ------------------------------------------------------------------------------------


def test_the_ledger_tells_calls_and_effects_and_no_secret(api, server):
    api.dataset("in", [row()])
    start = len(api.calls())
    api.create_job("j")
    (url,) = api.links("in").values()
    fetch(url)
    calls = api.calls()[start:]
    assert [(call["method"], call["status"], call["effect"]) for call in calls] == [
        ("POST", 200, "created job j"),
        ("GET", 200, ""),
        ("GET", 200, ""),
    ]
    assert calls[0]["body"]["model"] == MODEL
    assert calls[0]["query"] == {"batchInferenceJobId": "j"}
    assert "emulator-key" not in json.dumps(calls)
    assert "X-Goog-Signature" not in json.dumps(calls)


def test_a_client_that_hangs_up_harms_nobody(api, server):
    parts = urlsplit(server.url)
    for request in (
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /v1/accounts/emulator/datasets HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(request)
    assert api.get("/datasets").status_code == 200
    assert not [entry for entry in api.state()["violations"] if "Traceback" in entry["violation"]]
