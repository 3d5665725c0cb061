"""What an emulator can be told: who may talk to it, its pace, and what answers stand behind it.

The settings arrive as a JSON object (a file, or stdin when a run starts the process). Unknown keys
are errors with the nearest valid spelling. Nothing here is written to disk: the key stays in memory.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline import jsonl
from pipeline.errors import ConfigError

CONTROL = "/_emulator/"  # where the routes for tests and for `process.py` begin
PING = f"{CONTROL}ping"
LIFELINE = f"{CONTROL}lifeline"
DEFAULT_KEY = "emulator-key"
DEFAULT_ACCOUNT = "emulator"


@dataclass(frozen=True)
class Replay:
    """A file of recorded answers; *system* is named where the file holds several."""

    path: Path
    system: str | None = None


@dataclass(frozen=True)
class Config:
    """The settings of one emulator process. Durations are seconds of its virtual clock."""

    api_key: str = DEFAULT_KEY
    account_id: str = DEFAULT_ACCOUNT
    job_seconds: float = 0.4  # create to COMPLETED; the real service takes 5 to 9 minutes
    ready_seconds: float = 0.02  # upload to READY; about 1 s was seen live
    delete_seconds: float = 0.1  # how long a deleted job is seen cleaning up before it is gone
    realistic: bool = False  # jobs step on 60 s ticks and take 5 to 9 minutes instead of job_seconds
    speed: float = 1.0  # virtual seconds per real second; fixed when the store is created
    quota: int | None = None  # jobs the account may run at a time
    seed: int = 0  # mixed into every choice between answers
    recorded: Path | None = None  # closed-book answers: JSONL {"question", "answers": {condition: [variants]}}
    replay: Mapping[str, Replay] = field(default_factory=dict)  # condition -> recorded system outputs
    faults: tuple[Mapping[str, Any], ...] = ()  # rules of `faults.py`, loaded into a new store
    certificate: Path | None = None  # PEM with key and certificate: serve https (the SDK's upload helper insists)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Config:
        """The settings in *data*. Raises ConfigError naming the key, what was found and what is allowed."""
        known = {entry.name for entry in fields(cls)}
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise ConfigError(
                    f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "."),
                    where="emulator settings",
                    hint=f"allowed keys: {', '.join(sorted(known))}",
                )
        values = dict(data)
        for key, (kinds, allowed) in _CHECKS.items():
            if key in values and not (isinstance(values[key], kinds) and allowed(values[key])):
                raise ConfigError(f"{key}: {values[key]!r} is not acceptable.", where="emulator settings")
        for key in ("recorded", "certificate"):
            if values.get(key) is not None:
                values[key] = Path(values[key])
        values["replay"] = {name: _replay(name, value) for name, value in (values.get("replay") or {}).items()}
        values["faults"] = tuple(values.get("faults") or ())
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them, with absolute paths (the process has its own working folder)."""
        return {
            **{entry.name: getattr(self, entry.name) for entry in fields(self)},
            "recorded": _absolute(self.recorded),
            "certificate": _absolute(self.certificate),
            "replay": {
                name: {"path": _absolute(source.path), "system": source.system} for name, source in self.replay.items()
            },
            "faults": [dict(rule) for rule in self.faults],
        }

    @property
    def answers_digest(self) -> str:
        """A digest of all that decides answers: two emulators with the same one answer a row alike."""
        settings = self.to_dict()
        return hashlib.sha256(jsonl.dumps({key: settings[key] for key in ("seed", "recorded", "replay")})).hexdigest()


def _positive(value: float) -> bool:
    return 0 < value < 1e9


def _not_negative(value: float) -> bool:
    return 0 <= value < 1e9


_CHECKS: dict[str, tuple[tuple[type, ...], Any]] = {
    "api_key": ((str,), bool),
    "account_id": ((str,), bool),
    "job_seconds": ((int, float), _not_negative),
    "ready_seconds": ((int, float), _not_negative),
    "delete_seconds": ((int, float), _not_negative),
    "realistic": ((bool,), lambda _: True),
    "speed": ((int, float), _positive),
    "quota": ((int, type(None)), lambda value: value is None or value > 0),
    "seed": ((int,), lambda _: True),
    "recorded": ((str, Path, type(None)), lambda _: True),
    "certificate": ((str, Path, type(None)), lambda _: True),
    "replay": ((Mapping,), lambda _: True),
    "faults": ((list, tuple), lambda value: all(isinstance(rule, Mapping) for rule in value)),
}


def _replay(condition: str, value: Any) -> Replay:
    if isinstance(value, Replay):
        return value
    if isinstance(value, Mapping) and "path" in value and set(value) <= {"path", "system"}:
        return Replay(Path(value["path"]), value.get("system"))
    raise ConfigError(f"replay.{condition}: {value!r} is not {{path, system}}.", where="emulator settings")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
