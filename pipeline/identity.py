"""Which settings each phase's output depends on, so that an edit rebuilds those phases and no others.

The values (not only a digest) are stored with the phase, so a decision can name the setting with its
old and its new value. `VERSION` counts changes in how this page describes a phase; `UPGRADES` re-keys
what an older version stored instead of rebuilding everything after an update of the tool. A phase's
own entry in `FORMATS` is raised when its output would differ for the same settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import jsonl
from pipeline.config import Config
from pipeline.trials import Trial

VERSION = 1
_SHOWN = 40  # characters of a value in a message

Settings = dict[str, Any]

# Version of each phase's output; part of its identity.
FORMATS: Mapping[str, int] = {
    "prepare": 1,
    "build": 1,
    "download": 1,
    "parse": 2,
    "score": 3,
    "stats": 12,
    "costs": 4,
    "report": 10,
    "archive": 1,
    "index": 6,
}

# UPGRADES[n] turns what version n stored for a phase into what version n + 1 would have stored.
UPGRADES: Mapping[int, Callable[[str, Settings], Settings]] = {}


def prompt_digest(text: str) -> str:
    """sha256 of a prompt's UTF-8 bytes, in hex: how prompts are named where their text would be too long."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_prepare(config: Config, source_digests: Mapping[str, str | None]) -> Settings:
    """prepare depends on the sources' content, never on where they lie; an absent source has digest None."""
    sources = [
        {**{key: value for key, value in source.items() if key != "path"}, "sha256": source_digests[source["dataset"]]}
        for source in config["sources"]
    ]
    return {"format": FORMATS["prepare"], "sources": sources, "cluster": config["statistics"]["cluster"]}


def of_phase(phase: str, config: Config, trial: Trial) -> Settings:
    """The settings *phase* uses for *trial*, as plain JSON."""
    return {"format": FORMATS[phase], **_USES[phase](config, trial)} if phase in _USES else {}


def digest(settings: Settings) -> str:
    """sha256 over the canonical JSON of *settings*: the phase's `config_sha256`."""
    return hashlib.sha256(jsonl.dumps(settings)).hexdigest()


def upgraded(phase: str, settings: Settings, version: int) -> Settings:
    """What an identity of *version* would be called today."""
    for number in range(version, VERSION):
        settings = UPGRADES[number](phase, settings)
    return settings


def changes(phase: str, settings: Mapping[str, Any], version: int, config: Config, trial: Trial) -> list[str]:
    """How what *phase* would use for *trial* now differs from the *settings* of *version* that it was made with."""
    return differences(upgraded(phase, dict(settings), version), of_phase(phase, config, trial))


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Each setting that differs, as `place: old -> new`, in the order of the places."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{place}.{_text(key)}" if place else _text(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{place}[{number}]")]
    before, after = _text(old), _text(new)
    # Long texts are shown around the place where they begin to differ: two prompts often begin alike.
    same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    return [f"{place}: {_cut(before, same)} -> {_cut(after, same)}"]


def _text(value: Any) -> str:
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else jsonl.dumps(value).decode()
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _cut(text: str, same: int) -> str:
    if len(text) <= _SHOWN:
        return text
    start = max(0, min(same - _SHOWN // 3, len(text) - _SHOWN))
    end = "..." if start + _SHOWN < len(text) else ""
    return f"{'...' if start else ''}{text[start : start + _SHOWN]}{end}"


def _build(config: Config, trial: Trial) -> Settings:
    return {
        "model": trial.model,
        "prompts": {condition: prompt_digest(text) for condition, text in trial.prompts.items()},
        "temperatures": list(trial.temperatures),
        "samples_per_item": trial.samples,
        "decoding": dict(trial.decoding),
        "part_size": config["part_size"],
        "part_bytes": config["part_bytes"],
    }


def _nothing(_config: Config, _trial: Trial) -> Settings:
    return {}


def _index(config: Config, _trial: Trial) -> Settings:
    trials = [{"trial": t.slug, "model": t.model, "prompt_set": t.prompt_set} for t in config.trials]
    return {"name": config["name"], "provider": config["provider"], "trials": trials}


def _score(config: Config, _trial: Trial) -> Settings:
    return dict(config["scoring"])


def _stats(config: Config, _trial: Trial) -> Settings:
    return {**config["statistics"], "control": config["control"]}


def _costs(config: Config, trial: Trial) -> Settings:
    prices = config["prices"]
    return {
        "provider": config["provider"],
        "model": trial.model,
        "price": prices["models"].get(config.price_key(trial.model, trial.alias)),
        "batch_discount": prices["batch_discount"],
        "cached_discount": prices["cached_discount"],
    }


def _report(config: Config, trial: Trial) -> Settings:
    return {
        **config["report"],
        "name": config["name"],
        "provider": config["provider"],
        "prompt_set": trial.prompt_set,
        "prompts": {condition: prompt_digest(text) for condition, text in trial.prompts.items()},
        "scoring": dict(config["scoring"]),
    }


_USES: Mapping[str, Callable[[Config, Trial], Settings]] = {
    "build": _build,
    "download": _nothing,
    "parse": _nothing,
    "score": _score,
    "stats": _stats,
    "costs": _costs,
    "report": _report,
    "archive": _nothing,
    "index": _index,
}
