"""Every setting there is, from the schema of `experiment.yaml`: key, what it takes, default, variable, meaning.

`python -m pipeline config settings` shows the list and `docs/configuration.md` is held to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import environment, jsonl, schema
from pipeline.config import SCHEMA
from pipeline.plain import columns

Node = Mapping[str, Any]

REQUIRED = "required"
_NOT_SENT = "none"  # what a setting without a default comes to


@dataclass(frozen=True)
class Setting:
    """One setting; *variable* overrides it for a new run, None inside a list or under a name of the user's."""

    key: str
    takes: str
    default: str
    variable: str | None
    meaning: str


def settings() -> list[Setting]:
    """The settings in the order of the schema."""
    root = schema.load(SCHEMA)
    return [setting for setting in _within(root, "", root) if setting.key != "$schema"]


def as_text(listed: list[Setting]) -> Iterator[str]:
    """Two lines a setting, the second what it means: together they would not fit a terminal."""
    heading, *lines = columns([("setting", "default", "takes"), *((s.key, s.default, s.takes) for s in listed)])
    yield heading
    for line, setting in zip(lines, listed, strict=True):
        yield line
        yield f"    {setting.meaning}"


def _within(node: Node, place: str, root: Node) -> Iterator[Setting]:
    for name, child in node["properties"].items():
        key = f"{place}.{name}" if place else name
        yield from _setting(child, key, name in node.get("required", ()), root)


def _setting(node: Node, key: str, required: bool, root: Node) -> Iterator[Setting]:
    node = _resolved(node, root)
    inner, inner_key = node.get("items"), f"{key}[]"
    if inner is None and isinstance(node.get("additionalProperties"), dict):
        inner, inner_key = node["additionalProperties"], f"{key}.NAME"
    if "properties" in node:
        inner, inner_key = node, key
    if "properties" not in node or "description" in node:  # a section may go without words, a setting may not
        yield Setting(
            key=key,
            takes=_takes(node, root),
            default=REQUIRED if required else _shown(node),
            variable=None if "[]" in key or "NAME" in key else environment.PREFIX + key.upper().replace(".", "__"),
            meaning=node["description"],
        )
    if inner is not None and "properties" in inner:
        yield from _within(inner, inner_key, root)


def _resolved(node: Node, root: Node) -> Node:
    if "$ref" not in node:
        return node
    found: Any = root
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return {**found, **{key: value for key, value in node.items() if key != "$ref"}}


def _shown(node: Node) -> str:
    return jsonl.dumps(node["default"]).decode() if "default" in node else _NOT_SENT


def _takes(node: Node, root: Node) -> str:
    node = _resolved(node, root)
    if "enum" in node:
        return " | ".join("null" if value is None else str(value) for value in node["enum"])
    if "anyOf" in node:
        return " | ".join(dict.fromkeys(_takes(choice, root) for choice in node["anyOf"]))
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    limits = [
        f"{sign} {node[word]}"
        for word, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if word in node
    ]
    words = {"string": "text", "object": "mapping", "array": "list", "boolean": "true | false", "integer": "integer"}
    if "required" in node:  # a value of parts, not a section
        words["object"] = f"{{{', '.join(node['required'])}}}"
    if isinstance(node.get("items"), dict):
        item = _resolved(node["items"], root)
        words["array"] = "list of mappings" if "properties" in item else f"list of {_takes(item, root)}"
    bounded = {kind: f" {', '.join(limits)}" for kind in ("integer", "number") if limits}
    return " | ".join(f"{words.get(kind, kind)}{bounded.get(kind, '')}" for kind in kinds)
