"""From raw files to rows: shuffled, doubled, missing, foreign, damaged, over several attempts.

A model of a few lines says what each row must come to; if the two ever differed, an answer would be
lost, invented or paid for twice.
"""

import tempfile
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_kit import FAST_DISK

from pipeline import paths
from pipeline.paths import PartPaths
from pipeline.providers.rows import read_row
from pipeline.queue import merge

IDS = [f"d|q{number}|control|0|0|open" for number in range(6)]
LASTING, PASSING = 400, 503
WHAT = ("answer", "nothing", "same twice", "conflict", "lasting error", "passing error", "both", "cut", "other file")


def completion(name, attempt, version=0):
    return {"choices": [{"message": {"content": f"{name} {attempt} {version}"}}], "usage": {"prompt_tokens": 1}}


def rows_of(name, attempt, what):
    """The lines (success file, error file) of one row."""
    good = orjson.dumps({"custom_id": name, "response": completion(name, attempt)})
    other = orjson.dumps({"custom_id": name, "response": completion(name, attempt, 1)})
    errors = {
        code: orjson.dumps({"custom_id": name, "error": {"code": code, "message": f"{attempt}"}})
        for code in (LASTING, PASSING)
    }
    return {
        "answer": ([good], []),
        "nothing": ([], []),
        "same twice": ([good, good], []),
        "conflict": ([good, other], []),
        "lasting error": ([], [errors[LASTING]]),
        "passing error": ([], [errors[PASSING]]),
        "both": ([good], [errors[LASTING]]),
        "cut": ([good[: len(good) // 2]], []),
        "other file": ([errors[PASSING]], [good]),
    }[what]


def expected(history):
    """What the rows come to: id -> (attempt that answered, or None), the rows owed, those in conflict."""
    answered, failed, conflicts = {}, {}, set()
    for number, outcome in enumerate(history, 1):
        for name, what in outcome.items():
            if what in ("answer", "same twice", "both", "other file"):
                answered.setdefault(name, number)
                conflicts.discard(name)
            elif what == "conflict" and name not in answered:
                conflicts.add(name)
                failed[name] = None
            elif what.endswith("error"):
                failed[name] = LASTING if what == "lasting error" else PASSING
    owed = [name for name in IDS if name not in answered and failed.get(name) != LASTING]
    return answered, owed, conflicts - answered.keys()


@st.composite
def histories(draw):
    """Up to three attempts, each asking for what was owed, with anything wrong with any row."""
    history, owed = [], IDS
    for _ in range(draw(st.integers(1, 3))):
        if not owed:
            break
        history.append({name: draw(st.sampled_from(WHAT)) for name in owed})
        owed = expected(history)[1]
    return history


@settings(max_examples=500, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 2), st.booleans())
def test_rows_come_to_what_the_model_says(history, chance, foreign, parted):
    with tempfile.TemporaryDirectory(prefix="merge-", dir=FAST_DISK) as folder:
        part = PartPaths(Path(folder))
        for number, outcome in enumerate(history, 1):
            success, error = [], []
            for name, what in outcome.items():
                good, bad = rows_of(name, number, what)
                success += good
                error += bad
            success += [orjson.dumps({"custom_id": f"x{n}", "response": completion("x", 0)}) for n in range(foreign)]
            chance.shuffle(success)
            chance.shuffle(error)
            write(part, number, success, error, parted)
        asked = {number: list(outcome) for number, outcome in enumerate(history, 1)}
        counted = merge.tally(part, IDS, asked, read_row)
        answered, owed, conflicts = expected(history)

        assert counted.owed(IDS) == owed
        assert counted.conflicts == conflicts
        rows = [orjson.loads(line) for line in merge.result_lines(IDS, counted, read_row)]
        assert [row["custom_id"] for row in rows] == IDS
        for row in rows:
            number = answered.get(row["custom_id"])
            if number is None:
                assert row["error"]["attempts"] == sum(row["custom_id"] in outcome for outcome in history)
            else:
                assert row["response"] == completion(row["custom_id"], number)
        reasons = [line.reason for line in counted.unusable]
        assert reasons.count("an id nobody asked for") == foreign * len(history)
        seen = [(name, what) for outcome in history for name, what in outcome.items()]
        assert sum(reason.startswith("not JSON") for reason in reasons) == sum(what == "cut" for _, what in seen)
        assert reasons.count("answered twice with other content") == 2 * sum(what == "conflict" for _, what in seen)


def write(part, number, success, error, parted):
    """The raw files of one attempt; *parted*: the successes in two files."""
    folder = part.attempt(number)
    folder.mkdir()
    files = {paths.raw_file(folder, errors=True): error}
    if parted:
        files[paths.raw_file(folder, errors=False)] = success[::2]
        files[paths.raw_file(folder, errors=False, number=2)] = success[1::2]
    else:
        files[paths.raw_file(folder, errors=False)] = success
    for path, lines in files.items():
        path.write_bytes(b"\n".join(lines))
    (folder / "requests.jsonl").write_bytes(b"not a raw file")
    (folder / "BIJOutputSet.jsonl.damaged.20260101T000000000000Z").write_bytes(b"nor this")


def test_a_line_above_the_limit_is_kept_aside_by_its_beginning(tmp_path):
    part = PartPaths(tmp_path)
    part.attempt(1).mkdir()
    good = orjson.dumps({"custom_id": IDS[1], "response": completion(IDS[1], 1)})
    long = b'{"custom_id": "' + b"a" * (merge.jsonl.MAX_LINE + 10) + b'"}'
    part.success_rows(1).write_bytes(long + b"\n" + good + b"\n")
    counted = merge.tally(part, IDS, {1: IDS}, read_row)
    assert list(counted.answers) == [IDS[1]]
    assert counted.answers[IDS[1]].line == 2
    (entry,) = counted.unusable
    assert len(entry.as_json()["raw"]) < 2000
    (row,) = [orjson.loads(line) for line in merge.result_lines([IDS[1]], counted, read_row)]
    assert row["response"] == completion(IDS[1], 1)
