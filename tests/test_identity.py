"""Each setting belongs to exactly the phases whose output it changes, and a change is told with both values."""

import pytest

from pipeline import config, graph, identity, schema
from pipeline.identity import differences

BASE = {
    "models": [{"id": "lab/small", "alias": "s"}],
    "prompt_sets": {"default": {"control": {"text": "c"}, "treatment": {"text": "t"}}},
    "sources": [{"dataset": "quiz", "format": "csv", "path": "quiz.csv"}],
}
PRICE = {"input_per_mtok": 1, "output_per_mtok": 2}
DIGESTS = {"quiz": "a" * 64}


def identities(folder, changes, digests=DIGESTS):
    found = config.check({**BASE, **changes}, base=folder, where="x")
    known = {phase: identity.of_phase(phase, found, found.trials[0]) for phase in graph.NAMES}
    return {**known, "prepare": identity.of_prepare(found, digests)}


def source(**changes):
    return {"sources": [{**BASE["sources"][0], **changes}]}


def prompts(**texts):
    return {"prompt_sets": {"default": {name: {"text": text} for name, text in texts.items()}}}


# What an edit of a setting makes stale by itself; phases behind it follow by their inputs.
USES = [
    ({"name": "other"}, {"report", "index"}),
    ({"provider": "fireworks"}, {"costs", "index", "report"}),
    ({"models": [{"id": "lab/large", "alias": "s"}]}, {"build", "costs", "index"}),
    (prompts(control="c", treatment="other"), {"build", "report"}),
    (prompts(control="c", other="t"), {"build", "report"}),
    ({**prompts(control="c", base="t"), "control": "base"}, {"build", "report", "stats"}),
    (source(path="elsewhere/quiz.csv"), set()),
    (source(limit=5), {"prepare"}),
    (source(benchmark="triviaqa"), {"prepare"}),
    (source(fields={"id": "nr"}), {"prepare"}),
    (source(answer_separator=";"), {"prepare"}),
    ({"temperatures": [0.5]}, {"build"}),
    ({"samples_per_item": 2}, {"build"}),
    ({"decoding": {"top_p": 0.5}}, {"build"}),
    ({"trials": [{"model": "s", "prompt_set": "default"}]}, set()),
    ({"sweep": {"models": ["s"]}}, set()),
    ({"part_size": 7}, {"build"}),
    ({"part_bytes": 20_000}, {"build"}),
    ({"queue": {"max_concurrent_jobs": 1, "max_attempts": 9, "requeue": "never"}}, set()),
    ({"budget": {"max_usd": 1}}, set()),
    ({"prices": {"models": {"lab/small": PRICE}}}, {"costs"}),
    ({"prices": {"models": {"s": PRICE}}}, {"costs"}),
    ({"prices": {"models": {"another": PRICE}}}, set()),
    ({"prices": {"batch_discount": 0}}, {"costs"}),
    ({"prices": {"cached_discount": 0}}, {"costs"}),
    ({"scoring": {"extraction": "first_line"}}, {"report", "score"}),
    ({"statistics": {"seed": 1}}, {"stats"}),
    ({"statistics": {"margins": {"em": 0.1}}}, {"stats"}),
    ({"statistics": {"cluster": "title"}}, {"prepare", "stats"}),
    ({"report": {"examples": 1}}, {"report"}),
    ({"repair": {"external_url": False}}, set()),
    ({"fireworks": {"account_id": "x"}}, set()),
    ({"emulator": {"job_seconds": 9}}, set()),
]


@pytest.mark.parametrize(("changes", "phases"), USES, ids=[str(changes)[:60] for changes, _ in USES])
def test_a_setting_rebuilds_the_phases_that_use_it_and_no_others(tmp_path, changes, phases):
    before, after = identities(tmp_path, {}), identities(tmp_path, changes)
    assert {phase for phase in graph.NAMES if differences(before[phase], after[phase])} == phases
    assert {phase for phase in graph.NAMES if identity.digest(before[phase]) != identity.digest(after[phase])} == phases


def test_every_setting_has_its_place_in_the_table_above():
    """A new setting must be given to the phases that use it, or none of them would notice an edit."""
    assert {key for changes, _ in USES for key in changes} == set(schema.load(config.SCHEMA)["properties"]) - {
        "$schema"
    }


def test_a_source_is_known_by_its_content_and_not_by_its_place(tmp_path):
    moved = identities(tmp_path, source(path="/elsewhere/quiz.csv"))
    edited = identities(tmp_path, {}, {"quiz": "b" * 64})
    gone = identities(tmp_path, {}, {"quiz": None})
    here = identities(tmp_path, {})
    assert here["prepare"] == moved["prepare"]
    assert differences(here["prepare"], edited["prepare"]) == [f"sources[0].sha256: {'a' * 40}... -> {'b' * 40}..."]
    assert differences(here["prepare"], gone["prepare"])[0].endswith("-> (none)")


def test_a_new_format_of_one_phase_rebuilds_that_phase_alone(tmp_path, monkeypatch):
    before = identities(tmp_path, {})
    monkeypatch.setitem(identity.FORMATS, "score", 99)
    after = identities(tmp_path, {})
    assert {phase for phase in graph.NAMES if before[phase] != after[phase]} == {"score"}


def test_an_older_identity_is_called_by_its_new_name_instead_of_rebuilding(monkeypatch):
    """An update of the tool once changed the identity hash and re-ran everything."""
    monkeypatch.setattr(identity, "VERSION", 3)
    monkeypatch.setattr(
        identity,
        "UPGRADES",
        {
            1: lambda phase, settings: {**settings, "first": phase},
            2: lambda phase, settings: {**settings, "second": phase},
        },
    )
    assert identity.upgraded("score", {"x": 1}, 1) == {"x": 1, "first": "score", "second": "score"}
    assert identity.upgraded("score", {"x": 1}, 2) == {"x": 1, "second": "score"}
    assert identity.upgraded("score", {"x": 1}, 3) == {"x": 1}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a.b[1]: 2 -> 3"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] -> [1,2]"]),
        ({"a": 1}, {}, ["a: 1 -> (none)"]),
        ({}, {"a": {"b": 1}}, ['a: (none) -> {"b":1}']),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": "x\ny"}, {"a": "x\r\nz"}, ["a: x\\ny -> x\\r\\nz"]),
        ({"a": {"b": 1}}, {"a": 5}, ['a: {"b":1} -> 5']),
    ],
)
def test_a_difference_names_the_setting_with_both_values(old, new, said):
    assert differences(old, new) == said


def test_long_values_that_begin_alike_are_told_apart():
    """Two prompts of a page each once were shown with the same first words, on lines of their own."""
    page = "You are a careful assistant.\n" * 20
    [said] = differences({"text": page + "Abstain when unsure." + page}, {"text": page + "Never abstain." + page})
    before, after = said.removeprefix("text: ").split(" -> ")
    assert before != after
    assert "Abstain when" in before
    assert "Never abstain" in after
    assert len(said) < 120
    assert "\n" not in said


def test_prompts_are_named_by_their_digest(tmp_path):
    found = identities(tmp_path, prompts(control="é", treatment="t"))
    assert found["build"]["prompts"]["control"] == identity.prompt_digest("é")
    assert "é" not in str(found)


def test_a_setting_cannot_forge_a_line_of_a_reason():
    assert differences({"a\nNext: x": 1}, {}) == [r"a\nNext: x: 1 -> (none)"]
