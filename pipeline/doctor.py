"""Check everything a run will need before it starts, and say what to do about what is missing.

Each finding is one line; nothing is written, and nothing is sent that could cost money.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import config as configuration
from pipeline import paths, sources
from pipeline.config import Config
from pipeline.errors import TrialmakeError
from pipeline.queue.budget import Price

_NEEDED = 1 << 30  # bytes of free disk below which a warning is due
_SKEW = 300.0  # seconds a clock may be off before signed links and deadlines suffer


@dataclass(frozen=True)
class Finding:
    """One check: *ok* is None for a remark. *advice* says what to do when it is not ok."""

    name: str
    ok: bool | None
    says: str
    advice: str = ""


def examine(path: Path) -> list[Finding]:
    """The findings for the config at *path*, in the order a run would meet them."""
    findings = [_python(), _disk()]
    config, finding = _config(path)
    findings.append(finding)
    if config is not None:
        findings += [*_sources(config), *_prices(config), *_provider(config)]
    return findings


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", free > _NEEDED, f"{free / 1e9:,.1f} GB free here", "free some space: results are kept whole")


def _config(path: Path) -> tuple[Config | None, Finding]:
    try:
        config = configuration.read(path, environment=configuration.environment())
    except TrialmakeError as error:
        return None, Finding("config", False, str(error), error.hint or "fix the named keys")
    trials = ", ".join(trial.slug for trial in config.trials)
    return config, Finding("config", True, f"{path}: valid; trials: {trials}")


def _sources(config: Config) -> Iterator[Finding]:
    for source in config["sources"]:
        name = f"source {source['dataset']}"
        try:
            count = sum(1 for _ in sources.read(config.path(source["path"]), source))
        except TrialmakeError as error:
            yield Finding(name, False, str(error), error.hint or "fix the question file")
        else:
            yield Finding(name, count > 0, f"{count:,} items", "the file holds no items")


def _prices(config: Config) -> Iterator[Finding]:
    for trial in config.trials:
        if Price.of(config, trial).input is None:
            yield Finding(
                f"price {trial.alias}", None, "not known: costs will be null", f"add prices.models.{trial.alias}"
            )


def _provider(config: Config) -> Iterator[Finding]:
    if config["provider"] == "emulator":
        yield Finding("provider", True, "the embedded emulator: no key, no network, no cost")
        return
    variables = configuration.environment()
    key = configuration.fireworks_key(variables)
    if key is None:
        yield Finding("key", False, "there is no FIREWORKS_API_KEY", "put FIREWORKS_API_KEY=... into .env")
        return
    from pipeline.providers.fireworks import Fireworks

    provider = Fireworks(config["fireworks"]["base_url"], key, configuration.fireworks_account(config, variables))
    try:
        for trial in config.trials:
            yield from _service(provider.look, trial.model, config["queue"]["max_concurrent_jobs"])
    except TrialmakeError as error:
        yield Finding("service", False, str(error), error.hint or "try again later")
    finally:
        provider.close()


def _service(look: Callable[[str], object], model: str, wanted: int) -> Iterator[Finding]:
    from pipeline.providers.fireworks import Health

    health = look(model)
    assert isinstance(health, Health)
    yield Finding("account", True, health.account)
    yield Finding(
        f"model {model}", bool(health.model_known), "known" if health.model_known else "the service does not know it",
        "check models.id: an unsupported model can leave a job pending for ever",
    )  # fmt: skip
    yield Finding("jobs", None, f"{health.running_jobs} running at the service; this run will use up to {wanted}")
    if health.clock_skew_s is not None:
        off = abs(health.clock_skew_s)
        yield Finding("clock", off < _SKEW, f"{off:,.0f} s off the service's", "set this machine's clock")


def default_config() -> Path:
    """The config that `doit` would start from here."""
    return paths.LOCAL_CONFIG if paths.LOCAL_CONFIG.exists() else paths.resource("examples/experiment.yaml")


def as_text(findings: list[Finding]) -> Iterator[str]:
    """One line a finding; advice under what is not ok."""
    for finding in findings:
        mark = {True: "ok  ", False: "FAIL", None: "note"}[finding.ok]
        yield f"{mark}  {finding.name}: {finding.says}"
        if finding.ok is not True and finding.advice:
            yield f"      Next: {finding.advice}"
