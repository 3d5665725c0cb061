"""Request bodies as streams: plain, chunked, and the one file of a multipart upload. Nothing is held whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BufferedIOBase
from typing import Protocol

BLOCK = 1 << 18  # bytes read at a time

_BOUNDARY = re.compile(r"boundary=(?:\"([^\"]+)\"|([^;\s]+))", re.IGNORECASE)
_NAME = re.compile(rb"[;\s]name=(?:\"([^\"]*)\"|([^;\s]+))", re.IGNORECASE)
_FILENAME = re.compile(rb"filename=(?:\"([^\"]*)\"|([^;\s]+))", re.IGNORECASE)
_HEADER_LIMIT = 16_384  # bytes; a part's headers are a few hundred


class BadBody(ValueError):
    """A body that is not what its headers say."""


class Body(Protocol):
    """A body that can be read once."""

    @property
    def drained(self) -> bool:
        """Whether all of it was read, so that the connection can serve another request."""

    def read(self, size: int = BLOCK) -> bytes:
        """Up to *size* bytes, none at the end. Raises BadBody when the client stopped short."""


class PlainBody:
    """A body of *length* bytes."""

    def __init__(self, stream: BufferedIOBase, length: int) -> None:
        self._stream = stream
        self._left = length

    @property
    def drained(self) -> bool:
        """Whether all of it was read."""
        return self._left == 0

    def read(self, size: int = BLOCK) -> bytes:
        """Up to *size* bytes, none at the end."""
        data = self._stream.read(min(size, self._left))
        if not data and self._left:
            raise BadBody(f"the body ended {self._left} bytes early")
        self._left -= len(data)
        return data


class ChunkedBody:
    """A body in HTTP/1.1 chunks."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._left = 0
        self.drained = False

    def read(self, size: int = BLOCK) -> bytes:
        """Up to *size* bytes, none at the end."""
        if self.drained:
            return b""
        if self._left == 0:
            head = self._stream.readline(1024).split(b";")[0].strip()
            try:
                self._left = int(head, 16)
            except ValueError as error:
                raise BadBody("broken chunk") from error
            if self._left == 0:
                while self._stream.readline(1024).strip():  # trailers
                    pass
                self.drained = True
                return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise BadBody("the body ended in a chunk")
        self._left -= len(data)
        if self._left == 0:
            self._stream.readline(8)
        return data


def copy(body: Body, write: Callable[[bytes], object]) -> int:
    """Pass all of *body* to *write*; the number of bytes."""
    size = 0
    while data := body.read():
        write(data)
        size += len(data)
    return size


def multipart_file(body: Body, content_type: str, write: Callable[[bytes], object]) -> str:
    """Pass the bytes of the one part, named `file`, to *write*; the file name it came with.

    Raises BadBody for any other form.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or not found:
        raise BadBody("expected multipart/form-data with a boundary")
    delimiter = b"\r\n--" + (found.group(1) or found.group(2)).encode()
    # A line break in front lets the first delimiter look like all others.
    buffer = _until(body, b"\r\n", delimiter, lambda _: None)
    headers, buffer = _headers(body, buffer)
    name = _NAME.search(headers)
    filename = _FILENAME.search(headers)
    if not name or (name.group(1) or name.group(2)) != b"file" or not filename:
        raise BadBody("expected one part named file, with a file name")
    rest = _until(body, buffer, delimiter, write)
    while len(rest) < 2 and (more := body.read()):
        rest += more
    if rest[:2] != b"--":
        raise BadBody("expected exactly one part")
    while body.read():  # the epilogue
        pass
    return (filename.group(1) or filename.group(2)).decode("utf-8", "replace")


def _until(body: Body, buffer: bytes, delimiter: bytes, write: Callable[[bytes], object]) -> bytes:
    """Pass what stands before *delimiter* to *write*; what was read beyond it."""
    while (at := buffer.find(delimiter)) < 0:
        # The delimiter may begin in the last bytes of the buffer.
        keep = max(0, len(buffer) - len(delimiter) + 1)
        write(buffer[:keep])
        more = body.read()
        if not more:
            raise BadBody("the multipart body has no end")
        buffer = buffer[keep:] + more
    write(buffer[:at])
    return buffer[at + len(delimiter) :]


def _headers(body: Body, buffer: bytes) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in buffer:
        more = body.read()
        if not more or len(buffer) > _HEADER_LIMIT:
            raise BadBody("a part's headers have no end")
        buffer += more
    headers, _, rest = buffer.partition(b"\r\n\r\n")
    return headers, rest
