"""Find the emulator that serves a store, or start one; and stay connected to it for as long as it is needed.

An emulator started here ends when its starter's pipe closes, however the starter dies. One that is
found running is held by a *lifeline*, an open connection: so it cannot end with its first owner while
a second one works with it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pipeline
from pipeline import disk, jsonl
from pipeline.emulator.config import LIFELINE, PING, Config
from pipeline.emulator.store import address_file
from pipeline.errors import EXIT_NOT_READY, DamagedArtifact, NotReady, ProviderError, Refused

START_SECONDS = 20.0  # a start takes about 0.3 s; a loaded machine may need far longer
OTHERS_SECONDS = 10.0  # an emulator whose owner died is gone within a second
_PING_SECONDS = 5.0
_PAUSE = 0.05  # seconds between two looks while another process starts or ends


@dataclass(frozen=True)
class Address:
    """Where a living emulator is; *answers_digest* tells what decides its answers."""

    url: str
    pid: int
    store_id: str
    answers_digest: str


@dataclass
class Handle:
    """A living emulator, and what keeps it alive."""

    address: Address
    _lifeline: http.client.HTTPConnection | None = field(default=None, repr=False)
    _pipe: int | None = field(default=None, repr=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def close(self) -> None:
        """Let go of it; it ends if nobody else holds it, and a child of ours is waited for."""
        if self._lifeline is not None:
            self._lifeline.close()
        if self._pipe is not None:
            os.close(self._pipe)
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # another run has adopted it
                self._child.wait(2.0)
        self._lifeline = self._pipe = self._child = None


def ensure(store: Path, config: Config, patience: float = OTHERS_SECONDS) -> Handle:
    """A living emulator on *store*: the one that serves it already, or a new one.

    Waits up to *patience* seconds for another process that is just coming or going.

    Raises Refused when the living one would give other answers than *config* asks for, ProviderError
    when none can be started, NotReady when another process keeps the store and does not answer.
    """
    end = time.monotonic() + patience
    while True:
        if (address := running(store, config.api_key)) is not None:
            if address.answers_digest != config.answers_digest:
                raise Refused(
                    "the emulator that serves this store answers from other settings (seed, recorded or replay).",
                    where=str(store),
                    hint=f"end process {address.pid}, then run the same command again",
                )
            if (lifeline := _lifeline(address, config.api_key)) is not None:
                return Handle(address, lifeline)
        else:
            handle = start(store, config)
            if handle is not None:
                return handle
        if time.monotonic() > end:
            raise NotReady(
                "another process holds the emulator's store and does not answer to this key.",
                where=str(store),
                hint="end that process, then run the same command again",
            )
        time.sleep(_PAUSE)


def running(store: Path, api_key: str) -> Address | None:
    """The emulator that serves *store* now; None when there is none that answers to *api_key*."""
    try:
        written = jsonl.read_document(address_file(store))
    except (FileNotFoundError, DamagedArtifact):
        return None
    connection = _connection(written["url"], _PING_SECONDS)
    try:
        answer = _get(connection, PING, api_key)
    except (OSError, http.client.HTTPException):
        return None  # nobody is there, or somebody else: the port may have been taken by another program
    finally:
        connection.close()
    if answer is None or answer.get("store_id") != written["store_id"] or answer.get("pid") != written["pid"]:
        return None
    return Address(written["url"], written["pid"], written["store_id"], answer["answers_digest"])


def start(store: Path, config: Config) -> Handle | None:
    """A new emulator process on *store*, listening; None when another one holds the store.

    Its life hangs on a pipe: it ends when this process, and every child forked from it, has closed it.
    Raises ProviderError with what the process said when it does not come up.
    """
    disk.make_folder(store)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "pipeline.emulator.server", "--store", str(store.resolve()), "--config", "-"]
    child = subprocess.Popen(
        [*command, "--parent-fd", str(read_end)],
        pass_fds=(read_end,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(pipeline.__file__).parents[1],  # where `-m` finds the package, whatever this process's path is
        start_new_session=True,  # Ctrl-C is for the run, which then still needs its emulator
    )
    os.close(read_end)
    assert child.stdin
    assert child.stdout
    assert child.stderr
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(jsonl.dumps(config.to_dict()))
            child.stdin.close()
        ready, _, _ = select.select([child.stdout], [], [], START_SECONDS)
        line = child.stdout.readline() if ready else b""
        if line:
            address = jsonl.loads(line)
            return Handle(Address(**address, answers_digest=config.answers_digest), None, write_end, child)
        os.close(write_end)
        if not ready:
            child.kill()
        said, _, next_step = child.stderr.read().decode("utf-8", "replace").strip().partition("\nNext: ")
        if child.wait() == EXIT_NOT_READY:
            return None
        in_time = "" if ready else f" within {START_SECONDS:g} s"
        raise ProviderError(
            f"the emulator did not start{in_time}: {said or 'it said nothing.'}",
            where=str(store),
            kept="Nothing was sent; its jobs, and all that arrived from them, are as they were.",
            hint=f"{next_step or 'see what it said above'}, then run the same command again",
        )
    finally:
        child.stdout.close()
        child.stderr.close()


def _lifeline(address: Address, api_key: str) -> http.client.HTTPConnection | None:
    connection = _connection(address.url, _PING_SECONDS)
    try:
        if _get(connection, LIFELINE, api_key) is not None:
            return connection
    except (OSError, http.client.HTTPException):
        pass  # it is just ending: the caller looks again
    connection.close()
    return None


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    host = urlsplit(url).netloc
    kind = http.client.HTTPSConnection if url.startswith("https:") else http.client.HTTPConnection
    return kind(host, timeout=timeout)


def _get(connection: http.client.HTTPConnection, path: str, api_key: str) -> dict[str, Any] | None:
    connection.request("GET", path, headers={"Authorization": f"Bearer {api_key}"})
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        return None
    answer = jsonl.loads(data)
    return answer if isinstance(answer, dict) else None
