"""The list of settings is the schema's: nothing left out, nothing without a meaning, each variable one that works."""

import pytest
import run_kit
from ruamel.yaml import YAML

from pipeline import config, settings

LISTED = {setting.key: setting for setting in settings.settings()}
SMALL = {
    "models": [{"id": "lab/small"}],
    "prompt_sets": {"default": {"control": {"text": "Answer."}, "treatment": {"text": "Answer well."}}},
    "sources": [{"dataset": "quiz", "format": "jsonl", "path": "quiz.jsonl"}],
}


def test_every_setting_of_a_full_config_is_listed():
    filled = config.check(SMALL, base=config.Path(), where="here").values

    def leaves(value, place):
        if isinstance(value, dict) and place not in LISTED:
            for key, inner in value.items():
                yield from leaves(inner, f"{place}.{key}" if place else key)
        else:
            yield place

    assert [place for place in leaves(filled, "") if place not in LISTED] == []


def test_every_setting_says_what_it_takes_and_means():
    assert [key for key, setting in LISTED.items() if not (setting.takes and setting.meaning.endswith("."))] == []


@pytest.mark.parametrize(
    ("key", "takes", "default", "variable"),
    [
        ("provider", "emulator | fireworks", '"emulator"', "TRIALMAKE_PROVIDER"),
        ("models", "list of mappings", "required", "TRIALMAKE_MODELS"),
        ("models[].id", "text", "required", None),
        ("temperatures", "list of number >= 0, <= 5", "[0]", "TRIALMAKE_TEMPERATURES"),
        ("decoding.max_tokens", "integer >= 1 | {closed, open}", "none", "TRIALMAKE_DECODING__MAX_TOKENS"),
        ("trials[].decoding.top_k", "integer >= 1 | null", "none", None),
        ("statistics.margins.em", "number > 0, <= 1", "0.02", "TRIALMAKE_STATISTICS__MARGINS__EM"),
        ("prices.models.NAME.input_per_mtok", "number >= 0", "required", None),
    ],
)
def test_a_setting_reads_so(key, takes, default, variable):
    setting = LISTED[key]
    assert (setting.takes, setting.default, setting.variable) == (takes, default, variable)


@pytest.mark.parametrize(
    ("variable", "text", "place", "value"),
    [
        ("TRIALMAKE_BUDGET__MAX_USD", "5", ("budget", "max_usd"), 5),
        ("TRIALMAKE_TEMPERATURES", "[0, 0.7]", ("temperatures",), [0, 0.7]),
        ("TRIALMAKE_STATISTICS__MARGINS__EM", "0.05", ("statistics", "margins", "em"), 0.05),
        ("TRIALMAKE_QUEUE__POLL_SECONDS", "", ("queue", "poll_seconds"), None),  # an empty value is YAML's null
        ("TRIALMAKE_SOURCES", "[{dataset: d, format: csv, path: d.csv}]", ("sources", 0, "format"), "csv"),
    ],
)
def test_a_variable_sets_its_setting(tmp_path, variable, text, place, value):
    with open(tmp_path / "experiment.yaml", "w") as stream:
        YAML(typ="safe").dump(SMALL, stream)
    found = config.read(tmp_path / "experiment.yaml", variables={variable: text, "HOME": "/"}).values
    for step in place:
        found = found[step]
    assert found == value


@pytest.mark.parametrize(("variable", "text"), [("TRIALMAKE_BUDGTE__MAX_USD", "5"), ("TRIALMAKE_PART_SIZE", "many")])
def test_a_variable_that_cannot_be_is_named(tmp_path, variable, text):
    """The message once blamed the file, in which nobody found the key."""
    with open(tmp_path / "experiment.yaml", "w") as stream:
        YAML(typ="safe").dump(SMALL, stream)
    with pytest.raises(config.ConfigError, match=variable):
        config.read(tmp_path / "experiment.yaml", variables={variable: text})


def test_every_variable_listed_is_known(tmp_path):
    """Its value may be wrong, the setting it names may not be a stranger."""
    with open(tmp_path / "experiment.yaml", "w") as stream:
        YAML(typ="safe").dump(SMALL, stream)

    def said(variable):
        try:
            config.read(tmp_path / "experiment.yaml", variables={variable: "{unheard: of}"})
        except config.ConfigError as error:
            return str(error)
        return ""

    listed = [setting for setting in LISTED.values() if setting.variable]
    assert [setting.key for setting in listed if f"  {setting.key}: unknown key" in said(setting.variable)] == []
    assert "  queue.poll: unknown key" in said("TRIALMAKE_QUEUE__POLL")


def test_the_text_has_two_lines_for_each():
    heading, *lines = settings.as_text(list(LISTED.values()))
    assert heading.split() == ["setting", "default", "takes"]
    assert [line.split()[0] for line in lines[::2]] == list(LISTED)
    assert [line.strip() for line in lines[1::2]] == [setting.meaning for setting in LISTED.values()]


def test_a_variable_set_after_the_run_began_is_said_to_have_no_effect(quick_path, monkeypatch):
    folder = run_kit.tiny(quick_path)
    monkeypatch.setenv("TRIALMAKE_STATISTICS__SEED", "7")
    started = run_kit.doit(folder, f"rid={run_kit.RID}", "config=experiment.yaml", "to=build")
    assert (started.code, "acts on new runs only" in started.out) == (0, False)
    assert "acts on new runs only" not in run_kit.doit(folder, "to=build").out  # the run lives by it
    monkeypatch.setenv("TRIALMAKE_STATISTICS__SEED", "8")
    assert (
        "TRIALMAKE_STATISTICS__SEED acts on new runs only; this one lives by experiments/run_tiny/experiment.yaml"
        in run_kit.doit(folder, "to=build").out
    )
