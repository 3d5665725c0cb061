"""What the pages say is so: commands, settings, files, columns, keys and errors exist, and none of them is left out.

`python tests/test_docs.py` writes the tables that are made from the schema and from the code.
"""

import inspect
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import __main__ as program
from pipeline import completion, config, decision, done, errors, graph, jsonl, request, settings
from pipeline.paths import PartPaths, RunPaths
from pipeline.phases.score import COLUMNS
from pipeline.predictions import PREDICTION_COLUMNS
from pipeline.scoring.benchmark import Benchmark
from pipeline.scoring.response import ItemScorer, ScoringSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("codex/**/*.md"), *ROOT.glob("examples/*.md")])
README = (ROOT / "README.md").read_text()
CONFIGURATION, ARTIFACTS, STATISTICS, ERRORS, EXTENDING = (
    (ROOT / "docs" / f"{name}.md").read_text()
    for name in ("configuration", "artifacts", "statistics", "errors", "extending")
)
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "pipeline").rglob("*.py")))

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# --- tables made from the code ----------------------------------------------------------------------


def settings_table():
    """Every setting of the schema, as configuration.md shows it."""
    yield "| setting | default | takes | meaning |"
    yield "| --- | --- | --- | --- |"
    for setting in settings.settings():
        cells = (f"`{setting.key}`", f"`{setting.default}`", setting.takes, setting.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def reasons_table():
    """Every reason of done.py, as resume.md shows it: the phases that ask it, and what it decides when it speaks."""
    yield "| asked | name | decides | by |"
    yield "| --- | --- | --- | --- |"
    asked = {done.earlier_tool: list(done.REASONS)}
    for phase, reasons in done.REASONS.items():
        for reason in reasons:
            asked.setdefault(reason, []).append(phase)
    for reason, phases in asked.items():
        source = inspect.getsource(reason).replace(reason.__doc__, "")
        for helper, kind in (
            ("_changed_input", "Run"),
            ("foreign.inputs(", "Refuse("),
            ("_repair(", "Repair("),
            ("stale_requests(", "Refuse("),
            ("unsent_parts(", "Refuse("),
            ("_asked_otherwise(", "Refuse("),
        ):
            source = source.replace(helper, kind)
        kinds = (decision.Skip, decision.Run, decision.Repair, decision.Refuse)
        verbs = [kind.verb for kind in kinds if re.search(rf"\b{kind.__name__}\b", source)]
        assert verbs, f"{reason.__name__}: what it decides stands in a helper that is not listed here"
        every = "every phase" if len(phases) == len(done.REASONS) else ", ".join(phases)
        yield f"| {reason.__doc__} | `{reason.__name__}` | {', '.join(verbs)} | {every} |"


TABLES = {"configuration.md": ("settings", settings_table), "resume.md": ("reasons", reasons_table)}


def with_table(name):
    """The page *name* of docs/ with its table as it should be."""
    kind, table = TABLES[name]
    text = (ROOT / "docs" / name).read_text()
    return re.sub(
        rf"(<!-- {kind}: .*? -->\n).*?(?=<!-- end -->)", lambda m: m[1] + "\n".join(table()) + "\n", text, flags=re.S
    )


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name):
    assert (ROOT / "docs" / name).read_text() == with_table(name), "python tests/test_docs.py writes it"


# --- what is shown exists -----------------------------------------------------------------------------


