"""Connections as this package makes them: no piece of an answer takes for ever, and each new peer is asked about.

requests' timeout counts for a single receive, and its library reads lines: a server that sends its headers or
the size of a chunk byte by byte, or one `100 Continue` after the other, would hold us for as long as it likes.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PIECE_SECONDS = 120.0  # for the head of an answer, and for each block of its body; the service needs seconds


class Adapter(HTTPAdapter):
    """A bare adapter, which retries nothing; *connected* is called with each new connection, and may raise."""

    def __init__(
        self, clock: Callable[[], float], connected: Callable[[HTTPConnection], object] = lambda _connection: None
    ) -> None:
        self._clock = clock
        self._connected = connected
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have the pools make connections of our kind."""
        super().init_poolmanager(*args, **kwargs)
        clock, connected = self._clock, self._connected

        class Response(http.client.HTTPResponse):
            def begin(self) -> None:
                self._timed = _Timed(self.fp.raw, clock)  # before detach: an answer without a stream cannot be closed
                self.fp.detach()
                self.fp = io.BufferedReader(self._timed)
                super().begin()
                if self._timed.ended:  # http.client takes the end of what came for the end of the headers
                    raise http.client.IncompleteRead(b"")

            def read1(self, n: int = -1) -> bytes:
                self._timed.restart()  # how long the whole body may take, its reader says
                return super().read1(n)

        class Ours:
            response_class: Any = Response

            def connect(self) -> None:
                super().connect()  # type: ignore[misc] # of the class beside this one
                connected(self)  # type: ignore[arg-type]

        class Http(Ours, HTTPConnection):
            pass

        class Https(Ours, HTTPSConnection):
            pass

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


class _Timed(io.RawIOBase):
    """What a connection brings in PIECE_SECONDS from the last `restart`; *ended* once it brings no more."""

    def __init__(self, raw: Any, clock: Callable[[], float]) -> None:
        self._raw = raw
        self._clock = clock
        self.ended = False
        self.restart()

    def restart(self) -> None:
        """From now on another piece is read."""
        self._deadline = self._clock() + PIECE_SECONDS

    def readable(self) -> bool:
        """Always: nothing is written here."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """What one receive brings. Raises TimeoutError."""
        if self._clock() > self._deadline:
            raise TimeoutError
        received: int | None = self._raw.readinto(buffer)
        self.ended = received == 0
        return received

    def close(self) -> None:
        """Let go of the connection too."""
        self._raw.close()
        super().close()
