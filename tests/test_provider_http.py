"""The client with the key: bounded retries, no key anywhere it could be read, and no answer that chokes it."""

import json
import logging
import pickle
import random
import socket
import threading
import traceback

import pytest
from scripted_server import (
    HTML,
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

from pipeline.errors import AuthError, ConfigError, DamagedArtifact, TrialmakeError, Unreachable, UnreadableFile
from pipeline.plain import readable
from pipeline.providers.http import Answer, Api, Pace, Patience, Trouble, file_body, retry_after
from pipeline.secret import Secret

KEY = "fw_CANARY_0123456789"
JOB = "/v1/accounts/a/batchInferenceJobs/j"
GOOD = json_answer({"name": "j"})


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def make_api(server, time):
    made = []

    def make(base_url=None, key=KEY, **pace):
        pace = {"clock": time.clock, "sleep": time.sleep, "random": lambda: 0.0} | pace
        made.append(Api(base_url or server.url, Secret(key), Pace(**pace)))
        return made[-1]

    yield make
    for api in made:
        api.close()


# What goes out


def test_a_request_carries_the_key_and_no_body(server, make_api):
    server.on("GET", JOB, GOOD)
    assert make_api().call("GET", JOB, query={"pageSize": "200"}).fields == {"name": "j"}
    (request,) = server.requests
    assert request.header("Authorization") == f"Bearer {KEY}"
    assert request.header("Accept-Encoding") == "identity"
    assert request.query == {"pageSize": "200"}
    assert request.body == b""
    assert (request.header("Content-Length"), request.header("Content-Type")) == (None, None)


def test_a_document_goes_out_as_json(server, make_api):
    server.on("POST", "/v1/x:verb", GOOD)
    make_api().call("POST", "/v1/x:verb", document={"exampleCount": "3"})
    (request,) = server.requests
    assert request.json == {"exampleCount": "3"}
    assert request.header("Content-Type") == "application/json"
    assert request.target == "/v1/x:verb"


def test_netrc_and_proxies_of_the_environment_are_ignored(server, make_api, monkeypatch, tmp_path):
    """requests lets .netrc win over an explicit header, and would send the key through any proxy."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.on("GET", JOB, GOOD)
    make_api().call("GET", JOB)
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "error", "asked"),
    [(301, ConfigError, 2), (308, ConfigError, 2), *((status, Unreachable, 4) for status in (302, 303, 307))],
)
def test_a_redirect_is_not_followed(server, make_api, status, error, asked):
    """One for good is a wrong address; one for now, as to a network's login page, may pass."""
    with ScriptedServer() as elsewhere:
        server.on("GET", JOB, GOOD, answer(status, b"", [f"Location: {elsewhere.url}/x"]))
        api = make_api(tries=3)
        assert api.call("GET", JOB).ok
        with pytest.raises(error, match=r"redirect .* not followed"):
            api.call("GET", JOB)
    assert len(server.requests) == asked
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_before_any_answer_is_a_wrong_address(server, make_api, status):
    server.on("GET", JOB, answer(status, b"", ["Location: http://127.0.0.1:9/login"]))
    with pytest.raises(ConfigError, match=r"redirect .* not followed") as told:
        make_api().call("GET", JOB)
    assert "check the configured base URL" in told.value.hint
    assert len(server.requests) == 1


def test_a_login_page_that_comes_between_is_waited_out(server, make_api, time):
    login = answer(302, b"", ["Location: http://127.0.0.1:9/login", "Retry-After: 7"])
    server.on("GET", JOB, GOOD, login, GOOD)
    api = make_api()
    assert api.call("GET", JOB).ok
    assert api.call("GET", JOB).ok
    assert len(server.requests) == 3
    assert time.slept == [7.0]


def test_cookies_are_not_kept(server, make_api):
    server.on("GET", JOB, json_answer({}, headers=["Set-Cookie: track=1"]))
    api = make_api()
    api.call("GET", JOB)
    api.call("GET", JOB)
    assert server.requests[1].header("Cookie") is None


# Retrying


@pytest.mark.parametrize("status", [408, 425, 429, 499, 500, 502, 503, 504, 520])
def test_a_passing_trouble_is_retried(server, make_api, time, status):
    server.on("GET", JOB, answer(status, HTML), answer(status), GOOD)
    assert make_api().call("GET", JOB).ok
    assert len(server.requests) == 3
    assert len(time.slept) == 2


@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 412, 413])
def test_a_refusal_is_an_answer_and_not_retried(server, make_api, status):
    server.on("GET", JOB, error(status, 5 if status == 404 else 3, "no"))
    assert make_api().call("GET", JOB).status == status
    assert len(server.requests) == 1