def commands(page):
    """Every command line in a fenced block: after `$`, or, in a block without any, what begins with a tool of ours."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(), re.S | re.M):
        lines = block.splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        ours = [line for line in lines if re.match(r"(doit|make|python -m pipeline|TRIALMAKE_\w+=)( |$)", line)]
        for line in prompted or ours:
            for piece in re.split(r" (?:&&|\|) ", line.partition(" #")[0]):
                yield shlex.split(piece.partition(" <<")[0])


def problem(words):
    """What is wrong with a command, None when it can be meant."""
    while words and (variable := re.match(r"(TRIALMAKE_\w+)=", words[0])):
        if variable[1] not in {setting.variable for setting in settings.settings()}:
            return f"no variable {variable[1]}"
        words = words[1:]
    try:
        if words[:1] == ["doit"]:
            request.parse(dict(word.split("=", 1) for word in words[1:] if "=" in word))
            for word in words[1:]:
                if "=" not in word and not word.startswith("-") and not word.isdigit():
                    assert word.partition(":")[0] in (*completion.COMMANDS, *graph.NAMES), word
        elif words[:3] == ["python", "-m", "pipeline"] and words[3] != "emulate":
            program._parser().parse_args(words[3:])
        elif words[:1] == ["make"]:
            assert set(words[1:]) <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    except (errors.UsageError, AssertionError) as error:
        return f"{' '.join(words)}: {error}"
    return None


@every_page
def test_every_command_can_be_given(page):
    assert [found for words in commands(page) if (found := problem(words))] == []


def test_a_command_that_cannot_be_given_is_noticed():
    for line in ("doit rdi=x", "doit scroe", "python -m pipeline stauts", "make smokes", "TRIALMAKE_SEDE=1 doit"):
        assert problem(shlex.split(line)), line
    assert sum(len(list(commands(page))) for page in PAGES) > 30


@every_page
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@every_page
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets


@every_page
def test_every_file_of_ours_that_is_named_exists(page):
    named = re.findall(r"`((?:pipeline|tests|schemas|examples|benchmarks|codex|docs)/[\w./-]*\w)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists() and "web_questions" not in name] == []


@every_page
def test_every_command_of_the_program_that_is_named_exists(page):
    known = set(program._parser()._subparsers._group_actions[0].choices)
    named = re.findall(r"python -m pipeline ([a-z]+)", page.read_text())
    assert set(named) <= known


def test_every_variable_and_phase_of_a_doit_command_exists():
    found = re.findall(r"doit [a-z][^`#\n]*", README)
    assert found
    for command in found:
        chosen = dict(re.findall(r"(?<!\S)([a-z]+)='?([^\s']*)", command))
        if "rdi" not in chosen:  # the mistake that the page explains
            assert request.parse(chosen)


def test_the_picture_shows_every_phase():
    picture = re.search(r"## Phases and files\n+```(.*?)```", README, re.S).group(1)
    assert [phase for phase in graph.NAMES if not re.search(rf"(?<![/\w]){phase}\b", picture)] == []


def test_the_config_shown_is_valid(tmp_path):
    shown = re.search(r"```yaml\n(.*?)```", README, re.S).group(1)
    checked = config.check(YAML(typ="safe", pure=True).load(shown), base=tmp_path, where="README.md")
    assert checked["budget"]["max_usd"] == 20
    assert len(checked.trials) == 1


def test_the_benchmark_shown_is_one():
    """Adding a benchmark is one file; the one in extending.md is run."""
    names = {}
    exec(re.search(r"```python\n(.*?)```", EXTENDING, re.S).group(1), names)
    benchmark = names["BENCHMARK"]
    assert isinstance(benchmark, Benchmark)
    scorer = ItemScorer(benchmark, benchmark.golds(["St. Paul"]), None, ScoringSettings())
    assert [scorer.score(text).numbers.em for text in ("st paul", "the St. Paul")] == [1, 0]


# --- what exists is told --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [README, ERRORS], ids=["README.md", "docs/errors.md"])
def test_the_exit_codes_are_those_of_the_errors(page):
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.M) for code in row.split(",")}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_every_class_of_error_is_told_with_its_exit_code():
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.TrialmakeError)
    }
    told = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", ERRORS, re.M)}
    assert told == {name: kind.exit_code for name, kind in classes.items()}


def test_every_command_and_variable_is_told():
    choices = program._parser()._subparsers._group_actions[0].choices
    section = CONFIGURATION.split("| `python -m pipeline` |")[1].split("\n\n")[0]
    assert [name for name in choices if not re.search(rf"`{name}[ `]", section)] == []
    own = re.findall(r'^(\w+) = "pipeline\.commands:', (ROOT / "pyproject.toml").read_text(), re.M)
    assert [name for name in own if f"`doit {name}" not in CONFIGURATION] == []
    assert [name for name in request.NAMES if not re.search(rf"^\| .*`{name}`.* \|", CONFIGURATION, re.M)] == []


def test_every_environment_variable_is_told():
    read = set(re.findall(r"\b(?:TRIALMAKE|FIREWORKS)_[A-Z_]+[A-Z]\b", SOURCES))
    assert {"FIREWORKS_API_KEY", "FIREWORKS_ACCOUNT_ID"} <= read
    of_settings = {setting.variable for setting in settings.settings()}
    assert [name for name in sorted(read - of_settings) if f"`{name}`" not in CONFIGURATION] == []


def names_of_files():
    """The name of every file and folder that paths.py knows."""
    run = RunPaths.of("X")
    trial, part = run.trial("gpt-oss-120b-default"), PartPaths(Path("t0_control_p01"))
    for of in (run, trial, part):
        for name, member in vars(type(of)).items():
            if isinstance(getattr(of, name), Path) and not isinstance(member, property | Path):
                yield getattr(of, name).name.replace(trial.slug, "<trial>")
    yield from (path.name for path in (part.attempt_requests(2), part.success_rows(1), part.error_rows(1)))


def test_every_file_of_a_run_is_told():
    names = set(names_of_files())
    assert {"run.json", "ledger.jsonl", "<trial>.tar.gz", "figures"} <= names
    assert [name for name in sorted(names) if name not in ARTIFACTS] == []


def keys_of(schema):
    """The keys that the documents of *schema* may have, but those that are names of the user's."""

    def keys(node):
        if isinstance(node, dict):
            yield from node.get("properties", {})
            for child in node.values():
                yield from keys(child)
        elif isinstance(node, list):
            for child in node:
                yield from keys(child)

    return set(keys(jsonl.read_document(ROOT / "schemas" / f"{schema}.json")))


def untold(names, text):
    return sorted(name for name in names if not re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", text))


def test_every_column_is_told():
    assert untold([*PREDICTION_COLUMNS, *COLUMNS], ARTIFACTS) == []


def test_every_number_of_the_statistics_is_told():
    assert untold(keys_of("significance.schema"), STATISTICS) == []


def test_every_key_of_the_costs_is_told():
    assert untold(keys_of("costs.schema"), ARTIFACTS) == []


def test_the_work_of_each_module_of_the_earlier_tool_is_told():
    told = (ROOT / "docs" / "migration.md").read_text()
    earlier = (
        "fireworks/poll_and_download.py",
        "fireworks/parse_results.py",
        "scoring/*",
        "scripts/summarize_costs.py",
    )
    for module in (*earlier, "scripts/generate_report.py"):
        row = re.search(rf"^\| `{re.escape(module)}` \| (.*?) \|", told, re.M)
        assert row, module
        assert re.findall(r"`pipeline/[\w/]+(?:\.py)?/?`", row[1]), module


def test_every_page_of_the_documentation_is_in_its_index():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [
        page.name for page in ROOT.glob("docs/*.md") if page.name != "README.md" and f"({page.name})" not in index
    ] == []


if __name__ == "__main__":
    for page in TABLES:
        (ROOT / "docs" / page).write_text(with_table(page))
