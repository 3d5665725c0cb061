"""Every table is read with cells of any length, whoever reads first."""

import ast
import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_kit import Made, closed, make

from pipeline import csv_text
from pipeline.phases.costs import costs
from pipeline.phases.score import score
from pipeline.report import answers, scores
from pipeline.scoring.response import ScoringSettings
from pipeline.statistics.table import read_scores

DEFAULT = 131_072  # characters, as a process begins
PACKAGE = Path(csv_text.__file__).parent


@pytest.fixture
def fresh() -> Iterator[None]:
    """The limit of a process that has read no CSV."""
    before = csv.field_size_limit(DEFAULT)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("fresh")
def test_a_cell_may_be_longer_than_the_limit_of_csv() -> None:
    long = "x" * (DEFAULT + 1)
    text = ['"a","b"\r\n', f'"{long}",""\r\n']
    assert list(csv_text.rows(text)) == [["a", "b"], [long, ""]]
    csv.field_size_limit(DEFAULT)
    assert list(csv_text.records(text)) == [{"a": long, "b": ""}]


@pytest.mark.parametrize("read", [csv_text.rows, csv_text.records])
def test_what_is_no_csv_is_refused(read) -> None:
    with pytest.raises(csv.Error):
        list(read(['"a"b"\r\n', '"a"b"\r\n']))


READERS = {
    "stats": lambda made: read_scores(made.paths.scores),
    "costs": lambda made: costs(made.paths, made.config, made.trial),
    "score": lambda made: score(
        made.paths.predictions,
        (made.run.closed_book, made.run.open_book),
        made.paths.scores,
        ScoringSettings.of(made.config["scoring"]),
    ),
    "report on scores": lambda made: list(scores.rows(made.paths.scores)),
    "report on answers": lambda made: list(answers._rows(made.paths.predictions)),
}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run whose answers and names of clusters are beyond the limit."""
    items = [closed(number, cluster="p" * (DEFAULT + number)) for number in range(1, 5)]
    return make(tmp_path_factory.mktemp("long"), lambda request, row: row["answers"][0] + " " * DEFAULT, items=items)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.usefixtures("fresh")
def test_an_intact_table_is_read_by_whoever_comes_first(long: Made, read) -> None:
    """Only score raised the limit: where it was skipped, stats, costs and report called its table damaged."""
    read(long)


def test_no_other_module_makes_a_reader() -> None:
    made = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and (ast.unparse(node.value), node.attr) in {("csv", name) for name in ("reader", "DictReader")}
    }
    assert made == {"csv_text.py"}
