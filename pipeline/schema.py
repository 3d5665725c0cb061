"""Checking documents against the JSON Schemas in `schemas/`, the contracts of every file format.

A problem names the path of the key, what was found, what is allowed and, for an unknown key, the
nearest valid spelling. jsonschema finds it; as it takes long to import and to ask, jsonschema-rs is asked
first, and a document that it finds valid is valid. Both are imported when a document is checked, not before.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pipeline import disk, jsonl
from pipeline.paths import resource

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator
    from jsonschema_rs import Draft202012Validator as QuickValidator


@cache
def text(name: str) -> bytes:
    """The bytes of `schemas/NAME.json`."""
    return disk.read_bytes(resource(f"schemas/{name}.json"))


@cache
def load(name: str) -> dict[str, Any]:
    """The schema `schemas/NAME.json` as a document."""
    document: dict[str, Any] = jsonl.loads(text(name))
    return document


def problems(document: Any, name: str) -> list[str]:
    """What is wrong with *document* by the schema *name*, one sentence each; empty when it is valid."""
    if _surely_valid(document, name):
        return []
    found = sorted(
        _validator(name).iter_errors(document), key=lambda error: [str(step) for step in error.absolute_path]
    )
    return list(dict.fromkeys(sentence for error in found for sentence in _sentences(error)))


@lru_cache(maxsize=8)  # what one phase writes the next ones of the process read; validating takes longer than either
def problems_in(data: bytes, name: str) -> list[str]:
    """`problems` of the document that *data* is in JSON, looked for once for each content."""
    return problems(jsonl.loads(data), name)


def require_none(found: list[str], what: str) -> None:
    """Raise ValueError when problems were *found* with *what* is about to be written: a bug here, never bad input."""
    if found:
        raise ValueError(f"would write an invalid {what}: {'; '.join(found)}")


def nearest(word: str, allowed: list[str]) -> str:
    """The end of a sentence about *word*: the valid spelling nearest to it, or all there are."""
    return _meant(word, allowed) or (f"; allowed: {', '.join(sorted(allowed))}" if allowed else "")


def _meant(word: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _surely_valid(document: Any, name: str) -> bool:
    try:
        return _quick(name).is_valid(document)
    except ValueError:  # it holds what JSON does not have, a date of YAML's or a NaN: jsonschema's to judge
        return False


@cache
def _quick(name: str) -> QuickValidator:
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(load(name), retriever=_referred)


def _referred(uri: str) -> dict[str, Any]:
    """The schema that another one refers to by its file name; nothing is ever fetched."""
    return load(uri.rsplit("/", 1)[-1].removesuffix(".json"))


@cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry, Resource

    def retrieve(uri: str) -> Resource[Any]:
        return Resource.from_contents(_referred(uri))

    kind: type[Validator] = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
    return kind(load(name), registry=Registry(retrieve=retrieve))  # type: ignore[call-arg]


def _pattern(validator: Validator, pattern: str, found: Any, _node: Any) -> Iterator[ValidationError]:
    """The keyword `pattern` as JSON Schema has it, and jsonschema-rs."""
    from jsonschema import ValidationError

    if validator.is_type(found, "string") and not _matches(pattern, found):
        yield ValidationError(f"{found!r} does not match {pattern!r}")


def _matches(pattern: str, text: str) -> bool:
    """Whether *pattern* of a schema is found in *text*: there `$` is the end, in Python also before a last newline."""
    import re

    return re.search(pattern.replace("$", r"\Z"), text) is not None  # no pattern of ours has another `$`


def _sentences(error: ValidationError) -> Iterator[str]:
    place = _place(error.absolute_path)
    rule: Any = error.validator_value
    found: Any = error.instance
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        allowed = list(error.schema.get("properties", {}))
        for key in found:
            if key not in allowed and not _matches_pattern(key, error.schema):
                yield f"{_join(place, key)}: unknown key{nearest(key, allowed)}"
        return
    if error.validator == "required":
        for key in rule:
            if key not in found:
                yield f"{_join(place, key)}: missing"
        return
    if error.validator == "enum":
        allowed = [str(value) for value in rule if value is not None]
        meant = _meant(str(error.instance), allowed)
        yield f"{place or 'document'}: {_shown(error.instance)} is not one of {', '.join(allowed)}{meant}"
        return
    if error.validator in ("anyOf", "oneOf") and error.context:
        yield from _of_branches(error.context)
        return
    yield f"{place or 'document'}: {_plain(error)}"


def _of_branches(errors: Sequence[ValidationError]) -> Iterator[str]:
    """What is wrong with a value that may be of several kinds: by the kind it is of, where it is of one of them."""
    depth = max(len(error.absolute_path) for error in errors)
    deepest = [error for error in errors if len(error.absolute_path) == depth]
    of_its_kind = [error for error in deepest if error.validator != "type"]
    best = (of_its_kind or deepest)[0]
    place = _place(best.absolute_path) or "document"
    if not of_its_kind:
        kinds = " or ".join(dict.fromkeys(str(error.validator_value) for error in deepest))
        yield f"{place}: found {_shown(best.instance)}, expected {kinds}"
    elif best.validator == "required":
        wanted: Any = best.validator_value
        yield f"{place}: found {_shown(best.instance)}, expected {' and '.join(wanted)}"
    else:
        yield from _sentences(best)


def _plain(error: ValidationError) -> str:
    found = _shown(error.instance)
    said_so = error.validator in ("minProperties", "pattern")
    if isinstance(error.schema, Mapping) and said_so and "errorMessage" in error.schema:
        return f"found {found}, expected {error.schema['errorMessage']}"
    match error.validator:
        case "type":
            kinds = error.validator_value
            allowed = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
            return f"found {found}, expected {allowed}"
        case "minimum":
            return f"{found} is below {error.validator_value}"
        case "maximum":
            return f"{found} is above {error.validator_value}"
        case "exclusiveMinimum":
            return f"{found} must be above {error.validator_value}"
        case "exclusiveMaximum":
            return f"{found} must be below {error.validator_value}"
        case "minItems" | "minLength" | "minProperties":
            return f"{found} is too short (at least {error.validator_value})"
        case _:
            return error.message if len(error.message) < 300 else f"{error.message[:297]}..."


def _matches_pattern(key: str, schema: Mapping[str, Any]) -> bool:
    return any(_matches(pattern, key) for pattern in schema.get("patternProperties", {}))


def _place(path: Any) -> str:
    place = ""
    for step in path:
        place = f"{place}[{step}]" if isinstance(step, int) else _join(place, str(step))
    return place


def _join(place: str, key: str) -> str:
    shown = key.replace("\r", "\\r").replace("\n", "\\n")  # a problem is one line, whatever somebody calls a key
    return f"{place}.{shown}" if place else shown


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
