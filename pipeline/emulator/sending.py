"""Responses onto a socket: whole, or damaged in the ways that links and proxies damage them."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from pipeline.emulator.bodies import BLOCK
from pipeline.emulator.messages import Response

_ENDLESS_BYTES = 1 << 34  # what "endless" amounts to when a client never gives up


class Disconnected(Exception):
    """The connection was cut on purpose; the handler has nothing more to say on it."""


def reset(connection: socket.socket) -> None:
    """Cut the connection with a RST, as a crashed peer or a firewall does. Raises Disconnected."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Closing the descriptor itself: socket.close would wait for the handler's open streams.
    os.close(connection.detach())
    raise Disconnected


def send(handler: BaseHTTPRequestHandler, response: Response, deeds: Mapping[str, Any]) -> None:
    """Send *response*; `damage` and `drip` among *deeds* spoil its body. Raises Disconnected after a reset."""
    damage: Mapping[str, Any] = deeds.get("damage", {})
    how, share = damage.get("how"), damage.get("at", 0.5)
    length = response.size
    if how is None:
        _head(handler, response, {"Content-Length": str(length)})
        _write(handler, _blocks(response, length), deeds.get("drip"))
        return
    handler.close_connection = True
    cut = int(length * share)
    if how == "gzip":
        # A compressed body cut in half, with a length that fits: HTTP clients take it for complete.
        packed = gzip.compress(b"".join(_blocks(response, length)), mtime=0)
        packed = packed[: int(len(packed) * share)]
        _head(handler, response, {"Content-Encoding": "gzip", "Content-Length": str(len(packed))})
        handler.wfile.write(packed)
        return
    headers = {
        "close": {"Content-Length": str(length)},
        "reset": {"Content-Length": str(length)},
        "short_length": {"Content-Length": str(cut)},
        "chunked": {"Transfer-Encoding": "chunked"},
        "no_length": {"Connection": "close"},
        "endless": {"Connection": "close"},
    }
    _head(handler, response, headers[how])
    if how == "chunked":  # without the last, empty chunk
        for block in _blocks(response, cut):
            handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        return
    if how == "endless":
        sent = 0
        while sent < _ENDLESS_BYTES:
            for block in _blocks(response, length):
                handler.wfile.write(block)
                sent += max(1, len(block))
        return
    _write(handler, _blocks(response, cut), None)
    if how == "reset":
        handler.wfile.flush()
        reset(handler.connection)


def _head(handler: BaseHTTPRequestHandler, response: Response, headers: Mapping[str, str]) -> None:
    handler.send_response(response.status)
    for name, value in {"Content-Type": response.content_type, **headers, **response.headers}.items():
        handler.send_header(name, value)
    if handler.close_connection and "Connection" not in headers:
        handler.send_header("Connection", "close")
    handler.end_headers()


def _write(handler: BaseHTTPRequestHandler, blocks: Iterator[bytes], drip: Mapping[str, Any] | None) -> None:
    if drip is None:
        for block in blocks:
            handler.wfile.write(block)
        return
    for block in blocks:
        for start in range(0, len(block), drip["bytes"]):
            handler.wfile.write(block[start : start + drip["bytes"]])
            handler.wfile.flush()
            time.sleep(drip["pause"])


def _blocks(response: Response, limit: int) -> Iterator[bytes]:
    """The first *limit* bytes of the body."""
    if response.file is None:
        yield response.body[:limit]
        return
    with open(response.file, "rb") as stream:
        while limit > 0 and (block := stream.read(min(BLOCK, limit))):
            limit -= len(block)
            yield block
