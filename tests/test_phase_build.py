"""build: every request exactly once, within the limits, and what was submitted is never replaced."""

import hashlib
import itertools
import os
import shutil

import pytest
from faulty_disk import FaultyDisk, leftovers, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_folder import quick_folder
from small_trial import CLOSED, NEVER, OPEN, SmallTrial

from pipeline import custom_id, jsonl, parts
from pipeline.custom_id import RequestId
from pipeline.errors import DiskTrouble, Refused
from pipeline.phases.build import body, messages

GRID = {"temperatures": [0, 0.7], "samples_per_item": 2}


@pytest.fixture
def small(quick_path):
    trial = SmallTrial(quick_path, **GRID)
    trial.prepare()
    return trial


def expected(items, conditions=("control", "treatment"), temps=("0", "0.7"), samples=2):
    """Every id there must be: items x conditions x temperatures x samples."""
    return {
        custom_id.join(
            RequestId("quiz", item["id"], condition, temp, sample, "open" if "context" in item else "closed")
        )
        for item, condition, temp, sample in itertools.product(items, conditions, temps, range(samples))
    }


def inputs(small):
    return {path.name: path.read_bytes() for path in small.paths.inputs.iterdir() if path.is_file()}


# --- what is asked --------------------------------------------------------------------------------


def test_every_request_stands_there_exactly_once(small):
    index = small.build()
    assert len(small.ids) == len(set(small.ids)) == index.rows == 24
    assert set(small.ids) == expected([OPEN, NEVER, CLOSED])


def test_parts_hold_one_temperature_and_condition_in_name_order(small):
    index = small.build()
    assert [part.part for part in index.parts] == [
        "t07_control_p01", "t07_treatment_p01", "t0_control_p01", "t0_treatment_p01",
    ]  # fmt: skip
    for part in index.parts:
        ids = [custom_id.split(row["custom_id"]) for row in small.requests(part.part)]
        assert {(float(name.temp), name.condition) for name in ids} == {(part.temp, part.condition)}
        assert [(name.item_id, name.sample_index) for name in ids] == [
            (item, sample) for item in ("c|1", "o1", "o2") for sample in (0, 1)
        ]


def test_a_request_is_what_the_config_says_and_nothing_else(tmp_path):
    small = SmallTrial(
        tmp_path,
        [OPEN, CLOSED],
        decoding={"max_tokens": {"closed": 8, "open": 32}, "top_p": 0.9, "stop": ["\n"], "extra": {"seed": 5}},
        temperatures=[0.5],
    ).ready()
    closed, opened = small.requests("t05_control_p01")
    common = {"temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 5}
    assert closed == {
        "custom_id": "quiz|c%7C1|control|0.5|0|closed",
        "body": {
            **common,
            "max_tokens": 8,
            "messages": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": "Question: Capital of Norway?"},
            ],
        },
    }
    assert opened["body"]["max_tokens"] == 32
    assert opened["body"]["messages"][1]["content"] == "Passage:\nOslo is in Norway.\n\nQuestion: Where is Oslo?"
    [treated, _] = small.requests("t05_treatment_p01")
    assert treated["body"]["messages"][0]["content"] == "Answer or abstain."
    assert treated["body"]["messages"][1:] == closed["body"]["messages"][1:]


@pytest.mark.parametrize(
    ("decoding", "sent"),
    [
        ({}, {}),
        ({"top_p": None, "top_k": None, "stop": []}, {"stop": []}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"top_k": 1, "extra": {"presence_penalty": 0}}, {"top_k": 1, "presence_penalty": 0}),
    ],
)
def test_only_what_is_set_is_sent(tmp_path, decoding, sent):
    small = SmallTrial(tmp_path, decoding=decoding)
    for kind in ("open", "closed"):
        assert body(small.trial, 0.0, kind) == {"temperature": 0.0, **sent}


def test_prompts_are_sent_to_the_last_character():
    text = " leading\r\n\ttab \u2028\x85\x00 trailing \n"
    assert messages(text, text, text)[0]["content"] == text
    assert messages(text, text, text)[1]["content"] == f"Passage:\n{text}\n\nQuestion: {text}"


