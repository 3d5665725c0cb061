"""Whether a document fits its JSON Schema, yes or no, many times faster than jsonschema says what is wrong with it.

A schema becomes nested Python functions, once. This is a short cut to "yes" and nothing else: of what does
not fit, jsonschema says why, and it also decides about values that JSON does not have. A keyword that is
unknown here takes the short cut from its whole schema. `tests/test_fits.py` holds both to the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]
Load = Callable[[str], Mapping[str, Any]]

# What says something about a document to people, or is looked up from elsewhere.
_SILENT = {"$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "format", "deprecated"}
_TYPES: dict[str, Check] = {
    "null": lambda found: found is None,
    "boolean": lambda found: isinstance(found, bool),
    "string": lambda found: isinstance(found, str),
    "number": lambda found: _number(found),
    "integer": lambda found: _number(found) and (isinstance(found, int) or found.is_integer()),
    "array": lambda found: isinstance(found, list),
    "object": lambda found: isinstance(found, dict),
}


class Unsure(Exception):
    """Only jsonschema can tell."""


class Fits:
    """The checks of the schemas that *load* gives by name; they refer to each other as `NAME.json#/$defs/x`."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._made: dict[tuple[str, str], Check] = {}

    def of(self, name: str) -> Check:
        """Whether a document surely fits the schema *name*. Raises Unsure, there or in the check."""
        return self._make(self._load(name), name)

    def _make(self, schema: Any, name: str) -> Check:
        if isinstance(schema, bool):
            return lambda _: schema
        checks = [self._keyword(word, schema, name) for word in schema if word not in _SILENT]
        if len(checks) == 1:
            return checks[0]
        return lambda found: all(check(found) for check in checks)

    def _keyword(self, word: str, schema: Mapping[str, Any], name: str) -> Check:
        """The check of one keyword: true of what it does not speak of."""
        rule = schema[word]
        match word:
            case "$ref":
                return self._reference(rule, name)
            case "type":
                kinds = [_TYPES[kind] for kind in ([rule] if isinstance(rule, str) else rule)]
                return kinds[0] if len(kinds) == 1 else lambda found: any(kind(found) for kind in kinds)
            case "enum" | "const":
                allowed = rule if word == "enum" else [rule]
                if any(isinstance(value, (list, dict)) for value in allowed):
                    raise Unsure(word)
                return lambda found: any(_equal(found, value) for value in allowed)
            case "minimum":
                return lambda found: not (_number(found) and found < rule)
            case "maximum":
                return lambda found: not (_number(found) and found > rule)
            case "exclusiveMinimum":
                return lambda found: not (_number(found) and found <= rule)
            case "exclusiveMaximum":
                return lambda found: not (_number(found) and found >= rule)
            case "minLength":
                return lambda found: not isinstance(found, str) or len(found) >= rule
            case "maxLength":
                return lambda found: not isinstance(found, str) or len(found) <= rule
            case "pattern":
                search = re.compile(rule).search
                return lambda found: not isinstance(found, str) or search(found) is not None
            case "minItems":
                return lambda found: not isinstance(found, list) or len(found) >= rule
            case "maxItems":
                return lambda found: not isinstance(found, list) or len(found) <= rule
            case "uniqueItems":
                return lambda found: not isinstance(found, list) or not rule or _unique(found)
            case "items":
                start, item = len(schema.get("prefixItems", ())), self._make(rule, name)
                return lambda found: not isinstance(found, list) or all(map(item, found[start:]))
            case "prefixItems":
                items = [self._make(inner, name) for inner in rule]
                return lambda found: (
                    not isinstance(found, list) or all(item(value) for item, value in zip(items, found, strict=False))
                )
            case "minProperties":
                return lambda found: not isinstance(found, dict) or len(found) >= rule
            case "required":
                return lambda found: not isinstance(found, dict) or all(key in found for key in rule)
            case "propertyNames":
                key = self._make(rule, name)
                return lambda found: not isinstance(found, dict) or all(map(key, found))
            case "properties":
                known = {key: self._make(inner, name) for key, inner in rule.items()}
                return lambda found: (
                    not isinstance(found, dict)
                    or all(known[key](value) for key, value in found.items() if key in known)
                )
            case "additionalProperties" | "unevaluatedProperties":
                if "patternProperties" in schema:
                    raise Unsure(word)
                named = self._named(schema, name) if word[0] == "u" else schema.get("properties", {}).keys()
                other = self._make(rule, name)
                return lambda found: (
                    not isinstance(found, dict) or all(other(value) for key, value in found.items() if key not in named)
                )
            case "not":
                inner = self._make(rule, name)
                return lambda found: not inner(found)
            case "allOf" | "anyOf" | "oneOf":
                several = [self._make(inner, name) for inner in rule]
                if word == "oneOf":
                    return lambda found: sum(check(found) for check in several) == 1
                combine = all if word == "allOf" else any
                return lambda found: combine(check(found) for check in several)
        raise Unsure(word)

    def _reference(self, target: str, name: str) -> Check:
        file, _, pointer = target.partition("#")
        key = (file.removesuffix(".json") or name, pointer)
        if key not in self._made:
            # What is made refers to itself while it is being made, where a schema is recursive.
            self._made[key] = lambda found: self._made[key](found)
            self._made[key] = self._make(self._resolved(key), key[0])
        return self._made[key]

    def _resolved(self, key: tuple[str, str]) -> Any:
        found: Any = self._load(key[0])
        for step in key[1].strip("/").split("/"):
            found = found[step]
        return found

    def _named(self, schema: Mapping[str, Any], name: str) -> set[str]:
        """The keys that *schema* and all it is made of by `allOf` speak of."""
        if schema.keys() & {"additionalProperties", "anyOf", "oneOf", "patternProperties"}:
            raise Unsure("unevaluatedProperties")
        named = set(schema.get("properties", ()))
        for inner in schema.get("allOf", ()):
            named |= self._named(inner, name)
        if "$ref" in schema:
            file, _, pointer = schema["$ref"].partition("#")
            key = (file.removesuffix(".json") or name, pointer)
            named |= self._named(self._resolved(key), key[0])
        return named


def _number(found: Any) -> bool:
    if isinstance(found, (int, float)):
        return not isinstance(found, bool)
    if found is None or isinstance(found, (str, list, dict)):
        return False
    raise Unsure(type(found).__name__)


def _equal(found: Any, value: Any) -> bool:
    return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)


def _unique(found: list[Any]) -> bool:
    if not (all(isinstance(value, str) for value in found) or all(_number(value) for value in found)):
        raise Unsure("uniqueItems")
    return len(set(found)) == len(found)
