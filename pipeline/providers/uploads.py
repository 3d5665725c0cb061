"""How a file of requests becomes a READY input dataset.

Up to a threshold it goes to `:upload` in one multipart request, above it to a signed link. Either
way it is streamed, and may be sent again: a dataset that has its file refuses a second one, which
counts as success here.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pipeline import disk
from pipeline.errors import NotReady, ProviderError
from pipeline.plain import readable
from pipeline.providers import resources
from pipeline.providers.account import DATASETS, NOTHING_SPENT, Account
from pipeline.providers.http import Answer, Pace, Patience, Trouble, file_body
from pipeline.providers.storage import Links

UPLOAD_THRESHOLD = 100_000_000  # bytes; `:upload` takes 150 MB, the edge before it less (API sheet 2.3)
READY_SECONDS = 600.0  # until an uploaded dataset must be READY; about one second was seen live

_READY_PAUSES = (0.2, 15.0)  # seconds between two looks, first and longest
_UPLOADED = "already uploaded"  # in the text of the refusal of a second upload


class Uploads:
    """Uploads to one account's datasets; files above *threshold* bytes go through links."""

    def __init__(self, account: Account, links: Links, pace: Pace, threshold: int, ready_seconds: float) -> None:
        self._account = account
        self._api = account.api
        self._links = links
        self._pace = pace
        self._threshold = threshold
        self._ready_seconds = ready_seconds

    def upload(self, requests: Path, dataset_id: str) -> None:
        """Send the file *requests* to the dataset and wait until it is READY.

        Raises NotReady when that takes too long, ProviderError when the service does not want the file.
        """
        with disk.readable(requests):
            size = requests.stat().st_size
        if size > self._threshold:
            self._send_by_link(requests, size, dataset_id)
        else:
            self._send(requests, dataset_id)
        self._await_ready(dataset_id)

    def _send(self, requests: Path, dataset_id: str) -> None:
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{dataset_id}.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        patience = Patience(self._pace)
        while True:
            content_type = f"multipart/form-data; boundary={boundary}"
            try:
                with file_body(requests, content_type, head, tail) as body:
                    answer = self._api.upload(self._account.path(DATASETS, dataset_id, "upload"), body)
            except Trouble as trouble:
                if self._is_ready(dataset_id):  # it arrived, and only the answer was lost
                    return
                patience.pause(trouble, NOTHING_SPENT)
            else:
                self._require_uploaded(answer, dataset_id)
                return

    def _send_by_link(self, requests: Path, size: int, dataset_id: str) -> None:
        # One call with all files: each call replaces the list of the one before.
        document = {"filenameToSize": {f"{dataset_id}.jsonl": str(size)}}
        patience = Patience(self._pace)
        while True:
            answer = self._api.call(
                "POST", self._account.path(DATASETS, dataset_id, "getUploadEndpoint"), document=document
            )
            if not answer.ok:
                self._require_uploaded(answer, dataset_id)
                return
            try:
                links = signed_links(answer)
                if len(links) != 1:
                    raise Trouble(f"dataset {dataset_id}: the service gave {len(links)} upload links for one file.")
                (url,) = links.values()
                with file_body(requests, "application/octet-stream") as body:
                    # Both headers, the type too, are part of what is signed.
                    self._links.put(url, body, {"X-Goog-Content-Length-Range": f"{size},{size}"})
            except Trouble as trouble:
                patience.pause(trouble, NOTHING_SPENT)
            else:
                break
        answer = self._api.call("POST", self._account.path(DATASETS, dataset_id, "validateUpload"), document={})
        self._require_uploaded(answer, dataset_id)

    def _require_uploaded(self, answer: Answer, dataset_id: str) -> None:
        # A repeated request may be refused because the first one, whose answer was lost, did it all.
        if not answer.ok and _UPLOADED not in answer.message.lower() and not self._is_ready(dataset_id):
            raise self._account.refusal(answer, f"uploading dataset {dataset_id}")

    def _is_ready(self, dataset_id: str) -> bool:
        fields = self._account.dataset(dataset_id)
        return fields is not None and resources.dataset(fields).state == "READY"

    def _await_ready(self, dataset_id: str) -> None:
        deadline = self._pace.clock() + self._ready_seconds
        pause, longest = _READY_PAUSES
        while True:
            fields = self._account.dataset(dataset_id)
            if fields is None:
                raise ProviderError(
                    f"dataset {dataset_id} vanished after its upload.",
                    kept=NOTHING_SPENT,
                    hint="see who removed it; the same command uploads it again",
                )
            state = resources.dataset(fields).state
            if state == "READY":
                return
            if (trouble := resources.trouble_of(fields)) is not None:
                raise ProviderError(
                    f"dataset {dataset_id} is {state} and reports {trouble}.",
                    kept=NOTHING_SPENT,
                    hint="what the service said names the cause",
                )
            if self._pace.clock() + pause > deadline:
                raise NotReady(
                    f"dataset {dataset_id} is still {state}, {self._ready_seconds:.0f} s after its upload.",
                    kept=f"The upload is kept. {NOTHING_SPENT}",
                    hint="run the same command again later; it goes on from here",
                )
            self._pace.sleep(pause * (0.5 + 0.5 * self._pace.random()))
            pause = min(longest, pause * 2)


def signed_links(answer: Answer) -> dict[str, str]:
    """File name -> signed URL. Raises Trouble when a file has no link yet."""
    links = answer.fields.get("filenameToSignedUrls")
    links = links if isinstance(links, dict) else {}
    for name, url in links.items():
        if not isinstance(url, str) or not url:
            raise Trouble(f"the service lists {readable(name)} without a link.")
    return links
