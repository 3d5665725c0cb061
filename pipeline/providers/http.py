"""The client with the key, and what every request of this package goes through.

`Api` talks to the configured base URL and to nothing else; links are `storage.py`'s. Requests go
through a bare `Adapter` and not through a `Session`: so there are no redirects, no cookies, no
proxies and no .netrc (which would win over our header), by construction. `Patience` is the one
retry layer. A request that creates something is never repeated here: `once=True` raises `Trouble`
after a single try, and the caller, who knows the id, asks what became of it.

Library exceptions quote whole URLs, signatures included, and their tracebacks hold the headers. So
they are not chained: `Trouble` is raised outside the handler, with the reason alone.
"""

from __future__ import annotations

import http.client
import io
import logging
import math
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import requests
import urllib3

from pipeline import disk, jsonl
from pipeline.errors import AuthError, ConfigError, DamagedArtifact, Unreachable
from pipeline.plain import WORDS_SHOWN, readable
from pipeline.providers.connections import Adapter
from pipeline.providers.links import without_query
from pipeline.secret import Secret

BLOCK = 1 << 18  # bytes asked of the socket at once; a slow sender gives less, and the clock is looked at
MAX_ANSWER = 16 << 20  # bytes of an API answer; a page of 200 jobs has less than 1 MB
MAX_ANSWER_SECONDS = 120.0  # for reading the body of one, since a drip of single bytes never meets a read timeout

# 408, 425, 429: not now. 499: the gateway's word for a call cut off on its side. 5xx: server trouble.
RETRYABLE = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 507, 508, 509, *range(520, 531)})
_LONGEST_ASKED = 30 * 86400.0  # seconds; a number beyond it says no more
_MOVED_FOR_NOW = frozenset({302, 303, 307})  # by whatever stands between, as a network's login page: it may pass

# The word by itself: as a piece of a name ("dataset tm-quota-study-... already exists") it says nothing.
_QUOTA = re.compile(r"(?<![\w./-])quotas?(?![\w/-])|quota_?exceeded|job-submission-count", re.IGNORECASE)

_FIRST_PAUSE = 0.5  # seconds, doubled after each try
_LONGEST_PAUSE = 30.0  # seconds
_NETWORK = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException)  # requests' own are OSErrors