# --- parts and their list -------------------------------------------------------------------------


def test_the_list_says_what_the_parts_are(small):
    index = small.build()
    for part in index.parts:
        data = small.paths.part_requests(part.part).read_bytes()
        ids = parts.IdsDigest()
        for row in small.requests(part.part):
            ids.add(row["custom_id"])
        assert (part.size, part.rows, part.ids_sha256) == (len(data), ids.count, ids.hexdigest())
        assert part.sha256 == hashlib.sha256(data).hexdigest()
    assert sorted(os.listdir(small.paths.inputs)) == sorted(["index.json", *(f"{p.part}.jsonl" for p in index.parts)])


@pytest.mark.parametrize(("size", "rows"), [(1, [1] * 6), (4, [4, 2]), (5, [5, 1]), (6, [6]), (7, [6])])
def test_no_part_has_more_rows_than_allowed_and_none_is_empty(tmp_path, size, rows):
    small = SmallTrial(tmp_path, part_size=size, samples_per_item=2).ready()
    found = [part.rows for part in small.index.parts if part.condition == "control"]
    assert found == rows
    assert set(small.ids) == expected([OPEN, NEVER, CLOSED], temps=("0",))


def test_no_part_is_larger_than_allowed_unless_one_row_is(tmp_path):
    small = SmallTrial(
        tmp_path,
        [{**CLOSED, "id": f"i{n}", "question": "x" * size} for n, size in enumerate((3000, 3000, 3000, 15_000, 10))],
        part_bytes=10_000,
    ).ready()
    control = [part for part in small.index.parts if part.condition == "control"]
    assert [part.rows for part in control] == [3, 1, 1]
    assert [part.size <= 10_000 for part in control] == [True, False, True]
    assert [part.part for part in control] == ["t0_control_p01", "t0_control_p02", "t0_control_p03"]


def test_a_part_may_be_exactly_as_large_as_allowed(quick_path):
    items = [{**CLOSED, "id": f"i{n}", "question": "x" * 6000} for n in range(3)]
    lines = SmallTrial(quick_path, items).ready().paths.part_requests("t0_control_p01").read_bytes().splitlines(True)
    for limit, rows in ((len(lines[0]) * 2, [2, 1]), (len(lines[0]) * 2 - 1, [1, 1, 1])):
        small = SmallTrial(quick_path, items, part_bytes=limit).ready()
        assert [part.rows for part in small.index.parts if part.condition == "control"] == rows


def test_a_hundred_parts_have_names_that_sort(quick_path):
    small = SmallTrial(quick_path, part_size=1, samples_per_item=50, items=[CLOSED, OPEN]).ready()
    names = [part.part for part in small.index.parts]
    assert names == sorted(names)
    assert (names[0], names[99]) == ("t0_control_p001", "t0_control_p100")
    assert small.ids[:2] == ["quiz|c%7C1|control|0|0|closed", "quiz|c%7C1|control|0|1|closed"]


