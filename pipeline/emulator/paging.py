"""Pages of a listing: `pageSize` (50, at most 200), an opaque `pageToken`, `orderBy` and `readMask`.

`filter` is accepted and has no effect: which fields the service understands there is not documented.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pipeline.emulator.messages import Request, Response, answer
from pipeline.emulator.wire import invalid, masked, ordered

DEFAULT_SIZE = 50
MAX_SIZE = 200


def token(offset: int) -> str:
    """The page token that stands for the listing from *offset* on."""
    return base64.urlsafe_b64encode(f"from {offset}".encode()).decode()


def page(request: Request, key: str, resources: list[dict[str, Any]]) -> Response:
    """The page of *resources* that *request* asks for, under *key*."""
    query = request.query
    size = query.get("pageSize") or query.get("page_size") or "0"
    if not size.isdecimal():
        raise invalid(f"invalid page_size: {size!r}")
    count = min(int(size) or DEFAULT_SIZE, MAX_SIZE)
    start = _offset(query.get("pageToken") or query.get("page_token") or "")
    listing = ordered(resources, query.get("orderBy") or query.get("order_by") or "")
    mask = query.get("readMask") or query.get("read_mask") or ""
    shown = [masked(resource, mask) for resource in listing[start : start + count]]
    following = token(start + count) if start + count < len(listing) else ""
    return answer({key: shown, "nextPageToken": following, "totalSize": len(listing)})


def _offset(text: str) -> int:
    if not text:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        if word == "from" and number.isdecimal():
            return int(number)
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise invalid(f"invalid page_token: {text!r}")
