"""Conformance: the service's own Python SDK, pointed at the emulator, runs a batch and notices nothing."""

import json
import shutil
import ssl
import subprocess
from importlib.util import find_spec

import pytest
from emulator_kit import MODEL, Api, fetch, row, started

# Imported by the tests that use it: it takes a second, which each worker would pay.
pytestmark = pytest.mark.skipif(not find_spec("fireworks"), reason="the SDK (fireworks-ai 1.x) is not installed")

ROWS = [row(number) for number in range(7)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return path


def client_of(url):
    import fireworks

    return fireworks.Fireworks(api_key="emulator-key", account_id="emulator", base_url=url, max_retries=0)


def until(condition, api):
    """Poll as a user of the SDK would; the clock is moved instead of waiting."""
    for _ in range(50):
        if condition():
            return
        api.advance(60)
    raise AssertionError("it never happened")


def run_job(client, api, job_id):
    job = client.batch_inference_jobs.create(
        batch_inference_job_id=job_id,
        model=MODEL,
        input_dataset_id="accounts/emulator/datasets/in",
        output_dataset_id="accounts/emulator/datasets/out",
        inference_parameters={"max_tokens": 64, "extra_body": "{}"},
    )
    assert (job.state, job.job_progress) == ("JOB_STATE_VALIDATING", None)
    states = []

    def done():
        states.append(client.batch_inference_jobs.get(job_id).state)
        return states[-1] == "JOB_STATE_COMPLETED"

    until(done, api)
    assert "JOB_STATE_RUNNING" in states
    return client.batch_inference_jobs.get(job_id)


def test_a_batch_from_dataset_to_download(tmp_path, lines):
    with started(tmp_path / "store") as emulator, Api(emulator.url) as api, client_of(emulator.url) as client:
        assert [account.name for account in client.accounts.list()] == ["accounts/emulator"]
        created = client.datasets.create(dataset_id="in", dataset={"user_uploaded": {}, "example_count": "7"})
        assert (created.state, created.example_count) == ("UPLOADING", "7")
        with open(lines, "rb") as file:
            client.datasets.upload("in", file=file)
        until(lambda: client.datasets.get("in").state == "READY", api)
        job = run_job(client, api, "run7")
        assert job.name == "accounts/emulator/batchInferenceJobs/run7"
        assert job.job_progress.successfully_processed_requests == 7
        assert job.status.code == "OK"
        links = client.datasets.get_download_endpoint("out", download_lineage=False).filename_to_signed_urls
        results = fetch(links["dataset/out/BIJOutputSet.jsonl"]).content.splitlines()
        assert sorted(json.loads(line)["custom_id"] for line in results) == sorted(one["custom_id"] for one in ROWS)
        assert fetch(links["dataset/out/error-data"]).content == b""
        client.batch_inference_jobs.delete("run7")
        client.datasets.delete("in")
        assert not api.state()["violations"]


def test_listings_are_walked_page_by_page(tmp_path):
    with started(tmp_path) as emulator, client_of(emulator.url) as client:
        for number in range(5):
            client.datasets.create(dataset_id=f"d{number}", dataset={"user_uploaded": {}, "example_count": "1"})
        assert [dataset.name[-2:] for dataset in client.datasets.list(page_size=2)] == ["d0", "d1", "d2", "d3", "d4"]
        assert list(client.batch_inference_jobs.list()) == []


def test_refusals_arrive_as_the_sdks_own_errors(tmp_path):
    import fireworks

    with started(tmp_path) as emulator, client_of(emulator.url) as client:
        client.datasets.create(dataset_id="in", dataset={"user_uploaded": {}, "example_count": "1"})
        with pytest.raises(fireworks.ConflictError):
            client.datasets.create(dataset_id="in", dataset={"user_uploaded": {}, "example_count": "1"})
        with pytest.raises(fireworks.NotFoundError):
            client.batch_inference_jobs.get("absent")
        with pytest.raises(fireworks.BadRequestError):
            client.datasets.create(dataset_id="x", dataset={"user_uploaded": {}})
        with pytest.raises(fireworks.PermissionDeniedError):
            client.with_options(api_key="wrong").datasets.get("in")


def test_its_own_retry_after_a_lost_answer_turns_into_a_conflict(tmp_path):
    """The sheet's warning about automatic retries of creates, shown on the SDK itself."""
    import fireworks

    with started(tmp_path) as emulator, Api(emulator.url) as api, client_of(emulator.url) as client:
        api.faults({"call": {"method": "POST", "path": "/datasets$"}, "do": {"reset": True, "commit": True}})
        with pytest.raises(fireworks.ConflictError):
            client.with_options(max_retries=1).datasets.create(
                dataset_id="in", dataset={"user_uploaded": {}, "example_count": "1"}
            )
        assert [call["retry"] for call in api.calls()] == ["0", "1"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_its_upload_helper_for_large_datasets(tmp_path, lines, monkeypatch):
    """The helper refuses signed links that are not https, so the emulator serves that too."""

    from fireworks.lib.dataset_upload import upload_dataset_shards

    pem = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    subprocess.run([*command, *names], check=True, capture_output=True)
    pem.write_text((tmp_path / "key").read_text() + (tmp_path / "crt").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "crt"))
    ssl.create_default_context(cafile=tmp_path / "crt")
    with started(tmp_path / "store", certificate=str(pem)) as emulator, Api(emulator.url) as api:
        api.session.verify = str(tmp_path / "crt")
        with client_of(emulator.url) as client:
            client.datasets.create(dataset_id="in", dataset={"user_uploaded": {}, "example_count": "7"})
            upload_dataset_shards(client, "in", str(lines))
            until(lambda: client.datasets.get("in").state == "READY", api)
            assert run_job(client, api, "run7").job_progress.total_processed_requests == 7
        assert not api.state()["violations"]
