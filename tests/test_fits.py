"""The short cut to "yes" and jsonschema agree: on every keyword, and on every kind of document, mended and broken."""

import copy
import datetime
import json
import math
import random
from decimal import Decimal

import pytest
from jsonschema import Draft202012Validator
from quick_folder import quick_folder
from ruamel.yaml import YAML
from run_kit import ONE_TEMPERATURE, RID, TRIAL, doit, tiny

from pipeline import jsonl, schema
from pipeline.fits import Fits, Unsure
from pipeline.paths import resource

SCHEMAS = sorted(path.name.removesuffix(".json") for path in resource("schemas").glob("*.json"))
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 1.0, 1.5, 0.0, 2**70, math.inf, math.nan, "", "a", "abc", "a\n", "ä", "1"),
    *([], [1], [1, 1], [1, 1.0], ["a", "b"], ["a", "a"], [1, "a"], [True, 1], [[1], [1]], [None], [1, 2, 3]),
    *({}, {"a": 1}, {"a": "x"}, {"a": 1, "b": 2}, {"b": None}, {"A": 1}, {"c": {"c": {}}}, {"c": {"c": 1}}, {1: 2}),
    *(datetime.date(2026, 1, 1), Decimal(1), (1, 2), b"a"),
)
RULES = (
    *({"type": kind} for kind in ("null", "boolean", "string", "number", "integer", "array", "object")),
    {"type": ["integer", "null"]},
    *({"enum": ["a", 1, None]}, {"enum": [True]}, {"const": 0}, {"const": "a"}),
    *({key: 1} for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    *({key: 1} for key in ("minLength", "maxLength", "minItems", "maxItems", "minProperties")),
    *({"pattern": "^a"}, {"pattern": "b"}, {"pattern": "a$"}, {"uniqueItems": True}, {"uniqueItems": False}),
    *({"items": {"type": "integer"}}, {"items": False}, {"items": {}}, {"prefixItems": [{"type": "integer"}]}),
    {"prefixItems": [{"type": "integer"}, {"const": "a"}], "items": False},
    *({"required": ["a"]}, {"required": ["a", "b"]}, {"propertyNames": {"pattern": "^[a-z]$"}}),
    *({"properties": {"a": {"type": "integer"}}}, {"additionalProperties": False}),
    {"properties": {"a": True, "b": False}, "additionalProperties": {"type": "object"}},
    *({"not": {"type": "string"}}, {"not": {"not": {"minimum": 1}}}),
    {"allOf": [{"type": "integer"}, {"minimum": 1}]},
    {"anyOf": [{"type": "string"}, {"minimum": 1}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 1}]},
    {"oneOf": [{"type": "null"}, {"uniqueItems": True, "type": "array"}]},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}}},
    {"$ref": "#/$defs/some", "minimum": 1, "$defs": {"some": {"type": "integer"}}},
    {
        "allOf": [{"$ref": "#/$defs/some"}],
        "properties": {"b": {"type": "integer"}},
        "unevaluatedProperties": False,
        "$defs": {"some": {"properties": {"a": {"type": "integer"}}}},
    },
    {"title": "t", "description": "d", "default": 5, "format": "date", "type": "string"},
    True,
    False,
)
UNKNOWN = (
    {"const": [1]},
    {"enum": [{}]},
    {"type": "object", "properties": {"a": {"multipleOf": 2}}},
    {"patternProperties": {"^a": False}, "additionalProperties": False},
    {"anyOf": [{"properties": {"a": True}}], "unevaluatedProperties": False},
    {"if": {"type": "string"}, "then": False},
    {"$dynamicRef": "#x"},
)


def agreed(found, document, rules):
    """The short cut's answer is jsonschema's; of what it is unsure it says nothing."""
    try:
        answer = found(document)
    except Unsure:
        return False
    assert answer == Draft202012Validator(rules).is_valid(document), (rules, document)
    return answer


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_each_keyword_means_what_jsonschema_says(rules):
    check = Fits(lambda _: rules).of("any")
    answers = [agreed(check, value, rules) for value in VALUES]
    assert rules is False or any(answers), "it says yes to something"


@pytest.mark.parametrize("rules", UNKNOWN, ids=str)
def test_of_a_keyword_it_does_not_know_it_says_nothing(rules):
    with pytest.raises(Unsure):
        Fits(lambda _: rules).of("any")


@pytest.fixture(scope="module")
def documents():
    """schema -> a document of a small run that is valid by it."""
    with quick_folder() as base:
        assert doit(tiny(base, ONE_TEMPERATURE), f"rid={RID}", "config=experiment.yaml", "to=costs").code == 0
        run = base / "experiments" / f"run_{RID}"
        results = run / TRIAL / "results"
        found = {
            "costs.schema": results / "costs.json",
            "index.schema": run / TRIAL / "batch_inputs" / "index.json",
            "run.schema": run / "run.json",
            "significance.schema": results / "significance.json",
            "trial_manifest.v2": results / "trial_manifest.json",
        }
        [*_, last] = jsonl.lines(results / "t0_control_p01" / "ledger.jsonl")
        yield {
            **{name: json.loads(path.read_text()) for name, path in found.items()},
            "experiment.schema": YAML(typ="safe").load((run / "experiment.yaml").read_text()),
            "ledger.schema": jsonl.loads(last.data),
            "trial_manifest.v1": {
                "schema_version": 1,
                "trial": {"model_id": "small", "top_p": 0.9},
                "temps": [0],
                "jobs": {"t0_control": ["job-1", None], "t0_treatment": "job-2"},
                "job_status": {"t0_control": "COMPLETED"},
            },
        }


def places(value):
    """Every mapping and list in *value*, itself too."""
    if isinstance(value, (dict, list)):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from places(child)


def changed(document, chance):
    """A copy of *document* in which one thing is gone, new, or another value."""
    changed = copy.deepcopy(document)
    place = chance.choice([place for place in places(changed) if place] or [changed])
    key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    match chance.randrange(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place["zzz"] = place[key]
        case 1:
            place.append(place[key])
        case _:
            place[key] = chance.choice(VALUES)
    return changed


@pytest.mark.parametrize("name", SCHEMAS)
def test_documents_of_a_run_are_judged_as_jsonschema_judges_them(documents, name):
    document, validator, chance = documents[name], schema._validator(name), random.Random(name)
    check = Fits(schema.load).of(name)
    assert check(document), "the short cut is taken"
    size = len(json.dumps(document, default=str))
    judged = []
    for _ in range(min(150, 10 + 300_000 // size)):
        other = changed(document, chance)
        try:
            answer = check(other)
        except Unsure:
            continue
        assert answer == validator.is_valid(other)
        judged.append(answer)
    assert {True, False} <= set(judged)


def test_what_does_not_fit_or_is_unsure_is_left_to_jsonschema(documents):
    config = {**documents["experiment.schema"], "temperatures": [Decimal("0.5")]}
    assert schema.problems(config, "experiment.schema") == []
    assert schema.problems({**config, "samples_per_item": 0}, "experiment.schema") == ["samples_per_item: 0 is below 1"]
