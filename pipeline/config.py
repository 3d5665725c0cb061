"""What a run is asked to do: `experiment.yaml`, the environment and the command line, checked once.

A new run takes a config file, puts `TRIALMAKE_*` and the command line's choices on top, fills the
defaults of `schemas/experiment.schema.json`, inlines the prompt texts and freezes the result in the
run's folder; from then on the run lives by its frozen file. This is the only module that reads the
environment; keys leave it as `Secret`s.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import disk, schema, yaml_text
from pipeline.errors import ConfigError
from pipeline.secret import Secret

SCHEMA = "experiment.schema"
ENVIRONMENT_PREFIX = "TRIALMAKE_"
# Read by the test suite and by the shell, not settings of an experiment.
_NOT_SETTINGS = frozenset({"TRIALMAKE_SHARED_DATA"})
_EMULATOR_KEY = "emulator-key"  # what the embedded emulator accepts; it guards nothing
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

_FROZEN_HEADER = """\
# The frozen config of this run: `doit resume` lives by this file. An edit is reported and decided
# per phase; prompts, models and items of a submitted run cannot change (start a new run for that).
"""


@dataclass(frozen=True)
class Trial:
    """One model under one prompt set with one way of decoding; *prompts* maps condition -> text, control first."""

    slug: str
    model: str
    alias: str
    prompt_set: str
    prompts: Mapping[str, str]
    decoding: Mapping[str, Any]
    temperatures: tuple[float, ...]
    samples: int

    @property
    def conditions(self) -> tuple[str, ...]:
        """The control, then the treatments."""
        return tuple(self.prompts)


@dataclass(frozen=True)
class Config:
    """A checked config with every default filled in; *base* is the folder its paths are relative to."""

    values: Mapping[str, Any]
    base: Path
    trials: tuple[Trial, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trials", tuple(_expand(self.values)))

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def path(self, text: str) -> Path:
        """A path of the config, resolved against its folder."""
        return self.base / text


def read(
    path: Path,
    *,
    base: Path | None = None,
    environment: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Config:
    """The config in *path* with `TRIALMAKE_*` settings of *environment* and the item *limit* on top.

    Its paths are relative to *base*, by default its own folder. Prompt files are read and inlined.
    Raises ConfigError naming each wrong key.
    """
    document = _read_yaml(path)
    for place, value in _overrides(environment or {}):
        _put(document, place, value)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: must be at least 1.")
    names = overriding(environment or {})
    where = f"{path} with {', '.join(names)} of the environment" if names else str(path)
    base = path.parent if base is None else base
    config = check(document, base=base, where=where)
    values = {**config.values, "prompt_sets": _inline_prompts(config, where=where)}
    if limit is not None:
        values["sources"] = [{**source, "limit": min(limit, source["limit"] or limit)} for source in values["sources"]]
    return check(values, base=base, where=where)


def overriding(variables: Mapping[str, str]) -> list[str]:
    """The names of *variables* that set something in a new run."""
    return sorted(name for name in variables if name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_SETTINGS)


def check(document: Any, *, base: Path, where: str) -> Config:
    """*document* as a Config with defaults filled in. Raises ConfigError listing every problem found."""
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "$schema"}
    _refuse(_beyond_json(document, ""), where)
    _refuse(schema.problems(document, SCHEMA), where)
    filled = _filled(document, schema.load(SCHEMA))
    _refuse([*_duplicate_names(filled), *_missing_controls(filled), *_overridden_settings(filled)], where)
    return Config(filled, base)


def defaults() -> dict[str, Any]:
    """The value every optional setting has when it is not given."""
    filled: dict[str, Any] = _filled({}, schema.load(SCHEMA))
    return filled


def as_yaml(config: Config) -> str:
    """*config* with all its defaults and prompts; reading it back gives the same values."""
    return yaml_text.dump(_plain(config.values))


def frozen_text(config: Config) -> bytes:
    """What freezes *config* in a run's folder."""
    return (_FROZEN_HEADER + as_yaml(config)).encode()


def read_frozen(path: Path, *, base: Path) -> Config:
    """The frozen config of a run; its sources are still relative to *base*, where the original config lay."""
    return check(_read_yaml(path), base=base, where=str(path))


