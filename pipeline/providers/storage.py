"""The client without a key: it fetches signed links, and puts files to them.

A link is tried once; whoever asks for a fresh link also counts the tries. A file appears under its
name only when its transfer ended as announced. Which links may be followed at all, `links.py` says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import requests
from urllib3.connection import HTTPConnection

from pipeline import disk, jsonl
from pipeline.errors import Refused
from pipeline.providers.connections import Adapter
from pipeline.providers.http import HEADERS, Answer, FileBody, Pace, Trouble, blocks, send
from pipeline.providers.links import LinkPolicy, without_query

STALE_LINK = frozenset({400, 401, 403, 404, 410})  # storage's answers to a link that ran out (Google: 400 and XML)

# How a web page and compressed files begin (gzip, zip, bzip2, xz, zstd): not a damaged line, but another file.
_FOREIGN = (b"<", b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_HEAD = 16  # bytes of a file's beginning that are looked at


@dataclass(frozen=True)
class Cap:
    """The most a download may take. The service's own limit for an output dataset is 8 GB."""

    bytes: int = 16_000_000_000
    seconds: float = 6 * 3600.0


class Links:
    """The client without a key: it fetches from and puts to the links that *policy* allows, one try a call."""

    def __init__(self, policy: LinkPolicy, pace: Pace) -> None:
        self._policy = policy
        self._pace = pace
        self._adapter = Adapter(pace.clock, self._require_peer)

    def close(self) -> None:
        """Close idle connections."""
        self._adapter.close()

    def put(self, url: str, body: FileBody, headers: Mapping[str, str]) -> None:
        """PUT *body* with exactly these *headers*, which the signature covers. Raises Trouble or Refused."""
        with closing(self._open("PUT", url, {**headers, "Content-Type": body.content_type}, body)) as response:
            self._require(response, url, (200, 201, 204))

    def fetch(self, url: str, target: Path, cap: Cap, doubted: set[str]) -> disk.Written:
        """Stream the JSON Lines at *url* to *target*, put in place only when the transfer ended as announced.

        Where that is in doubt (no length given, a first line that is no row, a last one that is cut, another
        checksum), it counts only if an earlier transfer brought the same bytes: *doubted* remembers their sha256.
        Raises Trouble, Refused or DiskTrouble; *target* is then as it was.
        """
        deadline = self._pace.clock() + cap.seconds
        with closing(self._open("GET", url, {}, None)) as response:
            self._require(response, url, (200,))
            length = _content_length(response)
            if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
                # Half a gzip stream looks whole to the library, even when its length matches.
                raise self._trouble(url, "the file came compressed although it was asked for plain")
            with disk.replacing(target) as new:
                rows = _Rows()
                for block in blocks(response, decode=False):
                    new.write(rows.seen(block))
                    if not rows.plausible:
                        raise self._trouble(url, f"not JSON Lines (it begins with {bytes(rows.head[:12])!r})")
                    if new.stream.size > cap.bytes:
                        raise self._too_large(url, cap)
                    if self._pace.clock() > deadline:
                        raise self._trouble(url, f"not finished after {cap.seconds:,.0f} s")
                # The library looks at this too, today; the promise should not rest on that.
                if length is not None and new.stream.size != length:
                    raise self._trouble(url, f"cut off after {new.stream.size:,} of {length:,} bytes")
                doubt = rows.doubt(response, length)
                if doubt and new.stream.sha256 not in doubted:
                    doubted.add(new.stream.sha256)
                    raise self._trouble(url, f"{doubt}; it is fetched again to compare")
        return new.written

    def _open(self, method: str, url: str, headers: Mapping[str, str], body: FileBody | None) -> requests.Response:
        try:
            self._policy.require(url)
        except OSError as error:
            raise self._trouble(url, f"its host is not known ({error.strerror or error})") from error
        request = requests.Request(method, url, headers={**HEADERS, **headers}, data=body)
        return send(self._adapter, request, self._pace)

    def _require_peer(self, connection: HTTPConnection) -> None:
        """Ask the policy about the peer of a new connection, before a request goes out on it."""
        self._policy.require_peer(connection.host, connection.port, connection.sock.getpeername()[0])

    def _require(self, response: requests.Response, url: str, wanted: tuple[int, ...]) -> None:
        if response.status_code in wanted:
            return
        # Storage explains itself in XML that repeats what was signed; its code alone is safe to show.
        code = re.search(rb"<Code>([A-Za-z]{1,60})</Code>", next(blocks(response, decode=False), b"")[:4096])
        said = f"{response.status_code}{f' {code[1].decode()}' if code else ''}"
        refused = response.status_code in STALE_LINK
        stale = " (the link has run out or is not accepted)" if refused else ""
        answer = Answer(response.status_code, response.headers, b"")
        trouble = Trouble(f"{without_query(url)}: storage answered {said}{stale}.", answer)
        trouble.refused = refused
        raise trouble

    def _trouble(self, url: str, reason: str) -> Trouble:
        return Trouble(f"{without_query(url)}: {reason}.")

    def _too_large(self, url: str, cap: Cap) -> Refused:
        return Refused(
            f"{without_query(url)}: larger than {cap.bytes:,} bytes, the most a download may take.",
            kept="The file was not stored. The results stay with the provider.",
            hint="use smaller parts; if the size is right, ask for a higher limit",
        )


class _Rows:
    """What a stream of JSON Lines shows of itself while it passes: how it begins, how it ends, its MD5."""

    def __init__(self) -> None:
        self.head = bytearray()
        self._last = b"}"
        self._md5 = hashlib.md5(usedforsecurity=False)

    def seen(self, block: bytes) -> bytes:
        if len(self.head) < _HEAD:
            self.head = (self.head + block).removeprefix(jsonl.BOM).lstrip()[:_HEAD]
        if text := block.rstrip():
            self._last = text[-1:]
        self._md5.update(block)
        return block

    @property
    def plausible(self) -> bool:
        return not self.head.startswith(_FOREIGN)

    def doubt(self, response: requests.Response, length: int | None) -> str | None:
        """Why the file is in doubt, None when it is not."""
        if self.head and not self.head.startswith(b"{"):
            return f"its first line is no row (it begins with {bytes(self.head)!r})"
        if self._last != b"}":
            return "its last line is cut"
        if length is None and not getattr(response.raw, "chunked", False):
            return "the server did not say how long it is"
        if (announced := _announced_md5(response.headers)) and announced != self._md5.digest():
            return "it has another checksum than the storage says"
        return None


def _content_length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _announced_md5(headers: Mapping[str, str]) -> bytes | None:
    """The MD5 in `x-goog-hash: crc32c=...,md5=...` (Google Cloud Storage; absent for composed objects)."""
    if headers.get("x-goog-stored-content-encoding", "identity") != "identity":
        return None  # it is then the checksum of the compressed file
    for piece in headers.get("x-goog-hash", "").split(","):
        name, _, value = piece.strip().partition("=")
        if name == "md5":
            try:
                return base64.b64decode(value, validate=True)
            except ValueError:  # binascii's own is one, and what is not ASCII gives the plain one
                return None
    return None
