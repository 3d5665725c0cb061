"""One HTTP connection of the emulator: read a call, let a fault rule act, answer, write it into the ledger.

The ledger's line is written before the answer is sent, so whoever has an answer finds its call there.
"""

from __future__ import annotations

import ssl
import sys
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from pipeline.emulator import app, bodies, sending, wire
from pipeline.emulator.config import CONTROL, LIFELINE, PING
from pipeline.emulator.faults import RESPONSES, edited
from pipeline.emulator.messages import Request, Response
from pipeline.emulator.service import Service

_DRAIN_LIMIT = 1 << 20  # bytes of an unread body that are worth reading to keep the connection


class Owner(Protocol):
    """The emulator that a connection belongs to."""

    service: Service

    def ending(self) -> bool:
        """Whether the process is about to end."""

    def hold(self) -> bool:
        """Count one more that needs this process; False when it is ending already."""

    def let_go(self) -> None:
        """One fewer."""


class Server(ThreadingHTTPServer):
    """A thread for each connection; none is waited for at the end."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # connections that may wait while threads are made
    emulator: Owner

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong where tests look."""
        # A client that hangs up is everyday life here. Anything else is a bug: it must not stay unseen.
        if not isinstance(sys.exception(), OSError) and not self.emulator.ending():
            self.emulator.service.store.add_call({"status": None, "violation": traceback.format_exc()})


class Handler(BaseHTTPRequestHandler):
    """Serves the calls of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "trialmake-emulator"
    sys_version = ""
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    timeout = 120  # seconds an idle or stalled connection is kept
    server: Server

    def do_GET(self) -> None:
        """Serve one call of any method."""
        try:
            self._serve(self.server.emulator)
        except sending.Disconnected:
            self.close_connection = True
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True  # the client is gone; what it asked for has been done and recorded

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - the standard library's names

    def finish(self) -> None:
        """Close the streams; after a reset there is no connection left to flush to."""
        if self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing: the ledger of calls is the log."""

    def _serve(self, emulator: Owner) -> None:
        service = emulator.service
        request = self._request()
        if request.path == LIFELINE:
            self._lifeline(emulator, request)
            return
        if request.path.startswith(CONTROL):
            sending.send(self, app.handle(service, request), {})
            return
        rule, request.deeds = service.faults.for_call(request.method, request.path)
        response = self._response(service, request)
        service.store.add_call(
            {
                "at": wire.timestamp(service.now()),
                "method": request.method,
                "path": request.path,
                "query": {key: value for key, value in request.query.items() if not key.startswith("X-Goog-")},
                "status": response.status if response else None,
                "effect": request.effect,
                "rule": rule,
                "violation": request.violation,
                "retry": self.headers.get("x-stainless-retry-count", ""),
                "body": request.document,
            }
        )
        if response is None:
            sending.reset(self.connection)
            return
        if delay := request.deeds.get("delay"):
            time.sleep(delay)
        self._drain(request)
        sending.send(self, response, request.deeds)

    def _response(self, service: Service, request: Request) -> Response | None:
        """The answer to send; None when the connection is to be reset instead."""
        deeds = request.deeds
        instead = "respond" in deeds or bool(deeds.get("reset"))
        response = None
        if not instead or deeds.get("commit"):
            response = app.handle(service, request)
        if deeds.get("reset"):
            return None
        if "respond" in deeds:
            return _scripted(deeds["respond"])
        assert response is not None
        if "edit" in deeds and response.body:
            response.body = orjson.dumps(edited(orjson.loads(response.body), deeds["edit"]))
        return response

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        announced = self.headers.get("Content-Length", "0")
        length = int(announced) if announced.isdecimal() else 0
        return Request(
            method=self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=self.headers,  # type: ignore[arg-type] # a Message maps names to values, ignoring case
            body=bodies.ChunkedBody(self.rfile) if chunked else bodies.PlainBody(self.rfile, length),
            length=None if chunked else length,
        )

    def _drain(self, request: Request) -> None:
        """Read what the route left of a short body; for a long one give up the connection instead."""
        if request.body.drained:
            return
        if request.length is None or request.length > _DRAIN_LIMIT:
            self.close_connection = True
            return
        try:
            bodies.copy(request.body, len)
        except bodies.BadBody:
            self.close_connection = True

    def _lifeline(self, emulator: Owner, request: Request) -> None:
        """Stay for as long as the client keeps this connection."""
        answer = app.handle(emulator.service, Request(**{**vars(request), "path": PING}))
        if answer.status != 200 or not emulator.hold():
            self.close_connection = True
            sending.send(self, answer if answer.status != 200 else Response(503), {})
            return
        try:
            sending.send(self, answer, {})
            self.wfile.flush()
            self.connection.settimeout(None)
            self.rfile.read(1)
        finally:
            emulator.let_go()
            self.close_connection = True


def _scripted(respond: Any) -> Response:
    script = RESPONSES[respond] if isinstance(respond, str) else respond
    headers = dict(script.get("headers", {}))
    if "json" in script:
        return Response(script["status"], orjson.dumps(script["json"]), headers=headers)
    kind = headers.pop("Content-Type", "text/html; charset=UTF-8")
    return Response(script["status"], str(script.get("text", "")).encode(), kind, headers)
