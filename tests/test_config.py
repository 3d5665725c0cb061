"""What a run is asked to do: read once, every mistake named at once, and frozen without losing a character."""

import copy
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_data import row, written
from ruamel.yaml import YAML

from pipeline import config, environment, identity, jsonl
from pipeline.errors import ConfigError, UnreadableFile
from pipeline.paths import resource
from pipeline.scoring.abstention_patterns import VERSIONS
from pipeline.statistics.analysis import analyse
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores

MINIMAL = """\
models: [{id: accounts/lab/models/small}]
prompt_sets: {default: {control: {text: Answer.}, treatment: {text: Answer or abstain.}}}
sources: [{dataset: quiz, format: csv, path: quiz.csv}]
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def read(folder, text, **options):
    path = folder / "experiment.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return config.read(path, **options)


def document(**changes):
    return {**YAML(typ="safe").load(MINIMAL), **changes}


def checked(folder, **changes):
    return config.check(document(**changes), base=folder, where="experiment.yaml")


def refusal(folder, text, **options):
    """The words of the one error that *text* gives."""
    with pytest.raises(ConfigError) as refused:
        read(folder, text, **options)
    return str(refused.value)


# --- reading --------------------------------------------------------------------------------------


def test_a_minimal_config_gets_every_default_of_the_schema(folder):
    found = read(folder, MINIMAL)
    assert (found["provider"], found["temperatures"], found["samples_per_item"]) == ("emulator", [0], 1)
    assert found["queue"]["max_attempts"] == 3
    assert found["statistics"]["margins"] == dict.fromkeys(
        ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate"), 0.02
    )
    assert found["sources"][0] == {
        "dataset": "quiz", "format": "csv", "path": "quiz.csv",
        "limit": None, "benchmark": None, "fields": {}, "answer_separator": "|",
    }  # fmt: skip
    assert found["models"][0]["alias"] is None
    assert found.path("quiz.csv") == folder / "quiz.csv"


def test_a_default_never_overwrites_what_was_said(folder):
    said = {"statistics": {"margins": {"em": 0.5}, "power": 0.9}, "queue": {"requeue": "never"}}
    found = checked(folder, **said)
    assert found["statistics"]["margins"]["em"] == 0.5
    assert found["statistics"]["margins"]["f1"] == 0.02
    assert (found["statistics"]["power"], found["queue"]["requeue"]) == (0.9, "never")


def test_a_run_made_with_a_margin_of_5_goes_on_until_its_yaml_is_edited(folder):
    """Five points were meant, and all is equivalent within 500; what is frozen must not stop a run that was paid."""
    found = checked(folder)
    values = {**found.values, "statistics": {**found["statistics"], "margins": {"em": 5}}}
    assert config.recorded(values)["statistics"]["margins"]["em"] == 5
    frozen = folder / "frozen.yaml"
    frozen.write_bytes(config.frozen_text(config.Config(values, folder)))
    with pytest.raises(ConfigError, match=r"statistics\.margins\.em: 5 is above 1"):
        config.read_frozen(frozen, base=folder, record=values)


def test_defaults_are_not_shared_between_configs(folder):
    one, other = checked(folder), checked(folder)
    one["statistics"]["margins"]["em"] = 9
    assert other["statistics"]["margins"]["em"] == 0.02
    assert checked(folder)["statistics"]["margins"]["em"] == 0.02


def test_the_bundled_example_is_valid(folder):
    found = config.read(resource("examples/experiment.yaml"))
    assert [trial.conditions for trial in found.trials] == [("control", "treatment")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"You answer.\n", "You answer."),
        (b"You answer.", "You answer."),
        (b"You answer.\r\n", "You answer."),
        (b"\xef\xbb\xbfYou answer.\n", "You answer."),
        (b"\n  two\n\n", "\n  two\n"),
        (b"tab\tand trailing  \n", "tab\tand trailing  "),
        (b"a\r\nb\r\n", "a\r\nb"),
        (b"\r", "\r"),
        ("naïve — 😀\n".encode(), "naïve — 😀"),
        (b"", ""),
    ],
)
def test_a_prompt_file_is_inlined_without_its_last_line_end(folder, data, text):
    """What editors add (a BOM, one line end) is not part of the prompt; everything else is."""
    (folder / "p.txt").write_bytes(data)
    found = read(folder, MINIMAL.replace("{text: Answer.}", "p.txt"))
    assert found["prompt_sets"]["default"]["control"] == {"text": text, "file": "p.txt"}
    assert found.trials[0].prompts["control"] == text


def test_a_limit_of_the_command_line_lowers_each_sources_limit(folder):
    text = MINIMAL.replace("path: quiz.csv}", "path: quiz.csv, limit: 5}, {dataset: b, format: csv, path: b}")
    assert [source["limit"] for source in read(folder, text, limit=3)["sources"]] == [3, 3]
    assert [source["limit"] for source in read(folder, text, limit=9)["sources"]] == [5, 9]
    assert [source["limit"] for source in read(folder, text, limit=1)["sources"]] == [1, 1]
    assert [source["limit"] for source in read(folder, text)["sources"]] == [5, None]
    with pytest.raises(ConfigError, match="limit=0: must be at least 1"):
        read(folder, text, limit=0)


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = {
    # the file itself
    "": "must hold a mapping of settings",
    "[1, 2]": "must hold a mapping of settings",
    "just words": "must hold a mapping of settings",
    "a: [1": "is not valid YAML",
    "\tname: x": "is not valid YAML",
    "name: a\nname: b": 'YAML: found duplicate key "name" at line 2, column 1',
    "models: [{id: m}]\nmodels: [{id: n}]": 'YAML: found duplicate key "models" at line 2, column 1',
    MINIMAL + "---\na: 1": "is not valid YAML: expected a single document",
    MINIMAL + "name: !!python/object:os.system x": "is not valid YAML: could not determine a constructor",
    MINIMAL + "name: \x00": "is not valid YAML: unacceptable character #x0000",
    MINIMAL + f"decoding: {{extra: {{x: {'{a: ' * 700}{'}' * 700}}}}}": "is nested too deeply",
    # what YAML can say and JSON cannot: each once ended in a traceback when the run was created
    MINIMAL + "temperatures: [.nan]": "temperatures[0]: nan is not a number that can be used",
    MINIMAL + "budget: {max_usd: .inf}": "budget.max_usd: inf is not a number that can be used",
    MINIMAL + "statistics: {seed: 99999999999999999999}": "statistics.seed: a whole number beyond 64 bits",
    MINIMAL + "statistics: {seed: 1e300}": "statistics.seed: a whole number beyond 64 bits",
    MINIMAL + "decoding: {extra: {logit_bias: {50256: -100}}}": (
        "decoding.extra.logit_bias: the key 50256 is not text; write it in quotes"
    ),
    MINIMAL + "1: 2": "document: the key 1 is not text",
    MINIMAL + "null: 2": "document: the key None is not text",
    MINIMAL.replace("default:", "1:"): "prompt_sets: the key 1 is not text",
    MINIMAL + "name: 2026-01-01": "name: '2026-01-01' is read as a date; write it in quotes",
    MINIMAL + "decoding: {extra: {x: !!binary aGk=}}": "decoding.extra.x: \"b'hi'\" is read as a bytes",
    MINIMAL + "decoding: {extra: {x: !!set {a}}}": "decoding.extra.x: \"{'a'}\" is read as a set",
    MINIMAL + "decoding: {extra: &a {x: *a}}": "its aliases (*name) stand for more than 1,000,000 values",
    MINIMAL + "decoding: {extra: &a {x: [*a, *a]}}": "its aliases (*name) stand for more than 1,000,000 values",
    # a few lines that stand for 9 to the 10th values: they were counted for hours
    MINIMAL
    + "decoding:\n  extra:\n    a0: &a0 [x]\n"
    + "".join(f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11)): (
        "its aliases (*name) stand for more than 1,000,000 values"
    ),
    # the same with merge keys, which are written out while the text is read
    MINIMAL
    + "decoding:\n  extra:\n    a0: &a0 {x: 1}\n"
    + "".join(f"    a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 11)): (
        "its aliases (*name) stand for more than 1,000,000 values"
    ),
    # what looks like a date or a number and is none
    MINIMAL + "name: 2026-02-30": "a value that is not what it looks like (day is out of range for month)",
    MINIMAL + "part_size: 0x_": "a value that is not what it looks like (invalid literal for int()",
    MINIMAL + "part_size: !!bool x": "a value that is not what it looks like ('x')",
    MINIMAL + f"part_size: {'9' * 5000}": "a value that is not what it looks like (Exceeds the limit (4300 digits)",
    MINIMAL + 'name: "\\U00110000"': "a value that is not what it looks like (chr() arg",
    MINIMAL + 'name: "\\ud800"': "name: '\\ud800' holds half a character",
    MINIMAL + 'decoding: {extra: {"\\udc00": 1}}': "the key '\\udc00' holds half a character",
    # a secret would be in the frozen file, the record and every archive
    MINIMAL + "repair: {firectl: [firectl, --api-key, fw_x]}": "repair.firectl[1]: a key does not belong in a config",
    MINIMAL + "repair: {firectl: [firectl, --api-key=fw_x]}": "repair.firectl[1]: a key does not belong in a config",
    MINIMAL + "fireworks: {base_url: 'https://me:fw_x@api.example'}": "fireworks.base_url: a user name or password",
    # settings
    MINIMAL + "temperatres: [1]": "temperatres: unknown key; did you mean 'temperatures'?",
    MINIMAL + "provider: firewrks": "provider: 'firewrks' is not one of emulator, fireworks; did you mean 'fireworks'?",
    MINIMAL + "temperatures: [-1]": "temperatures[0]: -1 is below 0",
    # each of these passed, and failed in score or stats once all was paid
    MINIMAL + "scoring: {abstention_patterns: 2}": "scoring.abstention_patterns: 2 is not one of 1",
    MINIMAL + "statistics: {target_deltas: [0.01, 1e-10]}": "statistics.target_deltas[1]: 1e-10 is below 1e-06",
    MINIMAL + "statistics: {target_deltas: [1e300]}": "statistics.target_deltas[0]: 1e+300 is above 1",
    MINIMAL + "statistics: {margins: {em: 5}}": "statistics.margins.em: 5 is above 1",
    MINIMAL + "statistics: {alpha: 1e-17}": "statistics.alpha: 1e-17 is below 1e-12",
    MINIMAL + "temperatures: [0, 0.0]": "temperatures: [0, 0.0] has non-unique elements",
    MINIMAL + "temperatures: [0.1234567, 0.1234568]": "temperatures: 0.123457 stands there twice",
    MINIMAL + "control: base": "prompt_sets.default: there is no condition 'base' (the control)",
    MINIMAL.replace("csv, path", "cvs, path"): "sources[0].format: 'cvs' is not one of squad_v2, ",
    MINIMAL.replace("csv, path: quiz.csv", "csv"): "sources[0].path: missing",
    MINIMAL.replace("path: quiz.csv}", "path: a}, {dataset: quiz, format: csv, path: b}"): (
        "sources: the dataset 'quiz' stands there twice"
    ),
    MINIMAL.replace("small}]", "small}, {id: other/small}]"): "models: 'small' stands there twice",
    MINIMAL.replace("small}]", "small}, {id: b, alias: small}]"): "models: 'small' stands there twice",
    "models: [{id: m}]": "prompt_sets: missing\n  sources: missing",
    MINIMAL.replace("{text: Answer.}", "nowhere.txt"): (
        "prompt_sets.default.control: there is no prompt file 'nowhere.txt'"
    ),
    MINIMAL.replace("{text: Answer.}", "{txt: x}"): "prompt_sets.default.control",
    MINIMAL + "decoding: {extra: {temperature: 1}}": "decoding.extra.temperature: set it by temperatures",
    MINIMAL + "decoding: {extra: {max_completion_tokens: 9}}": (
        "decoding.extra.max_completion_tokens: set it by decoding.max_tokens"
    ),
    MINIMAL + "decoding: {extra: {n: 5}}": "decoding.extra.n: set it by samples_per_item",
    MINIMAL + "trials: [{model: small, prompt_set: default, decoding: {extra: {messages: []}}}]": (
        "trials[0].decoding.extra.messages: set it by prompt_sets"
    ),
    MINIMAL + "emulator: {replay: {controll: {path: quiz.csv}}}": (
        "emulator.replay.controll: there is no condition 'controll'; did you mean 'control'?"
    ),
    # trials
    MINIMAL + "trials: []": "trials: [] is too short (at least 1)",
    MINIMAL + "trials: [{model: smal, prompt_set: default}]": (
        "trials: there is no model 'smal'; did you mean 'small'?"
    ),
    MINIMAL + "trials: [{model: small, prompt_set: x}]": "trials: there is no prompt_set 'x'; allowed: default",
    MINIMAL + "sweep: {models: [zzz]}": "sweep: there is no model 'zzz'; allowed: accounts/lab/models/small, small",
    MINIMAL + "trials: [{model: small, prompt_set: default}]\nsweep: {}": "trials, sweep: only one of the two",
    MINIMAL + "sweep: {top_p: [0.951, 0.952]}": "trials: two of them are called 'small-default-tp095'",
    MINIMAL
    + "trials: [{model: small, prompt_set: default}, {model: accounts/lab/models/small, prompt_set: default}]": (
        "trials: two of them are called 'small-default'"
    ),
    MINIMAL.replace("models/small", "models/" + "x" * 300): "has more than 120 characters; give its model an alias",
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.items(), ids=[said[:50] for said in MISTAKES.values()])
def test_a_mistake_is_one_clear_error(folder, text, said):
    """The place in the config, what was found, what is allowed: never a traceback, never a guess."""
    words = refusal(folder, text)
    assert said in words
    assert str(folder / "experiment.yaml") in words


def test_recorded_answers_are_wanted_of_a_new_run_with_the_emulator_only(folder):
    """They were missed when the emulator started, and the run had been made. A copied run may need none of them."""
    recorded = MINIMAL + "emulator: {recorded: a.jsonl, replay: {control: {path: b.json}}}\n"
    words = refusal(folder, recorded, new_run=True)
    assert "emulator.recorded: there is no file 'a.jsonl' (" in words
    assert "emulator.replay.control.path: there is no file 'b.json' (" in words
    read(folder, recorded + "provider: fireworks\n", new_run=True)
    found = read(folder, recorded)
    assert refrozen(found, folder).values == found.values
    (folder / "a.jsonl").touch()
    (folder / "b.json").touch()
    assert read(folder, recorded, new_run=True).values == found.values


def test_the_schema_allows_the_versions_of_the_abstention_patterns_that_there_are():
    """A version that the code does not have was refused in score, after submit."""
    allowed = config.schema.load(config.SCHEMA)["properties"]["scoring"]["properties"]["abstention_patterns"]
    assert allowed["enum"] == [*VERSIONS]


@pytest.mark.parametrize("pairs", [2, 12, 300])
@pytest.mark.parametrize(
    "statistics",
    [{"alpha": 1e-12}, {"alpha": math.nextafter(0.5, 0)}, {"power": 5e-324}, {"power": math.nextafter(1, 0)},
     {"target_deltas": [1e-6, 1]}, {"margins": {"em": 5e-324, "f1": 1}}],
    ids=str,
)  # fmt: skip
def test_the_farthest_statistics_that_the_schema_allows_can_be_computed(folder, statistics, pairs):
    """An alpha of 1e-17 made an interval infinite, a delta of 1e-10 a number of items that JSON does not have."""
    few = {"bootstrap_samples": 1000, "permutation_samples": 1000}
    section = StatisticsSettings.of(checked(folder, statistics={**few, **statistics})["statistics"])
    rows = [
        row(f"q{number}", condition, type="closed", em=score, f1=score, n_samples=2)
        for number in range(pairs)
        for condition, score in (("control", number % 3 / 2), ("treatment", 2 * number % 3 / 2))
    ]
    found = analyse(read_scores(written(folder / "scores.csv", rows)), section, "control", ["treatment"])
    assert config.schema.problems_in(jsonl.dumps_pretty(found), "significance.schema") == []


def places(node, place=()):
    """(place, node) of everything that the schema *node* describes by name; "0" stands for the items of a list."""
    if "$ref" in node:
        node = {**config._resolve(node["$ref"]), **node}
    yield place, node
    for key, inner in node.get("properties", {}).items():
        yield from places(inner, (*place, key))
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from places(branch, place)
    if isinstance(node.get("items"), dict):
        yield from places(node["items"], (*place, "0"))


WHOLE = {place: node for place, node in places(config.schema.load(config.SCHEMA)) if "integer" in node.get("type", ())}
NEEDED = {
    "sources": {"dataset": "quiz", "format": "csv", "path": "quiz.csv"},
    "trials": {"model": "small", "prompt_set": "default"},
}
LIMIT = {"closed": 2, "open": 2}


def with_value(place, value):
    """A change of the minimal config that has *value* in *place*."""
    for key in reversed(place[1:]):
        value = [value] if key == "0" else {**(LIMIT if key in LIMIT else {}), key: value}
    return {place[0]: [{**NEEDED[place[0]], **value[0]}] if place[0] in NEEDED else value}


@pytest.mark.parametrize("place", WHOLE, ids=map(".".join, WHOLE))
def test_a_whole_number_may_be_written_with_a_point_and_is_one(folder, place):
    """`1e4` is an integer to the schema: it passed, was sent as `100.0`, and statistics failed once all was paid."""
    number = WHOLE[place].get("minimum", 1)
    found = checked(folder, **with_value(place, float(number)))
    assert config.frozen_text(found) == config.frozen_text(checked(folder, **with_value(place, number)))
    assert [jsonl.dumps(dict(trial.decoding)).count(b".0") for trial in found.trials] == [0]


def test_a_run_that_was_frozen_with_a_point_in_a_whole_number_has_the_same_settings(folder):
    text = config.frozen_text(checked(folder, statistics={"bootstrap_samples": 10000}, decoding={"max_tokens": 100}))
    older = text.replace(b"bootstrap_samples: 10000", b"bootstrap_samples: 1e+4").replace(b": 100\n", b": 100.0\n")
    assert older.count(b"1e+4") == older.count(b"100.0") == 1
    (folder / "frozen.yaml").write_bytes(older)
    # Only in what is sent does the number stay as it was: the same request would be another one.
    in_requests = text.replace(b"max_tokens: 100\n", b"max_tokens: 100.0\n")
    found = config.read_frozen(folder / "frozen.yaml", base=folder)
    assert config.frozen_text(found) == in_requests
    (folder / "frozen.yaml").write_bytes(text)
    saved_anew = config.read_frozen(folder / "frozen.yaml", base=folder, record=found.values)
    assert config.frozen_text(saved_anew) == in_requests
    before = {"max_tokens": 100.0, "bootstrap_samples": 1e4}  # what such a run recorded of itself
    assert identity.differences(before, {"max_tokens": 100, "bootstrap_samples": 10000}) == []


def test_what_a_record_holds_is_filled_and_whole_but_sent_as_it_is_written(folder):
    older = {
        **checked(folder, decoding={"top_k": 50.0}).values,
        "sweep": {"max_tokens": [1e2, {"closed": 8.0, "open": 9}]},
    }
    older |= {"samples_per_item": 2.0, "part_size": 6.0, "statistics": {"bootstrap_samples": 1e4}}
    found = config.Config(config.recorded(older), folder)
    assert jsonl.dumps([found["samples_per_item"], found["part_size"]]) == b"[2,6]"
    assert jsonl.dumps(found["statistics"]["bootstrap_samples"]) == b"10000"
    assert found["statistics"]["alpha"] == checked(folder)["statistics"]["alpha"]
    assert [trial.slug for trial in found.trials] == ["small-default-mx100.0-100.0", "small-default-mx8.0-9"]


def test_an_edit_is_taken_and_leaves_the_rest_as_it_is_recorded(folder):
    record = {"sweep": {"max_tokens": [100.0]}, "decoding": {"extra": {"logprobs": 1}}}
    edited = "sweep: {max_tokens: [2e2, 100]}\ndecoding: {extra: {logprobs: true}}\n"
    (folder / "frozen.yaml").write_text(MINIMAL + edited)
    found = config.read_frozen(folder / "frozen.yaml", base=folder, record=record)
    assert [trial.slug for trial in found.trials] == ["small-default-mx200-200", "small-default-mx100.0-100.0"]
    assert found["decoding"]["extra"]["logprobs"] is True


def test_a_number_of_no_setting_of_ours_stays_as_it_is_written(folder):
    found = checked(folder, decoding={"extra": {"penalty": 1.0}, "top_p": 1.0}, temperatures=[0.0])
    assert jsonl.dumps(dict(found.trials[0].decoding)) == b'{"extra":{"penalty":1.0},"top_p":1.0}'


def test_bytes_that_are_no_text_are_named(folder):
    assert "is not UTF-8 text (invalid start byte at byte 2)" in refusal(folder, b"a:\xff")
    (folder / "p.txt").write_bytes(b"\xff")
    assert "control: 'p.txt' is not UTF-8" in refusal(folder, MINIMAL.replace("{text: Answer.}", "p.txt"))


def test_a_file_that_is_not_there_is_not_an_empty_one(folder):
    with pytest.raises(ConfigError, match="there is no such config file"):
        config.read(folder / "none.yaml")
    with pytest.raises(UnreadableFile):
        config.read(folder)


def test_all_mistakes_are_told_at_once(folder):
    words = refusal(folder, MINIMAL + "nam: x\ntemperatures: [9]\nqueue: {pol: 1}\n")
    assert words.count("\n  ") == 3
    assert words.endswith("Next: fix the named keys")


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = list(itertools.chain.from_iterable([key] for key in config.schema.load(config.SCHEMA)["properties"]))


@given(st.sampled_from(KEYS), JSONISH)
@settings(max_examples=80, deadline=None)
def test_any_value_of_any_key_is_taken_or_refused_with_a_place(tmp_path_factory, key, value):
    said = f"{key} prompt_sets"  # a strange control is missed in the prompt sets
    try:
        found = checked(tmp_path_factory.getbasetemp(), **{key: copy.deepcopy(value)})
    except ConfigError as refused:
        said = str(refused)
    else:
        jsonl.dumps(dict(found.values))
        config.frozen_text(found)
    assert key in said or "prompt_sets" in said


# --- the environment ------------------------------------------------------------------------------


def test_the_environment_overrides_the_file(folder):
    variables = {
        "TRIALMAKE_PROVIDER": "fireworks",
        "TRIALMAKE_QUEUE__MAX_ATTEMPTS": "5",
        "TRIALMAKE_TEMPERATURES": "[0, 0.7]",
        "TRIALMAKE_STATISTICS__MARGINS__EM": "0.1",
        "TRIALMAKE_BUDGET": "{max_usd: 3}",
        "TRIALMAKE_SHARED_DATA": "/nowhere",
        "PATH": "/bin",
    }
    found = read(folder, MINIMAL + "queue: {max_attempts: 2, requeue: ask}\nprovider: emulator\n", variables=variables)
    assert found["provider"] == "fireworks"
    assert (found["queue"]["max_attempts"], found["queue"]["requeue"]) == (5, "ask")
    assert found.trials[0].temperatures == (0.0, 0.7)
    assert found["statistics"]["margins"] | {"em": 0.1} == found["statistics"]["margins"]
    assert found["budget"]["max_usd"] == 3


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("TRIALMAKE_PROVIDR", "x", "providr: unknown key; did you mean 'provider'?"),
        ("TRIALMAKE_QUEUE__MAX_ATTEMPT", "1", "queue.max_attempt: unknown key; did you mean 'max_attempts'?"),
        ("TRIALMAKE_SAMPLES_PER_ITEM", "many", "samples_per_item: found 'many', expected integer"),
        ("TRIALMAKE_NAME", "", "name: found None, expected string"),
        ("TRIALMAKE_NAME", "[1", "environment variable TRIALMAKE_NAME: is not valid YAML"),
        ("TRIALMAKE_NAME", "\udcff", "environment variable TRIALMAKE_NAME: is not valid YAML"),
        ("TRIALMAKE_MODELS__0__ID", "m", "models: found {'0': {'id': 'm'}}, expected array"),
    ],
)
def test_a_wrong_variable_is_a_config_error(folder, name, text, said):
    assert said in refusal(folder, MINIMAL, variables={name: text})


def test_dotenv_fills_in_and_the_process_wins(folder, monkeypatch):
    (folder / ".env").write_text("FIREWORKS_API_KEY=from-file\nFIREWORKS_ACCOUNT_ID='lab'\nEMPTY\n# comment\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FIREWORKS_API_KEY", "  from-process \n")
    monkeypatch.delenv("FIREWORKS_ACCOUNT_ID", raising=False)
    variables = environment.variables()
    key = environment.fireworks_key(variables)
    assert key.reveal() == "from-process"
    assert "from-process" not in f"{key} {key!r}"
    assert environment.fireworks_account(None, variables) == "lab"
    assert environment.fireworks_account("mine", variables) == "mine"
    assert environment.fireworks_key({"FIREWORKS_API_KEY": " "}) is None
    assert environment.fireworks_account(None, {}) is None


def test_a_dotenv_that_is_no_text_is_named(folder, monkeypatch):
    (folder / ".env").write_bytes(b"KEY=\xff\xfe\n")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"\.env: is not UTF-8 text"):
        environment.variables()


# --- freezing -------------------------------------------------------------------------------------


def refrozen(found, folder):
    path = folder / "frozen.yaml"
    path.write_bytes(config.frozen_text(found))
    return config.read_frozen(path, base=folder)


TRICKY = [
    "", " ", "\n", "\n\n", "\t", "\r", "\r\n", "a\r\nb\r\n", "a\rb", "trailing space ", "trailing tab\t",
    "line \nend", " leading", "\tleading", "\nleading newline", "trailing newline\n", "two\n\n", "a\n\n\nb",
    "a\n b\n  c\n", "a\n\tb", "- list", "key: value", "key:\n  - a\n", "# comment", "a # b", "a\n# b\n", "'", '"',
    "it's", '"quoted"', "\\", "\\n", "%", "%YAML 1.2", "---", "---\na", "...", "a\n...\nb", "!tag", "&anchor",
    "*alias", "|", ">", "| \n a", "{a: b}", "[x]", "null", "~", "true", "yes", "No", "1", "1.0", "1e3", "0x1f",
    "0o7", "1_000", "2026-01-01", "12:30:00", ".inf", ".nan", "=", "<<", "?", "? a", ": b", "@", "`", "x" * 5000,
    "word " * 2000, ("word " * 40 + "\n") * 20, "a  b" * 60, "\x00", "\x1b[31m", "\x7f", "\x85", "a\x85b", "\u2028",
    "a\u2029b\n", "\ufeff", "\ufeffa\nb", "\ufffe", "\uffff", "\xa0", "é", "日本語\nテキスト", "😀\n😀", "\u200b",
    "\u202e", "a\x0bb", "a\x0cb\n", "{{ jinja }}\n{% x %}", "$HOME ${X}",
]  # fmt: skip


def test_freezing_keeps_every_character_of_every_prompt(folder):
    """The frozen text is what is sent. YAML once gave a NEL back as a space, and folded what it found too long."""
    sets = {f"s{n:02}": {"control": {"text": text}, "treatment": {"text": text + "!"}} for n, text in enumerate(TRICKY)}
    found = checked(folder, prompt_sets=sets)
    assert dict(refrozen(found, folder).values) == dict(found.values)
    assert [trial.prompts["control"] for trial in refrozen(found, folder).trials] == TRICKY


PIECES = st.sampled_from(
    [*"\t\n\r -:#'\"|>%&*!\\{}[]", "\x85", "\u2028", "\x00", "a", "é", "word word", "\n\n", "  ", "é" * 99]
)


@given(st.lists(st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=20), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_freezing_and_reading_back_gives_the_same_config(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp()
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    sets = {f"s{n}": {"control": {"text": text}, "treatment": {"text": "t"}} for n, text in enumerate(texts)}
    found = checked(folder, prompt_sets=sets, decoding={"stop": texts, "extra": {"user": texts[0], texts[-1]: 1}})
    again = refrozen(found, folder)
    assert dict(again.values) == dict(found.values)
    assert config.frozen_text(again) == config.frozen_text(found)


def test_numbers_and_choices_survive_freezing(folder):
    found = checked(
        folder,
        temperatures=[0, 0.1, 0.25, 1e-05, 5],
        budget={"max_usd": 0.1},
        prices={"models": {"m": {"input_per_mtok": 1e-9, "output_per_mtok": 1e300}}},
        decoding={"max_tokens": {"closed": 1, "open": 2}, "top_p": None, "stop": [], "extra": {"seed": 2**63 - 1}},
    )
    again = refrozen(found, folder)
    assert jsonl.dumps(dict(again.values)) == jsonl.dumps(dict(found.values))
    assert again.trials == found.trials


def test_a_long_prompt_stays_readable_in_the_frozen_file(folder):
    found = checked(
        folder, prompt_sets={"default": {"control": {"text": "One.\nTwo: yes.\n\nFour."}, "treatment": {"text": "t"}}}
    )
    text = config.frozen_text(found).decode()
    assert text.startswith("# The frozen config of this run")
    assert "text: |-\n        One.\n        Two: yes.\n\n        Four.\n" in text


def test_the_frozen_file_needs_neither_prompt_files_nor_environment(folder):
    (folder / "p.txt").write_text("From a file.\n")
    found = read(folder, MINIMAL.replace("{text: Answer.}", "p.txt"), variables={"TRIALMAKE_NAME": "ours"})
    (folder / "p.txt").unlink()
    again = refrozen(found, folder)
    assert again.trials[0].prompts["control"] == "From a file."
    assert again["name"] == "ours"


# --- trials ---------------------------------------------------------------------------------------


def slugs(folder, **changes):
    return [trial.slug for trial in checked(folder, **changes).trials]


TWO = {
    "models": [{"id": "a/b/Big Model!v1"}, {"id": "x/y", "alias": "tiny"}],
    "prompt_sets": {
        name: {"control": {"text": "c"}, "treatment": {"text": "t"}} for name in ("short", "long")
    },
}  # fmt: skip


def test_every_model_meets_every_prompt_set_by_default(folder):
    assert slugs(folder, **TWO) == ["Big-Model-v1-long", "Big-Model-v1-short", "tiny-long", "tiny-short"]


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ({}, ["Big-Model-v1-long", "Big-Model-v1-short", "tiny-long", "tiny-short"]),
        ({"models": ["x/y"], "prompt_sets": ["long"]}, ["tiny-long"]),
        ({"models": ["tiny"], "prompt_sets": ["long"], "top_p": [0.5, 1, None]}, [
            "tiny-long-tp05", "tiny-long-tp1", "tiny-long",
        ]),
        ({"models": ["tiny"], "prompt_sets": ["long"], "top_p": [0.95], "top_k": [1, 40], "max_tokens": [
            64, {"closed": 8, "open": 32},
        ]}, [
            "tiny-long-tp095-tk1-mx64-64", "tiny-long-tp095-tk1-mx8-32",
            "tiny-long-tp095-tk40-mx64-64", "tiny-long-tp095-tk40-mx8-32",
        ]),
    ],
)  # fmt: skip
def test_a_sweep_is_every_combination(folder, sweep, expected):
    assert slugs(folder, **TWO, sweep=sweep) == expected


def test_listed_trials_are_exactly_those(folder):
    listed = [
        {"model": "tiny", "prompt_set": "long"},
        {"model": "a/b/Big Model!v1", "prompt_set": "short", "decoding": {"top_k": 5}},
    ]
    assert slugs(folder, **TWO, trials=listed) == ["tiny-long", "Big-Model-v1-short-tk5"]


def test_a_trials_own_decoding_is_put_on_top_of_the_common_one(folder):
    found = checked(
        folder,
        decoding={"top_p": 0.9, "max_tokens": 64, "stop": ["\n"]},
        sweep={"top_p": [0.5, None], "max_tokens": [8]},
    )
    assert [dict(trial.decoding) for trial in found.trials] == [
        {"top_p": 0.5, "max_tokens": 8, "stop": ["\n"]},
        {"top_p": None, "max_tokens": 8, "stop": ["\n"]},
    ]


@given(
    st.lists(st.sampled_from([None, *(n / 100 for n in range(1, 101))]), min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from([None, 1, 5, 15, 150]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([1, 11, {"closed": 1, "open": 11}, {"closed": 11, "open": 1}]), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_two_trials_never_share_a_folder(tmp_path_factory, top_p, top_k, max_tokens):
    sweep = {"top_p": top_p, "top_k": top_k, "max_tokens": max_tokens}
    if any(max_tokens.count(limit) > 1 for limit in max_tokens):
        with pytest.raises(ConfigError, match="two of them are called"):
            slugs(tmp_path_factory.getbasetemp(), **TWO, sweep=sweep)
    else:
        found = slugs(tmp_path_factory.getbasetemp(), **TWO, sweep=sweep)
        assert len(set(found)) == len(found) == 4 * len(top_p) * len(top_k) * len(max_tokens)


@pytest.mark.parametrize("model", ["..", "a/..", "-", "a/", "a/ü", "a/b\\c", "a/.hidden", "a/-x", "a/%2e%2e"])
def test_a_models_name_never_leads_out_of_the_runs_folder(folder, model):
    [slug] = slugs(folder, models=[{"id": model}])
    assert "/" not in slug
    assert slug.isascii()
    assert slug.isprintable()
    assert (folder / slug).resolve().parent == folder.resolve()


def test_the_control_comes_first_and_no_order_in_the_file_counts(folder):
    """run.json keeps no order of keys: read back from it, the first treatment must be the same."""
    prompts = {"careful": {"text": "d"}, "base": {"text": "c"}, "brave": {"text": "b"}}
    for order in (prompts, dict(reversed(prompts.items()))):
        [trial] = checked(folder, prompt_sets={"default": order}, control="base").trials
        assert trial.conditions == ("base", "brave", "careful")
    sets = dict.fromkeys(("b", "a"), prompts)
    assert slugs(folder, prompt_sets=sets, control="base") == ["small-a", "small-b"]


def test_a_negative_zero_is_zero(folder):
    """Its ids would read `-0`, beside parts that are called t0."""
    [trial] = checked(folder, temperatures=[-0.0]).trials
    assert str(trial.temperatures[0]) == "0.0"
