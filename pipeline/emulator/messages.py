"""A request as the routes see it and a response as they give it, free of sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline.emulator.bodies import BadBody, Body
from pipeline.emulator.wire import ApiError, invalid

JSON_LIMIT = 16 << 20  # bytes of a JSON body; a job or dataset is a few hundred
JSON_TYPE = "application/json"


@dataclass
class Request:
    """One call. *path* is decoded, *query* holds the last value of each parameter, header names ignore case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    length: int | None  # of the body; None when it comes in chunks
    deeds: Mapping[str, Any] = field(default_factory=dict)  # what a fault rule does to this call
    document: Any = None  # the JSON body, once it was read
    effect: str = ""  # what the call changed, for the ledger
    violation: str = ""  # what a proper client would never do, for the ledger

    def json(self) -> Any:
        """The JSON body. Raises ApiError code 3."""
        data = bytearray()
        try:
            while block := self.body.read():
                data += block
                if len(data) > JSON_LIMIT:
                    raise invalid("the request body is too large")
            self.document = orjson.loads(bytes(data) or b"{}")
        except (orjson.JSONDecodeError, BadBody) as error:
            raise invalid(f"the request body is not JSON: {error}") from error
        return self.document


@dataclass
class Response:
    """One answer: bytes, or a file to stream."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self.file.stat().st_size if self.file else len(self.body)


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """*document* as JSON."""
    return Response(status, orjson.dumps(document), JSON_TYPE, dict(headers or {}))


def refusal(error: ApiError) -> Response:
    """The answer to a call the service refuses."""
    return answer(error.body, error.status)


def text(status: int, body: str, content_type: str = "text/plain; charset=utf-8") -> Response:
    """*body* as it is."""
    return Response(status, body.encode(), content_type)
