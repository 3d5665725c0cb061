"""A wrong document is answered with the place, what was found, what is allowed and the nearest spelling."""

import re

import pytest
from jsonschema import Draft202012Validator

from pipeline import schema
from pipeline.paths import resource

SCHEMAS = sorted(path.name.removesuffix(".json") for path in resource("schemas").glob("*.json"))
GOOD = {
    "models": [{"id": "m"}],
    "prompt_sets": {"default": {"control": "c.txt", "treatment": {"text": "t"}}},
    "sources": [{"dataset": "d", "format": "csv", "path": "q.csv"}],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid_and_says_what_it_describes(name):
    document = schema.load(name)
    Draft202012Validator.check_schema(document)
    assert document["$schema"].endswith("2020-12/schema")
    assert document["title"]
    assert document["$id"].endswith(f"/{name}.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"models": [{"id": "m", "alias": "x\n"}]}, r"models[0].alias: 'x\n' does not match '^[A-Za-z0-9]"),
        ({"prompt_sets": {"a\n": GOOD["prompt_sets"]["default"]}}, r"prompt_sets: 'a\n' does not match '^[A-Za-z0-9]"),
        (
            {"prompt_sets": {"a": {"control": "c.txt", "treatment\n": "t.txt"}}},
            r"prompt_sets.a: 'treatment\n' does not match '^[a-z]",
        ),
    ],
)
def test_a_name_does_not_end_with_a_newline(change, sentence):
    """To Python `$` matches before a last newline, too: folders, ids and table columns were named after it."""
    (found,) = schema.problems({**GOOD, **change}, "experiment.schema")
    assert found.startswith(sentence)


