"""parse: rows = unique ids = what was asked for, every answer to the last character, or nothing in place."""

import csv
import io
import random
import sys

import pytest
from faulty_disk import FaultyDisk, leftovers, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_folder import quick_folder
from small_trial import CLOSED, OPEN, SmallTrial, completion, table

from pipeline import cells, jsonl
from pipeline.cells import guard, unguard
from pipeline.errors import ContractBroken, DiskTrouble
from pipeline.predictions import PREDICTION_COLUMNS, USAGE_COLUMNS
from pipeline.providers.rows import read_row

HOSTILE = [
    "", " ", "  both ends  ", "\n", "\r", "\r\n", "a\rb", "a\r\nb\n", "\ttab", 'say "hi"', '"', '""', ",", '","', "'",
    "''", "'quoted'", "=1+1", "=HYPERLINK(\"http://x\")", "+1", "-1", "- a list", "@SUM(A1)", "\r=1", "'=1", "''=1",
    "\\", "\\n", "\\\\", "a\x00b", "\x00", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\u2028b\u2029c", "\x85",
    "\ufeff", "\ufeffx", "\u202e", "é日本😀", "\x1a", "NA", "nan", "null", "None", "true", "1e999", "007", "#REF!",
    "a\tb", "<script>alert(1)</script>", "![x](http://x)", "x" * 140_000, "\n" * 5000, "'" * 10,
]  # fmt: skip

# The keys that parse and download look for in a result.
SHAPE = ["choices", "message", "content", "finish_reason", "usage", "prompt_tokens_details", "id", "error", "code"]
NO_TEXT = "no text in the response (finish_reason"
FILTERED = "stopped by the content filter (finish_reason content_filter)"


@pytest.fixture
def small(quick_path):
    return SmallTrial(quick_path, temperatures=[0, 0.7], samples_per_item=2).ready()


def frame(path):
    """The CSV as a notebook reads it."""
    import pandas

    return pandas.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


def refusal(small):
    """The words of the refusal, after which nothing may be in place."""
    with pytest.raises(ContractBroken) as refused:
        small.parse()
    assert not small.paths.predictions.exists()
    assert not small.paths.usage.exists()
    assert leftovers(small.folder) == []
    assert "No CSV was written." in str(refused.value)
    return str(refused.value)


# --- the files ------------------------------------------------------------------------------------


def test_the_whole_files_byte_for_byte(quick_path):
    small = SmallTrial(quick_path, [OPEN, CLOSED]).ready()
    answers = iter(
        [
            completion('=1 "and"\nmore', tokens=(7, 3, 10, 2)),
            {"code": 400, "message": "-too long", "attempts": 2},
            completion("cut o", finish="length", tokens=None),
            completion("", tokens=(1, 0, 1)),
        ]
    )
    small.combine(lambda _name: next(answers))
    outcome = small.parse()
    assert small.paths.predictions.read_bytes().decode() == (
        ",".join(f'"{name}"' for name in PREDICTION_COLUMNS) + "\r\n"
        '"quiz|c%7C1|control|0|0|closed","quiz","c|1","control","0","0","closed","chatcmpl-1","stop",'
        '"\'=1 ""and""\nmore","7","3","10","2","ok",""\r\n'
        '"quiz|o1|control|0|0|open","quiz","o1","control","0","0","open","","","","","","","","error",'
        '"400: -too long"\r\n'
        '"quiz|c%7C1|treatment|0|0|closed","quiz","c|1","treatment","0","0","closed","chatcmpl-1","length",'
        '"cut o","","","","","truncated",""\r\n'
        '"quiz|o1|treatment|0|0|open","quiz","o1","treatment","0","0","open","chatcmpl-1","stop",'
        '"","1","0","1","","ok",""\r\n'
    )
    assert small.paths.usage.read_bytes().decode() == (
        ",".join(f'"{name}"' for name in USAGE_COLUMNS) + "\r\n"
        '"quiz|c%7C1|control|0|0|closed","ok","7","3","10","2"\r\n'
        '"quiz|o1|control|0|0|open","error","","","",""\r\n'
        '"quiz|c%7C1|treatment|0|0|closed","truncated","","","",""\r\n'
        '"quiz|o1|treatment|0|0|open","ok","1","0","1",""\r\n'
    )
    assert {path.name: output.rows for path, output in outcome.outputs.items()} == {
        "predictions.csv": 4, "usage.csv": 4,
    }  # fmt: skip
    assert outcome.artifacts == {"predictions_csv": "small-default/results/predictions.csv", "row_count": 4}


