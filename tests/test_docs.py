"""What the pages tell a newcomer is so: commands, variables, exit codes, keys and files that they name exist."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import config, errors, graph, request

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("codex/**/*.md"), *ROOT.glob("examples/*.md")])
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M)) <= targets


def test_every_variable_and_phase_of_a_doit_command_exists():
    commands = re.findall(r"doit [a-z][^`#\n]*", README)
    assert commands
    for command in commands:
        chosen = dict(re.findall(r"(?<!\S)([a-z]+)='?([^\s']*)", command))
        if "rdi" not in chosen:  # the mistake that the page explains
            assert request.parse(chosen)


def test_the_exit_codes_are_those_of_the_errors():
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_the_picture_shows_every_phase():
    picture = re.search(r"## Phases and files\n+```(.*?)```", README, re.S).group(1)
    assert [phase for phase in graph.NAMES if not re.search(rf"(?<![/\w]){phase}\b", picture)] == []


def test_the_config_shown_is_valid(tmp_path):
    shown = re.search(r"```yaml\n(.*?)```", README, re.S).group(1)
    checked = config.check(YAML(typ="safe", pure=True).load(shown), base=tmp_path, where="README.md")
    assert checked["budget"]["max_usd"] == 20
    assert len(checked.trials) == 1