BROKEN = {
    "closed without an answer": (lambda connection: None, "without an answer"),
    "reset": (reset(), "reset"),
    "reset within the answer": (reset(unfinished(["Content-Length: 100"], b'{"na')), "reset|cut off|broke"),
    "cut off within its headers": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon", "cut off"),
    "cut off": (unfinished(["Content-Length: 100"], b'{"name":'), "cut off|broke"),
    "chunk cut off": (unfinished(["Transfer-Encoding: chunked"], b"20\r\n{"), "cut off|broke"),
    "half a JSON text": (answer(200, b'{"name":'), "not the API"),
    "not JSON": (answer(200, b"\x00\xff\xfe"), "not the API"),
    "a list": (json_answer([1]), "not the API"),
    "an HTML page as success": (answer(200, HTML, ["Content-Type: text/html"]), "an HTML page .502 Bad Gateway."),
    "an HTML page as 404": (answer(404, HTML), "an HTML page"),
    "a gateway's JSON as 404": (json_answer({"detail": "Not Found"}, 404), "not the API"),
    "a gateway's code as 404": (error(404, 404, "no route"), "not the API"),
    "another code as 404": (error(404, 3, "no"), "not the API"),
    "an HTML page as 403": (answer(403, HTML), "not the API.*an HTML page"),
    "an empty 404": (answer(404), "not the API"),
    "an HTML page as 502": (answer(502, HTML), "answered 502: an HTML page"),
    "broken gzip": (answer(200, b"{}", ["Content-Encoding: gzip"]), "broke"),
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "broke"),
    "silent": (silent(), "no answer in time"),
    "silent within the answer": (silent(unfinished(["Content-Length: 9"], b"{")), "no answer in time"),
    "endless": (endless(unfinished(["Content-Type: application/json"]), b" " * 65536), "does not end"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_retried_then_explained(server, make_api, name):
    play, said = BROKEN[name]
    timeout = 0.3 if name.startswith("silent") else 30  # short only where it must run out
    server.on("GET", JOB, play, GOOD)
    api = make_api(read_timeout=timeout)
    assert api.call("GET", JOB).fields == {"name": "j"}
    assert len(server.requests) == 2
    server.on("GET", JOB, play)
    with pytest.raises(Unreachable, match=said) as caught:
        make_api(read_timeout=timeout, tries=2).call("GET", JOB)
    assert "given up after 2 tries" in str(caught.value)
    assert "Next: " in str(caught.value)
    assert caught.value.exit_code == 75


def test_an_answer_that_drips_is_left_when_its_time_is_up(server, make_api, time):
    time.tick = 7.0
    server.on("GET", JOB, endless(unfinished(["Content-Length: 1000000000"]), b" "))
    with pytest.raises(Trouble, match="does not end"):
        make_api().call("GET", JOB, once=True)


@pytest.mark.parametrize(
    ("whole", "single"),
    [
        (b"", b"HTTP/1.1 200 OK\r\nX-Comment: without an end"),
        (unfinished(["Transfer-Encoding: chunked"]), b"5;comment=without an end"),
    ],
    ids=["head", "size of a chunk"],
)
def test_a_line_that_drips_is_left_when_its_time_is_up(server, make_api, time, whole, single):
    """Each byte came within the read timeout, so that headers in single bytes held a run for hours."""
    looks, sent = threading.Semaphore(0), bytearray()

    def clock():
        looks.release()
        return time.clock()

    def drip(connection):
        connection.sendall(whole)
        for byte in single:
            looks.acquire()
            connection.sendall(bytes([byte]))
            sent.append(byte)

    time.tick = 7.0
    server.on("GET", JOB, drip)
    try:
        with pytest.raises(Trouble, match="no answer in time"):
            make_api(clock=clock, read_timeout=5).call("GET", JOB, once=True)
        assert 15 < len(sent) < 25
    finally:
        looks.release(100)


def test_a_port_that_refuses_is_one_clear_error(make_api):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=r"Connection refused \(given up after 3 tries"):
        make_api(f"http://127.0.0.1:{port}", tries=3).call("GET", JOB)


