"""Check everything a run will need before it starts, and say what to do about what is missing.

Each finding is one line; nothing is written, and nothing is sent that could cost money.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config as configuration
from pipeline import environment, paths, sources
from pipeline.config import Config
from pipeline.errors import AuthError, TrialmakeError, Unreachable
from pipeline.queue.estimates import Price
from pipeline.record import base_of
from pipeline.starter import EDITOR_SCHEMA

if TYPE_CHECKING:
    from pipeline.providers.fireworks import Health

_NEEDED = 1 << 30  # bytes of free disk below which results of an ordinary run may not fit
_SKEW = 300.0  # seconds a clock may be off before signed links and deadlines suffer
_MARKS = {True: "ok", False: "FAIL", None: "note"}


@dataclass(frozen=True)
class Finding:
    """One check: *ok* is None for a remark. *advice* says what to do where it is not ok."""

    name: str
    ok: bool | None
    says: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {"name": self.name, "ok": self.ok, "says": self.says, "advice": None if self.ok else self.advice or None}


def examine(path: Path, sleep: Callable[[float], object] = time.sleep) -> list[Finding]:
    """The findings for the config at *path*, in the order a run would meet them. *sleep* parts two tries of a call."""
    findings = [_python(), _disk(), _folder()]
    try:
        config = configuration.read(path, base=base_of(path), variables=environment.variables())
    except TrialmakeError as error:
        return [*findings, _failed("config", error, "fix the named keys")]
    trials = ", ".join(trial.slug for trial in config.trials)
    findings.append(Finding("config", True, f"{path}: valid by the schema; trials: {trials}"))
    return [*findings, *_schema(path), *_sources(config), *_prices(config), *_budget(config), *_provider(config, sleep)]


def as_text(findings: list[Finding]) -> Iterator[str]:
    """One line a finding, advice under what is not ok, and what it comes to."""
    for finding in findings:
        first, *more = finding.says.splitlines()
        yield f"{_MARKS[finding.ok]:<4}  {finding.name}: {first}"
        yield from (f"      {line.strip()}" for line in more)
        if finding.ok is not True and finding.advice:
            yield f"      Next: {finding.advice}"
    failed = sum(finding.ok is False for finding in findings)
    yield f"{failed} of {len(findings)} checks failed" if failed else "ready: doit plan shows what a run would do"


def _failed(name: str, error: TrialmakeError, advice: str) -> Finding:
    says = f"{error.where}: {error.what}" if error.where else error.what
    return Finding(name, False, says, error.hint or advice)


# --- this machine ----------------------------------------------------------------------------------


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", free > _NEEDED, f"{free / 1e9:,.1f} GB free here", "free some space: results are kept whole")


def _folder() -> Finding:
    place = paths.EXPERIMENTS if paths.EXPERIMENTS.exists() else Path()
    says = f"{paths.EXPERIMENTS}/ can be written here"
    if not os.access(place, os.W_OK | os.X_OK):
        says = f"{place.resolve()} cannot be written"
    elif not Path("dodo.py").exists():
        return Finding(
            "folder", None, "there is no dodo.py here, which doit runs by", "python -m pipeline init FOLDER writes one"
        )
    return Finding("folder", "cannot" not in says, says, "change to a folder of your own, or fix its permissions")


# --- the experiment --------------------------------------------------------------------------------


def _schema(path: Path) -> Iterator[Finding]:
    """The copy of the schema by which an editor checks the config, where there is one."""
    copy = path.parent / EDITOR_SCHEMA
    if copy.is_file() and copy.read_bytes() != paths.resource(f"schemas/{EDITOR_SCHEMA}").read_bytes():
        advice = "replace it by the one that python -m pipeline init NEW_FOLDER writes"
        yield Finding("schema", None, f"{copy} is another version's: your editor may complain of what is right", advice)


def _sources(config: Config) -> Iterator[Finding]:
    for source in config["sources"]:
        name = f"source {source['dataset']}"
        try:
            items = list(sources.read(config.path(source["path"]), source))
        except TrialmakeError as error:
            yield _failed(name, error, "fix the question file")
            continue
        closed = sum(item.context is None for item in items)
        says = f"{len(items):,} items ({closed:,} closed-book, {len(items) - closed:,} open-book)"
        yield Finding(name, bool(items), says, "the file holds no items")


def _prices(config: Config) -> Iterator[Finding]:
    limited = config["budget"]["max_usd"] is not None
    for trial in {trial.model: trial for trial in config.trials}.values():
        if Price.of(config, trial).input is None:
            says = "not known: costs will be null"
            if limited:
                says = "not known: budget.max_usd cannot be kept, so nothing of the run would be sent, to no model"
            advice = f"add prices.models.{trial.alias}" + (", or remove budget.max_usd" if limited else "")
            yield Finding(f"price {trial.alias}", False if limited else None, says, advice)


def _budget(config: Config) -> Iterator[Finding]:
    if config["provider"] != "emulator" and config["budget"]["max_usd"] is None:
        yield Finding("budget", None, "no limit", "set budget.max_usd: nothing is submitted beyond it")


# --- the service -----------------------------------------------------------------------------------


def _provider(config: Config, sleep: Callable[[float], object]) -> Iterator[Finding]:
    if config["provider"] == "emulator":
        yield Finding("provider", True, "the embedded emulator: no key, no network, no cost")
        yield from _recordings(config)
        return
    variables = environment.variables()
    key = environment.fireworks_key(variables)
    if key is None:
        yield Finding("key", False, "there is no FIREWORKS_API_KEY", "put FIREWORKS_API_KEY=... into .env")
        return
    from pipeline.providers.fireworks import Fireworks
    from pipeline.providers.http import Pace

    # Somebody waits for the answer: less patience than a run has.
    pace = Pace(sleep=sleep, tries=2, seconds=30.0, connect_timeout=5.0, read_timeout=20.0)
    base_url = config["fireworks"]["base_url"]
    try:
        provider = Fireworks(
            base_url, key, environment.fireworks_account(config["fireworks"]["account_id"], variables), pace=pace
        )
    except TrialmakeError as error:
        yield _failed("service", error, "set fireworks.base_url")
        return
    try:
        yield from _service(provider.look, config)
    except AuthError as error:
        advice = "put a valid FIREWORKS_API_KEY into the environment, or else into .env"
        yield Finding("key", False, error.what, advice)
    except Unreachable as error:
        yield Finding("service", False, error.what, f"is {base_url} right, and is there a network?")
    except TrialmakeError as error:
        yield _failed("account", error, "what the service said names the cause")
    finally:
        provider.close()


def _recordings(config: Config) -> Iterator[Finding]:
    """The files of answers that the emulator would give, read as it reads them: it does not start without them."""
    from pipeline.emulator.answers.recorded import ClosedBook, ReplayedSystem
    from pipeline.emulator.config import Replay

    settings = config["emulator"]
    files: list[tuple[str, Path, Callable[[], object]]] = []
    if settings["recorded"]:
        path = config.path(settings["recorded"])
        files.append(("emulator.recorded", path, partial(ClosedBook, path)))
    for condition, entry in settings["replay"].items():
        path = config.path(entry["path"])
        system = Replay(path, entry["system"])
        files.append((f"emulator.replay.{condition}", path, partial(ReplayedSystem, system)))
    for name, path, load in files:
        try:
            load()
        except TrialmakeError as error:
            yield _failed(name, error, f"mend the file, or change {name}")
        else:
            yield Finding(name, True, f"{path}: can be answered from")


def _service(look: Callable[[str], Health], config: Config) -> Iterator[Finding]:
    models = {model: look(model) for model in dict.fromkeys(trial.model for trial in config.trials)}
    health = next(iter(models.values()))
    yield Finding("key", True, "accepted by the service")
    yield Finding("account", True, health.account)
    for model, of_model in models.items():
        says = {True: "known", None: "the service does not know it"}.get(of_model.model_known, "could not be asked for")
        advice = "check models.id: a job for an unsupported model can stay pending for ever"
        yield Finding(f"model {model}", of_model.model_known is True, says, advice)
    wanted = config["queue"]["max_concurrent_jobs"]
    yield Finding(
        "quota",
        None,
        f"{health.running_jobs} unfinished jobs at the service, and a run adds at most {wanted} at a time; "
        "how many the account may have is not told to programs",
        "firectl quota list shows it (8 and 16 are usual); a run that meets it waits, and nothing is lost",
    )
    if health.clock_skew_s is not None:
        off = abs(health.clock_skew_s)
        yield Finding("clock", off < _SKEW, f"{off:,.0f} s off the service's", "set this machine's clock")
