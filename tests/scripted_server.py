"""A server that plays scripted answers over a raw socket, faults included, and keeps what it was asked.

A *play* is the bytes of a whole answer, or a function that gets the connection. The last play of a
route repeats. It speaks no keep-alive: every answer ends its connection, so that nothing is shared
between two cases. A request that no route expects is answered with 418 and fails the test.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

Play = bytes | Callable[[socket.socket], None]


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self):
        return unquote(urlsplit(self.target).path)

    @property
    def query(self):
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        """The one value of a header; None when it was not sent, an error when it was sent twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def __str__(self):
        return f"{self.method} {self.path}"


def answer(status=200, body=b"", headers=(), reason="Scripted"):
    """A whole answer with a correct length, unless *headers* give one."""
    lines = [f"HTTP/1.1 {status} {reason}", *headers, "Connection: close"]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_answer(document, status=200, headers=()):
    return answer(status, json.dumps(document).encode(), ("Content-Type: application/json", *headers))


def error(status, code, message):
    return json_answer({"code": code, "message": message, "details": []}, status)


NOT_FOUND = error(404, 5, "resource not found")
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


def unfinished(head, body=b""):
    """An answer with exactly these header lines, closed after *body*."""
    return "\r\n".join(["HTTP/1.1 200 OK", *head]).encode() + b"\r\n\r\n" + body


def reset(data=b""):
    """Send *data*, then break the connection with a TCP reset."""

    def play(connection):
        if data:
            connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return play


def silent(data=b""):
    """Send *data*, then nothing more until the client goes away."""

    def play(connection):
        if data:
            connection.sendall(data)
        with suppress(OSError):
            connection.recv(1)

    return play


def endless(data, piece):
    """Send *data*, then *piece* again and again until the client goes away."""

    def play(connection):
        connection.sendall(data)
        while True:
            connection.sendall(piece)

    return play


@dataclass
class ScriptedServer:
    requests: list[Request] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    routes: dict[tuple[str, str], list[Play]] = field(default_factory=dict)

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        assert not self.unexpected, f"nobody planned {self.unexpected}"

    def on(self, method, path, *plays):
        """Play *plays* in turn for requests of this method and path; the last one stays."""
        self.routes[method, path] = list(plays)

    @property
    def calls(self):
        """What was asked, as `METHOD path`, in order."""
        return [str(request) for request in self.requests]

    def asked(self, method, path):
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with connection, suppress(OSError):
            request = self._read(connection)
            if request is not None:
                self.requests.append(request)
                plays = self.routes.get((request.method, request.path))
                if not plays:
                    self.unexpected.append(str(request))
                    connection.sendall(answer(418))
                    return
                play = plays.pop(0) if len(plays) > 1 else plays[0]
                if callable(play):
                    play(connection)
                else:
                    connection.sendall(play)
        self._open.discard(connection)

    @staticmethod
    def _read(connection):
        with connection.makefile("rb") as stream:
            first = stream.readline().decode("latin-1").split()
            if len(first) != 3:
                return None
            headers = []
            while (line := stream.readline().decode("latin-1").rstrip("\r\n")) != "":
                name, _, value = line.partition(":")
                headers.append((name, value.strip()))
            length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
            return Request(first[0], first[1], headers, stream.read(length))


@dataclass
class FakeTime:
    """A clock that moves when someone sleeps, and by *tick* at every look."""

    now: float = 1000.0
    tick: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self):
        self.now += self.tick
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
