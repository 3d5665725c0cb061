"""Take away one check at a time, in the queue and below it: each time some test must fail.

A check that can be removed without a test noticing is one that the next change will remove. They are
in `mutants.txt`: what is lost; the module of `pipeline` and the tests that must notice; the text that
stands there (-) and what takes its place (+).
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from quick_folder import quick_folder

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    tests: str
    old: str
    new: str

    @classmethod
    def of(cls, block: str) -> "Mutant":
        name, where, change = block.split("\n", 2)
        module, tests = where.split()
        assert change.startswith("- "), block
        old, new = change.removeprefix("- ").split("\n+ ")
        return cls(name, module, tests, old, new)


MUTANTS = [Mutant.of(block) for block in (Path(__file__).parent / "mutants.txt").read_text().strip().split("\n\n")]


def run(folder: Path, tests: str) -> tuple[int, str]:
    """Exit code and last words of *tests* on the copy in *folder*."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not heavy", tests]
    settings = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, timeout=900, check=False)
    return done.returncode, done.stdout.decode()[-2000:]


@pytest.fixture
def copy():
    """This checkout, to be changed."""
    with quick_folder() as folder:
        folder.chmod(0o755)  # some tests start a child as another user, who must find the code
        for part in ("pipeline", "tests", "schemas", "examples"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "dodo.py"):
            shutil.copy(ROOT / name, folder)
        yield folder


def test_every_check_stands_where_it_is_looked_for():
    sources = {mutant.module: (ROOT / "pipeline" / mutant.module).read_text() for mutant in MUTANTS}
    assert [mutant.name for mutant in MUTANTS if sources[mutant.module].count(mutant.old) != 1] == []


@pytest.mark.heavy
@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_somebody_notices(mutant, copy):
    path = copy / "pipeline" / mutant.module
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    code, said = run(copy, mutant.tests)
    assert code == 1, f"nobody noticed:\n{said}"


@pytest.mark.heavy
@pytest.mark.parametrize("tests", sorted({mutant.tests for mutant in MUTANTS}))
def test_without_a_change_nobody_complains(tests, copy):
    code, said = run(copy, tests)
    assert code == 0, said
