"""What a run is asked to do: `experiment.yaml`, the environment and the command line, checked once.

A new run takes a config file, puts `TRIALMAKE_*` and the command line's choices on top, fills the
defaults of `schemas/experiment.schema.json`, inlines the prompt texts and freezes the result in the
run's folder; from then on the run lives by its frozen file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import disk, environment, schema, trials, yaml_text
from pipeline.errors import ConfigError
from pipeline.trials import Trial

SCHEMA = "experiment.schema"

_SENT = ("decoding", "sweep", "trials")  # requests and names of folders are made of them

_FROZEN_HEADER = """\
# The frozen config of this run: `doit resume` lives by this file. An edit is reported and decided
# per phase; prompts, models and items of a submitted run cannot change (start a new run for that).
"""


@dataclass(frozen=True)
class Config:
    """A checked config with every default filled in; *base* is the folder its paths are relative to."""

    values: Mapping[str, Any]
    base: Path
    trials: tuple[Trial, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trials", tuple(trials.expand(self.values)))

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def path(self, text: str) -> Path:
        """A path of the config, resolved against its folder."""
        return self.base / text

    def price_key(self, model: str, alias: str) -> str | None:
        """The name under which `prices.models` has a model, its id before its alias; None where it has no price."""
        return next((name for name in (model, alias) if name in self["prices"]["models"]), None)


def read(
    path: Path,
    *,
    base: Path | None = None,
    variables: Mapping[str, str] | None = None,
    limit: int | None = None,
    new_run: bool = False,
) -> Config:
    """The config in *path* with `TRIALMAKE_*` settings of *variables* and the item *limit* on top.

    Its paths are relative to *base*, by default its own folder. Prompt files are read and inlined. For a *new_run*
    what the emulator is to answer from must be there too: one that was just made could not go on without it.
    Raises ConfigError naming each wrong key.
    """
    document = _read_yaml(path)
    for place, value in _overrides(variables or {}):
        _put(document, place, value)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: must be at least 1.")
    names = environment.overriding(variables or {})
    where = f"{path} with {', '.join(names)} of the environment" if names else str(path)
    base = path.parent if base is None else base
    config = check(document, base=base, where=where)
    if new_run:
        _refuse(_recordings_gone(config), where)
    values = {**config.values, "prompt_sets": _inline_prompts(config, where=where)}
    if limit is not None:
        values["sources"] = [{**source, "limit": min(limit, source["limit"] or limit)} for source in values["sources"]]
    return check(values, base=base, where=where)


def check(document: Any, *, base: Path, where: str) -> Config:
    """*document* as a Config with defaults filled in. Raises ConfigError listing every problem found."""
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "$schema"}
    from pipeline import config_checks  # a run that goes on lives by a config that was checked

    _refuse(config_checks.beyond_json(document), where)
    _refuse(schema.problems(document, SCHEMA), where)
    filled = _filled(document, schema.load(SCHEMA))
    _refuse(config_checks.problems(filled), where)
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


def read_frozen(path: Path, *, base: Path, record: Mapping[str, Any] | None = None) -> Config:
    """The frozen config of a run; its sources are still relative to *base*, where the original config lay.

    What is sent stays as it is written in the run's *record*, or in the file where no record is left.
    Raises ConfigError naming each wrong key.
    """
    document = _read_yaml(path)
    checked = check(document, base=base, where=str(path))
    return Config(_sent_as_in(document if record is None else record, checked.values), base)


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config that a run's record holds, where it was checked before, filled as a new one would be.

    Only what is sent stays as it is written there.
    """
    return _sent_as_in(values, _filled(values, schema.load(SCHEMA)))


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
    for name in environment.overriding(variables):
        place = tuple(name.removeprefix(environment.PREFIX).lower().split("__"))
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
    """*value* with the schema's defaults put in wherever a key is absent, and its whole numbers as int.

    To a schema `1e4` and `2.0` are integers, to Python they are floats: no size of an array, no end of a slice, and
    `100.0` in a request. So they are made what the schema says here, before anything uses, sends or freezes them.
    """
    if "$ref" in node:
        node = {**_resolve(node["$ref"]), **{key: item for key, item in node.items() if key != "$ref"}}
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        value = _filled(value, branch)  # what a branch says of a value of another kind changes nothing of it
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
    if isinstance(value, float) and value.is_integer() and _is_whole(node.get("type", ())):
        return int(value)
    return value


def _sent_as_in(older: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """*values*, in which what is sent is written as in *older* wherever it is equal.

    A version that left whole numbers as they were written sent `100.0` for `1e2`, and called a trial's folder `mx100.0`
    after it. With 100 the same requests would be others, and the same trial another one, to be paid again.
    """
    return {**values, **{key: _as_in(older[key], values[key]) for key in _SENT if key in older}}


def _as_in(older: Any, value: Any) -> Any:
    if isinstance(value, dict) and isinstance(older, dict):
        # No version changed what stands in `extra`: 1 that becomes true there, or 1.0, is an edit.
        return {key: item if key == "extra" else _as_in(older.get(key), item) for key, item in value.items()}
    if isinstance(value, list) and isinstance(older, list):  # a sweep's values may have changed places
        return [_as_in(next((entry for entry in older if entry == item), None), item) for item in value]
    return older if value == older else value


def _is_whole(kinds: str | Sequence[str]) -> bool:
    """Whether the `type` of a schema allows whole numbers and no others."""
    return "integer" in kinds and "number" not in kinds


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


def _recordings_gone(config: Config) -> Iterator[str]:
    """The files of recorded answers that are not there. Of a new run only: a copied one may need none of them."""
    if config["provider"] != "emulator":
        return
    named = {f"emulator.replay.{name}.path": entry["path"] for name, entry in config["emulator"]["replay"].items()}
    for key, text in {"emulator.recorded": config["emulator"]["recorded"], **named}.items():
        if text is None:
            continue
        path = config.path(text)
        with disk.readable(path):
            if not path.is_file():
                yield f"{key}: there is no file {text!r} ({path})"


def _refuse(problems: Iterable[str], where: str) -> None:
    found = list(problems)
    if found:
        raise ConfigError("\n  ".join(["is not a valid experiment:", *found]), where=where, hint="fix the named keys")