def test_rows_are_in_the_order_of_parts_and_requests(small):
    small.combine()
    small.parse()
    assert [row["custom_id"] for row in table(small.paths.predictions)] == small.ids
    assert [row["custom_id"] for row in table(small.paths.usage)] == small.ids


def test_the_same_answers_give_the_same_bytes(small):
    small.combine()
    small.parse()
    before = small.paths.predictions.read_bytes(), small.paths.usage.read_bytes()
    small.parse()
    assert (small.paths.predictions.read_bytes(), small.paths.usage.read_bytes()) == before


# --- what an answer may be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "text", "error"),
    [
        (completion("Oslo"), "ok", "Oslo", ""),
        (completion(""), "ok", "", ""),
        (completion("Os", finish="length"), "truncated", "Os", ""),
        (completion(None), "error", "", f"{NO_TEXT} stop)"),
        (completion(["Oslo"]), "error", "", f"{NO_TEXT} stop)"),
        (completion("x", finish="content_filter"), "error", "x", FILTERED),
        (completion(None, finish="content_filter"), "error", "", FILTERED),
        (completion(choices=[]), "error", "", f"{NO_TEXT} absent)"),
        (completion(choices=[{"message": None}]), "error", "", f"{NO_TEXT} absent)"),
        (completion(choices=[{"message": "Oslo", "finish_reason": "stop"}]), "error", "", f"{NO_TEXT} stop)"),
        (completion(choices=[{"message": ["Oslo"], "finish_reason": 7}]), "error", "", f"{NO_TEXT} 7)"),
        (completion(choices={"message": {"content": "Oslo"}}), "error", "", f"{NO_TEXT} absent)"),
        (completion(choices=["Oslo"]), "error", "", f"{NO_TEXT} absent)"),
        (completion("Oslo", id=["x"]), "ok", "Oslo", ""),
        ({"code": 500, "message": "oops", "attempts": 3}, "error", "", "500: oops"),
        ({"code": "RATE", "message": "=slow"}, "error", "", "RATE: =slow"),
        ({"code": None, "message": "=slow"}, "error", "", "=slow"),
    ],
)  # fmt: skip
def test_no_answer_is_an_error_and_never_a_blank_one(small, answer, status, text, error):
    """Rows of the error file once became blank answers with score 0."""
    chosen = small.ids[5]
    small.combine(lambda name: answer if name == chosen else None)
    small.parse()
    row = table(small.paths.predictions)[5]
    assert (row["status"], unguard(row["response_text"]), unguard(row["error"])) == (status, text, error)
    assert table(small.paths.usage)[5]["status"] == status


@pytest.mark.parametrize(
    ("tokens", "cells_"),
    [
        ((5, 6, 11, 4), ["5", "6", "11", "4"]),
        ((0, 0, 0, 0), ["0", "0", "0", "0"]),
        (None, ["", "", "", ""]),
        ((5, None, 5), ["5", "", "5", ""]),
        ((5.0, True, "7", 1), ["", "", "", "1"]),
        ((5, 6, 11, 12), ["5", "6", "11", "5"]),
        ((0, 6, 6, 12), ["0", "6", "6", "0"]),
        ((-5, 6, 11, 4), ["", "6", "11", "4"]),
        ((5, -6, -1, -4), ["5", "", "", ""]),
        ((5, 6, 4, 4), ["5", "6", "4", "4"]),
        ((2**40, 0, 2**40, 1), [str(2**40), "0", str(2**40), "1"]),
        ((2**64 - 1, 6, 11, 4), ["", "6", "11", "4"]),
        ((5, 2**63, 2**40 + 1, 4), ["5", "", "", "4"]),
        ((5, 6, 11, 2**64 - 1), ["5", "6", "11", ""]),
    ],
)
def test_a_count_that_was_not_given_stays_empty(small, tokens, cells_):
    """Missing usage once counted as 0 tokens, a negative count made the run cheaper, and one of 2**64 - 1 made costs
    end in a TypeError at every try.
    """
    small.combine(lambda _name: completion("x", tokens=tokens))
    small.parse()
    for path in (small.paths.predictions, small.paths.usage):
        row = table(path)[0]
        assert [row[name] for name in PREDICTION_COLUMNS[10:14]] == cells_