log = logging.getLogger(__name__)
for _name in ("urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).disabled = True  # they log URLs with their query, which here is a signature


@dataclass(frozen=True)
class Pace:
    """Clock (seconds, never going back), sleep and randomness (0 to 1), and the limits of one operation.

    They are handed in so that tests never wait, and so that a sleep may end early by raising.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    random: Callable[[], float] = random.random
    tries: int = 7
    seconds: float = 180.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


class Trouble(Unreachable):
    """One try without a usable answer. *answer* is what came, if anything; *wait* the seconds the service asked for."""

    def __init__(self, what: str, answer: Answer | None = None) -> None:
        super().__init__(what)
        self.answer = answer
        self.wait = retry_after(answer.headers) if answer else None


@dataclass(frozen=True)
class Answer:
    """Status, headers and whole body of an API answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the service did what it was asked."""
        return 200 <= self.status < 300

    @cached_property
    def document(self) -> dict[str, Any] | None:
        """The body as a JSON object (an empty body counts as `{}`), None when it is anything else."""
        try:
            value = jsonl.loads(self.body) if self.body.strip() else {}
        except jsonl.BadJson:
            return None
        return value if isinstance(value, dict) else None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object of an answer that `Api.call` let through."""
        return self.document or {}

    @property
    def message(self) -> str:
        """What the service says, in one printable line: `message`, `error.message`, `error`, else the text itself."""
        document = self.document or {}
        error = document.get("error")
        nested = error.get("message") if isinstance(error, dict) else error
        for candidate in (document.get("message"), nested):
            if isinstance(candidate, str) and candidate.strip():
                return readable(candidate)
        text = self.body[: 4 * WORDS_SHOWN].decode("utf-8", "replace").strip()
        if text.startswith("<"):
            title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
            return f"an HTML page ({readable(title[1])})" if title else "an HTML page"
        return readable(text) or "no text"

    @property
    def said(self) -> str:
        """`answered 400: <message>`, for the middle of a sentence."""
        return f"answered {self.status}: {self.message.rstrip('.')}"

    @property
    def says_absent(self) -> bool:
        """Whether this is the service's own "there is none", gRPC's NOT_FOUND; a gateway's 404 is about a route."""
        document = self.document or {}
        return self.status == 404 and (document.get("code") == 5 or document.get("status") == "NOT_FOUND")

    @property
    def says_not_yet(self) -> bool:
        """Whether the resource is not in the state for this, gRPC's FAILED_PRECONDITION: a data set being written."""
        return self.status in (400, 412) and (self.document or {}).get("code") == 9

    @property
    def about_quota(self) -> bool:
        """Whether a refusal is about the account's quota; it comes with 400, not 429, and perhaps with others."""
        return not self.ok and _QUOTA.search(self.message) is not None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds a service asks to wait: `retry-after-ms`, else `Retry-After` as seconds or date; None if unclear.

    A date counts from the answer's own `Date`, so that a wrong clock on this side does not matter.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return min(seconds, _LONGEST_ASKED) if math.isfinite(seconds) and seconds >= 0 else None
    until, now = date_of(headers.get("retry-after")), date_of(headers.get("date"))
    return max(0.0, (until - now).total_seconds()) if until and now else None


def date_of(text: str | None) -> datetime | None:
    """The moment in a `Date` header; None when it is none, or has no time zone."""
    try:
        date = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
    return date if date is not None and date.tzinfo is not None else None


class Patience:
    """The tries and seconds of one operation: call `pause` after each failed try."""

    def __init__(self, pace: Pace, seconds: float | None = None) -> None:
        self._pace = pace
        self._seconds = pace.seconds if seconds is None else seconds
        self._start = pace.clock()
        self._failed = 0
        self._asked = 0.0  # seconds waited because the service asked for it

    def pause(self, trouble: Trouble, kept: str | None = None) -> None:
        """Wait longer each time, with jitter, and never less than the service asked. Raises Unreachable at the end."""
        self._failed += 1
        spent = self._pace.clock() - self._start
        delay = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._failed - 1)) * (0.5 + 0.5 * self._pace.random())
        if trouble.wait is not None:
            delay = max(delay, trouble.wait * (1 + 0.1 * self._pace.random()))
            self._asked += delay
        # A long transfer may take hours; what the service asks to wait beyond a few minutes is the caller's to wait.
        if self._failed >= self._pace.tries or spent + delay > self._seconds or self._asked > self._pace.seconds:
            tries = "one try" if self._failed == 1 else f"{self._failed} tries"
            asked = "" if trouble.wait is None else f"; the service asks to wait {trouble.wait:.0f} s"
            given_up = Unreachable(
                f"{trouble.what.rstrip('.')} (given up after {tries} in {spent:.0f} s{asked}).",
                kept=kept,
                hint="check the network and the service's status page, then run the same command again",
            )
            given_up.wait, given_up.refused = trouble.wait, trouble.refused
            raise given_up
        log.debug("try %d failed, next in %.1f s: %s", self._failed, delay, trouble.what)
        self._pace.sleep(delay)