def environment() -> dict[str, str]:
    """The process environment over the variables of `./.env`, read once per call."""
    from dotenv import dotenv_values

    path = Path(".env")
    try:
        with disk.readable(path):
            from_file = {key: value for key, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text ({error.reason} at byte {error.start}).", where=str(path)) from error
    return {**from_file, **os.environ}


def set_here() -> dict[str, str]:
    """The settings among the process environment's variables alone: cheap enough to look at in every run."""
    return {name: os.environ[name] for name in overriding(os.environ)}


def fireworks_key(variables: Mapping[str, str]) -> Secret | None:
    """The Fireworks API key of *variables*, if there is one."""
    key = variables.get("FIREWORKS_API_KEY", "").strip()
    return Secret(key) if key else None


def fireworks_account(config: Config, variables: Mapping[str, str]) -> str | None:
    """The account to use: the config's, else the environment's, else None (the service is asked)."""
    return config["fireworks"]["account_id"] or variables.get("FIREWORKS_ACCOUNT_ID", "").strip() or None


def emulator_key() -> Secret:
    """The key of the embedded emulator."""
    return Secret(_EMULATOR_KEY)


# --- reading ---------------------------------------------------------------------------------


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml_text.load(disk.read_bytes(path).decode("utf-8-sig"), where=str(path))
    except FileNotFoundError as error:
        raise ConfigError("there is no such config file.", where=str(path), hint="check the path of config=") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text ({error.reason} at byte {error.start}).", where=str(path)) from error
    if not isinstance(document, dict):
        raise ConfigError("must hold a mapping of settings.", where=str(path))
    return document


def _overrides(variables: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """`TRIALMAKE_QUEUE__MAX_ATTEMPTS=5` -> (("queue", "max_attempts"), 5)."""
    for name in overriding(variables):
        place = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        hint = f"quote it as in {name}='\"text\"', or unset it"
        yield place, yaml_text.load(variables[name], where=f"environment variable {name}", hint=hint)


def _put(document: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    target = document
    for step in place[:-1]:
        inner = target.get(step)
        if not isinstance(inner, dict):
            inner = target[step] = {}
        target = inner
    target[place[-1]] = value


def _filled(value: Any, node: Mapping[str, Any]) -> Any:
    """*value* with the schema's defaults put in wherever a key is absent."""
    if "$ref" in node:
        node = {**_resolve(node["$ref"]), **{key: item for key, item in node.items() if key != "$ref"}}
    if isinstance(value, dict):
        properties = node.get("properties", {})
        extra = node.get("additionalProperties")
        filled = {}
        for key, inner in properties.items():
            if key in value:
                filled[key] = _filled(value[key], inner)
            elif "default" in inner:
                filled[key] = _filled(inner["default"], inner)
        for key, item in value.items():
            if key not in properties:
                filled[key] = _filled(item, extra) if isinstance(extra, dict) else item
        return filled
    if isinstance(value, list) and isinstance(node.get("items"), dict):
        return [_filled(item, node["items"]) for item in value]
    return value


def _resolve(reference: str) -> Mapping[str, Any]:
    node: Any = schema.load(SCHEMA)
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return dict(node)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _inline_prompts(config: Config, *, where: str) -> dict[str, dict[str, dict[str, str]]]:
    sets: dict[str, dict[str, dict[str, str]]] = {}
    for set_name, prompts in config["prompt_sets"].items():
        sets[set_name] = {}
        for condition, prompt in prompts.items():
            if isinstance(prompt, dict):
                sets[set_name][condition] = dict(prompt)
                continue
            try:
                text = disk.read_bytes(config.path(prompt)).decode("utf-8-sig")
            except FileNotFoundError as error:
                raise ConfigError(
                    f"prompt_sets.{set_name}.{condition}: there is no prompt file {prompt!r}.",
                    where=where,
                    hint=f"create {config.path(prompt)} or write {{text: ...}} in its place",
                ) from error
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"prompt_sets.{set_name}.{condition}: {prompt!r} is not UTF-8.", where=where
                ) from error
            # The one line end that editors put at the end of a file is not part of the prompt.
            end = "\r\n" if text.endswith("\r\n") else "\n"
            sets[set_name][condition] = {"text": text.removesuffix(end), "file": prompt}
    return sets


# --- what a schema cannot say ----------------------------------------------------------------


def _refuse(problems: Iterable[str], where: str) -> None:
    found = list(problems)
    if found:
        raise ConfigError("\n  ".join(["is not a valid experiment:", *found]), where=where, hint="fix the named keys")


def _beyond_json(value: Any, place: str, depth: int = 0) -> Iterator[str]:
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
                yield from _beyond_json(item, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _beyond_json(item, f"{place}[{number}]", depth + 1)
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
    yield from (f"models: {name!r} stands there twice" for name in _twice(_alias(model) for model in values["models"]))
    labels = [(format(t, "g"), t) for t in values["temperatures"]]
    yield from (f"temperatures: {label} stands there twice" for label in _twice(label for label, _ in labels))
    if values.get("trials") is not None and values.get("sweep") is not None:
        yield "trials, sweep: only one of the two"
    try:
        slugs = [trial.slug for trial in _expand(values)]
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


def _overridden_settings(values: Mapping[str, Any]) -> Iterator[str]:
    """`extra` must not say again what a setting says: requests would not be what ids and report name."""
    places = [("decoding", values["decoding"])]
    places += [(f"trials[{n}].decoding", trial.get("decoding", {})) for n, trial in enumerate(values["trials"] or [])]
    for place, decoding in places:
        for key in decoding.get("extra", {}):
            if key in _OWN_SETTING:
                yield f"{place}.extra.{key}: set it by {_OWN_SETTING[key]}"


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


# --- trials ----------------------------------------------------------------------------------


def _expand(values: Mapping[str, Any]) -> Iterator[Trial]:
    models = {key: model for model in values["models"] for key in (model["id"], _alias(model))}
    section = "sweep" if values.get("trials") is None else "trials"
    for choice in _choices(values):
        for kind, key, known in (
            ("model", choice["model"], models),
            ("prompt_set", choice["prompt_set"], values["prompt_sets"]),
        ):
            if key not in known:
                raise KeyError(f"{section}: there is no {kind} {key!r}{schema.nearest(key, sorted(known))}")
        model = models[choice["model"]]
        prompts = values["prompt_sets"][choice["prompt_set"]]
        # By name, not as written: run.json keeps no order of keys, and the first treatment is the one compared.
        order = sorted(prompts, key=lambda condition: (condition != values["control"], condition))
        yield Trial(
            slug="-".join([_alias(model), choice["prompt_set"], *_tags(choice["decoding"])]),
            model=model["id"],
            alias=_alias(model),
            prompt_set=choice["prompt_set"],
            prompts={c: prompts[c]["text"] if isinstance(prompts[c], dict) else prompts[c] for c in order},
            decoding={**values["decoding"], **choice["decoding"]},
            temperatures=tuple(float(t) + 0.0 for t in values["temperatures"]),  # -0.0 is 0.0 in ids too
            samples=values["samples_per_item"],
        )


def _choices(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if values.get("trials") is not None:
        yield from ({"decoding": {}, **trial} for trial in values["trials"])
        return
    sweep = values.get("sweep") or {}
    decoding_keys = [key for key in ("top_p", "top_k", "max_tokens") if key in sweep]
    for model, prompt_set, *chosen in itertools.product(
        sweep.get("models") or [_alias(model) for model in values["models"]],
        sweep.get("prompt_sets") or sorted(values["prompt_sets"]),
        *(sweep[key] for key in decoding_keys),
    ):
        yield {"model": model, "prompt_set": prompt_set, "decoding": dict(zip(decoding_keys, chosen, strict=True))}


def _alias(model: Mapping[str, Any]) -> str:
    last = model["id"].rsplit("/", 1)[-1]
    return model.get("alias") or re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._") or "model"


def _tags(decoding: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a trial's folder name that tell its own decoding apart (names of the earlier tool)."""
    if decoding.get("top_p") is not None:
        yield "tp" + f"{decoding['top_p']:.2f}".rstrip("0").rstrip(".").replace(".", "")
    if decoding.get("top_k") is not None:
        yield f"tk{decoding['top_k']}"
    if (limit := decoding.get("max_tokens")) is not None:
        closed, opened = (limit["closed"], limit["open"]) if isinstance(limit, dict) else (limit, limit)
        yield f"mx{closed}-{opened}"