@pytest.mark.parametrize(
    ("usage", "cells_"),
    [
        ("12 tokens", ["", "", "", ""]),
        ([5, 6, 11], ["", "", "", ""]),
        ({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "prompt_tokens_details": 3},
         ["5", "6", "11", ""]),
        ({"prompt_tokens": {}, "completion_tokens": [6], "prompt_tokens_details": [4]}, ["", "", "", ""]),
    ],
)  # fmt: skip
def test_counts_of_another_shape_are_no_counts_and_keep_no_row_from_being_used(small, usage, cells_):
    """One odd row among the paid answers once kept parse from writing any, at every try."""
    odd = small.ids[3]
    small.combine(lambda name: completion("x", usage=usage) if name == odd else None)
    small.parse()
    row = table(small.paths.predictions)[3]
    assert [row[name] for name in PREDICTION_COLUMNS[10:14]] == cells_
    assert (row["status"], row["response_text"]) == ("ok", "x")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-1e9, 1e9)
    | st.text('ab"=,\r\n', max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SHAPE), inner, max_size=3),
    max_leaves=5,
)


def shaped(*keys, **known):
    """A mapping that has some of *keys* with anything in them, and some of the *known* as they may be."""
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(keys, ANYTHING), **known})


DETAILS = ANYTHING | shaped("cached_tokens")
USAGE = ANYTHING | shaped("prompt_tokens", "completion_tokens", "total_tokens", prompt_tokens_details=DETAILS)
CHOICE = ANYTHING | shaped("finish_reason", message=ANYTHING | shaped("content", "role"))
RESPONSE = ANYTHING | shaped("id", "error", "message", choices=ANYTHING | st.lists(CHOICE, max_size=2), usage=USAGE)
RESULT = shaped("error", response=RESPONSE | shaped("status_code", "error", body=RESPONSE))


def test_whatever_download_takes_parse_writes_a_row_for(quick_path):
    """A shape that download calls an answer and parse calls damage locks a trial that is paid."""
    small = SmallTrial(quick_path, [CLOSED]).ready()
    first, *others = small.ids

    @given(RESULT)
    @settings(max_examples=300, deadline=None)
    def check(result):
        taken = read_row(jsonl.dumps({"custom_id": first, **result}))
        row = {"response": taken.response} if taken.error is None else {"error": {**taken.error, "attempts": 1}}
        small.write_combined([jsonl.dumps({"custom_id": first, **row}) + b"\n", *map(small.row, others)])
        small.parse()
        written = table(small.paths.predictions)
        assert [row["custom_id"] for row in written] == [first, *others]
        assert written[0]["status"] in ("ok", "truncated", "error")
        assert written[0]["status"] == "error" or not written[0]["error"]
        assert all(count == "" or count.isdigit() for count in list(written[0].values())[10:14])

    check()


def test_hostile_text_comes_back_exactly_from_the_csv_module_and_from_pandas(small):
    csv.field_size_limit(sys.maxsize)
    assert len(small.ids) == 24
    for shift in (0, 24, len(HOSTILE) - 24):
        texts = dict(zip(small.ids, HOSTILE[shift:], strict=False))
        small.combine(lambda name, texts=texts: completion(texts[name], finish=texts[name] or "stop", id=texts[name]))
        small.parse()
        for rows in (table(small.paths.predictions), frame(small.paths.predictions)):
            assert [unguard(row["response_text"]) for row in rows] == list(texts.values())
            assert [unguard(row["request_id"]) for row in rows] == list(texts.values())
            assert [unguard(row["finish_reason"]) for row in rows] == [text or "stop" for text in texts.values()]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text("\"',=+-@\t\r\n\x00 a", max_size=8)


