"""The emulator as a process: one per store, adopted by the living, gone with its owners, and safe from kill -9."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
from emulator_kit import SLOW, Api, row, started

from pipeline import jsonl
from pipeline.emulator import history, process, store
from pipeline.emulator.config import DEFAULT_KEY, Config
from pipeline.emulator.store import Store
from pipeline.errors import ConfigError, NotReady, ProviderError, Refused, RunLocked

SECONDS = 20  # a real deadline, for machines under load


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".emulator"


def eventually(condition):
    """Wait for another process; the one thing here that no clock can be moved for."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@contextlib.contextmanager
def by_hand(folder, *arguments, config=None):
    """The server as a user starts it; yields the child and its address."""
    command = [sys.executable, "-m", "pipeline.emulator.server", "--store", str(folder), *arguments]
    if config is not None:
        path = folder.parent / "settings.json"
        path.write_text(json.dumps(config))
        command += ["--config", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert select.select([child.stdout], [], [], SECONDS)[0]
        yield child, json.loads(child.stdout.readline())
    finally:
        child.kill()
        child.communicate()


def test_it_tells_where_it_is_serves_and_ends_on_sigterm(folder):
    with by_hand(folder, config={"account_id": "mine", "api_key": "k"}) as (child, address):
        assert json.loads((folder / "address.json").read_text()) == address
        assert address["pid"] == child.pid
        with Api(address["url"], "k", "mine") as api:
            assert api.get("/v1/accounts").json()["accounts"][0]["name"] == "accounts/mine"
        child.send_signal(signal.SIGTERM)
        assert child.wait(SECONDS) == 0
        assert not (folder / "address.json").exists()


def test_kill_9_in_the_middle_of_a_job_loses_nothing_acknowledged(folder):
    """Also while the job's rows are being answered: the restarted process does that work again."""
    rows = [row(number) for number in range(20_000)]
    with by_hand(folder, config={"job_seconds": SLOW}) as (child, address), Api(address["url"]) as api:
        api.dataset("in", rows)
        before = api.create_job("j").json()
        api.advance(130)
        with pytest.raises(requests.ReadTimeout):  # the clock answers when the work is done: too late for a kill
            api.session.post(f"{api.url}/_emulator/clock", json={"advance_seconds": 130}, timeout=(SECONDS, 0.01))
        eventually(lambda: list((folder / "objects").glob(".*.tmp")))
        child.kill()
        child.wait()
    assert [job.executed_at for job in history.jobs(folder)] == [None]
    assert list((folder / "objects").glob(".*.tmp"))
    with by_hand(folder, config={"job_seconds": SLOW}) as (_, again), Api(again["url"]) as api:
        assert again["store_id"] == address["store_id"]
        assert api.job("j")["state"] == "JOB_STATE_RUNNING"
        api.advance(SLOW)
        job = api.job("j")
        assert job["state"] == "JOB_STATE_COMPLETED"
        assert job["createTime"] == before["createTime"]
        assert set(api.results("j-out")) == {one["custom_id"] for one in rows}
        objects = [path.name for path in (folder / "objects").iterdir()]
        assert len(objects) == 3  # input and two outputs: what the kill left over is swept away
    assert [call["effect"] for call in history.calls(folder) if call["effect"]] == [
        "created dataset in",
        "uploaded dataset in",
        "created job j",
    ]
    assert [(job.id, job.counts.succeeded) for job in history.jobs(folder)] == [("j", 20_000)]


@pytest.mark.heavy
def test_kill_9_at_any_moment_loses_nothing_acknowledged(folder):
    """Twenty kills among creates: what was answered is there afterwards, and nothing is there twice."""
    acknowledged, kills = [], 0
    for number in range(20):
        with by_hand(folder) as (child, address), Api(address["url"]) as api:
            timer = threading.Timer(0.01 + 0.01 * number, child.kill)
            timer.start()
            with contextlib.suppress(requests.ConnectionError):
                for count in range(100_000):
                    name = f"d{number}-{count}"
                    if api.create_dataset(name).status_code == 200:
                        acknowledged.append(name)
            timer.join()
            kills += child.wait(SECONDS) == -signal.SIGKILL
    assert kills == 20
    with by_hand(folder) as (_, address), Api(address["url"]) as api:
        there, token = [], ""
        while not there or token:
            page = api.get("/datasets", pageSize=200, pageToken=token).json()
            there += [dataset["name"].rpartition("/")[2] for dataset in page["datasets"]]
            token = page["nextPageToken"]
    assert len(there) == len(set(there))
    assert set(acknowledged) <= set(there)
    assert len(set(there) - set(acknowledged)) <= 20  # at most the one call in flight at each kill


def test_the_history_is_read_while_the_process_is_dead_or_killed(folder):
    with by_hand(folder) as (child, address), Api(address["url"]) as api:
        api.create_dataset("in")
        child.kill()
        child.wait()
    assert [(call["method"], call["status"]) for call in history.calls(folder)] == [("POST", 200)]
    assert history.jobs(folder) == []


def test_an_upload_without_commit_is_swept_away(tmp_path):
    with contextlib.closing(Store(tmp_path)) as first:
        first.object_path("0" * 24).write_bytes(b"half")
    with contextlib.closing(Store(tmp_path)) as second:
        assert not second.object_path("0" * 24).exists()


# --- found or started by a run -----------------------------------------------------------------------


def test_a_run_starts_one_and_it_ends_with_the_run(folder):
    handle = process.ensure(folder, Config())
    assert process.running(folder, DEFAULT_KEY) == handle.address
    with Api(handle.address.url) as api:
        assert api.get("/datasets").status_code == 200
    handle.close()
    assert process.running(folder, DEFAULT_KEY) is None
    assert not (folder / "address.json").exists()


def test_it_ends_however_its_owner_dies(folder):
    """kill -9 of the owner: nobody can clean up, the closed pipe must do."""
    script = (
        "import sys, time; from pathlib import Path; from pipeline.emulator import process, config;"
        f"handle = process.ensure(Path({str(folder)!r}), config.Config());"
        "print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"up\n"
    assert process.running(folder, DEFAULT_KEY)
    owner.kill()
    owner.communicate()
    eventually(lambda: not store.address_file(folder).exists())
    assert process.running(folder, DEFAULT_KEY) is None


def test_a_second_run_adopts_it_and_keeps_it_alive(folder):
    first = process.ensure(folder, Config())
    second = process.ensure(folder, Config())
    assert second.address == first.address
    os.close(first._pipe)  # the first owner dies
    first._pipe = None
    with Api(second.address.url) as api:
        assert api.get("/datasets").status_code == 200
    second.close()
    first.close()
    assert process.running(folder, DEFAULT_KEY) is None


def test_one_started_by_hand_is_adopted_and_outlives_the_run(folder):
    with by_hand(folder) as (child, address):
        for _ in range(2):
            handle = process.ensure(folder, Config())
            assert handle.address.pid == child.pid
            handle.close()
        assert requests.get(f"{address['url']}/verifyApiKey", timeout=5).status_code == 403
        assert child.poll() is None


def test_one_that_answers_from_other_settings_is_refused(folder):
    with started(folder, seed=1), pytest.raises(Refused) as error:
        process.ensure(folder, Config(seed=2))
    assert "other settings" in str(error.value)


def test_another_key_cannot_adopt_it_and_is_told_so_in_time(folder):
    with started(folder), pytest.raises(NotReady) as error:
        process.ensure(folder, Config(api_key="other"), patience=0.1)
    assert str(folder) in str(error.value)


def test_a_store_has_one_process(folder):
    with started(folder):
        with pytest.raises(RunLocked):
            started(folder)
        assert process.start(folder, Config()) is None


@pytest.mark.parametrize("left", [b"", b"{", b'{"url": "http://127.0.0.1:9", "pid": 1, "store_id": "x"}'])
def test_an_address_left_by_a_dead_process_is_no_obstacle(folder, left):
    folder.mkdir()
    store.address_file(folder).write_bytes(left)
    assert process.running(folder, DEFAULT_KEY) is None
    handle = process.ensure(folder, Config())
    assert process.running(folder, DEFAULT_KEY) == handle.address
    handle.close()


def test_a_port_that_another_store_took_is_not_mistaken_for_ours(folder, tmp_path):
    with started(tmp_path / "other") as other:
        folder.mkdir()
        store.address_file(folder).write_bytes(jsonl.dumps(other.address | {"store_id": "ours"}))
        assert process.running(folder, DEFAULT_KEY) is None


def test_a_start_that_fails_says_why(folder, tmp_path):
    with pytest.raises(ProviderError) as error:
        process.ensure(folder, Config(recorded=tmp_path / "absent.jsonl"))
    # On its first line, which is all that a list of phases shows of it.
    absent = tmp_path / "absent.jsonl"
    assert error.value.what == f"the emulator did not start: {absent}: there is no such file of recorded answers."
    assert error.value.where == str(folder)
    assert error.value.kept == "Nothing was sent; its jobs, and all that arrived from them, are as they were."
    assert str(error.value).count("Next: ") == 1
    assert error.value.hint.startswith("put it there (a copied run needs it too, for as long as an answer is missing)")


def test_a_taken_port_is_named(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "pipeline.emulator.server", "--store", str(folder), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert result.returncode == 2
    assert f"port {port}" in result.stderr


# --- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"job_second": 1}, "did you mean 'job_seconds'"),
        ({"job_seconds": -1}, "job_seconds: -1"),
        ({"job_seconds": "fast"}, "job_seconds"),
        ({"speed": 0}, "speed"),
        ({"quota": 0}, "quota"),
        ({"replay": {"control": "file.json"}}, "replay.control"),
        ({"replay": {"control": {"path": "x", "sistem": "y"}}}, "replay.control"),
        ({"faults": ["x"]}, "faults"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError) as error:
        Config.from_dict(settings)
    assert message in str(error.value)


def test_settings_survive_the_way_to_another_process(tmp_path):
    config = Config.from_dict({"replay": {"control": {"path": str(tmp_path / "p.json"), "system": "s"}}, "quota": 3})
    again = Config.from_dict(json.loads(jsonl.dumps(config.to_dict())))
    assert again == config
    assert again.answers_digest == config.answers_digest != Config().answers_digest


def test_the_clock_runs_at_its_speed_and_remembers_its_jumps(tmp_path):
    with contextlib.closing(Store(tmp_path, speed=60.0)) as first:
        first.advance_clock(1000.0)
        before = first.clock.now()
        first.clock.real = lambda origin=first.clock.origin: origin + 10.0
        assert first.clock.now() == pytest.approx(first.clock.origin + 600.0 + 1000.0)
        assert first.clock.real_seconds_until(first.clock.now() + 30.0) == pytest.approx(0.5)
        first.clock.real = lambda: 0.0
        assert first.clock.now() >= before, "it never goes back"
    with contextlib.closing(Store(tmp_path, speed=1.0)) as second:
        assert (second.clock.speed, second.clock.advanced) == (60.0, 1000.0)