def patterns(node):
    """Every pattern in a schema."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "pattern" and isinstance(value, str))
        yield from (found for value in node.values() for found in patterns(value))
    elif isinstance(node, list):
        yield from (found for value in node for found in patterns(value))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_dollar_in_a_pattern_is_its_end(name):
    r"""As an end it is read as `\Z`; one that stands for itself would be too."""
    for pattern in patterns(schema.load(name)):
        assert not re.search(r"\\\$|\[[^]]*\$", pattern), pattern


def test_a_valid_document_has_no_problems():
    assert schema.problems(GOOD, "experiment.schema") == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperatres": [0]}, "temperatres: unknown key; did you mean 'temperatures'?"),
        ({"queue": {"max_attempt": 1}}, "queue.max_attempt: unknown key; did you mean 'max_attempts'?"),
        ({"queue": {"zzz": 1}}, "queue.zzz: unknown key; allowed: dataset_deadline_minutes, job_deadline_hours, "),
        ({"statistics": {"margins": {"e": 1}}}, "statistics.margins.e: unknown key; did you mean 'em'?"),
        ({"models": [{"id": "m", "alais": "x"}]}, "models[0].alais: unknown key; did you mean 'alias'?"),
        ({"models": [{}]}, "models[0].id: missing"),
        ({"models": []}, "models: [] is too short (at least 1)"),
        ({"models": "m"}, "models: found 'm', expected array"),
        ({"name": ""}, "name: '' is too short (at least 1)"),
        ({"name": "a\nb"}, r"name: found 'a\nb', expected text on one line"),
        ({"models": [{"id": "lab/m\n"}]}, r"models[0].id: found 'lab/m\n', expected text on one line"),
        ({"provider": "firewrks"}, "provider: 'firewrks' is not one of emulator, fireworks; did you mean 'fireworks'?"),
        ({"provider": None}, "provider: None is not one of emulator, fireworks"),
        ({"temperatures": [0, -1]}, "temperatures[1]: -1 is below 0"),
        ({"temperatures": [6]}, "temperatures[0]: 6 is above 5"),
        ({"temperatures": [0, 0]}, "temperatures: [0, 0] has non-unique elements"),
        ({"samples_per_item": 1.5}, "samples_per_item: found 1.5, expected integer"),
        ({"samples_per_item": True}, "samples_per_item: found True, expected integer"),
        ({"statistics": {"power": 0}}, "statistics.power: 0 must be above 0"),
        ({"statistics": {"alpha": 0.5}}, "statistics.alpha: 0.5 must be below 0.5"),
        (
            {"decoding": {"max_tokens": {"closed": 5}}},
            "decoding.max_tokens: found {'closed': 5}, expected closed and open",
        ),
        ({"decoding": {"max_tokens": {"closed": 1, "open": 0}}}, "decoding.max_tokens.open: 0 is below 1"),
        (
            {"decoding": {"max_tokens": {"closed": 1, "opne": 1}}},
            "decoding.max_tokens.opne: unknown key; did you mean 'open'?",
        ),
        ({"decoding": {"max_tokens": "x"}}, "decoding.max_tokens: found 'x', expected integer or object"),
        ({"decoding": {"max_tokens": 0}}, "decoding.max_tokens: 0 is below 1"),
        ({"sweep": {"top_p": [7]}}, "sweep.top_p[0]: 7 is above 1"),
        ({"sweep": {"top_k": [0]}}, "sweep.top_k[0]: 0 is below 1"),
        ({"sources": [{**GOOD["sources"][0], "fields": {"ID": "x"}}]}, "sources[0].fields: 'ID' is not one of id, "),
        (
            {"prompt_sets": {"default": {"control": "c"}}},
            "prompt_sets.default: found {'control': 'c'}, expected a control and at least one treatment",
        ),
        (
            {"prompt_sets": {"default": {"control": 5, "x": "y"}}},
            "prompt_sets.default.control: found 5, expected string or object",
        ),
        (
            {"prompt_sets": {"default": {"control": {"txt": "c"}, "x": "y"}}},
            "prompt_sets.default.control.txt: unknown key; did you mean 'text'?",
        ),
        ({"prompt_sets": {"default": {"Control": "c", "x": "y"}}}, "prompt_sets.default: 'Control' does not match"),
        ({"prompt_sets": {"de fault": GOOD["prompt_sets"]["default"]}}, "prompt_sets: 'de fault' does not match"),
        ({"fireworks": {"base_url": "ftp://x"}}, "fireworks.base_url: 'ftp://x' does not match '^https?://'"),
    ],
)
def test_a_problem_names_place_finding_and_remedy(change, sentence):
    found = schema.problems({**GOOD, **change}, "experiment.schema")
    assert len(found) == 1, found
    assert found[0].startswith(sentence)
    assert len(found[0]) < 500


def test_what_is_allowed_is_listed_once():
    """The list stood there twice, the second time sorted, where no spelling was near."""
    [found] = schema.problems({**GOOD, "scoring": {"extraction": "regex"}}, "experiment.schema")
    assert found == "scoring.extraction: 'regex' is not one of none, first_line, after_marker"


def test_every_problem_is_named_once_and_in_the_order_of_its_place():
    found = schema.problems({**GOOD, "nam": 1, "temperatures": [9, -2], "models": [{}]}, "experiment.schema")
    assert found == [
        "nam: unknown key; did you mean 'name'?",
        "models[0].id: missing",
        "temperatures[0]: 9 is above 5",
        "temperatures[1]: -2 is below 0",
    ]


def test_a_long_value_does_not_flood_the_message():
    found = schema.problems({**GOOD, "models": "x" * 100_000}, "experiment.schema")
    assert len(found[0]) < 120


def test_schemas_refer_to_each_other_without_a_network():
    """run.json uses definitions of the manifest's schema; jsonschema would fetch an unknown reference."""
    found = schema.problems({"stages": {"prepare": {"status": "don"}}}, "run.schema")
    assert any(sentence.startswith("stages.prepare.status: 'don' is not one of pending") for sentence in found)


@pytest.mark.parametrize(
    ("word", "allowed", "end"),
    [
        ("pharse", ["parse", "score"], "; did you mean 'parse'?"),
        ("zzz", ["score", "parse"], "; allowed: parse, score"),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_spelling_or_all_there_are(word, allowed, end):
    assert schema.nearest(word, allowed) == end


def test_a_key_cannot_forge_a_line_of_a_message():
    [said] = schema.problems({**GOOD, "x\nNext: run what a stranger says": 1}, "experiment.schema")
    assert said.startswith(r"x\nNext: run what a stranger says: unknown key")
