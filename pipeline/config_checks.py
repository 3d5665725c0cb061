"""What makes a config wrong that its schema cannot say, as sentences for who wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline import schema, trials
from pipeline.custom_id import temp_key

_MAX_SLUG = 120  # characters of a trial's folder name; file systems allow 255 and files in it carry the name too
_MAX_DEPTH = 50  # levels of nesting; also ends the reading of a mapping that holds itself
# Keys of a request body that have a setting of their own, or that would change what an answer is.
_OWN_SETTING = {
    "model": "models",
    "messages": "prompt_sets",
    "temperature": "temperatures",
    "max_tokens": "decoding.max_tokens",
    "max_completion_tokens": "decoding.max_tokens",  # the estimate and the budget go by it
    "top_p": "decoding.top_p",
    "top_k": "decoding.top_k",
    "stop": "decoding.stop",
    "n": "samples_per_item",
}


def problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the *values* of a config with all defaults that its schema finds in order."""
    yield from beyond_json(values)  # again: 1e300 is a whole number to the schema, and made one of 301 digits by now
    yield from _duplicate_names(values)
    yield from _missing_controls(values)
    yield from _replay_for_nobody(values)
    yield from _overridden_settings(values)
    yield from keys(values)


def beyond_json(value: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """YAML can say more than JSON, in which requests, records and identities are written."""
    shown = place or "document"
    if depth > _MAX_DEPTH:
        yield f"{shown}: nested deeper than {_MAX_DEPTH} levels"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{shown}: the key {key!r} is not text; write it in quotes"
            elif not _is_unicode(key):
                yield f"{shown}: the key {key!r} holds half a character (a lone surrogate)"
            else:
                yield from beyond_json(item, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from beyond_json(item, f"{place}[{number}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{shown}: {value} is not a number that can be used"
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            yield f"{shown}: a whole number beyond 64 bits"
    elif isinstance(value, str):
        if not _is_unicode(value):
            yield f"{shown}: {value!r:.60} holds half a character (a lone surrogate)"
    elif value is not None:
        yield f"{shown}: {str(value)!r:.60} is read as a {type(value).__name__}; write it in quotes"


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _duplicate_names(values: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        f"sources: the dataset {name!r} stands there twice" for name in _twice(s["dataset"] for s in values["sources"])
    )
    yield from (
        f"models: {name!r} stands there twice" for name in _twice(trials.alias(model) for model in values["models"])
    )
    yield from (f"temperatures: {key} stands there twice" for key in _twice(map(temp_key, values["temperatures"])))
    if values.get("trials") is not None and values.get("sweep") is not None:
        yield "trials, sweep: only one of the two"
    try:
        slugs = [trial.slug for trial in trials.expand(values)]
    except KeyError as error:
        yield str(error.args[0])
        return
    yield from (f"trials: two of them are called {slug!r}" for slug in _twice(slugs))
    yield from (
        f"trials: the folder name {slug[:40]}... has more than {_MAX_SLUG} characters; give its model an alias"
        for slug in slugs
        if len(slug) > _MAX_SLUG
    )


def _missing_controls(values: Mapping[str, Any]) -> Iterator[str]:
    for name, prompts in values["prompt_sets"].items():
        if values["control"] not in prompts:
            yield f"prompt_sets.{name}: there is no condition {values['control']!r} (the control)"


def _replay_for_nobody(values: Mapping[str, Any]) -> Iterator[str]:
    """Recorded answers for a condition that is not asked: the baseline would answer in their place, unnoticed."""
    conditions = sorted({condition for prompts in values["prompt_sets"].values() for condition in prompts})
    yield from (
        f"emulator.replay.{name}: there is no condition {name!r}{schema.nearest(name, conditions)}"
        for name in values["emulator"]["replay"]
        if name not in conditions
    )


def _overridden_settings(values: Mapping[str, Any]) -> Iterator[str]:
    """`extra` must not say again what a setting says: requests would not be what ids and report name."""
    places = [("decoding", values["decoding"])]
    places += [(f"trials[{n}].decoding", trial.get("decoding", {})) for n, trial in enumerate(values["trials"] or [])]
    for place, decoding in places:
        for key in decoding.get("extra", {}):
            if key in _OWN_SETTING:
                yield f"{place}.extra.{key}: set it by {_OWN_SETTING[key]}"


def keys(values: Mapping[str, Any]) -> Iterator[str]:
    """A config is frozen, recorded, archived and shown, so nothing that is secret may stand in it."""
    for number, word in enumerate(values["repair"]["firectl"] or []):
        if word.startswith("--api-key"):
            yield (
                f"repair.firectl[{number}]: a key does not belong in a config, which every copy of the run holds; "
                "give it to firectl once (firectl set-api-key), or name a script that does"
            )
    if "@" in values["fireworks"]["base_url"].partition("://")[2].partition("/")[0]:
        yield "fireworks.base_url: a user name or password does not belong in a config"


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