@pytest.mark.parametrize("play", [answer(503), reset(), answer(200, HTML), error(429, 8, "slow down")])
def test_a_request_that_creates_is_sent_once(server, make_api, time, play):
    server.on("POST", JOB, play)
    with pytest.raises(Trouble):
        make_api().call("POST", JOB, document={}, once=True)
    assert len(server.requests) == 1
    assert time.slept == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (["Retry-After: 2"], 2.0),
        (["Retry-After: 2.5"], 2.5),
        (["retry-after-ms: 1500"], 1.5),
        (["retry-after-ms: 1500", "Retry-After: 20"], 1.5),
        (["Date: Mon, 02 Nov 2026 10:00:00 GMT", "Retry-After: Mon, 02 Nov 2026 10:00:40 GMT"], 40.0),
        (["Date: Mon, 02 Nov 2026 10:00:00 GMT", "Retry-After: Mon, 02 Nov 2026 09:00:00 GMT"], 0.0),
        (["Retry-After: Mon, 02 Nov 2026 10:00:40 GMT"], None),  # no Date to count from
        (["Retry-After: soon"], None),
        (["Retry-After: -5"], None),
        (["Retry-After: nan"], None),
        (["Retry-After: inf"], None),
        (["Retry-After: " + "9" * 5000], None),
        (["Date: x", "Retry-After: Mon, 99 Nov 2026 10:00:40 GMT"], None),
        (["Retry-After:"], None),
        ([], None),
    ],
)
def test_the_service_says_how_long_to_wait(server, make_api, time, headers, wait):
    server.on("GET", JOB, answer(429, b"{}", headers), GOOD)
    assert make_api().call("GET", JOB).ok
    assert time.slept == [max(wait or 0.0, 0.25)]


def test_a_wait_longer_than_patience_is_named_at_once(server, make_api, time):
    server.on("GET", JOB, answer(503, b"{}", ["Retry-After: 3600"]))
    with pytest.raises(Unreachable, match=r"given up after one try .* asks to wait 3600 s") as given_up:
        make_api(seconds=180).call("GET", JOB)
    assert given_up.value.wait == 3600.0
    assert time.slept == []


def test_retries_end_by_number(server, make_api, time):
    server.on("GET", JOB, answer(503))
    with pytest.raises(Unreachable, match="given up after 7 tries"):
        make_api().call("GET", JOB)
    assert len(server.requests) == 7
    assert time.slept == [0.25, 0.5, 1, 2, 4, 8]


def test_retries_end_by_seconds(server, make_api, time):
    server.on("GET", JOB, answer(429, b"{}", ["Retry-After: 20"]))
    with pytest.raises(Unreachable):
        make_api(tries=1000, seconds=60).call("GET", JOB)
    assert sum(time.slept) <= 60
    assert len(server.requests) == 4


def test_pauses_grow_are_bounded_and_differ_between_clients():
    def pauses(seed):
        time = FakeTime()
        pace = Pace(clock=time.clock, sleep=time.sleep, random=random.Random(seed).random, tries=12, seconds=1e9)
        patience = Patience(pace)
        for _ in range(11):
            patience.pause(Trouble("x"))
        return time.slept

    assert pauses(1) != pauses(2)
    for number, pause in enumerate(pauses(1)):
        longest = min(30.0, 0.5 * 2**number)
        assert longest / 2 <= pause <= longest


def test_a_sleep_may_end_the_waiting_by_raising(server, make_api):
    class StopNow(Exception):
        pass

    def stop(seconds):
        raise StopNow

    server.on("GET", JOB, answer(503))
    with pytest.raises(StopNow):
        make_api(sleep=stop).call("GET", JOB)
    assert len(server.requests) == 1


# What comes back


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_accepted_stops_at_once(server, make_api, status):
    said = {"error": {"message": "The API key you provided is invalid.", "code": "UNAUTHORIZED", "type": "error"}}
    server.on("GET", JOB, json_answer(said, status))
    with pytest.raises(AuthError, match=r"key is not accepted.*key you provided is invalid") as caught:
        make_api().call("GET", JOB)
    assert len(server.requests) == 1
    assert caught.value.exit_code == 2
    assert "Jobs that run at the service go on" in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "fw_CANARY_0123\n", "fw_CANARY 0123", "fw_CANARY_\u00e9", "'fw_CANARY\t'"])
