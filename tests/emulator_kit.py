"""A running emulator and a plain client of it, for tests: no waiting, the clock is moved instead."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import requests

from pipeline.emulator.config import DEFAULT_KEY, Config
from pipeline.emulator.server import Emulator

MODEL = "accounts/fireworks/models/m"
PATIENCE = 300  # seconds for an answer: a hundred thousand rows are answered in one call, on a busy machine too
SLOW = 600.0  # job_seconds long enough that only a moved clock ends a job
ABSTAIN = "If the passage does not hold the answer, say exactly: I don't know"


class Api:
    """Calls to one emulator, as terse as tests like them. Answers are `requests.Response`."""

    def __init__(self, url: str, key: str = DEFAULT_KEY, account: str = "emulator") -> None:
        self.url = url
        self.root = f"{url}/v1/accounts/{account}"
        self.account = account
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {key}"

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        base = self.url if path.startswith(("/v1", "/_emulator", "/verifyApiKey")) else self.root
        return self.session.request(method, base + path, timeout=PATIENCE, **options)

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.call("GET", path, params=params)

    def post(self, path: str, body: Any = None, **params: Any) -> requests.Response:
        return self.call("POST", path, json={} if body is None else body, params=params)

    def delete(self, path: str) -> requests.Response:
        return self.call("DELETE", path)

    # --- stories ---

    def create_dataset(self, dataset_id: str, count: int = 1) -> requests.Response:
        return self.post(
            "/datasets", {"datasetId": dataset_id, "dataset": {"userUploaded": {}, "exampleCount": str(count)}}
        )

    def upload(self, dataset_id: str, data: bytes) -> requests.Response:
        files = {"file": ("input.jsonl", data, "application/jsonl")}
        return self.call("POST", f"/datasets/{dataset_id}:upload", files=files)

    def dataset(self, dataset_id: str, rows: Iterable[Any]) -> None:
        """A dataset that is ready; *rows* are objects, or bytes for a line as it is."""
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        assert self.create_dataset(dataset_id, len(lines)).status_code == 200
        assert self.upload(dataset_id, b"\n".join(lines) + b"\n").status_code == 200
        self.advance(1)

    def create_job(
        self, job_id: str, input_id: str = "in", output_id: str | None = None, **body: Any
    ) -> requests.Response:
        document = {
            "model": MODEL,
            "inputDatasetId": f"accounts/{self.account}/datasets/{input_id}",
            "outputDatasetId": f"accounts/{self.account}/datasets/{output_id or job_id + '-out'}",
            **body,
        }
        document = {key: value for key, value in document.items() if value is not None}
        return self.post("/batchInferenceJobs", document, batchInferenceJobId=job_id)

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.get(f"/batchInferenceJobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, job_id: str, rows: Iterable[Any] = (), **body: Any) -> dict[str, Any]:
        """The job after its end; with *rows*, dataset `<job>-in` is made first."""
        rows = list(rows)
        if rows:
            self.dataset(f"{job_id}-in", rows)
            body.setdefault("input_id", f"{job_id}-in")
        answer = self.create_job(job_id, **body)
        assert answer.status_code == 200, answer.text
        self.advance(SLOW)
        return self.job(job_id)

    def links(self, dataset_id: str, **params: Any) -> dict[str, str]:
        answer = self.get(f"/datasets/{dataset_id}:getDownloadEndpoint", **params)
        assert answer.status_code == 200, answer.text
        return answer.json()["filenameToSignedUrls"]

    def files(self, dataset_id: str) -> dict[str, bytes]:
        """The bytes of each file of a dataset, by last path segment."""
        return {name.rpartition("/")[2]: fetch(url).content for name, url in self.links(dataset_id).items()}

    def results(self, dataset_id: str) -> dict[str, Any]:
        """The successes of an output dataset by custom_id."""
        lines = self.files(dataset_id)["BIJOutputSet.jsonl"].splitlines()
        return {row["custom_id"]: row["response"] for row in map(json.loads, lines)}

    def errors(self, dataset_id: str) -> dict[str, Any]:
        return {row["custom_id"]: row for row in map(json.loads, self.files(dataset_id)["error-data"].splitlines())}

    # --- control ---

    def advance(self, seconds: float) -> None:
        """Move the clock; whatever that makes due is done when this returns."""
        answer = self.post("/_emulator/clock", {"advance_seconds": seconds})
        assert answer.json()["settled"], answer.text

    def faults(self, *rules: Any) -> None:
        answer = self.post("/_emulator/faults", {"rules": list(rules)})
        assert answer.status_code == 200, answer.text

    def fired(self) -> list[int]:
        """How often each rule acted."""
        return [rule["fired"] for rule in self.get("/_emulator/faults").json()["rules"]]

    def calls(self) -> list[dict[str, Any]]:
        return self.get("/_emulator/calls").json()["calls"]

    def state(self) -> dict[str, Any]:
        return self.get("/_emulator/state").json()


def started(folder: Path, **settings: Any) -> Emulator:
    """An emulator in this process; a context manager."""
    return Emulator(folder, Config.from_dict({"job_seconds": SLOW, "ready_seconds": 0.5, **settings}))


def fetch(url: str, **options: Any) -> requests.Response:
    """A signed link, fetched as it should be: without a key."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=PATIENCE, **options)


def row(number: int = 0, question: str = "Who wrote it?", passage: str | None = None, **more: Any) -> dict[str, Any]:
    """A request of the item *number*; *more* goes to its body, except custom_id, system and condition."""
    condition = more.pop("condition", "control")
    custom_id = more.pop("custom_id", f"d|item-{number}|{condition}|0|0|{'closed' if passage is None else 'open'}")
    asked = f"Question: {question}" if passage is None else f"Passage:\n{passage}\n\nQuestion: {question}"
    messages = [{"role": "user", "content": asked}]
    if system := more.pop("system", "Answer briefly."):
        messages.insert(0, {"role": "system", "content": system})
    return {"custom_id": custom_id, "body": {"messages": messages, "max_tokens": 64, "temperature": 0, **more}}
