"""The quick validator and jsonschema agree on every kind of document, mended and broken."""

import copy
import datetime
import json
import math
import random

import pytest
from quick_folder import quick_folder
from ruamel.yaml import YAML
from run_kit import ONE_TEMPERATURE, RID, TRIAL, doit, tiny

from pipeline import jsonl, schema
from pipeline.paths import resource

SCHEMAS = sorted(path.name.removesuffix(".json") for path in resource("schemas").glob("*.json"))
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 1.0, 1.5, 0.0, 2**70, math.inf, math.nan, "", "a", "abc", "a\n", "ä", "1"),
    *([], [1], [1, 1], [1, 1.0], ["a", "b"], ["a", "a"], [1, "a"], [True, 1], [[1], [1]], [None], [1, 2, 3]),
    *({}, {"a": 1}, {"a": "x"}, {"a": 1, "b": 2}, {"b": None}, {"A": 1}, {"c": {"c": {}}}, {"c": {"c": 1}}, {1: 2}),
    *(datetime.date(2026, 1, 1), b"a"),  # of YAML
)


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
    quick = schema._quick(name)
    assert quick.is_valid(document), "jsonschema is not asked"
    size = len(json.dumps(document, default=str))
    judged = []
    for _ in range(min(150, 10 + 300_000 // size)):
        other = changed(document, chance)
        valid = schema._surely_valid(other, name)
        assert validator.is_valid(other) or not valid, other
        judged.append(valid)
    assert {True, False} <= set(judged)


def test_what_is_not_surely_valid_is_left_to_jsonschema(documents):
    config = documents["experiment.schema"]
    assert schema.problems(config, "experiment.schema") == []
    assert schema.problems({**config, "samples_per_item": 0}, "experiment.schema") == ["samples_per_item: 0 is below 1"]
    [problem] = schema.problems({**config, "name": datetime.date(2026, 1, 1)}, "experiment.schema")
    assert problem == "name: found datetime.date(2026, 1, 1), expected string"