@given(st.lists(TEXT, min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_text_survives(texts):
    with quick_folder() as folder:
        small = SmallTrial(folder, [OPEN, {**CLOSED, "id": texts[0] if texts[0].strip() else "x"}]).ready()
        answers = dict(zip(small.ids, texts, strict=True))
        small.combine(lambda name: completion(answers[name]))
        small.parse()
        rows = table(small.paths.predictions)
        assert [unguard(row["response_text"]) for row in rows] == texts
        assert [unguard(row["custom_id"]) for row in rows] == small.ids
        assert unguard(rows[0]["item_id"]) == (texts[0] if texts[0].strip() else "x")
        assert not any(row[name].startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for name in row)


@given(TEXT)
def test_the_guard_takes_one_quote_off_and_no_other(text):
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(tuple(mark for mark in cells.GUARDED if mark != "'"))


def test_an_id_of_a_question_may_look_like_a_formula(quick_path):
    small = SmallTrial(quick_path, [{**CLOSED, "id": '=1"|%7C'}]).ready()
    small.combine()
    small.parse()
    row = table(small.paths.predictions)[0]
    assert row["item_id"] == "'=1\"|%7C"
    assert row["custom_id"] == 'quiz|=1"%7C%257C|control|0|0|closed'


# --- the contract: what is missing, foreign, doubled, reordered or damaged ------------------------


def test_a_missing_row_is_named(small):
    lines = small.combine()
    small.write_combined(lines[:3] + lines[4:])
    said = refusal(small)
    assert "23 rows with 23 unique custom_ids, 24 were asked for" in said
    assert f"1 missing, e.g. {small.ids[3]}." in said
    assert "foreign" not in said
    assert "doubled" not in said


def test_a_foreign_row_is_named(small):
    lines = small.combine()
    small.write_combined([*lines, small.row("quiz|zz|control|0|0|open")])
    assert "25 rows with 25 unique custom_ids, 24 were asked for; 1 foreign, e.g. quiz|zz" in refusal(small)
    small.write_combined([small.row("no id of ours"), *lines[1:]])
    assert "is not a result row" in refusal(small)


def test_a_doubled_row_is_named(small):
    lines = small.combine()
    small.write_combined([lines[0], *lines])
    assert f"25 rows with 24 unique custom_ids, 24 were asked for; 1 doubled, e.g. {small.ids[0]}." in refusal(small)


def test_a_replaced_row_is_missing_and_doubled(small):
    lines = small.combine()
    small.write_combined([lines[0], lines[0], *lines[2:]])
    said = refusal(small)
    assert f"1 missing, e.g. {small.ids[1]}" in said
    assert f"1 doubled, e.g. {small.ids[0]}" in said


def test_another_order_is_said_to_be_one(small):
    lines = small.combine()
    for order in ([1, 0, *range(2, 24)], [*range(12, 24), *range(12)], [*range(23, -1, -1)]):
        small.write_combined([lines[place] for place in order])
        assert "24 rows with 24 unique custom_ids, 24 were asked for; the same ids stand there in another order" in (
            refusal(small)
        )


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13])
def test_a_file_that_was_cut_at_a_line_is_noticed(small, count):
    lines = small.combine()
    small.write_combined(lines[:count])
    assert f"{24 - count} missing" in refusal(small)