@given(
    st.lists(st.text(min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=5, unique=True),
    st.integers(1, 4),
    st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_whatever_the_ids_and_limits_every_request_is_there_once(ids, size, samples):
    ids = [name for name in ids if name.isprintable() or name.isascii()]
    items = [{**(CLOSED if n % 2 else OPEN), "id": name} for n, name in enumerate(ids)] or [CLOSED]
    with quick_folder() as folder:
        small = SmallTrial(folder, items, part_size=size, samples_per_item=samples).ready()
        assert sorted(small.ids) == sorted(expected(items, temps=("0",), samples=samples))
        assert all(part.rows <= size for part in small.index.parts)


def test_the_same_items_and_settings_give_the_same_bytes(small, tmp_path):
    small.build()
    first = inputs(small)
    small.build()
    assert inputs(small) == first
    (elsewhere := tmp_path / "elsewhere").mkdir()
    assert inputs(SmallTrial(elsewhere, **GRID).ready()) == first


# --- building again -------------------------------------------------------------------------------


def sent(small, *names):
    return {part.part: part.sha256 for part in small.index.parts if not names or part.part in names}


def test_parts_that_are_gone_come_back_as_they_were(small):
    small.build()
    before = inputs(small)
    submitted = sent(small)
    small.paths.part_requests("t0_control_p01").unlink()
    small.paths.index.unlink()
    small.build(submitted)
    assert inputs(small) == before


@pytest.mark.parametrize("names", [(), ("t0_control_p01",), ("t07_treatment_p01",)])
def test_a_submitted_part_is_never_replaced(small, names):
    """Other requests under the name of paid ones would be another experiment."""
    small.build()
    submitted = sent(small, *names)
    before = inputs(small)
    small.ask(OPEN, NEVER, {**CLOSED, "question": "Capital of Sweden?"})
    small.prepare()
    with pytest.raises(Refused) as refused:
        small.build(submitted)
    assert f"{len(submitted)} parts would change, e.g. {min(submitted)} of a submitted trial" in str(refused.value)
    assert "Nothing was sent." in str(refused.value)
    assert inputs(small) == before


@pytest.mark.parametrize("items", [(OPEN, NEVER), (OPEN, NEVER, CLOSED, {**CLOSED, "id": "c9"})], ids=["fewer", "more"])
def test_the_parts_of_a_submitted_trial_that_were_not_sent_stay_too(tmp_path, items):
    """With run.json lost, questions that were added to the file got parts of their own, and were paid for."""
    small = SmallTrial(tmp_path, part_size=1).ready()
    submitted = sent(small, "t0_control_p02")
    before = inputs(small)
    small.ask(*items)
    small.prepare()
    with pytest.raises(Refused, match="of a submitted trial: its items are fixed"):
        small.build(submitted)
    assert inputs(small) == before


def test_a_submitted_part_does_not_vanish(small):
    small.build()
    submitted = sent(small)
    before = inputs(small)
    with pytest.raises(Refused, match=r"e\.g\. t0_control_p77"):
        small.build({**submitted, "t0_control_p77": "f" * 64})
    assert inputs(small) == before


def test_parts_that_are_not_listed_any_more_are_swept(tmp_path):
    small = SmallTrial(tmp_path, part_size=1).ready()
    assert len(inputs(small)) == 7
    (small.paths.inputs / "notes.txt").write_text("mine")
    small.ask(OPEN)
    small.prepare()
    small.build()
    assert sorted(inputs(small)) == ["index.json", "notes.txt", "t0_control_p01.jsonl", "t0_treatment_p01.jsonl"]


def test_a_failing_disk_never_leaves_a_torn_part(small):
    small.build()
    old = inputs(small)
    small.ask(OPEN, CLOSED)
    small.prepare()
    steps = operations(small.build)
    new = inputs(small)
    assert len(steps) > 30
    for fail_at in range(len(steps)):
        shutil.rmtree(small.paths.inputs)
        small.paths.inputs.mkdir()
        for name, data in old.items():
            (small.paths.inputs / name).write_bytes(data)
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            small.build()
        assert faulty.fired
        assert leftovers(small.folder) == []
        scratch_stays = faulty.operations[fail_at] == "unlink .new"
        assert scratch_stays or not (small.paths.inputs / ".new").exists()
        assert all(data in (old.get(name), new.get(name)) for name, data in inputs(small).items())
    small.build()
    assert inputs(small) == new


def test_what_is_left_of_a_killed_build_does_no_harm(small):
    small.build()
    before = inputs(small)
    (small.paths.inputs / ".new").mkdir()
    (small.paths.inputs / ".new" / "t0_control_p01.jsonl").write_bytes(b"half")
    small.build()
    assert inputs(small) == before


def test_requests_are_canonical_json_lines(small):
    small.build()
    for part in small.index.parts:
        for line in small.paths.part_requests(part.part).read_bytes().splitlines(keepends=True):
            assert jsonl.dumps(jsonl.loads_checked(line)) + b"\n" == line
