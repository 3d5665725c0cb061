"""The emulator as a process: one per store, found by its address file, gone with the last that needs it.

    python -m pipeline.emulator.server --store DIR [--port 0] [--config FILE.json | -] [--parent-fd N]

It holds `emulator.lock`, writes `address.json` when it listens, and prints that as a line of JSON. With
`--parent-fd` it ends when that pipe and all lifelines (`process.py`) are closed; without, on SIGTERM or
SIGINT. The standard library's server is used because faults need the bare connection: a reset, a body
cut in the middle. Not for the open internet; it listens on the loopback address only.
"""

from __future__ import annotations

import argparse
import os
import signal
import ssl
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock

from pipeline import disk, jsonl
from pipeline.emulator import store
from pipeline.emulator.answers.completion import Answerer
from pipeline.emulator.config import Config
from pipeline.emulator.faults import BadRule, Faults, check
from pipeline.emulator.handler import Handler, Server
from pipeline.emulator.links import Links
from pipeline.emulator.service import Service
from pipeline.emulator.store import Store
from pipeline.emulator.worker import Worker
from pipeline.errors import EXIT_NOT_READY, ConfigError, RunLocked, TrialmakeError

HOST = "127.0.0.1"
_POLL_SECONDS = 0.02  # between two looks of the listening thread at whether to stop
_LOCK_SECONDS = 0.2  # for a predecessor that is just ending; `process.ensure` tries again


class Emulator:
    """A running emulator on *folder*. Raises RunLocked when another process serves it, ConfigError for its settings."""

    def __init__(self, folder: Path, config: Config, port: int = 0) -> None:
        disk.make_folder(folder)
        self._lock = filelock.FileLock(store.lock_file(folder), timeout=_LOCK_SECONDS, thread_local=False)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise RunLocked(
                "another emulator process works on this store.",
                where=str(folder),
                hint="let it end, or use it: its address is in address.json",
            ) from error
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self._start(folder, config, port)
            undo.pop_all()

    def _start(self, folder: Path, config: Config, port: int) -> None:
        # Whatever may be wrong with the settings shows before anything is opened.
        answerer = Answerer(config)
        try:
            for rule in config.faults:
                check(rule)
        except BadRule as error:
            raise ConfigError(f"{error}.", where="emulator settings, faults") from error
        tls = None if config.certificate is None else _tls(config.certificate)
        self.ended = threading.Event()
        self._lives = 0
        self._lives_lock = threading.Lock()
        self._folder = folder
        self._store = Store(folder, config.speed)
        try:
            self._server = Server((HOST, port), Handler)
        except OSError as error:
            self._store.close()
            raise ConfigError(f"port {port} cannot be used ({error.strerror}).", where="emulator --port") from error
        if tls is not None:
            # The handshake happens in the connection's own thread, so that a silent client blocks nobody.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self._server.server_address[1]}"
        self.store_id = self._store.store_id
        faults = Faults(self._store)
        if self._store.is_new:
            faults.add(list(config.faults))
        worker = Worker(self._store, answerer, self.ended.set)
        links = Links(self._store.secret, self.url)
        self.service = Service(self._store, config, links, faults, worker, self.url)
        self._server.emulator = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="emulator", daemon=True
        )
        worker.start()
        self._thread.start()
        disk.write_bytes(store.address_file(folder), jsonl.dumps(self.address))

    @property
    def address(self) -> dict[str, Any]:
        """What `address.json` says."""
        return {"url": self.url, "pid": os.getpid(), "store_id": self.store_id}

    def stop(self) -> None:
        """Stop listening and working; what was acknowledged is in the store."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self.service.worker.stop()
        self.service.worker.join()
        disk.remove(store.address_file(self._folder))
        self._store.close()
        self._lock.release()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ending(self) -> bool:
        """Whether the process is about to end."""
        return self.ended.is_set()

    def hold(self) -> bool:
        """Count one more that needs this process; False when it is ending already."""
        with self._lives_lock:
            if self.ended.is_set():
                return False
            self._lives += 1
            return True

    def let_go(self) -> None:
        """One fewer; the last one's leaving ends the process when a parent had started it."""
        with self._lives_lock:
            self._lives -= 1
            if self._lives == 0:
                self.ended.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run an emulator until it is told to end; the exit code."""
    options = _parser().parse_args(argv)
    try:
        emulator = Emulator(options.store, _config(options.config), options.port)
    except RunLocked as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command of its own; `process.py` passes this on
        return EXIT_NOT_READY
    except TrialmakeError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: emulator.ended.set())
    if options.parent_fd is not None:
        emulator.hold()
        threading.Thread(target=_wait_for_end_of, args=(options.parent_fd, emulator), daemon=True).start()
    else:
        emulator.hold()  # never let go: lifelines come and go, the process stays
    print(jsonl.dumps(emulator.address).decode(), flush=True)  # noqa: T201 - tells who started it where it is
    emulator.ended.wait()
    emulator.stop()
    return 0


def _wait_for_end_of(descriptor: int, emulator: Emulator) -> None:
    while os.read(descriptor, 1):
        pass
    emulator.let_go()


def _tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"cannot be used as certificate and key ({error}).", where=str(certificate)) from error
    return context


def _config(source: str | None) -> Config:
    if source is None:
        return Config()
    if source == "-":
        return Config.from_dict(jsonl.loads_checked(sys.stdin.buffer.read()))
    try:
        return Config.from_dict(jsonl.read_document(Path(source)))
    except FileNotFoundError as error:
        raise ConfigError("there is no such file.", where=source) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline emulate",
        description="Serve the Fireworks batch REST API on this machine, with an extractive baseline or recorded "
        "answers behind it. REST only: firectl and SDK 0.19 speak gRPC and cannot use it.",
    )
    parser.add_argument("--store", type=Path, required=True, help="folder of the durable store, made when absent")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; default: any free one")
    parser.add_argument("--config", help="settings as JSON: a file, or - for standard input")
    parser.add_argument("--parent-fd", type=int, help="a pipe whose end (EOF) ends this process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
