"""A fresh machine gets what the code needs, and nothing it does not.

History: the emulator once used a library that was installed where it was written and declared nowhere; `make smoke`
in a fresh clone was the first to notice.
"""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("requirements.lock", "requirements-bench.lock")

# Declared without being imported by tests: commands, plugins and stubs.
TOOLS = {"mypy", "pandas-stubs", "pytest-xdist", "ruff", "types-jsonschema", "types-requests"}


def test_what_the_package_imports_is_declared_and_the_other_way_round():
    assert imported("pipeline") == declared(PROJECT["dependencies"])


def test_what_the_tests_import_is_declared():
    there = declared(PROJECT["dependencies"]) | declared(PROJECT["optional-dependencies"]["test"])
    assert imported("tests") <= there
    assert declared(PROJECT["optional-dependencies"]["test"]) - imported("tests") <= TOOLS


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_by_hash_and_names_no_index(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    pins = re.split(r"\n(?=[a-z0-9])", text.split("make lock\n", 1)[1])
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+==\S+", pin), pin.splitlines()[0]
        assert "--hash=sha256:" in pin, pin.splitlines()[0]


def test_the_locks_hold_what_is_declared():
    main, bench = (pinned(lock) for lock in LOCKS)
    build = declared(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["build"])
    extras = PROJECT["optional-dependencies"]
    assert declared(PROJECT["dependencies"]) | declared(extras["test"]) | build <= main.keys()
    assert declared(PROJECT["dependencies"]) | declared(extras["bench"]) | build <= bench.keys()
    shared = main.keys() & bench.keys()
    assert {name: main[name] for name in shared} == {name: bench[name] for name in shared}


# --- reading them -----------------------------------------------------------------------------


def declared(requirements):
    return {normal(re.match(r"[A-Za-z0-9._-]+", requirement).group()) for requirement in requirements}


def pinned(lock):
    lines = (ROOT / lock).read_text().splitlines()
    return dict(match.groups() for line in lines if (match := re.match(r"([a-z0-9._-]+)==(\S+)", line)))


@cache
def imported(folder):
    """The distributions whose modules the Python files below *folder* import."""
    files = (ROOT / folder).rglob("*.py")
    names = {name.split(".")[0] for file in files for name in imports(ast.parse(file.read_bytes()))}
    ours = {"pipeline", *(file.stem for file in (ROOT / "tests").rglob("*.py")), "tests"}
    distributions = packages_distributions()
    return {normal(distributions[name][0]) for name in names - ours - sys.stdlib_module_names}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()