def test_a_key_with_odd_characters_is_refused_without_showing_it(make_api, key):
    """requests would quote the whole header in its complaint."""
    with pytest.raises(AuthError, match="holds a character") as caught:
        make_api(key=key)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"code":5,"message":"resource not found","details":[]}', "resource not found"),
        (b'{"error":{"message":"no such key","param":null}}', "no such key"),
        (b'{"error":"plain text"}', "plain text"),
        (b'{"message":"","error":{"message":"inner"}}', "inner"),
        (b'{"message":{"a":1}}', '{"message":{"a":1}}'),
        (b"upstream connect error", "upstream connect error"),
        (HTML, "an HTML page (502 Bad Gateway)"),
        (b"<!DOCTYPE html><p>", "an HTML page"),
        (b"", "no text"),
        (b'{"message":"a\\u001b]0;evil\\u0007b\\u202e\\nline"}', "a\\x1b]0;evil\\x07b\\u202e line"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_message_is_found_wherever_the_service_puts_it(body, message):
    assert Answer(400, {}, body).message == message


def test_a_long_message_is_cut():
    assert len(readable("x" * 100_000)) < 400


@pytest.mark.parametrize(
    ("status", "text", "about"),
    [
        (400, "invalid batch inference job: job-submission-count for account A, in use: 16, quota: 16", True),
        (429, "Quota exceeded", True),
        (403, "quota reached", True),
        (400, "you exceeded your current quota.", True),
        (429, "QuotaExceeded", True),
        (409, "dataset tm-quota-study-1f844a8a-a1-be31450648d1-in already exists", False),
        (400, "model accounts/quotable/models/m is not supported", False),
        (404, "accounts/a/batchInferenceJobs/tm-no-quota-1 not found", False),
        (400, "unknown field", False),
        (200, "quota", False),
    ],
)
def test_a_quota_refusal_is_known_by_its_text_at_any_status(status, text, about):
    assert Answer(status, {}, b'{"message":"%s"}' % text.encode()).about_quota is about


def test_retry_after_reads_headers_of_any_case():
    assert retry_after({"retry-after": "3"}) == 3.0


# What is shown


SHOWING = {
    "repeated in an error": error(400, 3, f"bad header Bearer {KEY}"),
    "repeated by a 403": error(403, 7, f"key {KEY} revoked"),
    "repeated by a 500": error(500, 13, f"panic: {KEY}"),
    "repeated in HTML": answer(502, f"<title>{KEY}</title>".encode()),
    "repeated in a success": answer(200, KEY.encode()),
    "redirected": answer(302, b"", ["Location: http://127.0.0.1:9/"]),
    "reset": reset(),
    "silent": silent(),
    "cut off": unfinished(["Content-Length: 9"], b"{"),
}


@pytest.mark.parametrize("play", SHOWING.values(), ids=SHOWING)
def test_the_key_is_in_no_message_log_repr_or_pickle(server, make_api, caplog, play):
    caplog.set_level(logging.DEBUG)
    server.on("GET", JOB, play)
    api = make_api(tries=2, read_timeout=0.3 if play is SHOWING["silent"] else 30)
    try:
        found = api.call("GET", JOB)
        shown = found.said + repr(found) + str(vars(found))
    except TrialmakeError as failure:
        shown = f"{failure} {failure!r} {pickle.dumps(failure)!r}" + "".join(traceback.format_exception(failure))
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    assert KEY not in shown + repr(api) + str(vars(api)) + caplog.text
    assert caplog.text  # something was logged, or this proves nothing


def test_a_traceback_with_all_local_variables_holds_no_key(server, make_api):
    """A debug traceback goes into bug reports; requests' own frames hold the headers."""
    server.on("GET", JOB, reset())
    with pytest.raises(Unreachable) as caught:
        make_api(tries=2).call("GET", JOB)
    stack = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in stack.stack[1:]]  # without this test's own frame
    assert len(ours) >= 2
    assert KEY not in "".join(ours)


def test_queries_are_not_logged(server, make_api, caplog):
    caplog.set_level(logging.DEBUG)
    server.on("GET", JOB, GOOD)
    make_api().call("GET", JOB, query={"pageToken": "CANARY"})
    assert server.requests[0].query == {"pageToken": "CANARY"}
    assert JOB in caplog.text
    assert "CANARY" not in caplog.text


# Bodies from disk


def test_a_file_between_head_and_tail_is_streamed_with_its_length(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"0123456789" * 100)
    with file_body(path, "text/plain", b"<<", b">>") as body:
        assert len(body) == 1004
        assert body.file_size == 1000
        pieces = list(iter(lambda: body.read(300), b""))
    assert b"".join(pieces) == b"<<" + path.read_bytes() + b">>"
    assert max(map(len, pieces)) == 300


def test_a_file_that_grows_or_shrinks_during_its_upload_is_not_sent_as_another(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"x" * 10)
    with file_body(path, "text/plain") as body:
        with open(path, "ab") as more:
            more.write(b"y" * 10)
        assert b"".join(body) == b"x" * 10
    with file_body(path, "text/plain") as body:
        path.write_bytes(b"x")
        with pytest.raises(DamagedArtifact, match="became shorter"):
            list(body)


def test_a_file_that_cannot_be_read_is_not_taken_for_network_trouble(server, make_api, tmp_path):
    server.on("POST", "/v1/x:upload", GOOD)
    with pytest.raises(UnreadableFile), file_body(tmp_path, "text/plain") as body:
        make_api().upload("/v1/x:upload", body)
    assert server.requests == []


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_signed_link_that_the_service_repeats_is_shown_without_its_signature(quote):
    link = f"{quote}HTTPS://storage.test/a/b?X-Goog-Signature=CANARY&x=1{quote}"
    body = json.dumps({"message": f"cannot read {link} now, see https://x.test/doc"}).encode()
    said = Answer(400, {}, body).message
    assert said == f"cannot read {quote}HTTPS://storage.test/a/b?...{quote} now, see https://x.test/doc"
