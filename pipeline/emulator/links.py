"""Signed links to a dataset's bytes, in the form and with the habits of Google's V4 signed URLs.

    /storage/<nonce>/<object>/<file>?X-Goog-Algorithm=...&X-Goog-Date=20260830T035748Z&X-Goog-Expires=599
        &X-Goog-SignedHeaders=host&X-Goog-Signature=<hex>

The signature covers method, path, date, life time and the signed headers' values, so a link needs no
memory: it holds after a restart, and nothing about it can be changed. Links need no key, and a request
that brings one anyway is refused: a client must never show its key to a storage host.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

PREFIX = "/storage/"
EXTERNAL_PREFIX = "/external/"
DOWNLOAD_SECONDS = 599
UPLOAD_SECONDS = 3600
UPLOAD_TYPE = "application/octet-stream"
LENGTH_RANGE = "x-goog-content-length-range"

_DATE = "%Y%m%dT%H%M%SZ"


class LinkRefused(Exception):
    """A link that does not open: *status* and *code* as the storage service words them."""

    def __init__(self, status: int, code: str, message: str, violation: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.violation = violation
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.body = f"<?xml version='1.0' encoding='UTF-8'?>{error}"


class Links:
    """Signs links to this server and checks them. *base* is its own address, e.g. http://127.0.0.1:8080."""

    def __init__(self, secret: bytes, base: str) -> None:
        self._secret = secret
        self._base = base
        self._host = base.partition("://")[2]

    def download(self, object_id: str, name: str, now: float) -> str:
        """A link to GET an object for ten minutes."""
        return self._sign("GET", object_id, name, now, DOWNLOAD_SECONDS, {"host": self._host})

    def upload(self, object_id: str, name: str, size: int, now: float) -> str:
        """A link to PUT exactly *size* bytes within an hour."""
        headers = {"content-type": UPLOAD_TYPE, "host": self._host, LENGTH_RANGE: f"{size},{size}"}
        return self._sign("PUT", object_id, name, now, UPLOAD_SECONDS, headers)

    def external(self, dataset_id: str) -> str:
        """A lasting link to a dataset's results, as an http(s) `externalUrl` would be."""
        return f"{self._base}{EXTERNAL_PREFIX}{self.external_token(dataset_id)}/{dataset_id}"

    def external_token(self, dataset_id: str) -> str:
        """What makes an external link unguessable."""
        return self._mac(f"external\n{dataset_id}")[:32]

    def check(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: float) -> str:
        """The object a link opens. Raises LinkRefused."""
        if "Authorization" in headers:
            raise LinkRefused(
                403, "AccessDenied", "A signed link takes no Authorization header.", "authorization at a signed link"
            )
        signed = query.get("X-Goog-SignedHeaders", "").split(";")
        values = {name: headers.get(name, "") for name in signed}
        expected = self._signature(method, path, query, values)
        if not hmac.compare_digest(expected, query.get("X-Goog-Signature", "")):
            raise LinkRefused(403, "SignatureDoesNotMatch", "The signature does not fit the request.")
        begins = datetime.strptime(query["X-Goog-Date"], _DATE).replace(tzinfo=UTC).timestamp()
        if now > begins + int(query["X-Goog-Expires"]):
            raise LinkRefused(400, "ExpiredToken", "The provided token has expired.")
        return path.split("/")[3]

    def _sign(
        self, method: str, object_id: str, name: str, now: float, seconds: int, headers: Mapping[str, str]
    ) -> str:
        path = f"{PREFIX}{secrets.token_hex(8)}/{object_id}/{name}"
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": "emulator%2Fauto%2Fstorage%2Fgoog4_request",
            "X-Goog-Date": datetime.fromtimestamp(now, UTC).strftime(_DATE),
            "X-Goog-Expires": str(seconds),
            "X-Goog-SignedHeaders": "%3B".join(sorted(headers)),
        }
        decoded = query | {"X-Goog-SignedHeaders": ";".join(sorted(headers))}
        signature = self._signature(method, path, decoded, headers)
        parameters = "&".join(f"{key}={value}" for key, value in query.items())
        return f"{self._base}{quote(path)}?{parameters}&X-Goog-Signature={signature}"

    def _signature(self, method: str, path: str, query: Mapping[str, str], values: Mapping[str, str]) -> str:
        parts = [method, path, query.get("X-Goog-Date", ""), query.get("X-Goog-Expires", "")]
        parts += [f"{name}:{values[name]}" for name in sorted(values)]
        return self._mac("\n".join(parts))

    def _mac(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
