"""prepare: all items in one format and order, or nothing replaced."""

import hashlib

import pytest
from faulty_disk import FaultyDisk, leftovers, operations
from small_trial import CLOSED, NEVER, OPEN, SmallTrial

from pipeline import jsonl
from pipeline.errors import DiskTrouble, SourceError


@pytest.fixture
def small(tmp_path):
    return SmallTrial(tmp_path)


def rows(path):
    return [jsonl.loads(line.data) for line in jsonl.lines(path)]


def test_items_are_split_by_type_and_keep_their_order(small):
    small.ask(NEVER, CLOSED, OPEN, {**CLOSED, "id": "a"})
    outcome = small.prepare()
    assert [row["id"] for row in rows(small.run.open_book)] == ["o2", "o1"]
    assert [row["id"] for row in rows(small.run.closed_book)] == ["c|1", "a"]
    assert {path.name: output.rows for path, output in outcome.outputs.items()} == {
        "closed_book.jsonl": 2, "open_book.jsonl": 2,
    }  # fmt: skip
    assert outcome.artifacts == {"items": 4}


def test_a_prepared_line_is_canonical_json(small):
    small.prepare()
    passage = hashlib.sha256(b"Oslo is in Norway.").hexdigest()[:16].encode()
    assert small.run.open_book.read_bytes().splitlines()[1] == (
        b'{"answers":[],"benchmark":"squad_v2","cluster":"%s","context":"Oslo is in Norway.",'
        b'"dataset":"quiz","id":"o2","is_unanswerable":true,"question":"Where is Ost?"}' % passage
    )
    assert small.run.closed_book.read_bytes() == (
        b'{"answers":["Oslo"],"benchmark":"squad_v2","cluster":"c|1","dataset":"quiz","id":"c|1",'
        b'"question":"Capital of Norway?"}\n'
    )


def test_both_files_are_there_even_if_one_is_empty(tmp_path):
    small = SmallTrial(tmp_path, [CLOSED])
    small.prepare()
    assert small.run.open_book.read_bytes() == b""


def test_sources_follow_each_other_as_the_config_lists_them(tmp_path):
    (tmp_path / "more.csv").write_text("question,answers,id\nq,ans,z\n")
    sources = [
        {"dataset": "more", "format": "csv", "path": "more.csv"},
        {"dataset": "quiz", "format": "jsonl", "path": "quiz.jsonl", "limit": 2},
    ]
    small = SmallTrial(tmp_path, [CLOSED, {**CLOSED, "id": "z"}, {**CLOSED, "id": "y"}], sources=sources)
    small.prepare()
    assert [(row["dataset"], row["id"]) for row in rows(small.run.closed_book)] == [
        ("more", "z"), ("quiz", "c|1"), ("quiz", "z"),
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["paragraph", "title", "none"])
def test_the_cluster_is_the_unit_of_the_config(tmp_path, unit):
    small = SmallTrial(tmp_path, [{**OPEN, "cluster": "k"}, NEVER], statistics={"cluster": unit})
    small.prepare()
    assert rows(small.run.open_book)[0]["cluster"] == ("o1" if unit == "none" else "k")


def test_the_same_sources_give_the_same_bytes(small):
    small.prepare()
    before = small.run.open_book.read_bytes(), small.run.closed_book.read_bytes()
    small.prepare()
    assert (small.run.open_book.read_bytes(), small.run.closed_book.read_bytes()) == before


@pytest.mark.parametrize("bad", [{**OPEN, "id": "new", "question": ""}, OPEN, {"id": "x"}])
def test_a_bad_item_replaces_nothing(small, bad):
    small.prepare()
    before = small.run.open_book.read_bytes(), small.run.closed_book.read_bytes()
    small.ask(CLOSED, OPEN, bad)
    with pytest.raises(SourceError, match=r"quiz\.jsonl line 3"):
        small.prepare()
    assert (small.run.open_book.read_bytes(), small.run.closed_book.read_bytes()) == before
    assert leftovers(small.folder) == []


def test_no_items_at_all_is_an_error(tmp_path):
    small = SmallTrial(tmp_path, [])
    with pytest.raises(SourceError, match="the sources hold no items"):
        small.prepare()
    assert not small.run.closed_book.exists()


def test_a_failing_disk_leaves_whole_files(small):
    small.prepare()
    whole = {path.name: path.read_bytes() for path in (small.run.open_book, small.run.closed_book)}
    small.ask(OPEN, CLOSED)
    steps = len(operations(small.prepare))
    whole_new = {path.name: path.read_bytes() for path in (small.run.open_book, small.run.closed_book)}
    for fail_at in range(steps):
        for name, data in whole.items():
            (small.run.prepared / name).write_bytes(data)
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            small.prepare()
        assert faulty.fired
        assert leftovers(small.folder) == []
        for path in small.run.prepared.iterdir():
            assert path.read_bytes() in (whole[path.name], whole_new[path.name])