@pytest.mark.parametrize(
    "damage",
    [
        b"{", b"null\n", b"[]\n", b"5\n", b'"x"\n', b"{}\n", b'{"custom_id": "x"}\n',
        b'{"custom_id": 5, "response": {}}\n', b'{"custom_id": ["x"], "response": {}}\n', b'{"custom_id": {"a": 1}}\n',
        b"\xff\xfe\n", b"\x00\n", b'{"custom_id": "a|b|c|d|e|f", "response": {}}\n',
        b'{"custom_id": "ID", "response": []}\n', b'{"custom_id": "ID", "response": 5}\n',
        b'{"custom_id": "ID", "error": "text"}\n', b'{"custom_id": "ID", "error": {}}\n',
        b'{"custom_id": "ID", "response": null}\n',
        b'{"custom_id": "ID", "response": {"x": "\\ud800"}}\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["inside", "after the last", "behind a foreign one"])
def test_a_damaged_row_is_one_clear_error(small, damage, place):
    """It once ended in a traceback when it stood where only the naming of differences looked."""
    lines = small.combine()
    damage = damage.replace(b"ID", small.ids[4].encode())
    match place:
        case "inside":
            small.write_combined([*lines[:4], damage, *lines[5:]])
            words = refusal(small)
            assert "line 5: is not a result row" in words or "1 missing" in words
        case "after the last":
            small.write_combined([*lines, damage])
            refusal(small)
        case _:
            small.write_combined([*lines[:3], small.row("quiz|zz|control|0|0|open"), *lines[4:20], damage, *lines[21:]])
            refusal(small)


def test_a_mismatch_is_told_even_when_the_requests_are_gone(small):
    lines = small.combine()
    small.write_combined(lines[:-1])
    small.paths.part_requests("t0_control_p01").unlink()
    assert "the requests of t0_control_p01 are gone, so what is missing or foreign cannot be named" in refusal(small)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_change_of_rows_goes_through(data):
    """Whatever happens to the lines: exactly the rows asked for, in order, or a refusal and nothing in place."""
    with quick_folder() as folder:
        small = SmallTrial(folder, [OPEN, CLOSED], samples_per_item=2).ready()
        lines = small.combine()
        more = [small.row("quiz|zz|control|0|0|open"), b"\n", b"junk\n"]
        chosen = data.draw(st.lists(st.sampled_from([*lines, *more]), max_size=10) | st.permutations(lines))
        small.write_combined(chosen)
        if [line for line in chosen if line != b"\n"] == lines:
            small.parse()
        else:
            refusal(small)


@pytest.mark.parametrize("index", range(3))
def test_an_older_csv_is_left_when_the_contract_is_broken(small, index):
    """The wrong CSV was left in place after the error and later taken as done; the old one is whole, and stale."""
    lines = small.combine()
    small.parse()
    before = small.paths.predictions.read_bytes(), small.paths.usage.read_bytes()
    small.write_combined(lines[:index] + lines[index + 1 :])
    with pytest.raises(ContractBroken):
        small.parse()
    assert (small.paths.predictions.read_bytes(), small.paths.usage.read_bytes()) == before


def test_a_failing_disk_leaves_nothing_torn(small):
    small.combine()
    steps = len(operations(small.parse))
    good = small.paths.predictions.read_bytes(), small.paths.usage.read_bytes()
    for fail_at in range(steps):
        small.paths.predictions.unlink(missing_ok=True)
        small.paths.usage.unlink(missing_ok=True)
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            small.parse()
        assert faulty.fired
        assert leftovers(small.folder) == []
        for path, whole in zip((small.paths.predictions, small.paths.usage), good, strict=True):
            assert not path.exists() or path.read_bytes() == whole


def test_blank_lines_and_crlf_in_the_combined_file_are_accepted(small):
    lines = small.combine()
    small.parse()
    before = small.paths.predictions.read_bytes()
    small.write_combined([b"\n", *(line.replace(b"\n", b"\r\n") for line in lines), b" \n"])
    small.parse()
    assert small.paths.predictions.read_bytes() == before


def test_memory_does_not_grow_with_the_rows(quick_path):
    """Ids are compared with digests, not held: 4,000 answers of 5 kB are read in little memory."""
    import tracemalloc

    small = SmallTrial(quick_path, samples_per_item=1000, items=[CLOSED, OPEN]).ready()
    text = random.Random(1).randbytes(2500).hex()
    small.combine(lambda _name: completion(text))
    assert small.paths.combined.stat().st_size > 20e6
    ids = small.ids
    tracemalloc.start()
    small.parse()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6
    assert [row["custom_id"] for row in table(small.paths.usage)] == ids  # written in blocks, none of them twice
    assert small.paths.predictions.read_bytes().count(b"\r\n") == len(ids) + 1


def test_an_answer_may_be_longer_than_any_limit_of_csv(quick_path):
    """An answer above 131,072 characters could never be parsed."""
    small = SmallTrial(quick_path, [CLOSED]).ready()
    text = 'x"' * 500_000
    small.combine(lambda _name: completion(text))
    small.parse()
    csv.field_size_limit(sys.maxsize)
    rows = list(csv.DictReader(io.StringIO(small.paths.predictions.read_bytes().decode(), newline="")))
    assert rows[0]["response_text"] == text
    assert jsonl.loads(next(iter(jsonl.lines(small.paths.combined))).data)["response"]["choices"]