class FileBody:
    """A request body of *head*, the file's bytes and *tail*, streamed from disk with a length known beforehand."""

    def __init__(self, path: Path, stream: IO[bytes], content_type: str, head: bytes, tail: bytes) -> None:
        self.content_type = content_type
        self.file_size = os.fstat(stream.fileno()).st_size
        self._path = path
        self._parts = [(io.BytesIO(head), len(head)), (stream, self.file_size), (io.BytesIO(tail), len(tail))]
        self._size = sum(size for _, size in self._parts)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes; raises UnreadableFile, or DamagedArtifact when the file became shorter meanwhile."""
        while self._parts:
            stream, left = self._parts[0]
            if left:
                with disk.readable(self._path):  # else a disk error would look like one of the network
                    block = stream.read(min(size, left))
                if not block:
                    raise DamagedArtifact("became shorter while it was uploaded.", where=str(self._path))
                self._parts[0] = (stream, left - len(block))
                return block
            del self._parts[0]
        return b""


@contextmanager
def file_body(path: Path, content_type: str, head: bytes = b"", tail: bytes = b"") -> Iterator[FileBody]:
    """*path* as a body for one try. Raises FileNotFoundError or UnreadableFile."""
    with disk.readable(path), open(path, "rb") as stream:
        yield FileBody(path, stream, content_type, head, tail)


class Api:
    """The client with the key, for one base URL and nothing else."""

    def __init__(self, base_url: str, key: Secret, pace: Pace) -> None:
        if not re.fullmatch(r"[!-~]+", key.reveal()):
            raise AuthError(
                "the API key is empty or holds a character that no key has (a blank, a line break?).",
                hint="set the key again, without quotes or line ends",
            )
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._pace = pace
        self._adapter = Adapter(pace.clock)
        self._answered = False  # whether it was the service that is there, at least once

    def close(self) -> None:
        """Close idle connections."""
        self._adapter.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        document: Any = None,
        once: bool = False,
        any_body: bool = False,
    ) -> Answer:
        """The service's answer, whatever its status, unless another try may help: that is tried, then Unreachable.

        *once*: a single try, and Trouble instead. *any_body*: a success need not be a JSON object.
        Raises AuthError for 401 and 403.
        """
        patience = Patience(self._pace)
        while True:
            body = None if document is None else jsonl.dumps(document)
            try:
                return self._try(method, path, query, body, "application/json", any_body)
            except Trouble as trouble:
                if once:
                    raise
                patience.pause(trouble)

    def upload(self, path: str, body: FileBody) -> Answer:
        """POST a streamed *body*, in a single try. Raises Trouble and AuthError as `call(once=True)`."""
        return self._try("POST", path, None, body, body.content_type, False)

    def _try(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str, any_body: bool
    ) -> Answer:
        url = self.base_url + quote(path, safe="/:")
        headers = HEADERS if body is None else {**HEADERS, "Content-Type": content_type}
        request = requests.Request(method, url, headers=headers, params=query, data=body, auth=_Bearer(self._key))
        with closing(send(self._adapter, request, self._pace)) as response:
            deadline = self._pace.clock() + MAX_ANSWER_SECONDS
            content = bytearray()
            for block in blocks(response, decode=True):
                content += block
                if len(content) > MAX_ANSWER or self._pace.clock() > deadline:
                    raise Trouble(f"{method} {url}: the answer does not end ({len(content):,} bytes so far).")
            # A service may repeat the key; from here on nothing holds it that could be shown.
            answer = Answer(response.status_code, response.headers, self._key.mask(bytes(content)))
        if answer.status in RETRYABLE:
            raise Trouble(f"{method} {url}: the service {answer.said}.", answer)
        if 300 <= answer.status < 400:
            what = f"{method} {url}: answered with a redirect ({answer.status}), which is not followed with a key"
            if answer.status in _MOVED_FOR_NOW and self._answered:
                raise Trouble(f"{what} (a login page of this network?).", answer)
            raise ConfigError(f"{what}.", hint="check the configured base URL, and whether this network wants a login")
        page = answer.document is None and answer.body.lstrip().startswith(b"<")  # a gateway's: not about the key
        if answer.status in (401, 403) and not answer.about_quota and not page:
            raise AuthError(
                f"{method} {url}: the key is not accepted; the service {answer.said}.",
                kept="Nothing was changed here. Jobs that run at the service go on.",
                hint="set a valid key for this account, then run the same command again",
            )
        # What is not the service's own, as a gateway's page or its `{"detail": "Not Found"}`, says nothing about
        # the resource: neither "done" nor "there is none".
        if (
            (answer.ok and not any_body and answer.document is None)
            or (answer.status == 404 and not answer.says_absent)
            or (answer.status in (401, 403) and page)
        ):
            raise Trouble(f"{method} {url}: not the API: the service {answer.said}.")
        self._answered = True
        return answer


class _Bearer(requests.auth.AuthBase):
    """Puts the key into a request at the last moment, so that no variable of ours holds it in clear."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request


# Identity: what is cut or altered on the way then shows in the length.
HEADERS = {"User-Agent": "trialmake", "Accept": "*/*", "Accept-Encoding": "identity"}


def send(adapter: Adapter, request: requests.Request, pace: Pace) -> requests.Response:
    """One request, answered up to its headers. Raises Trouble."""
    shown = f"{request.method} {without_query(str(request.url))}"
    started = time.perf_counter()
    try:
        timeout = (pace.connect_timeout, pace.read_timeout)
        response = adapter.send(request.prepare(), stream=True, timeout=timeout)
    except _NETWORK as error:
        reason = _reason(error)
    else:
        log.debug("%s: %d in %.2f s", shown, response.status_code, time.perf_counter() - started)
        return response
    raise Trouble(f"{shown}: {reason}.")


def blocks(response: requests.Response, *, decode: bool) -> Iterator[bytes]:
    """The body as it arrives: each block is what one receive gave, so that a drip cannot hold us. Raises Trouble."""
    while True:
        try:
            block = response.raw.read1(BLOCK, decode_content=decode)
        except _NETWORK as error:
            reason = _reason(error)
        else:
            if not block:
                return
            yield block
            continue
        raise Trouble(f"{without_query(response.url)}: {reason}.")


def _reason(error: BaseException) -> str:
    """Why the network failed, in words without URLs: the innermost cause that has some."""
    reason = "the connection broke off"
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, ssl.SSLError):
            reason = f"no trusted TLS connection ({getattr(current, 'verify_message', None) or current.reason})"
        elif isinstance(current, OSError) and current.strerror:
            reason = current.strerror
        elif isinstance(current, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError):
            reason = "no answer in time"
        elif isinstance(current, http.client.RemoteDisconnected):
            reason = "the connection was closed without an answer"
        elif isinstance(current, http.client.IncompleteRead):
            reason = "the answer was cut off"
        current = current.__cause__ or current.__context__
    return reason
