"""Which row of a provider's files counts, which is owed, what is kept aside; the shuffles are in test_queue_merge."""

import json
import tracemalloc

import pytest

from pipeline import jsonl
from pipeline.parts import IdsDigest, Part
from pipeline.paths import PartPaths, raw_file
from pipeline.providers.rows import read_row
from pipeline.queue import merge
from pipeline.queue.merge import Failure

IDS = [f"quiz|q{n}|control|0|0|open" for n in range(6)]
PASSING, LASTING = {"code": 500, "message": "again"}, {"code": 400, "message": "never"}
CONFLICT = {"code": "conflict", "message": "the provider answered twice with different content", "attempts": 1}


def answer(text):
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 1}}


def success(name, text):
    return jsonl.dumps({"custom_id": name, "response": answer(text)})


def wrapped(name, text):
    """The same answer in the other shape that services use."""
    return json.dumps({"customId": name, "response": {"status_code": 200, "body": answer(text)}}).encode()


def failure(name, error):
    return jsonl.dumps({"custom_id": name, "error": error})


@pytest.fixture
def part(quick_path):
    return PartPaths(quick_path / "t0_control_p01")


def store(part, number, lines, *, errors=False, file=1):
    """Write *lines* as a raw file of attempt *number*."""
    path = raw_file(part.attempt(number), errors=errors, number=file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def merged(part, asked=None):
    """(tally, the lines of results.jsonl as documents)."""
    counted = merge.tally(part, IDS, asked or {1: IDS}, read_row)
    return counted, [jsonl.loads(line) for line in merge.result_lines(IDS, counted, read_row)]


# --- which row counts -----------------------------------------------------------------------------


def test_one_line_a_request_in_request_order(part):
    store(part, 1, [success(name, f"to {name}") for name in reversed(IDS)])
    counted, rows = merged(part)
    assert [row["custom_id"] for row in rows] == IDS
    assert [row["response"] for row in rows] == [answer(f"to {name}") for name in IDS]
    assert (counted.owed(IDS), counted.unusable, counted.conflicts) == ([], [], set())


def test_every_shape_of_an_answer_comes_to_the_same_line(part):
    store(part, 1, [wrapped(name, "x") for name in IDS])
    assert merged(part)[1] == [{"custom_id": name, "response": answer("x")} for name in IDS]
    store(part, 1, [line for name in IDS for line in (wrapped(name, "x"), success(name, "x"))])
    counted, rows = merged(part)
    assert rows == [{"custom_id": name, "response": answer("x")} for name in IDS]
    assert counted.conflicts == set()


def test_a_success_wins_over_an_error_wherever_it_stands(part):
    store(part, 1, [failure(IDS[0], LASTING), success(IDS[0], "yes"), failure(IDS[0], PASSING)], errors=True)
    store(part, 2, [failure(IDS[0], LASTING)], errors=True)
    counted, rows = merged(part, {1: IDS, 2: [IDS[0]]})
    assert rows[0]["response"] == answer("yes")
    assert IDS[0] not in counted.owed(IDS)


def test_the_earliest_success_wins(part):
    store(part, 2, [success(IDS[0], "second")])
    store(part, 1, [success(IDS[0], "first")])
    assert merged(part, {2: IDS, 1: IDS})[1][0]["response"] == answer("first")


def test_two_answers_of_one_attempt_are_both_kept_aside_and_the_row_is_owed(part):
    path = store(part, 1, [success(IDS[1], "x"), *(success(IDS[0], text) for text in ("one", "other", "one"))])
    counted, rows = merged(part)
    assert rows[0]["error"] == CONFLICT
    assert counted.conflicts == {IDS[0]}
    assert IDS[0] in counted.owed(IDS)
    aside = [line.as_json() for line in counted.unusable]
    assert [(entry["file"], entry["line"]) for entry in aside] == [(path.name, 2), (path.name, 3)]
    assert all(entry["reason"] == "answered twice with other content" for entry in aside)
    assert [entry["raw"].encode() for entry in aside] == path.read_bytes().splitlines()[1:3]


def test_an_error_beside_two_answers_does_not_settle_the_row(part):
    """A refusal that would last once hid that the row is owed."""
    store(part, 1, [success(IDS[0], "one"), success(IDS[0], "other")])
    store(part, 1, [failure(IDS[0], LASTING)], errors=True)
    counted, rows = merged(part)
    assert rows[0]["error"] == CONFLICT
    assert IDS[0] in counted.owed(IDS)


def test_a_later_attempt_settles_a_conflict(part):
    store(part, 1, [success(IDS[0], "one"), success(IDS[0], "other")])
    store(part, 2, [success(IDS[0], "at last")])
    counted, rows = merged(part, {1: IDS, 2: [IDS[0]]})
    assert rows[0]["response"] == answer("at last")
    assert counted.conflicts == set()


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_errors_for_a_row_the_one_that_may_pass_counts_in_either_order(part, order):
    """The last line once won, so shuffled results were asked again or not."""
    store(part, 1, [failure(IDS[0], PASSING), failure(IDS[0], LASTING)][::order], errors=True)
    counted, rows = merged(part)
    assert rows[0]["error"] == {**PASSING, "attempts": 1}
    assert IDS[0] in counted.owed(IDS)


@pytest.mark.parametrize(
    ("code", "lasting"),
    [(code, True) for code in (400, 401, 404, 422, 498)]
    + [(code, False) for code in (402, 408, 409, 412, 425, 429, 499, 500, 503, 399, None, "400", "conflict", True)],
)
def test_an_error_lasts_when_asking_again_would_get_it_again(code, lasting):
    assert Failure(code, "x").lasting is lasting


def test_a_row_without_any_answer_says_how_often_it_was_asked(part):
    store(part, 1, [success(name, "x") for name in IDS[1:]])
    store(part, 2, [])
    assert merged(part, {1: IDS, 2: IDS[:1], 3: IDS[:1]})[1][0]["error"] == {
        "code": "missing", "message": "the provider returned no row for this request", "attempts": 3,
    }  # fmt: skip


def test_only_what_is_missing_is_owed_in_request_order(part):
    store(part, 1, [success(IDS[3], "x"), success(IDS[1], "x")])
    store(part, 1, [failure(IDS[0], LASTING), failure(IDS[2], PASSING)], errors=True)
    assert merged(part)[0].owed(IDS) == [IDS[2], IDS[4], IDS[5]]


# --- what cannot be used is named and kept --------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"null", "not a JSON object"),
        (b'{"response": {}}', "it has no custom_id"),
        (b'{"custom_id": 7}', "its custom_id is not a string"),
        (b'{"custom_id": ""}', "its custom_id is empty"),
        (b'{"custom_id":"a","custom_id":"b"}', "stands there twice"),
        (success("../../etc/passwd", "x"), "an id nobody asked for"),
        (success("quiz|q0|control|0.0|0|open", "x"), "an id nobody asked for"),
        (b'{"custom_id": "\\ud800"}', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_count(part, line, reason):
    path = store(part, 1, [success(IDS[0], "x"), b"", line, *(success(name, "x") for name in IDS[1:])])
    counted, rows = merged(part)
    assert all("response" in row for row in rows)
    [entry] = [line.as_json() for line in counted.unusable]
    assert reason in entry["reason"]
    assert (entry["attempt"], entry["file"], entry["line"]) == (1, path.name, 3)
    assert entry["raw"] == line.decode(errors="backslashreplace")


def test_what_is_kept_aside_lies_beside_the_results_and_goes_when_it_is_empty(part):
    store(part, 1, [b"{", success("nobody", "x")])
    counted, _ = merged(part)
    merge.keep_aside(part, counted.unusable)
    kept = [jsonl.loads(line.data)["raw"] for line in jsonl.lines(part.conflicts)]
    assert kept == ["{", success("nobody", "x").decode()]
    merge.keep_aside(part, [])
    assert not part.conflicts.exists()
    merge.keep_aside(part, [])


@pytest.mark.parametrize(
    "row",
    [
        lambda text: success("nobody", text),
        lambda text: success(IDS[0], text)[:-1],
        lambda text: jsonl.dumps({"custom_id": IDS[0], "error": {"code": 400, "message": text}}),
    ],
    ids=["foreign", "cut", "refused"],
)
def test_lines_that_are_no_answers_are_not_held_in_memory(part, row):
    """A file of another data set once took three times its size."""
    store(part, 1, (row("x" * 100_000 + str(number)) for number in range(300)))
    tracemalloc.start()
    try:
        counted, _ = merged(part)
        merge.keep_aside(part, counted.unusable)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_bom_crlf_and_a_missing_last_line_end_are_accepted(part):
    path = raw_file(part.attempt(1), errors=False)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(success(name, "x") for name in IDS))
    counted, rows = merged(part)
    assert counted.unusable == []
    assert all(row["response"] == answer("x") for row in rows)


@pytest.mark.parametrize("surplus", [0, 1, 70 << 20])
def test_a_line_above_the_limit_does_not_swallow_the_next_one(part, surplus):
    """A line of exactly the limit once took the following row with it."""
    path = raw_file(part.attempt(1), errors=False)
    path.parent.mkdir(parents=True)
    with open(path, "wb") as stream:
        stream.write(success(IDS[0], "before") + b"\n")
        stream.truncate(stream.tell() + jsonl.MAX_LINE + surplus)
        stream.seek(0, 2)
        stream.write(b"\n" + success(IDS[1], "after") + b"\n")
    counted, rows = merged(part)
    assert [row.get("response") for row in rows[:2]] == [answer("before"), answer("after")]
    [entry] = [line.as_json() for line in counted.unusable]
    assert entry["line"] == 2
    assert len(entry["raw"]) < 2000


def test_only_the_providers_own_files_are_read(part):
    store(part, 1, [success(name, "x") for name in IDS])
    folder = part.attempt(1)
    for name in ("requests.jsonl", ".BIJOutputSet.jsonl.tmp", "BIJOutputSet.jsonl.damaged.20260101", "notes.txt"):
        (folder / name).write_bytes(success(IDS[0], "not a result") + b"\n")
    (folder / ".incoming").mkdir()
    store(part, 1, [], errors=True)
    store(part, 1, [], file=2)
    names = [path.name for path in merge.raw_files(folder)]
    assert names == ["BIJOutputSet.2.jsonl", "BIJOutputSet.jsonl", "error-data"]
    assert merge.raw_files(part.attempt(9)) == []
    assert merged(part)[1][0]["response"] == answer("x")


# --- results that are there already ---------------------------------------------------------------


def listed():
    digest = IdsDigest()
    for name in IDS:
        digest.add(name)
    return Part("t0_control_p01", 0.0, "control", len(IDS), 1, "a" * 64, digest.hexdigest())


def test_results_are_believed_when_they_are_the_parts_rows_in_order(part):
    store(part, 1, [success(name, "x") for name in IDS[:4]])
    lines = list(merge.result_lines(IDS, merged(part)[0], read_row))
    part.results.write_bytes(b"".join(lines))
    assert merge.verify(part.results, listed()) == 4
    for wrong in (
        lines[:-1],
        [*lines, lines[0]],
        lines[::-1],
        [*lines[:-1], b"{"],
        [*lines[:-1], b"[]\n"],
        [*lines[:-1], b"{}\n"],
        [*lines[:-1], b'{"custom_id": 5}\n'],
        [],
    ):
        part.results.write_bytes(b"".join(wrong))
        assert merge.verify(part.results, listed()) is None
    part.results.unlink()
    assert merge.verify(part.results, listed()) is None
